"""Training-free methods for linear inverse problems: each changes x0 by what was measured.

All but the projections add to the score an estimate G of grad log p(y | x_t), which changes x0 by sigma^2/alpha G
(`At.gain`). With J = dx0/dx and V = Cov(x0 | x_t), Tweedie's second order says V = sigma^2/alpha J.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..solvers.denoisers.guides import At, Guide
from ..solvers.programs.call import finite, integer
from .inverse import Linear, LinearProblem, Map, conjugate_gradients

Scale = float | Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Measured(Guide):
    """A guide by a `LinearProblem`."""

    problem: LinearProblem

    def __post_init__(self) -> None:
        if not isinstance(self.problem, LinearProblem):
            raise TypeError(f"problem must be a logsnr.control.LinearProblem, not {type(self.problem).__name__}")

    def check(self, x: torch.Tensor) -> None:
        self.problem.check(x)


@dataclass(frozen=True, eq=False)
class DPS(Measured):
    """Diffusion posterior sampling (Chung et al. 2023; book (8.4.5)): G = scale J^T A^T (y - A x0) / std^2.

    As if x0 were certain: G is too strong by (std^2 + A V A^T)/std^2, and steps must be short where V is above std^2.
    scale: a number, or a function of lam = log(alpha/sigma). The published code steps by the norm of the residual
    instead, which depends on the number of steps; this has a limit. For operators that are not linear take `FreeDoM`.
    """

    scale: Scale = 1.0
    gradients = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scale(self.scale)
        if not self.problem.std:
            raise ValueError("DPS divides by std, which is 0: give the problem one, or take PiGDM or Projection")

    def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
        v = self.problem.A.adjoint(self.problem.residual(x0, at)) / self.problem.std**2
        return x0 + at.scale(self.scale) * at.gain * at.pulled_back(x0, x, v)


@dataclass(frozen=True, eq=False)
class PiGDM(Measured):
    """Pseudo-inverse guidance (Song et al. 2023): G = J^T A^T (std^2 + r^2 A A^T)^-1 (y - A x0), with r^2 for V.

    variance: that of every element of the data, c in r^2 = c sigma^2 / (alpha^2 c + sigma^2); for c = 1 the paper's.
    Exact for data N(m, c I), whose V is r^2. std = 0 is allowed.
    """

    variance: float = 1.0
    gradients = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not finite("variance", self.variance) > 0:
            raise ValueError(f"variance must be positive, not {self.variance!r:.60}")

    def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
        r2 = self.variance * at.sigma**2 / (self.variance * at.alpha**2 + at.sigma**2)
        A = self.problem.A
        v = A.adjoint(A.solve(self.problem.residual(x0, at), self.problem.std**2, r2))
        return x0 + at.gain * at.pulled_back(x0, x, v)


@dataclass(frozen=True, eq=False)
class MMPS(Measured):
    """Moment matching posterior sampling (Rozet et al. 2024): PiGDM with the model's own V = sigma^2/alpha J.

    The equation is solved by at most ``iterations`` conjugate gradients, each a backward pass through the model, which
    is evaluated once. Exact for Gaussian data of any covariance if there are enough. The V of a network is not quite a
    covariance: a sample stops where it shows a direction in which A V A^T is negative, without which runs diverge.
    """

    iterations: int = 3
    gradients = True

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("iterations", self.iterations, 1, 1 << 31)

    def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
        A, std = self.problem.A, self.problem.std

        def covariance(v: torch.Tensor) -> torch.Tensor:
            return at.gain * at.pulled_back(x0, x, v)

        def measured(v: torch.Tensor) -> torch.Tensor:
            return std**2 * v + A(covariance(A.adjoint(v)))

        residual = self.problem.residual(x0, at)
        with torch.set_grad_enabled(at.recorded):
            return x0 + covariance(A.adjoint(conjugate_gradients(measured, residual, self.iterations, std**2)))


@dataclass(frozen=True, eq=False)
class Projection(Measured):
    """x0 + A^+ (y - A x0): what was measured is taken as it is. No gradients.

    Score SDE's inpainting and colouring (Song et al. 2021, I.2; book 8.4.2) in the form of x0. The known part of a
    state is then always alpha y + sigma eps with the eps of its start, under DDIM exactly; steps with noise renew eps,
    as the paper's does. std is not used: noise of y stays in the result. Errata 8.3 and 8.4: sign, and A^+ of a wide A.
    """

    def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
        return x0 + self.problem.A.pseudo_inverse(self.problem.residual(x0, at))


@dataclass(frozen=True, eq=False)
class ILVR(Guide):
    """Iterative latent variable refinement (Choi et al. 2021; book 8.4.2): x0 + low_pass(reference - x0).

    The states' low frequencies are those of the noised reference, with one noise (see `Projection`).
    low_pass:  a linear function of images, or an operator, A^+ A of which it is then: ``superresolution(8)``.
    reference: (B, ...) or (1, ...), like x.
    """

    low_pass: Map | Linear
    reference: torch.Tensor

    def __post_init__(self) -> None:
        if not callable(self.low_pass):
            raise TypeError(f"low_pass must be a function or an operator, not {type(self.low_pass).__name__}")

    def check(self, x: torch.Tensor) -> None:
        y = self.reference
        if y.shape[1:] != x.shape[1:] or len(y) not in (1, len(x)):
            raise ValueError(f"reference has shape {tuple(y.shape)} for states of shape {tuple(x.shape)}")
        if (seen := self._low(x.new_zeros(1, *x.shape[1:]))).shape[1:] != x.shape[1:]:
            raise ValueError(f"low_pass returned shape {tuple(seen.shape)} for one of shape {(1, *x.shape[1:])}")

    def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
        return x0 + self._low(at.rows(self.reference).to(x0.dtype) - x0)

    def _low(self, x: torch.Tensor) -> torch.Tensor:
        low = self.low_pass
        return low.pseudo_inverse(low(x)) if isinstance(low, Linear) else low(x)


def check_scale(scale: Any, name: str = "scale") -> None:
    """ValueError unless it is a finite number or a function."""
    if not callable(scale):
        finite(name, scale)
