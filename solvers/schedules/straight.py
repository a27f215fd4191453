"""Schedules whose alpha or sigma is a straight line or a power: flow matching, variance exploding, EDM."""

import math
from dataclasses import dataclass
from typing import Any

from .base import Schedule


@dataclass(frozen=True, eq=False)
class FlowMatching(Schedule):
    """The straight path, on [0, 1]: alpha = 1 - t, sigma = t, velocity eps - x0; noise at t = 1.

    data_at: the time at which the *network* has its data. 0, the default, as Stable Diffusion 3, Flux, SiT: it is told
    t and returns eps - x0. 1, as Lipman et al., arXiv:2210.02747, and Liu et al., arXiv:2209.03003 have it: it is told
    1 - t and its velocity is x0 - eps. Times of grids, t_start, t_end and callbacks are the schedule's either way, with
    noise at t = 1. Raises ValueError for other numbers.

    What users of flow models mean by 10 steps is ``solve(..., steps=10, grid="time")``: equal steps of t. The default
    grid, "logsnr", crowds its steps at both ends of this path, and is worse with few.
    """

    data_at: int = 0

    def __post_init__(self) -> None:
        if self.data_at not in (0, 1):
            raise ValueError(
                f"data_at = {self.data_at!r} must be 0 or 1, the network's time at which there is no noise"
            )

    def clock(self, t: Any) -> Any:
        return 1 - t if self.data_at else t

    @property
    def clock_rate(self) -> float:
        return -1.0 if self.data_at else 1.0

    def _alpha(self, t: Any, xp: Any) -> Any:
        return 1 - t

    def _sigma(self, t: Any, xp: Any) -> Any:
        return t

    def _dalpha(self, t: Any, xp: Any) -> Any:
        return -xp.ones_like(t)

    def _dsigma(self, t: Any, xp: Any) -> Any:
        return xp.ones_like(t)

    def _time(self, lam: Any, xp: Any) -> Any:
        return 1 / (1 + xp.exp(lam))


@dataclass(frozen=True, eq=False)
class _VarianceExploding(Schedule):
    """What VE and EDM share: alpha = 1."""

    sigma_min: float
    sigma_max: float

    def __post_init__(self) -> None:
        if not (0 < self.sigma_min < self.sigma_max < math.inf):
            raise ValueError(
                f"sigma_min = {self.sigma_min} and sigma_max = {self.sigma_max}: "
                "need 0 < sigma_min < sigma_max, both finite"
            )

    def _alpha(self, t: Any, xp: Any) -> Any:
        return xp.ones_like(t)

    def _dalpha(self, t: Any, xp: Any) -> Any:
        return xp.zeros_like(t)


@dataclass(frozen=True, eq=False)
class VE(_VarianceExploding):
    """Variance exploding, geometric, on [0, 1]: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t.

    Song et al., arXiv:2011.13456, app. C. From t = 0 to -1 sigma falls in a line to 0: ``t_end=-1`` leaves no noise.
    Raises ValueError unless 0 < sigma_min < sigma_max, both finite.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    @property
    def domain(self) -> tuple[float, float]:
        return -1.0, 1.0

    @property
    def t_end(self) -> float:
        return 0.0

    def _sigma(self, t: Any, xp: Any) -> Any:
        geometric = self.sigma_min ** (1 - t) * self.sigma_max**t  # in this form exact at both ends
        return xp.where(t < 0, self.sigma_min * (1 + t), geometric)

    def _dsigma(self, t: Any, xp: Any) -> Any:
        return xp.where(t < 0, self.sigma_min, math.log(self.sigma_max / self.sigma_min) * self._sigma(t, xp))

    def _time(self, lam: Any, xp: Any) -> Any:
        left = -lam - math.log(self.sigma_min)
        return xp.where(left < 0, xp.expm1(xp.clip(left, None, 0)), left / math.log(self.sigma_max / self.sigma_min))


@dataclass(frozen=True, eq=False)
class EDM(_VarianceExploding):
    """Time is the noise level, on [0, sigma_max]: alpha = 1, sigma = t. Karras et al., arXiv:2206.00364.

    A solve runs from sigma_max to sigma_min unless told otherwise.
    Raises ValueError unless 0 < sigma_min < sigma_max, both finite.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    @property
    def domain(self) -> tuple[float, float]:
        return 0.0, self.sigma_max

    @property
    def t_end(self) -> float:
        return self.sigma_min

    def _sigma(self, t: Any, xp: Any) -> Any:
        return t

    def _dsigma(self, t: Any, xp: Any) -> Any:
        return xp.ones_like(t)

    def _time(self, lam: Any, xp: Any) -> Any:
        return xp.exp(-lam)
