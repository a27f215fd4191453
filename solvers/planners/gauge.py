"""What a gauge is, and a schedule tabulated at the nodes of a grid. The gauges themselves are in `gauges`."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np

from ..arrays import Array, Mask
from ..bases import Basis
from ..schedules.base import Schedule
from .quadrature import rule
from .stochasticity import NONE, Stochasticity

AT_ONCE = 1 << 18  # numbers, 2 MiB
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
    """The interface of all gauges. Methods are elementwise over steps from ``s`` to ``t`` (float64 arrays (n,)).

    A gauge may differ between the elements of a sample, and add constants. Then ``event`` is the shape of its
    coefficients, which every answer but those of `path` and `times` has for its last axes, and ``constant`` is True.
    """

    eta: Stochasticity = NONE
    own: ClassVar[Variable] = "lam"  # the interpolation variable that the path is
    exponential: ClassVar[bool] = False  # whether, without noise, the kernel is exp(c lam): that of phi functions
    event: ClassVar[tuple[int, ...]] = ()
    constant: ClassVar[bool] = False  # whether N and the state have constant parts
    basis: ClassVar[Basis | None] = None  # in whose coordinates it is diagonal, if not in the elements

    def with_eta(self, eta: Stochasticity) -> "Gauge":
        """The same gauge for the SDE with this eta."""
        return self if eta == self.eta else replace(self, eta=eta)

    def check(self, den: Any, x: Any) -> None:  # noqa: B027 - most gauges take any
        """Raise ValueError for a denoiser and a state that the gauge does not belong to, before a run."""

    @abstractmethod
    def columns(self, sch: Schedule, t: Array) -> Array:
        """N as a combination of (x0, eps) at the times t, (n,): an array (n, 2), or (n, 3) with its constant part;
        infinite where it `breaks`."""

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

    def offset(self, s: Nodes, t: Nodes) -> Array:
        """What a step adds to the state by itself, of gauges that have a ``constant`` part."""
        return np.zeros_like(t.t)

    def leap(self, sch: Schedule, s: Nodes, t: Nodes) -> Array:
        """The first-order step where the gauge `breaks`, without its noise, as a combination like that of `columns`:
        the DDIM step, alpha_t x0 + sigma_t eps."""
        return np.stack([t.alpha, t.sigma], axis=1)

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
        """Where no interpolation over the step is possible and the planners `leap`, exact in the
        limit: it ends at sigma = 0, where no head is evaluated, or the path is infinitely long, or N is infinite (where
        sigma grows from 0 with infinite slope, as of VPLinear, dx/dt is 0 * inf at the start)."""
        return self.endless(sch, s, t) | ~_finite(self.columns(sch, s.t))

    def endless(self, sch: Schedule, s: Nodes, t: Nodes) -> Mask:
        """Where the path is infinitely long, or the step ends at sigma = 0."""
        with np.errstate(invalid="ignore"):
            return np.isposinf(t.lam) | ~np.isfinite(self.path(s) - self.path(t))

    def integrate(self, var: Variable, sch: Schedule, s: Nodes, t: Nodes, functions: Callable[[Array], Array]) -> Array:
        """``mu_t int_s^t f_j dE`` for every step: s, t of shape (n,), result (n, J, *event).

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
        values = functions(self.distance(var, sch, s, span * x))
        if not self.event:
            return np.einsum("nq,njq->nj", self.rate(span * (1 - x), t) * span * w, values)
        values = values * (span * w)[:, None]
        sums = np.empty((*values.shape[:2], prod(self.event)))
        for some in chunks(len(span), shape[1] * sums.shape[2]):
            kernels = self.rate(span[some] * (1 - x[some]), t[some])
            sums[some] = values[some] @ kernels.reshape(-1, shape[1], sums.shape[2])
        return sums.reshape(*values.shape[:2], *self.event)


@dataclass(frozen=True)
class OdeGauge(Gauge):
    """A gauge of the ODE alone. Raises ValueError for an eta."""

    def __post_init__(self) -> None:
        if self.eta:
            told = f"{type(self).__name__} is a gauge of the ODE: eta must be 0, not {self.eta!r:.60}"
            raise ValueError(f"{told}; take 'x0' or 'eps' with noise")

    def std(self, sch: Schedule, s: Nodes, t: Nodes) -> Array:
        return np.zeros((len(t.t), *self.event))

    def _wide(self, values: Array) -> Array:
        """To go with coefficients by element."""
        return np.reshape(values, (*np.shape(values), *[1] * len(self.event)))


def chunks(steps: int, numbers: int) -> list[slice]:
    """Steps that are planned at once, if each needs so many ``numbers``: those of all elements at all points of all
    steps would be too many."""
    size = max(1, AT_ONCE // max(numbers, 1))
    return [slice(n, n + size) for n in range(0, steps, size)]


def usable_history(u: Array, depth: int) -> Array:
    """How many past values each step may interpolate: u is infinite only at the ends of a schedule."""
    finite = np.isfinite(u)
    count = np.zeros(len(u) - 1, dtype=int)
    for n in range(1, len(u) - 1):
        count[n] = min(count[n - 1] + 1, depth) if finite[n - 1] and finite[n] else 0
    return count


def table(rows: list[list[Any]], event: tuple[int, ...]) -> Array:
    """A call's matrix from rows of numbers and, where a gauge has an ``event``, arrays of that shape."""
    return np.array([[np.broadcast_to(entry, event) for entry in row] for row in rows] if event else rows)


def _finite(columns: Array) -> Mask:
    return np.asarray(np.isfinite(columns).reshape(len(columns), -1).all(axis=1), dtype=np.bool_)
