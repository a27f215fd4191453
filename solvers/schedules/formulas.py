"""The noise schedules with a formula, each written so that no leading digits cancel.

That includes the ends where alpha or sigma vanishes: from t = 1e-12 to 1e-12 before the noisy end, alpha,
sigma and the inverse are accurate to 5e-15 relative, and lam to 1e-15 of max(1, |lam|).
"""

import math
from dataclasses import dataclass
from typing import Any

from .base import Schedule, VariancePreserving
from .straight import EDM, VE, FlowMatching

__all__ = ["EDM", "VE", "FlowMatching", "SubVP", "Trigonometric", "VPCosine", "VPLinear"]


@dataclass(frozen=True, eq=False)
class _LinearBeta(Schedule):
    """What VPLinear and SubVP share: beta(t), its integral B(t) and alpha = e^{-B/2}."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise ValueError(
                f"beta_min = {self.beta_min} and beta_max = {self.beta_max}: need 0 < beta_min <= beta_max"
            )
        if not self.beta_min + self.beta_max < 2800:
            raise ValueError(
                f"beta_min + beta_max = {self.beta_min + self.beta_max} must stay below 2800, "
                "or alpha(1) = exp(-(beta_min + beta_max) / 4) underflows"
            )

    @property
    def t_end(self) -> float:
        return 1e-3

    def _beta(self, t: Any) -> Any:
        return self.beta_min * (1 - t) + self.beta_max * t

    def _integral(self, t: Any) -> Any:
        return t * (self.beta_min + (self.beta_max - self.beta_min) * t / 2)

    def _integral_inverse(self, b: Any, xp: Any) -> Any:
        # The root of the quadratic in the form that adds; the usual one cancels for small b.
        slope = self.beta_max - self.beta_min
        return 2 * b / (self.beta_min + xp.sqrt(self.beta_min**2 + 2 * slope * b))

    def _alpha(self, t: Any, xp: Any) -> Any:
        return xp.exp(-self._integral(t) / 2)

    def _dalpha(self, t: Any, xp: Any) -> Any:
        return -self._beta(t) / 2 * self._alpha(t, xp)


@dataclass(frozen=True, eq=False)
class VPLinear(_LinearBeta, VariancePreserving):
    """Variance preserving with linear beta, on [0, 1]: alpha = e^{-B/2}, sigma = sqrt(1 - e^{-B}).

    B is the integral of beta(t) = beta_min + (beta_max - beta_min) t. Song et al., arXiv:2011.13456, app. C.
    Raises ValueError unless 0 < beta_min <= beta_max and beta_min + beta_max < 2800.
    """

    def _sigma(self, t: Any, xp: Any) -> Any:
        return xp.sqrt(-xp.expm1(-self._integral(t)))

    def _time(self, lam: Any, xp: Any) -> Any:
        # e^{-B} = alpha^2 = 1 / (1 + e^{-2 lam}); written out, as logaddexp(0, .) wants two tensors.
        b = xp.log1p(xp.exp(-2 * abs(lam))) + xp.clip(-2 * lam, 0, None)
        return self._integral_inverse(b, xp)


@dataclass(frozen=True, eq=False)
class SubVP(_LinearBeta):
    """Sub-VP with linear beta, on [0, 1]: alpha = e^{-B/2}, sigma = 1 - e^{-B}, with B as in `VPLinear`.

    Song et al., arXiv:2011.13456, app. C. Nearly VPLinear's noise at t = 1, and much less of it near 0.
    Raises ValueError unless 0 < beta_min <= beta_max and beta_min + beta_max < 2800.
    """

    def _sigma(self, t: Any, xp: Any) -> Any:
        return -xp.expm1(-self._integral(t))

    def _dsigma(self, t: Any, xp: Any) -> Any:
        return self._beta(t) * xp.exp(-self._integral(t))

    def _time(self, lam: Any, xp: Any) -> Any:
        return self._integral_inverse(2 * xp.asinh(xp.exp(-lam) / 2), xp)  # sigma / alpha = 2 sinh(B / 2)


@dataclass(frozen=True, eq=False)
class VPCosine(VariancePreserving):
    """Cosine schedule on [0, 1]: alpha = cos(a(t)) / cos(a(0)), a(t) = (t + s) / (1 + s) * pi / 2.

    Nichol and Dhariwal, arXiv:2102.09672, eq. 17, without their clipping of beta: alpha(1) = 0 exactly.
    Raises ValueError unless s > 0 and finite (s = 0 is `Trigonometric` on another clock).
    """

    s: float = 0.008

    def __post_init__(self) -> None:
        if not (self.s > 0 and math.isfinite(self.s)):
            raise ValueError(f"s = {self.s}: need a finite s > 0; for s = 0 use Trigonometric()")

    @property
    def t_end(self) -> float:
        return 1e-3

    @property
    def _rate(self) -> float:
        """A, with which cos(a) = sin(A (1 - t)) and 1 - alpha^2 is a product of two sines."""
        return math.pi / 2 / (1 + self.s)

    def _alpha(self, t: Any, xp: Any) -> Any:
        return xp.sin(self._rate * (1 - t)) / math.sin(self._rate)

    def _sigma(self, t: Any, xp: Any) -> Any:
        product = xp.sin(self._rate * t) * xp.sin(self._rate * (2 * self.s + t))
        return xp.sqrt(product) / math.sin(self._rate)

    def _dalpha(self, t: Any, xp: Any) -> Any:
        return -self._rate * xp.sin(self._rate * (self.s + t)) / math.sin(self._rate)

    def _time(self, lam: Any, xp: Any) -> Any:
        # sin(A - A t) = alpha sin A solved for A t itself; A - asin(alpha sin A) would cancel.
        sin, cos = math.sin(self._rate), math.sin(self._rate * self.s)
        alpha, sigma2 = 1 / xp.sqrt(1 + xp.exp(-2 * lam)), 1 / (1 + xp.exp(2 * lam))
        cos_rest = xp.sqrt(cos**2 + sigma2 * sin**2)
        angle = xp.atan2(sin * sigma2 / (cos_rest + alpha * cos), cos * cos_rest + alpha * sin**2)
        return angle / self._rate


@dataclass(frozen=True, eq=False)
class Trigonometric(VariancePreserving):
    """alpha = cos t, sigma = sin t on [0, pi / 2], as in TrigFlow (arXiv:2410.11081).

    pi / 2 means the float64 closest to it, math.pi / 2: alpha is exactly 0 there.
    """

    @property
    def domain(self) -> tuple[float, float]:
        return 0.0, math.pi / 2

    def _alpha(self, t: Any, xp: Any) -> Any:
        return xp.sin(math.pi / 2 - t)

    def _sigma(self, t: Any, xp: Any) -> Any:
        return xp.sin(t)

    def _dalpha(self, t: Any, xp: Any) -> Any:
        return -xp.sin(t)

    def _dsigma(self, t: Any, xp: Any) -> Any:
        return self._alpha(t, xp)

    def _time(self, lam: Any, xp: Any) -> Any:
        return xp.atan(xp.exp(-lam))
