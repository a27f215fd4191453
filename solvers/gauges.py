"""A gauge says which linear part of the PF-ODE is integrated exactly: ``d(x / mu) = N dE``.

Every gauge is a scale mu, a clock E and the head N that is left to interpolate (book 9.1.6, 9.4.4, 9.5.2):

========= ======= ============= ===================== ========================================
gauge     mu      clock E       N                     solvers
========= ======= ============= ===================== ========================================
x0        sigma   alpha/sigma   x0                    DPM-Solver++
eps       alpha   sigma/alpha   eps                   DDIM, DEIS, DPM-Solver, EDM's Euler, LMS
velocity  1       t             alpha' x0 + sigma' eps  classical Runge-Kutta methods
========= ======= ============= ===================== ========================================

so that ``x_t = (mu_t / mu_s) x_s + mu_t int_s^t N dE`` for any s and t. Integrals run along a *path*
variable in which their integrands are smooth: lam for the two exponential gauges, t for velocity.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .heads import Level, from_pair
from .schedule import Schedule

Array = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Nodes:
    """A schedule tabulated at times t: all float64 arrays of t's shape. lam may be infinite at the ends."""

    t: Array
    alpha: Array
    sigma: Array
    lam: Array

    @classmethod
    def at(cls, sch: Schedule, t: Any) -> "Nodes":
        t = np.asarray(t, dtype=np.float64)
        return cls(t, *(np.asarray(f(t)) for f in (sch.alpha, sch.sigma, sch.half_logsnr)))

    def __getitem__(self, index: Any) -> "Nodes":
        return Nodes(self.t[index], self.alpha[index], self.sigma[index], self.lam[index])


@dataclass(frozen=True)
class Gauge:
    """``name`` is the head N; all methods are elementwise over steps from ``s`` to ``t`` (float64 arrays)."""

    name: Literal["x0", "eps", "velocity"]

    @property
    def exponential(self) -> bool:
        return self.name != "velocity"

    def columns(self, sch: Schedule, t: Array) -> Array:
        """N as a combination of (x0, eps) at the times t, (n,): an array (n, 2)."""
        p, q = (1.0, 0.0) if self.name == "x0" else (0.0, 1.0)
        if not self.exponential:
            p, q = from_pair(self.name, Level.at(sch, t))
        return np.stack(np.broadcast_arrays(p, q, t)[:2], axis=-1)

    def ratio(self, s: Nodes, t: Nodes) -> Array:
        """``mu_t / mu_s``: what the exact linear part makes of the state; inf or NaN where `breaks`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.name == "x0":
                return t.sigma / s.sigma
            return t.alpha / s.alpha if self.name == "eps" else np.ones_like(t.t)

    def path(self, at: Nodes) -> Array:
        return at.lam if self.exponential else at.t

    def rate(self, left: Array, t: Nodes) -> Array:
        """``mu_t dE/dpath`` where ``left`` (n, Q) of the path is left before t (n,): normalised at the end of
        the step, so nothing overflows."""
        if self.name == "x0":
            return t.alpha[:, None] * np.exp(-left)
        return -t.sigma[:, None] * np.exp(left) if self.name == "eps" else np.ones_like(left)

    def breaks(self, s: Nodes, t: Nodes) -> Mask:
        """Where no interpolation over the step is possible and the planners take the DDIM step, exact in the
        limit: it ends at sigma = 0, where no head is evaluated, or the path is infinitely long."""
        with np.errstate(invalid="ignore"):
            return np.isposinf(t.lam) | (self.exponential & ~np.isfinite(s.lam - t.lam))

    def total(self, s: Nodes, t: Nodes) -> Array:
        """``mu_t (E_t - E_s)`` without cancellation: the weight of a constant N."""
        if self.name == "x0":
            return -t.alpha * np.expm1(s.lam - t.lam)
        return -t.sigma * np.expm1(t.lam - s.lam) if self.name == "eps" else t.t - s.t


X0, EPS, VELOCITY = Gauge("x0"), Gauge("eps"), Gauge("velocity")
