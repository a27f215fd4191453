"""What a gauge is, and a schedule tabulated at the nodes of a grid. The gauges themselves are in `gauges`."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from ..arrays import Array, Mask
from ..schedules.base import Schedule
from .quadrature import rule
from .stochasticity import NONE, Stochasticity

Variable = Literal["lam", "t", "rho", "clock"]


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

    def variable(self, name: Variable) -> Array:
        """An interpolation variable at the nodes: lam, t, or rho = sigma/alpha = exp(-lam)."""
        if name == "lam":
            return self.lam
        return self.t if name == "t" else np.exp(-self.lam)


@dataclass(frozen=True)
class Gauge(ABC):
    """The interface of all gauges. Methods are elementwise over steps from ``s`` to ``t`` (float64 arrays (n,))."""

    eta: Stochasticity = NONE
    own: ClassVar[Variable] = "lam"  # the interpolation variable that the path is
    exponential: ClassVar[bool] = False  # whether, without noise, the kernel is exp(c lam): that of phi functions

    def with_eta(self, eta: Stochasticity) -> "Gauge":
        """The same gauge for the SDE with this eta."""
        return replace(self, eta=eta)

    @abstractmethod
    def columns(self, sch: Schedule, t: Array) -> Array:
        """N as a combination of (x0, eps) at the times t, (n,): an array (n, 2); infinite where it `breaks`."""

    @abstractmethod
    def ratio(self, s: Nodes, t: Nodes) -> Array:
        """``mu_t / mu_s``: what the exact linear part makes of the state; inf or NaN where it `breaks`."""

    @abstractmethod
    def rate(self, left: Array, t: Nodes) -> Array:
        """``mu_t dE/dpath`` where ``left`` (n, Q) of the path is left before t (n,): normalised at the end of
        the step, so nothing overflows."""

    @abstractmethod
    def total(self, s: Nodes, t: Nodes) -> Array:
        """``mu_t (E_t - E_s)`` without cancellation: the weight of a constant N."""

    @abstractmethod
    def std(self, sch: Schedule, s: Nodes, t: Nodes) -> Array:
        """The standard deviation of the noise of the step; NaN where it `breaks`."""

    def path(self, at: Nodes) -> Array:
        """The variable of integration."""
        return at.lam

    def times(self, sch: Schedule, path: Array) -> Array:
        """The schedule's times at these values of the path."""
        return np.asarray(sch.time(path))

    def variable(self, name: Variable, at: Nodes) -> Array:
        """An interpolation variable at the nodes; "clock" is for gauges that have it for `own`."""
        return at.variable(name)

    @property
    def edges(self) -> tuple[float, ...]:
        """Values of the path at which the kernel jumps."""
        return self.eta.edges

    def longest(self, spans: Array) -> float:
        """The length that the panels of the quadrature must resolve."""
        return float(np.abs(spans).max(initial=0.0))

    def distance(self, var: Variable, sch: Schedule, s: Nodes, gone: Array) -> Array:
        """``u - u_s`` in an interpolation variable after ``gone`` (n, Q) of the path."""
        if var == "lam":
            return gone
        lam = s.lam[:, None]
        return np.exp(-lam) * np.expm1(-gone) if var == "rho" else np.asarray(sch.time(lam + gone)) - s.t[:, None]

    def breaks(self, sch: Schedule, s: Nodes, t: Nodes) -> Mask:
        """Where no interpolation over the step is possible and the planners take the DDIM step, exact in the
        limit: it ends at sigma = 0, where no head is evaluated, or the path is infinitely long, or N is infinite (where
        sigma grows from 0 with infinite slope, as of VPLinear, dx/dt is 0 * inf at the start)."""
        return self.endless(sch, s, t) | ~np.isfinite(self.columns(sch, s.t)).all(axis=1)

    def endless(self, sch: Schedule, s: Nodes, t: Nodes) -> Mask:
        """Where the path is infinitely long, or the step ends at sigma = 0."""
        with np.errstate(invalid="ignore"):
            return np.isposinf(t.lam) | ~np.isfinite(self.path(s) - self.path(t))

    def integrate(self, var: Variable, sch: Schedule, s: Nodes, t: Nodes, functions: Callable[[Array], Array]) -> Array:
        """``mu_t int_s^t f_j dE`` for every step: s, t of shape (n,), result (n, J).

        ``functions`` maps the distance ``u - u_s`` of the quadrature points from the start of the step in the
        interpolation variable, (n, Q), to values (n, J, Q). Distances, because the difference of two nearby
        values of u would have lost the digits that short steps need.
        """
        span = (self.path(t) - self.path(s))[:, None]
        edges = self.edges
        inside = np.sort(np.clip((np.array(edges) - self.path(s)[:, None]) / span, 0.0, 1.0)) if edges else span[:, :0]
        ends = np.column_stack([np.zeros_like(span), inside, np.ones_like(span)])
        x, w = rule(self.longest(span))
        length = np.diff(ends)[..., None]
        shape = len(span), length.shape[1] * len(x)
        x, w = (ends[:, :-1, None] + length * x).reshape(shape), (length * w).reshape(shape)
        kernel = self.rate(span * (1 - x), t) * span * w
        return np.einsum("nq,njq->nj", kernel, functions(self.distance(var, sch, s, span * x)))
