"""Gauges that are integrated along their clock, which is finite at both ends of every schedule: v and straight."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..arrays import Array, Mask
from ..schedules.base import Schedule
from .gauge import Nodes, OdeGauge, Variable


@dataclass(frozen=True)
class ClockGauge(OdeGauge):
    """A gauge whose path is its clock, between finite ends: N is integrated as it is."""

    spread: float = 1.0  # c: alpha and x0 are counted as c alpha and x0 / c, for data of this spread
    own: ClassVar[Variable] = "clock"

    @abstractmethod
    def lam(self, path: Array) -> Array:
        """lam where the clock stands at ``path``."""

    def rate(self, left: Array, t: Nodes) -> Array:
        return np.broadcast_to(self.scale(t)[:, None], left.shape)

    @abstractmethod
    def scale(self, at: Nodes) -> Array:
        """mu."""

    def ratio(self, s: Nodes, t: Nodes) -> Array:
        return self.scale(t) / self.scale(s)

    def times(self, sch: Schedule, path: Array) -> Array:
        return np.asarray(sch.time(self.lam(path)))

    def variable(self, name: Variable, at: Nodes) -> Array:
        return self.path(at) if name == "clock" else at.variable(name)

    def longest(self, spans: Array) -> float:
        return 8 * float(np.abs(spans).max(initial=0.0))  # lam and t bend more than the clock

    def endless(self, sch: Schedule, s: Nodes, t: Nodes) -> Mask:
        return np.zeros(len(t.t), dtype=bool)

    def distance(self, var: Variable, sch: Schedule, s: Nodes, gone: Array) -> Array:
        if var == "clock":
            return gone
        with np.errstate(divide="ignore"):
            lam = self.lam(self.path(s)[:, None] + gone)
        if var == "t":
            return np.asarray(sch.time(lam)) - s.t[:, None]
        return lam - s.lam[:, None] if var == "lam" else np.exp(-lam) - np.exp(-s.lam[:, None])


@dataclass(frozen=True)
class VGauge(ClockGauge):
    """N = v / R, in x / R: x turns on a circle (Salimans and Ho 2022, appendix D). Exact on N(0, 1), where v = 0.

    With another spread c exact on N(0, c^2).
    """

    def columns(self, sch: Schedule, t: Array) -> Array:
        alpha, sigma = np.asarray(sch.alpha(t)), np.asarray(sch.sigma(t))
        c = self.spread
        return np.stack([-sigma / c, c * alpha], axis=-1) / np.hypot(c * alpha, sigma)[..., None]

    def scale(self, at: Nodes) -> Array:
        return np.hypot(self.spread * at.alpha, at.sigma)

    def path(self, at: Nodes) -> Array:
        return np.arctan2(at.sigma, self.spread * at.alpha)

    def lam(self, path: Array) -> Array:
        return -np.log(self.spread * np.tan(path))

    def total(self, s: Nodes, t: Nodes) -> Array:
        """R_t (phi_t - phi_s), without cancellation from the cross product."""
        c = self.spread
        return self.scale(t) * np.arctan2(c * _cross(s, t), c * c * s.alpha * t.alpha + s.sigma * t.sigma)


@dataclass(frozen=True)
class StraightGauge(ClockGauge):
    """N = eps - x0, in x / (alpha + sigma), which lies on the straight path of flow matching for every schedule."""

    def columns(self, sch: Schedule, t: Array) -> Array:
        return np.stack([-np.ones_like(t) / self.spread, np.ones_like(t)], axis=-1)

    def scale(self, at: Nodes) -> Array:
        return self.spread * at.alpha + at.sigma

    def path(self, at: Nodes) -> Array:
        return at.sigma / (self.spread * at.alpha + at.sigma)

    def lam(self, path: Array) -> Array:
        return np.log1p(-path) - np.log(path) - np.log(self.spread)

    def total(self, s: Nodes, t: Nodes) -> Array:
        """(alpha_t + sigma_t) (u_t - u_s) without cancellation."""
        return self.spread * _cross(s, t) / self.scale(s)


def _cross(s: Nodes, t: Nodes) -> Array:
    """``alpha_s sigma_t - alpha_t sigma_s`` without cancellation, between infinite lam, too."""
    h = t.lam - s.lam
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(h > 0, s.sigma * t.alpha * np.expm1(-h), -s.alpha * t.sigma * np.expm1(h))


V = VGauge()
STRAIGHT = StraightGauge()
