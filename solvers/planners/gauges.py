"""A gauge says which linear part of the PF-ODE is integrated exactly: ``d(x / mu) = N dE``.

Every gauge is a scale mu, a clock E and the head N that is left to interpolate (book 9.1.6, 9.4.4, 9.5.2):

============ ======= ============= ======================= ========================================
gauge        mu      clock E       N                       solvers
============ ======= ============= ======================= ========================================
x0           sigma   alpha/sigma   x0                      DPM-Solver++
eps          alpha   sigma/alpha   eps                     DDIM, DEIS, DPM-Solver, EDM's Euler, LMS
velocity     1       t             alpha' x0 + sigma' eps  classical Runge-Kutta methods
velocity-lam 1       lam           dx/dlam                 Euler-Maruyama in lam
============ ======= ============= ======================= ========================================

so that ``x_t = (mu_t / mu_s) x_s + mu_t int_s^t N dE`` for any s and t. Integrals run along a *path*
variable in which their integrands are smooth: t for velocity, lam for the others.

With noise (see `stochasticity`) the same reads ``x_t = ratio x_s + int N dkernel + std xi``. Writing D for the
growth of int eta^2 dlam over what is left of the step, the x0 gauge has mu = sigma e^-D, the kernel e^(lam - D) and
the variance sigma^2 (1 - e^(-2 D)); the eps gauge keeps its mu and has the kernel (1 + eta^2) de^-lam and the variance
alpha^2 int 2 eta^2 e^(-2 lam) dlam; the velocities have -eta^2 sigma dlam more of eps, and the variance of
Euler-Maruyama, 2 eta^2 sigma_s^2 |dlam/du| |u_t - u_s|. All are the same for eta = 0.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..heads import Level, from_pair
from ..schedules.base import Schedule
from .gauss import Array
from .stochasticity import NONE, Stochasticity

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

    name: Literal["x0", "eps", "velocity", "velocity-lam"]
    eta: Stochasticity = NONE

    @property
    def in_lam(self) -> bool:
        return self.name != "velocity"

    def columns(self, sch: Schedule, t: Array) -> Array:
        """N as a combination of (x0, eps) at the times t, (n,): an array (n, 2)."""
        p, q = (1.0, 0.0) if self.name == "x0" else (0.0, 1.0)
        if self.name.startswith("velocity"):
            with np.errstate(divide="ignore", invalid="ignore"):  # infinite where `breaks`
                p, q = from_pair("velocity", Level.at(sch, t))
                if self.eta or self.in_lam:
                    at = Nodes.at(sch, t)
                    slope = -np.asarray(sch.diffusion2(t)) / (2 * at.sigma * at.sigma)  # dlam/dt
                    q = q - self.eta.squared(at.lam) * at.sigma * slope
                    if self.in_lam:
                        p, q = p / slope, q / slope
        return np.stack(np.broadcast_arrays(p, q, t)[:2], axis=-1)

    def ratio(self, s: Nodes, t: Nodes) -> Array:
        """``mu_t / mu_s``: what the exact linear part makes of the state; inf or NaN where `breaks`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.name == "x0":
                kept = t.sigma / s.sigma
                return kept * np.exp(-self.eta.energy(s.lam, t.lam)) if self.eta else kept
            return t.alpha / s.alpha if self.name == "eps" else np.ones_like(t.t)

    def path(self, at: Nodes) -> Array:
        return at.lam if self.in_lam else at.t

    def rate(self, left: Array, t: Nodes) -> Array:
        """``mu_t dE/dpath`` where ``left`` (n, Q) of the path is left before t (n,): normalised at the end of
        the step, so nothing overflows."""
        if self.name.startswith("velocity"):
            return np.ones_like(left)
        kernel = t.alpha[:, None] * np.exp(-left) if self.name == "x0" else -t.sigma[:, None] * np.exp(left)
        if self.eta:
            end = t.lam[:, None]
            kernel = kernel * (1 + self.eta.squared(end - left))
            if self.name == "x0":
                kernel = kernel * np.exp(-self.eta.energy(end - left, end))
        return kernel

    def breaks(self, sch: Schedule, s: Nodes, t: Nodes) -> Mask:
        """Where no interpolation over the step is possible and the planners take the DDIM step, exact in the
        limit: it ends at sigma = 0, where no head is evaluated, or the path is infinitely long, or N is infinite (where
        sigma grows from 0 with infinite slope, as of VPLinear, dx/dt is 0 * inf at the start)."""
        with np.errstate(invalid="ignore"):
            endless = np.isposinf(t.lam) | (self.in_lam & ~np.isfinite(s.lam - t.lam))
        return endless | ~np.isfinite(self.columns(sch, s.t)).all(axis=1)

    def total(self, s: Nodes, t: Nodes) -> Array:
        """``mu_t (E_t - E_s)`` without cancellation: the weight of a constant N."""
        if self.name == "x0":
            gone = s.lam - t.lam
            return -t.alpha * np.expm1(gone - self.eta.energy(s.lam, t.lam) if self.eta else gone)
        if self.name == "eps":
            whole = np.expm1(t.lam - s.lam)
            return -t.sigma * (whole + self.eta.integral(s.lam, t.lam, 1.0) if self.eta else whole)
        return self.path(t) - self.path(s)

    def std(self, sch: Schedule, s: Nodes, t: Nodes) -> Array:
        """The standard deviation of the noise of the step; NaN where `breaks`."""
        with np.errstate(invalid="ignore"):
            if self.name == "x0":
                return t.sigma * np.sqrt(-np.expm1(-2 * self.eta.energy(s.lam, t.lam)))
            if self.name == "eps":
                return t.sigma * np.sqrt(2 * self.eta.integral(s.lam, t.lam, 2.0))
            per_length = 2 * s.sigma**2 if self.in_lam else np.asarray(sch.diffusion2(s.t))
            return np.sqrt(self.eta.squared(s.lam) * per_length * np.abs(self.path(t) - self.path(s)))


X0, EPS, VELOCITY, VELOCITY_LAM = Gauge("x0"), Gauge("eps"), Gauge("velocity"), Gauge("velocity-lam")
