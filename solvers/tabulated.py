"""Schedules given by numbers or by functions: a DDPM-style table, and any pair of torch callables."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .roots import increasing_root
from .schedule import Schedule, VariancePreserving


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Discrete(VariancePreserving):
    """A DDPM-style table alphas_cumprod[n] = alpha_n^2 = 1 - sigma_n^2, made continuous; t is the index.

    Between the entries the angle theta = atan2(sigma, alpha) is a monotone cubic (PCHIP), so lam decreases
    strictly and a table that ends in 0 (zero terminal SNR) has alpha exactly 0 there. At the entries theta
    has one continuous derivative; the jumps in the second cap the measured order of a solver once its
    steps are as short as the table's. A float32 table carries its rounding, about 1e-7 / sigma^2 relative in
    sigma; pass float64 if you have it.

    `alphas_cumprod`: list, array or tensor of shape (N,), N >= 2, strictly decreasing in [0, 1); kept as a
    read-only float64 array. Raises ValueError otherwise. Equal and hashed by the table's bytes.
    """

    alphas_cumprod: np.ndarray
    _angles: torch.Tensor  # rows: theta, pi / 2 - theta and d theta / dt at the entries

    def __init__(self, alphas_cumprod: Sequence[float] | np.ndarray | torch.Tensor) -> None:
        if isinstance(alphas_cumprod, torch.Tensor):
            alphas_cumprod = alphas_cumprod.detach().to("cpu", torch.float64).numpy()
        from scipy.interpolate import PchipInterpolator  # half a second, for those who need it

        table = np.array(alphas_cumprod, dtype=np.float64)
        _check_table(table)
        table.setflags(write=False)
        alpha, sigma = np.sqrt(table), np.sqrt(1 - table)
        theta, complement = np.arctan2(sigma, alpha), np.arctan2(alpha, sigma)
        index = np.arange(len(table))
        slope = PchipInterpolator(index, theta).derivative()(index)
        object.__setattr__(self, "alphas_cumprod", table)
        object.__setattr__(self, "_angles", torch.from_numpy(np.stack([theta, complement, slope])))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Discrete) and self.alphas_cumprod.tobytes() == other.alphas_cumprod.tobytes()

    def __hash__(self) -> int:
        return hash(self.alphas_cumprod.tobytes())

    def __repr__(self) -> str:
        table = self.alphas_cumprod
        return f"Discrete([{table[0]:.6g} ... {table[-1]:.6g}], {len(table)} entries)"

    @property
    def domain(self) -> tuple[float, float]:
        return 0.0, len(self.alphas_cumprod) - 1.0

    @property
    def _last_segment(self) -> int:
        return len(self.alphas_cumprod) - 2

    def _segment(self, t: Any, xp: Any) -> tuple[Any, Any]:
        k = xp.clip(xp.floor(t), 0, self._last_segment)
        return k.astype(np.int64) if xp is np else k.long(), t - k

    def _cubic(self, values: Any, slopes: Any, k: Any, u: Any) -> Any:
        """Hermite cubic in the form that returns the entries themselves at u = 0 and u = 1."""
        v = 1 - u
        ends = values[k] * (1 + 2 * u) * v * v + values[k + 1] * (1 + 2 * v) * u * u
        return ends + u * v * (slopes[k] * v - slopes[k + 1] * u)

    def _theta(self, k: Any, u: Any, xp: Any) -> Any:
        theta, _, slope = self._tables(u, xp)
        return self._cubic(theta, slope, k, u)

    def _dtheta(self, k: Any, u: Any, xp: Any) -> Any:
        theta, _, slope = self._tables(u, xp)
        v = 1 - u
        rise = 6 * u * v * (theta[k + 1] - theta[k])
        return rise + slope[k] * v * (1 - 3 * u) + slope[k + 1] * u * (1 - 3 * v)

    def _tables(self, like: Any, xp: Any) -> Any:
        return self._angles.numpy() if xp is np else self._angles.to(like.device)

    # Each of sin and cos is taken of the angle that is small where it is small.

    def _sigma(self, t: Any, xp: Any) -> Any:
        return xp.sin(self._theta(*self._segment(t, xp), xp))

    def _alpha(self, t: Any, xp: Any) -> Any:
        _, complement, slope = self._tables(t, xp)
        return xp.sin(self._cubic(complement, -slope, *self._segment(t, xp)))

    def _dalpha(self, t: Any, xp: Any) -> Any:
        return -self._sigma(t, xp) * self._dtheta(*self._segment(t, xp), xp)

    def _dsigma(self, t: Any, xp: Any) -> Any:
        return self._alpha(t, xp) * self._dtheta(*self._segment(t, xp), xp)

    def _time(self, lam: Any, xp: Any) -> Any:
        angle = xp.atan(xp.exp(-lam))
        found = xp.searchsorted(self._tables(angle, xp)[0], angle, side="right")
        k = xp.clip(found - 1, 0, self._last_segment)

        def residual(u: Any) -> tuple[Any, Any]:
            return self._theta(k, u, xp) - angle, self._dtheta(k, u, xp)

        return k + increasing_root(residual, xp.zeros_like(angle), xp.ones_like(angle), xp)


def _check_table(table: np.ndarray) -> None:
    if table.ndim != 1 or len(table) < 2:
        raise ValueError(f"alphas_cumprod has shape {table.shape}; it must be 1-D with at least 2 entries")
    hint = "; from betas it is numpy.cumprod(1 - betas), from sigmas of a VE model use EDM instead"
    bad = np.flatnonzero(~((table >= 0) & (table < 1)))
    if bad.size:
        raise ValueError(f"alphas_cumprod[{bad[0]}] = {table[bad[0]]} is not in [0, 1){hint}")
    rises = np.flatnonzero(np.diff(table) >= 0)
    if rises.size:
        n = rises[0]
        raise ValueError(
            "alphas_cumprod must decrease strictly, "
            f"but entries {n} and {n + 1} are {table[n]} and {table[n + 1]}{hint}"
        )


ScheduleFunction = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, init=False)
class Custom(Schedule):
    """Any pair of functions: `alpha(t)` and `sigma(t)` of a float64 tensor of any shape, elementwise and
    differentiable by torch. Derivatives come from autograd, hence exact; the inverse of lam from a bracketed
    Newton.

    The methods are as accurate as the functions: write sigma without cancellation (sqrt(-expm1(-b)), not
    sqrt(1 - alpha**2)). Where sigma = 0 with infinite slope autograd cannot take limits: dsigma and
    diffusion2 may be nan there. `domain` is the closed interval of legal times, (t_end, t_start) unless
    given. Equal and hashed by the identity of the functions.

    Raises ValueError when domain is not an interval around t_end < t_start, or when a sample of it shows
    another shape or dtype, a negative or non-finite value, both functions zero, or a half-log-SNR that does
    not decrease strictly.
    """

    alpha_function: ScheduleFunction
    sigma_function: ScheduleFunction
    t_start: float = 1.0
    t_end: float = 1e-3
    domain: tuple[float, float] = (1e-3, 1.0)

    def __init__(
        self,
        alpha: ScheduleFunction,
        sigma: ScheduleFunction,
        *,
        t_start: float = 1.0,
        t_end: float = 1e-3,
        domain: tuple[float, float] | None = None,
    ) -> None:
        t_min, t_max = (t_end, t_start) if domain is None else domain
        if not (-math.inf < t_min <= t_end < t_start <= t_max < math.inf):
            raise ValueError(
                f"t_end = {t_end}, t_start = {t_start}, domain = {(t_min, t_max)}: need finite numbers with "
                "domain[0] <= t_end < t_start <= domain[1]"
            )
        domain = float(t_min), float(t_max)
        values = dict(alpha_function=alpha, sigma_function=sigma, t_start=t_start, t_end=t_end, domain=domain)
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check_functions()

    def _check_functions(self) -> None:
        t = torch.linspace(*self.domain, 257, dtype=torch.float64)
        alpha, sigma = self.alpha_function(t), self.sigma_function(t)
        for name, y in (("alpha", alpha), ("sigma", sigma)):
            if not (isinstance(y, torch.Tensor) and y.shape == t.shape and y.dtype == t.dtype):
                raise ValueError(f"{name}(t) must return a float64 tensor of t's shape {tuple(t.shape)}, not {y!r}")
            _refuse(~(torch.isfinite(y) & (y >= 0)), t, f"{name} must be finite and nonnegative")
        _refuse((alpha == 0) & (sigma == 0), t, "alpha and sigma must not both be 0")
        lam = torch.log(alpha / sigma)
        _refuse(~(lam[1:] < lam[:-1]), t[1:], "the half-log-SNR log(alpha / sigma) must decrease strictly")

    def _alpha(self, t: Any, xp: Any) -> Any:
        return _by_torch(self.alpha_function, t)

    def _sigma(self, t: Any, xp: Any) -> Any:
        return _by_torch(self.sigma_function, t)

    def _dalpha(self, t: Any, xp: Any) -> Any:
        return _by_torch(_derivative(self.alpha_function), t)

    def _dsigma(self, t: Any, xp: Any) -> Any:
        return _by_torch(_derivative(self.sigma_function), t)

    def _time(self, lam: Any, xp: Any) -> Any:
        def residual(t: Any) -> tuple[Any, Any]:
            sigma, drift = self._sigma(t, xp), self._drift(t, xp)
            return lam - self._half_logsnr(t, xp), self._dsigma(t, xp) / sigma - drift

        start, stop = (xp.full_like(lam, end) for end in self.domain)
        return increasing_root(residual, start, stop, xp)


def _by_torch(f: ScheduleFunction, t: Any) -> Any:
    return f(t) if isinstance(t, torch.Tensor) else f(torch.tensor(t)).numpy()


def _derivative(f: ScheduleFunction) -> ScheduleFunction:
    # torch.func.grad works inside no_grad, inference_mode and vmap, where autograd.grad does not.
    return torch.func.grad(lambda t: f(t).sum())


def _refuse(bad: torch.Tensor, t: torch.Tensor, requirement: str) -> None:
    if bad.any():
        raise ValueError(f"{requirement}, but not at t = {t[bad][0].item()}")
