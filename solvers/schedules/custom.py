"""A schedule of any two functions."""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch

from .base import Schedule
from .roots import increasing_root
from .tabulated import ROUNDING

ScheduleFunction = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, init=False, eq=False)
class Custom(Schedule):
    """Any pair of functions: `alpha(t)` and `sigma(t)` of a float64 tensor of any shape, elementwise and
    differentiable by torch. Derivatives come from autograd, hence exact; the inverse of lam from a bracketed
    Newton.

    The methods are as accurate as the functions: write sigma without cancellation (sqrt(-expm1(-b)), not
    sqrt(1 - alpha**2)). Where sigma = 0 with infinite slope autograd cannot take limits: dsigma and
    diffusion2 may be nan there. `domain` is the closed interval of legal times, (t_end, t_start) unless
    given. Where alpha or sigma at an end of it is less than what a rounding of t changes, as cos(pi / 2) = 6e-17
    is, it is exactly 0. Equal and hashed as the functions are.

    Raises TypeError for what is not callable or cannot be hashed, ValueError when domain is not an interval
    around t_end < t_start, or when a sample of it shows another shape or dtype, a negative or non-finite value,
    both functions zero, or a half-log-SNR that does not decrease strictly.
    """

    alpha_function: ScheduleFunction
    sigma_function: ScheduleFunction
    t_start: float = 1.0
    t_end: float = 1e-3
    domain: tuple[float, float] = (1e-3, 1.0)
    _zeros: tuple[float, float] = field(default=(math.inf, -math.inf), repr=False)  # alpha = 0 from, sigma = 0 up to

    def __init__(
        self,
        alpha: ScheduleFunction,
        sigma: ScheduleFunction,
        *,
        t_start: float = 1.0,
        t_end: float = 1e-3,
        domain: tuple[float, float] | None = None,
    ) -> None:
        for name, function in (("alpha", alpha), ("sigma", sigma)):
            if not callable(function) or not isinstance(function, Hashable):
                raise TypeError(f"{name} must be a callable {name}(t) with a hash, not {type(function).__name__}")
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
        (clean, noisy), rounding = domain, ROUNDING * max(map(abs, domain))
        no_alpha = noisy if self.alpha(noisy) <= abs(self.dalpha(noisy)) * rounding else math.inf
        no_sigma = clean if self.sigma(clean) <= abs(self.dsigma(clean)) * rounding else -math.inf
        object.__setattr__(self, "_zeros", (no_alpha, no_sigma))

    def _check_functions(self) -> None:
        t = torch.linspace(*self.domain, 257, dtype=torch.float64, device="cpu")
        try:
            alpha, sigma = self.alpha_function(t), self.sigma_function(t)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"alpha and sigma must take a tensor of times ({error}): write them with torch operations on t"
            ) from error
        for name, y in (("alpha", alpha), ("sigma", sigma)):
            if not (isinstance(y, torch.Tensor) and y.shape == t.shape and y.dtype == t.dtype):
                raise ValueError(f"{name}(t) must return a float64 tensor of t's shape {tuple(t.shape)}, not {y!r}")
            _refuse(~(torch.isfinite(y) & (y >= 0)), t, f"{name} must be finite and nonnegative")
        _refuse((alpha == 0) & (sigma == 0), t, "alpha and sigma must not both be 0")
        lam = torch.log(alpha / sigma)
        falls = "the half-log-SNR log(alpha / sigma) must decrease strictly: time grows with the noise"
        _refuse(~(lam[1:] < lam[:-1]), t[1:], f"{falls} (where data is at t = 1, give functions of 1 - t)")
        for name, function in (("alpha", self.alpha_function), ("sigma", self.sigma_function)):
            _check_derivative(name, function, t)

    def _alpha(self, t: Any, xp: Any) -> Any:
        return xp.where(t >= self._zeros[0], 0.0, _by_torch(self.alpha_function, t))

    def _sigma(self, t: Any, xp: Any) -> Any:
        return xp.where(t <= self._zeros[1], 0.0, _by_torch(self.sigma_function, t))

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


def _check_derivative(name: str, f: ScheduleFunction, t: torch.Tensor) -> None:
    """ValueError if autograd's derivative is not that of differences at most of the times: a detached function."""
    h = float(t[1] - t[0]) / 64
    inner = t[1:-1]
    try:
        slope = _derivative(f)(inner)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"torch cannot differentiate {name} ({error}): write it with torch operations on t") from error
    differences = (f(inner + h) - f(inner - h)) / (2 * h)
    apart = (slope - differences).abs() > 0.1 * differences.abs() + 1e-6 * differences.abs().max()
    if apart.float().mean() > 0.5:
        raise ValueError(
            f"the derivative of {name} at t = {inner[apart][0].item():.3g} is {slope[apart][0].item():.3g} by autograd "
            f"but {differences[apart][0].item():.3g} by differences: write it with torch operations on t, not detached"
        )


def _by_torch(f: ScheduleFunction, t: Any) -> Any:
    return f(t) if isinstance(t, torch.Tensor) else f(torch.tensor(t, device="cpu")).numpy()


def _derivative(f: ScheduleFunction) -> ScheduleFunction:
    # torch.func.grad works inside no_grad and vmap, where autograd.grad does not.
    derivative = torch.func.grad(lambda t: f(t).sum())

    def at(t: Any) -> Any:
        if not torch.is_inference_mode_enabled():
            return derivative(t)
        with torch.inference_mode(False):  # where torch before 2.13 finds 0
            return derivative(t.clone())

    return at


def _refuse(bad: torch.Tensor, t: torch.Tensor, requirement: str) -> None:
    if bad.any():
        raise ValueError(f"{requirement}, but not at t = {t[bad][0].item()}")
