"""Embedded exponential pairs: the weights of steps that differ from sample to sample.

A pair makes two results of one step, a better one and one of an order less; their difference is the error that adaptive
steps are chosen by (`logsnr.solvers.adaptive.solve`). Both, and what leads to them, are

    y = (mu_t / mu_s) x_s + sum_j w_j N_j

with the gauge's N in slots j, interpolated in lam or, by a pair with a ``schedule``, in its time. All weights are
float64 arrays (n, slots), one row per sample, made by elementwise operations: a sample's bits do not depend on its
batch. Integrals are those of `quadrature`, by one panel: its sixteen points integrate the exponential kernels over a
step of `LONGEST` to the last bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ...kernels.sums import by_halves
from ..arrays import Array, Indices
from ..schedules.base import Schedule
from .checks import choice, count
from .gauges import GAUGES, Nodes
from .quadrature import lagrange, powers, rule
from .tableaux import DPM_23, Tableau

LONGEST = 4.0  # steps in lam
Past = np.ndarray[Any, np.dtype[np.float64]]  # (n, depth): the nodes of the values kept, NaN where there is none


class Row(NamedTuple):
    """``y = ratio x_s + sum_j weights_j N_j``: (n,) and (n, slots)."""

    ratio: Array
    weights: Array


@dataclass(frozen=True)
class Pair(ABC):
    """The interface of pairs.

    gauge: "x0" or "eps", the head that is interpolated. global_order: of the better result. evaluations: calls per
    accepted step. A step makes ``stages`` calls, the first at its start, and its call i writes slot ``slot(i)`` of
    ``slots``. Where ``carries``, the last value of an accepted step, in the last slot, serves as the first of the next
    one, and older ones move on: slot j holds the value of j steps before. schedule: in whose time, not in lam, values
    are interpolated and fractions of a step counted.
    """

    gauge: str = "eps"
    schedule: Schedule | None = field(default=None, kw_only=True)
    global_order: int = field(init=False, repr=False)
    evaluations: int = field(init=False, repr=False)
    stages: int = field(init=False, repr=False)
    slots: int = field(init=False, repr=False)
    carries = False

    def __post_init__(self) -> None:
        choice("gauge", self.gauge, ("x0", "eps"))

    def _counted(self, *numbers: int) -> None:
        for name, number in zip(("global_order", "evaluations", "stages", "slots"), numbers, strict=True):
            object.__setattr__(self, name, number)

    @abstractmethod
    def slot(self, stage: int) -> int:
        """Where the value of a call goes."""

    @abstractmethod
    def exponent(self, past: Past) -> Array:
        """(n,): k of the error h^k that a step is chosen by."""

    @abstractmethod
    def node(self, stage: int) -> float:
        """Where call ``stage`` of a step stands, as a fraction of the step."""

    def variable(self, at: Nodes) -> Array:
        """The nodes in what is interpolated in."""
        return at.lam if self.schedule is None else at.t

    def between(self, sch: Schedule, s: Nodes, t: Nodes, share: Any) -> Nodes:
        """The nodes at such fractions of the way from s to t."""
        at = self.variable(s) + share * (self.variable(t) - self.variable(s))
        return Nodes.at(sch, sch.time(at) if self.schedule is None else at)

    @abstractmethod
    def stage(self, stage: int, s: Nodes, at: Nodes, past: Past) -> Row:
        """The state on which call ``stage`` > 0 of steps from s is made, at the nodes ``at``."""

    @abstractmethod
    def result(self, s: Nodes, t: Nodes, past: Past) -> tuple[Row, Array]:
        """The end of steps from s to t, and the weights (n, slots) of its error."""

    def _ratio(self, s: Nodes, t: Nodes) -> Array:
        return GAUGES[self.gauge].ratio(s, t)

    def _total(self, s: Nodes, t: Nodes) -> Array:
        return GAUGES[self.gauge].total(s, t)

    def _integrals(self, s: Nodes, t: Nodes, functions: Callable[[Array], Array]) -> Array:
        """``mu_t int_s^t f_j dE``, (n, J), of functions of the distance from s, (n, Q) -> (n, J, Q)."""
        x, w = rule(1.0)
        span, gauge = (t.lam - s.lam)[:, None], GAUGES[self.gauge]
        kernel, gone = gauge.rate(span * (1 - x), t) * (span * w), span * x
        if self.schedule is not None:
            gone = gauge.distance("t", self.schedule, s, gone)
        return by_halves(kernel[:, None] * functions(gone))  # in an order that no shape changes


@dataclass(frozen=True)
class RungeKuttaPair(Pair):
    """An exponential Runge-Kutta tableau with an embedded row: DPM-Solver-12 and 23 (Lu et al. 2022a, appendix C)."""

    tableau: Tableau = DPM_23

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.tableau, Tableau) or not self.tableau.embedded:
            raise ValueError(f"tableau must be a Tableau with an embedded row, not {self.tableau!r:.60}")
        self._counted(self.tableau.order, *[self.tableau.stages] * 3)

    def slot(self, stage: int) -> int:
        return stage

    def exponent(self, past: Past) -> Array:
        return np.full(len(past), float(self.global_order))

    def node(self, stage: int) -> float:
        return float((0, *self.tableau.nodes)[stage])

    def stage(self, stage: int, s: Nodes, at: Nodes, past: Past) -> Row:
        moments = self._moments(s, at, self.node(stage))
        return Row(self._ratio(s, at), self._row(moments, self.tableau.rows[stage - 1]))

    def result(self, s: Nodes, t: Nodes, past: Past) -> tuple[Row, Array]:
        moments = self._moments(s, t, 1.0)
        better, worse = (self._row(moments, row) for row in (self.tableau.rows[-1], self.tableau.embedded))
        return Row(self._ratio(s, t), better), better - worse

    def _moments(self, s: Nodes, at: Nodes, share: float) -> list[Array]:
        """M_k, (n,), of the powers of the fraction of the step, up to ``share`` of it."""
        moments = self._integrals(s, at, powers((self.variable(at) - self.variable(s)) / share, self.tableau.degree))
        return [self._total(s, at), *moments.T[1:]]

    def _row(self, moments: list[Array], row: Any) -> Array:
        weights = np.zeros((len(moments[0]), self.slots))
        for j, entry in enumerate(row):
            for moment, a in zip(moments, entry, strict=False):
                weights[:, j] += float(a) * moment
        return weights


@dataclass(frozen=True)
class AdamsPair(Pair):
    """Exponential Adams-Bashforth of order ``order - 1``, corrected by Adams-Moulton of ``order``, in lam.

    The value at the predicted state is the corrector's, and the first of the next step (PEC): a step costs one
    evaluation, accepted or not. The error is what the corrector changes. The first steps interpolate the values that
    there are; their error is estimated as that of all others is.
    """

    order: int = 3
    carries = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if count("order", self.order, most=6) < 2:
            raise ValueError(f"order = {self.order} must be an integer from 2 to 6")
        self._counted(self.order, 1, 2, self.order)

    def slot(self, stage: int) -> int:
        return stage * (self.order - 1)

    def exponent(self, past: Past) -> Array:
        return np.isfinite(past).sum(axis=1) + 1.0

    def node(self, stage: int) -> float:
        return float(stage)

    def stage(self, stage: int, s: Nodes, at: Nodes, past: Past) -> Row:
        return Row(self._ratio(s, at), self._predictor(s, at, past))

    def result(self, s: Nodes, t: Nodes, past: Past) -> tuple[Row, Array]:
        corrected = self._each(past, lambda i, known: self._weights(s[i], t[i], known, ahead=True))
        return Row(self._ratio(s, t), corrected), corrected - self._predictor(s, t, past)

    def _predictor(self, s: Nodes, t: Nodes, past: Past) -> Array:
        return self._each(past, lambda i, known: self._weights(s[i], t[i], known, ahead=False))

    def _each(self, past: Past, weights: Callable[[Indices, Array], Array]) -> Array:
        """The weights of the samples that know one value, two values, and so on."""
        known = np.isfinite(past).sum(axis=1)
        found = np.zeros((len(past), self.slots))
        for k in np.unique(known):
            rows = np.flatnonzero(known == k)
            found[rows] = weights(rows, past[rows, :k])
        return found

    def _weights(self, s: Nodes, t: Nodes, known: Array, ahead: bool) -> Array:
        """Weights (n, slots) of the polynomial through the values at ``known`` (n, k), and at t if ``ahead``."""
        start = self.variable(s)[:, None]
        nodes = known - start
        if ahead:
            nodes = np.concatenate([nodes, self.variable(t)[:, None] - start], axis=1)
        weights = np.zeros((len(nodes), self.slots))
        weights[:, 0] = self._total(s, t)
        if nodes.shape[1] > 1:
            others = self._integrals(s, t, lambda u: lagrange(nodes, u)[:, 1:])
            for j, weight in enumerate(others.T, start=1):
                weights[:, -1 if ahead and j == nodes.shape[1] - 1 else j] = weight
                weights[:, 0] -= weight  # a constant N is integrated exactly
        return weights
