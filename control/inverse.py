"""Linear inverse problems y = A x + noise: what operators are, and what was measured with them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..solvers.denoisers.answers import check_state
from ..solvers.denoisers.guides import At

Map = Callable[[torch.Tensor], torch.Tensor]
Number = float | torch.Tensor


class Linear(ABC):
    """A linear operator A from states (N, *event) to measurements (N, *measured), the same for all samples.

    `mask`, `blur`, `superresolution`, `gray`, `matrix` and `operator` make them. They work in the dtype, and on the
    device, of what they are given. Calling one is A x.
    """

    @abstractmethod
    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """A^T y."""

    @abstractmethod
    def solve(self, y: torch.Tensor, shift: Number, scale: Number = 1.0) -> torch.Tensor:
        """(shift + scale A A^T)^-1 y, for nonnegative numbers, or tensors of N or 1 by sample; 0 along what is 0."""

    def pseudo_inverse(self, y: torch.Tensor) -> torch.Tensor:
        """A^+ y = A^T (A A^T)^+ y. The book's (A^T A)^-1 A^T (8.4.2) does not exist for a wide A: erratum 8.4."""
        return self.adjoint(self.solve(y, 0.0))


@dataclass(frozen=True, eq=False)
class LinearProblem:
    """What is known of x: y = A x + std * standard normals.

    y: (B, *measured), or (1, *measured) for all samples; its rows follow their samples. std: a number, at least 0.
    Raises TypeError or ValueError for what is none of these, and `check` for states that do not fit.
    """

    A: Linear
    y: torch.Tensor
    std: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.A, Linear):
            raise TypeError(f"A must be an operator of logsnr.control, as mask(m), not {type(self.A).__name__}")
        check_state(self.y, "y")
        if isinstance(self.std, bool) or not isinstance(self.std, (int, float)) or not 0 <= self.std < math.inf:
            raise ValueError(f"std must be a number of at least 0, not {self.std!r:.60}")

    def check(self, x: torch.Tensor) -> None:
        """ValueError unless y is measured of states like ``x`` (B, ...)."""
        seen = self.A(torch.zeros((1, *x.shape[1:]), dtype=x.dtype, device=x.device))
        if self.y.shape[1:] != seen.shape[1:] or len(self.y) not in (1, len(x)):
            raise ValueError(
                f"y has shape {tuple(self.y.shape)}, but states of shape {tuple(x.shape)} are measured as "
                f"{(len(x), *seen.shape[1:])}; one row may stand for all"
            )

    def residual(self, x0: torch.Tensor, at: At) -> torch.Tensor:
        """y - A x0."""
        measured: torch.Tensor = at.rows(self.y).to(x0.dtype)
        return measured - self.A(x0)


def conjugate_gradients(apply: Map, b: torch.Tensor, iterations: int, least: float = 0.0) -> torch.Tensor:
    """x with apply(x) = b (N, ...) for symmetric maps whose eigenvalues are at least ``least`` (Hestenes and Stiefel
    1952). Every sample stops by itself, at a relative residual of eps^(3/4), 6e-6 in fp32, or where the map turns out
    to be none of these (Steihaug 1983): it has the same answer in any batch."""
    tol, wanted = torch.finfo(b.dtype).eps ** 0.75, 0.99 * least
    x, r, p = torch.zeros_like(b), b, b
    rr = first = _dot(b, b)
    going = rr > 0
    for _ in range(iterations):
        image = apply(p)
        bend = _dot(p, image)
        going = going & (bend > 0) & (bend >= wanted * _dot(p, p))
        step = torch.where(going, quotient(rr, bend), 0.0)
        x, r = x + step * p, r - step * image
        last, rr = rr, _dot(r, r)
        p = r + quotient(rr, last) * p
        going = going & (rr > tol**2 * first)
        if not going.any():
            break
    return x


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum(tuple(range(1, a.ndim)), keepdim=True)


def quotient(y: torch.Tensor, whole: Any) -> torch.Tensor:
    """y / whole, 0 where that is not positive."""
    whole = torch.as_tensor(whole, dtype=y.dtype, device=y.device)
    return torch.where(whole > 0, y / torch.where(whole > 0, whole, 1.0), 0.0)
