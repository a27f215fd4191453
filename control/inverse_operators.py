"""The operators of linear inverse problems: masks, blur, super-resolution, gray images, matrices, any functions."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .inverse import Linear, Map, Number, conjugate_gradients, quotient

ITERATIONS = 100  # of conjugate gradients


class Scaling(Linear):
    """An operator for which A A^T multiplies every element by a number of its own."""

    @abstractmethod
    def gram(self, y: torch.Tensor) -> Number:
        """These numbers."""

    def solve(self, y: torch.Tensor, shift: Number, scale: Number = 1.0) -> torch.Tensor:
        shift, scale = _rows(y, shift, scale)
        return quotient(y, shift + scale * self.gram(y))


@dataclass(frozen=True, eq=False)
class Mask(Scaling):
    m: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        _fits("mask", x, _broadcasts(self.m.shape, x.shape[1:]), f"a mask of shape {tuple(self.m.shape)}")
        return self.m.to(x) * x

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self(y)

    def gram(self, y: torch.Tensor) -> torch.Tensor:
        return self.m.to(y) ** 2


@dataclass(frozen=True, eq=False)
class Pooling(Scaling):
    factor: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        k = self.factor
        fits = x.ndim >= 3 and x.shape[-1] % k == x.shape[-2] % k == 0
        _fits("superresolution", x, fits, f"a factor of {k}: images (..., H, W) of which it divides both")
        return x.reshape(*x.shape[:-2], x.shape[-2] // k, k, x.shape[-1] // k, k).mean((-3, -1))

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        k = self.factor
        return y.repeat_interleave(k, -2).repeat_interleave(k, -1) / k**2

    def gram(self, y: torch.Tensor) -> float:
        return 1 / self.factor**2


@dataclass(frozen=True, eq=False)
class Gray(Scaling):
    weights: torch.Tensor  # (C,)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        c = len(self.weights)
        _fits("gray", x, x.ndim >= 2 and x.shape[1] == c, f"weights of {c} channels, in dimension 1")
        return (self._column(x) * x).sum(1, keepdim=True)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self._column(y) * y

    def gram(self, y: torch.Tensor) -> torch.Tensor:
        return self.weights.to(y).square().sum()

    def _column(self, x: torch.Tensor) -> torch.Tensor:
        return self.weights.to(x).reshape(-1, *[1] * (x.ndim - 2))


@dataclass(frozen=True, eq=False)
class Blur(Linear):
    kernel: torch.Tensor  # (h, w)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._filtered(x, self._transfer(x))

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self._filtered(y, self._transfer(y).conj())

    def solve(self, y: torch.Tensor, shift: Number, scale: Number = 1.0) -> torch.Tensor:
        shift, scale = _rows(y, shift, scale)
        gram = _cut_off(self._transfer(y).abs() ** 2)
        return self._filtered(y, quotient(torch.ones_like(gram), shift + scale * gram))

    def _transfer(self, x: torch.Tensor) -> torch.Tensor:
        """The kernel's Fourier transform on images like x, its middle at the origin."""
        (h, w), fits = self.kernel.shape, x.ndim >= 3
        fits = fits and h <= x.shape[-2] and w <= x.shape[-1]
        _fits("blur", x, fits, f"a kernel of {h}x{w}: images (..., H, W) at least as large")
        whole = torch.nn.functional.pad(self.kernel.to(x), (0, x.shape[-1] - w, 0, x.shape[-2] - h))
        return torch.fft.rfft2(whole.roll((-(h // 2), -(w // 2)), (0, 1)))

    def _filtered(self, x: torch.Tensor, transfer: torch.Tensor) -> torch.Tensor:
        if not x.numel():  # of which MKL takes no transform
            return x.clone()
        return torch.fft.irfft2(torch.fft.rfft2(x) * transfer, s=x.shape[-2:])


@dataclass(frozen=True, eq=False)
class Matrix(Linear):
    a: torch.Tensor  # (M, D)
    values: torch.Tensor  # (M,), eigenvalues of A A^T
    vectors: torch.Tensor  # (M, M)
    event: tuple[int, ...]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        _fits("matrix", x, x.shape[1:] == self.event, f"event = {self.event}")
        return x.reshape(len(x), math.prod(self.event)) @ self.a.to(x).mT

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return (y @ self.a.to(y)).reshape(len(y), *self.event)

    def solve(self, y: torch.Tensor, shift: Number, scale: Number = 1.0) -> torch.Tensor:
        q = self.vectors.to(y)
        shift, scale = _rows(y, shift, scale)
        return quotient(y @ q, shift + scale * self.values.to(y)) @ q.mT


@dataclass(frozen=True, eq=False)
class Functions(Linear):
    forward: Map
    transposed: Map

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward(x)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.transposed(y)

    def solve(self, y: torch.Tensor, shift: Number, scale: Number = 1.0) -> torch.Tensor:
        shift, scale = _rows(y, shift, scale)
        return conjugate_gradients(lambda v: shift * v + scale * self(self.adjoint(v)), y, ITERATIONS)


def mask(m: Any) -> Linear:
    """A x = m x. m: a tensor that broadcasts to the event, 1 where x is known and 0 elsewhere; other numbers weigh."""
    return Mask(_tensor("mask: m", m))


def superresolution(factor: int) -> Linear:
    """The mean of every block of ``factor`` x ``factor`` pixels of images (..., H, W)."""
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
        raise ValueError(f"superresolution: factor must be a whole number of at least 1, not {factor!r:.60}")
    return Pooling(factor)


def gray(channels: int = 3, weights: Sequence[float] | None = None) -> Linear:
    """The weighted sum over dimension 1, the mean by default: what colouring knows."""
    given = _tensor("gray: weights", [1 / channels] * channels if weights is None else weights)
    if given.ndim != 1 or not given.any():
        raise ValueError(f"gray: weights must be one number per channel, not all 0, not {weights!r:.60}")
    return Gray(given)


def blur(kernel: Any) -> Linear:
    """The convolution of images (..., H, W) with a kernel (h, w), periodic at the edges. Its middle, at (h // 2,
    w // 2), weighs the pixel itself."""
    given = _tensor("blur: kernel", kernel)
    if given.ndim != 2 or not given.any():
        raise ValueError(f"blur: kernel must be a matrix (h, w), not all 0, not of shape {tuple(given.shape)}")
    return Blur(given)


def matrix(a: Any, event: Sequence[int] | None = None) -> Linear:
    """A x for a matrix (M, D) and states whose event, by default (D,), has D elements, flattened in C order."""
    given = _tensor("matrix: a", a)
    if given.ndim != 2:
        raise ValueError(f"matrix: a must have shape (M, D), not {tuple(given.shape)}")
    shape = (given.shape[1],) if event is None else tuple(event)
    if math.prod(shape) != given.shape[1]:
        raise ValueError(f"matrix: a has {given.shape[1]} columns, but event = {shape} has {math.prod(shape)} elements")
    values, vectors = torch.linalg.eigh((wide := given.to(torch.float64)) @ wide.mT)
    return Matrix(given, _cut_off(values), vectors, shape)


def operator(forward: Map, adjoint: Map, event: Sequence[int], *, dtype: torch.dtype = torch.float64) -> Linear:
    """Any pair of functions, (N, *event) to (N, *measured) and back. `Linear.solve` takes conjugate gradients.

    ``<A u, v> = <u, A^T v>`` is tested here for random u and v of ``dtype``, and A for being linear: ValueError says
    by how much they differ.
    """
    functions: dict[str, Any] = {"forward": forward, "adjoint": adjoint}
    for name, given in functions.items():
        if not callable(given):
            hint = "; torch.func.vjp of forward gives one" if name == "adjoint" else ""
            raise TypeError(f"operator: {name} must be a function of tensors, not {type(given).__name__}{hint}")
    random = torch.Generator().manual_seed(0)
    u, w = (torch.randn(1, *event, generator=random, dtype=torch.float64).to(dtype) for _ in range(2))
    au = forward(u)
    v = torch.randn(au.shape, generator=random, dtype=torch.float64).to(dtype)
    back = adjoint(v)
    if back.shape != u.shape:
        raise ValueError(f"operator: adjoint returned shape {tuple(back.shape)} for states of shape {tuple(u.shape)}")
    tol, size = torch.finfo(dtype).eps ** 0.5, float(au.norm() * v.norm() + u.norm() * back.norm())
    left, right = float((au * v).sum()), float((u * back).sum())
    if not abs(left - right) <= tol * size:
        raise ValueError(
            f"operator: adjoint is not that of forward: <A u, v> = {left:.6g} but <u, A^T v> = {right:.6g}, which "
            f"differ by {abs(left - right):.3g}, {abs(left - right) / size:.1e} of their size"
        )
    bent = float((forward(u - 2 * w) - au + 2 * forward(w)).norm())
    if not bent <= tol * size:
        raise ValueError(f"operator: forward is not linear: A(u - 2 w) differs from A u - 2 A w by {bent:.3g}")
    return Functions(forward, adjoint)


def _rows(y: torch.Tensor, *numbers: Number) -> list[Number]:
    """Numbers by sample, (N, 1, ...) like states, in as many dimensions as measurements have."""
    return [c.reshape(-1, *[1] * (y.ndim - 1)) if isinstance(c, torch.Tensor) else c for c in numbers]


def _cut_off(values: torch.Tensor) -> torch.Tensor:
    """Eigenvalues, 0 where they are rounding."""
    return torch.where(values > 64 * torch.finfo(values.dtype).eps * values.max(), values, 0.0)


def _broadcasts(shape: Sequence[int], event: Sequence[int]) -> bool:
    return len(shape) <= len(event) and all(a in (1, b) for a, b in zip(reversed(shape), reversed(event), strict=False))


def _fits(name: str, x: torch.Tensor, fits: bool, wanted: str) -> None:
    if not fits:
        raise ValueError(f"{name}: states of shape {tuple(x.shape[1:])} do not go with {wanted}")


def _tensor(name: str, given: Any) -> torch.Tensor:
    """``given`` as a floating tensor, float64 if it was none; ValueError unless it is finite."""
    found = given.detach() if isinstance(given, torch.Tensor) else torch.as_tensor(given, dtype=torch.float64)
    if not found.isfinite().all():
        raise ValueError(f"{name} must be finite")
    return found if found.is_floating_point() else found.to(torch.float64)
