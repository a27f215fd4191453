"""A gauge says which linear part of the PF-ODE is integrated exactly: ``d(x / mu) = N dE``.

Every gauge is a scale mu, a clock E and the head N that is left to interpolate (book 9.1.6, 9.4.4, 9.5.2):

============ ======= ============= ======================= ========================================
gauge        mu      clock E       N                       solvers
============ ======= ============= ======================= ========================================
x0           sigma   alpha/sigma   x0                      DPM-Solver++
eps          alpha   sigma/alpha   eps                     DDIM, DEIS, DPM-Solver, EDM's Euler, LMS
velocity     1       t             alpha' x0 + sigma' eps  classical Runge-Kutta methods
velocity-lam 1       lam           dx/dlam                 Euler-Maruyama in lam
v            R       phi           v / R                   DDIM on the circle of Salimans and Ho
straight     S       sigma / S     eps - x0                Euler on the straight path
============ ======= ============= ======================= ========================================

where ``R^2 = alpha^2 + sigma^2``, ``phi = atan(sigma / alpha)``, ``v = alpha eps - sigma x0``, ``S = alpha + sigma``,
so that ``x_t = (mu_t / mu_s) x_s + mu_t int_s^t N dE`` for any s and t. Integrals run along a *path* variable in which
their integrands are smooth: t for velocity, the clock for v and straight (in `clocks`), lam for the others.

With noise (see `stochasticity`) the same reads ``x_t = ratio x_s + int N dkernel + std xi``. Writing D for the
growth of int eta^2 dlam over what is left of the step, the x0 gauge has mu = sigma e^-D, the kernel e^(lam - D) and
the variance sigma^2 (1 - e^(-2 D)); the eps gauge keeps its mu and has the kernel (1 + eta^2) de^-lam and the variance
alpha^2 int 2 eta^2 e^(-2 lam) dlam; the velocities have -eta^2 sigma dlam more of eps, and the variance of
Euler-Maruyama, 2 eta^2 sigma_s^2 |dlam/du| |u_t - u_s|. All are the same for eta = 0.

A gauge of one's own is a subclass of `Gauge`, which has the path lam; `columns`, `ratio`, `rate`, `total` and `std`
are what it must say.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..arrays import Array, Mask
from ..denoisers.heads import Level, from_pair
from ..names import nearest
from ..schedules.base import Schedule
from .clocks import STRAIGHT, V
from .gauge import Gauge, Nodes, Variable
from .stochasticity import Stochasticity

__all__ = ["EPS", "GAUGES", "VELOCITY", "VELOCITY_LAM", "X0", "Gauge", "Nodes", "V", "Variable", "as_gauge"]


@dataclass(frozen=True)
class X0Gauge(Gauge):
    """N = x0, in x / sigma."""

    exponential: ClassVar[bool] = True

    def columns(self, sch: Schedule, t: Array) -> Array:
        return np.stack([np.ones_like(t), np.zeros_like(t)], axis=-1)

    def ratio(self, s: Nodes, t: Nodes) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            kept = t.sigma / s.sigma
            return kept * np.exp(-self.eta.energy(s.lam, t.lam)) if self.eta else kept

    def rate(self, left: Array, t: Nodes) -> Array:
        kernel = t.alpha[:, None] * np.exp(-left)
        if not self.eta:
            return kernel
        end = t.lam[:, None]
        return kernel * (1 + self.eta.squared(end - left)) * np.exp(-self.eta.energy(end - left, end))

    def total(self, s: Nodes, t: Nodes) -> Array:
        gone = s.lam - t.lam
        return -t.alpha * np.expm1(gone - self.eta.energy(s.lam, t.lam) if self.eta else gone)

    def std(self, sch: Schedule, s: Nodes, t: Nodes) -> Array:
        with np.errstate(invalid="ignore"):
            return t.sigma * np.sqrt(-np.expm1(-2 * self.eta.energy(s.lam, t.lam)))


@dataclass(frozen=True)
class EpsGauge(Gauge):
    """N = eps, in x / alpha."""

    exponential: ClassVar[bool] = True

    def columns(self, sch: Schedule, t: Array) -> Array:
        return np.stack([np.zeros_like(t), np.ones_like(t)], axis=-1)

    def ratio(self, s: Nodes, t: Nodes) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return t.alpha / s.alpha

    def rate(self, left: Array, t: Nodes) -> Array:
        kernel = -t.sigma[:, None] * np.exp(left)
        return kernel * (1 + self.eta.squared(t.lam[:, None] - left)) if self.eta else kernel

    def total(self, s: Nodes, t: Nodes) -> Array:
        whole = np.expm1(t.lam - s.lam)
        return -t.sigma * (whole + self.eta.integral(s.lam, t.lam, 1.0) if self.eta else whole)

    def std(self, sch: Schedule, s: Nodes, t: Nodes) -> Array:
        with np.errstate(invalid="ignore"):
            return t.sigma * np.sqrt(2 * self.eta.integral(s.lam, t.lam, 2.0))


@dataclass(frozen=True)
class VelocityLamGauge(Gauge):
    """N = dx/dlam: nothing is taken out."""

    def columns(self, sch: Schedule, t: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = _slope(sch, t)
            return np.stack([part / slope for part in _velocity(self.eta, sch, t)], axis=-1)

    def ratio(self, s: Nodes, t: Nodes) -> Array:
        return np.ones_like(t.t)

    def rate(self, left: Array, t: Nodes) -> Array:
        return np.ones_like(left)

    def total(self, s: Nodes, t: Nodes) -> Array:
        return self.path(t) - self.path(s)

    def std(self, sch: Schedule, s: Nodes, t: Nodes) -> Array:
        with np.errstate(invalid="ignore"):
            return np.sqrt(self.eta.squared(s.lam) * (2 * s.sigma**2) * np.abs(self.path(t) - self.path(s)))


@dataclass(frozen=True)
class VelocityGauge(VelocityLamGauge):
    """N = dx/dt, along t."""

    own: ClassVar[Variable] = "t"

    def columns(self, sch: Schedule, t: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack(_velocity(self.eta, sch, t), axis=-1)

    def std(self, sch: Schedule, s: Nodes, t: Nodes) -> Array:
        with np.errstate(invalid="ignore"):
            return np.sqrt(self.eta.squared(s.lam) * np.asarray(sch.diffusion2(s.t)) * np.abs(t.t - s.t))

    def endless(self, sch: Schedule, s: Nodes, t: Nodes) -> Mask:
        """Nowhere along t, where dx/dt has a limit at sigma = 0, and no noise is to be added on the way there."""
        return np.isposinf(t.lam) & (bool(self.eta) | ~np.isfinite(self.columns(sch, t.t)).all(axis=1))

    def path(self, at: Nodes) -> Array:
        return at.t

    def times(self, sch: Schedule, path: Array) -> Array:
        return path

    @property
    def edges(self) -> tuple[float, ...]:
        return ()

    def longest(self, spans: Array) -> float:
        return 0.0  # the kernel is 1: one panel integrates any polynomial

    def distance(self, var: Variable, sch: Schedule, s: Nodes, gone: Array) -> Array:
        if var != "t":
            raise ValueError(f"the velocity gauge interpolates in t, not in {var}")
        return gone


@dataclass(frozen=True)
class Needed(X0Gauge):
    """Stands for a gauge that users must give: ``option`` is what they call it, ``example`` what makes one."""

    option: str = ""
    example: str = ""

    def with_eta(self, eta: Stochasticity) -> Gauge:
        raise ValueError(f"this solver needs {self.option}={self.example}")


def _velocity(eta: Stochasticity, sch: Schedule, t: Array) -> tuple[Array, Array]:
    """dx/dt of the PF-ODE, or the drift of the reverse SDE, as a combination of (x0, eps)."""
    p, q = np.broadcast_arrays(*from_pair("velocity", Level.at(sch, t)), t)[:2]
    if eta:
        at = Nodes.at(sch, t)
        q = q - eta.squared(at.lam) * at.sigma * _slope(sch, t)
    return p, q


def _slope(sch: Schedule, t: Array) -> Array:
    """dlam/dt."""
    sigma = np.asarray(sch.sigma(t))
    return -np.asarray(sch.diffusion2(t)) / (2 * sigma * sigma)


X0 = X0Gauge()
EPS = EpsGauge()
VELOCITY = VelocityGauge()
VELOCITY_LAM = VelocityLamGauge()
GAUGES: dict[str, Gauge] = {
    "x0": X0, "eps": EPS, "v": V, "straight": STRAIGHT, "velocity": VELOCITY, "velocity-lam": VELOCITY_LAM,
}  # fmt: skip
OF_DATA = {"wiener": "logsnr.Wiener.from_data(x0)", "v3": "logsnr.calibrate(den, x0)"}  # gauges that hold numbers


def as_gauge(gauge: str | Gauge) -> Gauge:
    """A gauge by its name, or as it is; ValueError for unknown names."""
    if isinstance(gauge, Gauge):
        return gauge
    if not isinstance(gauge, str) or gauge not in GAUGES:
        if isinstance(gauge, str) and gauge in OF_DATA:
            raise ValueError(f"gauge = {gauge!r} needs numbers of the data: give gauge={OF_DATA[gauge]}")
        raise ValueError(f"gauge = {gauge!r:.60} is unknown{nearest(gauge, GAUGES)}")
    return GAUGES[gauge]
