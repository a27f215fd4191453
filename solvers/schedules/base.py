"""What a noise schedule is: alpha(t) and sigma(t) of x_t = alpha x0 + sigma eps, and what follows from them.

Each formula exists once: numpy and torch share the names used, so `xp` below is one module or the other.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from ...kernels.devices import in_float64

ArrayT = TypeVar("ArrayT", float, np.ndarray, torch.Tensor)

# How far outside the reachable range `time` lets a float stray, relative to 1 + |lam|: a rounding to float32.
RANGE_SLACK = 1e-6


@dataclass(frozen=True, eq=False)
class Schedule(ABC):
    """A path from data to noise: alpha and sigma as functions of a time t that grows with the noise.

    Every method takes a float, an array or a tensor of times, elementwise, and answers in kind: floats for a
    float, float64 for numpy, and for a tensor its own floating dtype (float64 for an integer one) on its own
    device. The arithmetic is float64 throughout. Infinite answers at the ends of the domain are exact limits.
    Times outside `domain` are not checked and their answers mean nothing. Schedules are hashable and compare
    by value.
    """

    def __eq__(self, other: object) -> bool:
        # By all attributes, not by the fields: those of a subclass that is no dataclass count as well.
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), frozenset(vars(self).items())))

    @property
    def t_start(self) -> float:
        """Where a solve starts unless told otherwise: the noisy end."""
        return self.domain[1]

    @property
    def t_end(self) -> float:
        """Where a solve ends unless told otherwise: the clean end, or close to it."""
        return self.domain[0]

    @property
    def last_level(self) -> float | None:
        """The cleanest time at which a network is asked; a solve may go on from there to sigma = 0 in one more step.
        None where `t_end` is at sigma = 0 without such a level before it."""
        return self.t_end if self.sigma(self.t_end) > 0 else None

    @property
    def domain(self) -> tuple[float, float]:
        """The closed interval of times for which the schedule is defined."""
        return 0.0, 1.0

    def last_before(self, first: float, last: float) -> float | None:
        """The last level, if a run from ``first`` to ``last`` passes it: in one step, as networks know none below."""
        level = self.last_level
        return level if level is not None and last < level < first else None

    def clock(self, t: ArrayT) -> ArrayT:
        """The time on the network's own clock, which its velocity is the derivative with respect to."""
        return t

    @property
    def clock_rate(self) -> float:
        """Derivative of `clock`: -1 where the network's time runs from noise to data, else 1."""
        return 1.0

    def alpha(self, t: ArrayT) -> ArrayT:
        """Scale of the data in x_t."""
        return _elementwise(self._alpha, t)

    def sigma(self, t: ArrayT) -> ArrayT:
        """Standard deviation of the noise in x_t."""
        return _elementwise(self._sigma, t)

    def half_logsnr(self, t: ArrayT) -> ArrayT:
        """lam = log(alpha / sigma), strictly decreasing; +inf where sigma = 0, -inf where alpha = 0."""
        return _elementwise(self._half_logsnr, t)

    def dalpha(self, t: ArrayT) -> ArrayT:
        """Derivative of alpha with respect to t."""
        return _elementwise(self._dalpha, t)

    def dsigma(self, t: ArrayT) -> ArrayT:
        """Derivative of sigma with respect to t."""
        return _elementwise(self._dsigma, t)

    def drift(self, t: ArrayT) -> ArrayT:
        """f = alpha' / alpha, the linear drift of the SDE dx = f x dt + g dw; -inf where alpha = 0."""
        return _elementwise(self._drift, t)

    def diffusion2(self, t: ArrayT) -> ArrayT:
        """g^2 = -2 sigma^2 lam', the squared diffusion coefficient of the same SDE."""
        return _elementwise(self._diffusion2, t)

    def time(self, half_logsnr: ArrayT) -> ArrayT:
        """The time in `domain` at which the half-log-SNR takes the given value, infinite ones included.

        Raises ValueError for floats and arrays outside the reachable range (1e-6 relative is forgiven).
        Tensors are always clipped to that range, because looking at their values would stall a GPU.
        """
        lam_min, lam_max = (float(self.half_logsnr(t)) for t in reversed(self.domain))
        if not isinstance(half_logsnr, torch.Tensor):
            self._check_reachable(np.asarray(half_logsnr, dtype=np.float64), lam_min, lam_max)
        t_min, t_max = self.domain

        def inverse(lam: Any, xp: Any) -> Any:
            t = xp.clip(self._time(xp.clip(lam, lam_min, lam_max), xp), t_min, t_max)
            return xp.where(lam <= lam_min, t_max, xp.where(lam >= lam_max, t_min, t))

        return _elementwise(inverse, half_logsnr)

    def _check_reachable(self, lam: np.ndarray, lam_min: float, lam_max: float) -> None:
        low = lam_min - RANGE_SLACK * (1 + abs(lam_min))
        high = lam_max + RANGE_SLACK * (1 + abs(lam_max))
        outside = lam[~((lam >= low) & (lam <= high))]
        if outside.size:
            raise ValueError(
                f"half_logsnr = {float(outside[0])} is never reached: on t in {self.domain} it lies "
                f"in [{lam_min:.6g}, {lam_max:.6g}]"
            )

    # What a schedule defines, on float64 arrays of the module xp.

    @abstractmethod
    def _alpha(self, t: Any, xp: Any) -> Any: ...

    @abstractmethod
    def _sigma(self, t: Any, xp: Any) -> Any: ...

    @abstractmethod
    def _dalpha(self, t: Any, xp: Any) -> Any: ...

    @abstractmethod
    def _dsigma(self, t: Any, xp: Any) -> Any: ...

    @abstractmethod
    def _time(self, lam: Any, xp: Any) -> Any:
        """The inverse of lam, which the caller has clipped to the reachable range."""

    def _half_logsnr(self, t: Any, xp: Any) -> Any:
        return xp.log(self._alpha(t, xp) / self._sigma(t, xp))

    def _drift(self, t: Any, xp: Any) -> Any:
        return self._dalpha(t, xp) / self._alpha(t, xp)

    def _diffusion2(self, t: Any, xp: Any) -> Any:
        # Both terms are nonnegative as long as sigma grows and alpha falls, so nothing cancels.
        sigma = self._sigma(t, xp)
        return 2 * sigma * (self._dsigma(t, xp) - self._drift(t, xp) * sigma)


def _elementwise(f: Callable[[Any, Any], Any], t: Any) -> Any:
    """f(t, xp) in float64, answered in the kind of t."""
    if isinstance(t, torch.Tensor):
        y = f(in_float64(t), torch)
        return y.to(t.device, t.dtype) if t.is_floating_point() else y
    with np.errstate(all="ignore"):  # 1 / 0 and log(0) are the limits we want
        y = f(np.asarray(t, dtype=np.float64), np)
    return np.asarray(y) if isinstance(t, np.ndarray) or np.ndim(y) else float(y)


class VariancePreserving(Schedule):
    """Schedules with alpha^2 + sigma^2 = 1, for which g^2 = -2 f."""

    def _dsigma(self, t: Any, xp: Any) -> Any:
        return -self._alpha(t, xp) * self._dalpha(t, xp) / self._sigma(t, xp)

    def _diffusion2(self, t: Any, xp: Any) -> Any:
        return -2 * self._drift(t, xp)


def check_schedule(schedule: Any) -> None:
    """Raise TypeError unless ``schedule`` is one."""
    if isinstance(schedule, type) and issubclass(schedule, Schedule):
        raise TypeError(f"schedule must be an instance, {schedule.__name__}(), not the class {schedule.__name__}")
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be a logsnr schedule, not {type(schedule).__name__}")
    if type(schedule).__hash__ is None:
        raise TypeError(
            f"schedule must be hashable, as plans are kept by it, and {type(schedule).__name__} is not: make it a "
            "frozen dataclass, or give it a __hash__ that goes with its __eq__"
        )
