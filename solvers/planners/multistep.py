"""Exponential Adams methods: one planner for DDIM, DEIS, LMS, DPM-Solver-1 and DPM-Solver++ nM.

In the gauge ``d(x / mu) = N dE`` an order-p step replaces N by the polynomial through its last p values in
an interpolation variable u, and integrates that polynomial exactly (Hochbruck and Ostermann 2010, 2.7; book
9.3 and 9.5.4):

    x_t = (mu_t / mu_s) x_s + sum_j w_j N_j,      w_j = mu_t int_s^t l_j(u) dE.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ..arrays import Array
from ..call import ONE, STATE, Call, NoiseKey
from ..program import Program
from ..schedules.base import Schedule
from .checks import choice, count, flag
from .gauge import table
from .gauges import X0, Gauge, Nodes, Variable, as_gauge
from .quadrature import lagrange, powers
from .singlestep import ddim_calls, ddim_notes, stage_calls, weak
from .stochasticity import NONE, Stochasticity, stochasticity
from .tableaux import STARTERS

Startup = Literal["ramp", "single-step"]
Steps = np.ndarray[Any, np.dtype[np.intp]]


def check_startup(startup: Any) -> None:
    """Raise ValueError unless ``startup`` is "ramp" or "single-step"."""
    choice("startup", startup, get_args(Startup))


def _simplified(moments: Array) -> Array:
    """DPM-Solver++(2M) as published (Lu et al. 2022b, Algorithm 2; book Algorithm 7): the first moment of the
    exponential kernel is replaced by half its zeroth. Second order all the same."""
    return moments * [1, 0] + np.outer(moments[:, 0], [0, 0.5])


def _halved(moments: Array) -> Array:
    """ "3M" as all libraries ship it: the second difference, which is half a second derivative, meets the
    weight of a second derivative. Second order."""
    return moments * np.array([1, 1, 0.5])[: moments.shape[1]]


# What the field ships under the name of a solver, as a change of its moments M_k = mu int theta^k dE: for how many
# values, and the order that is left.
SHIPPED: dict[str, tuple[int, int, Callable[[Array], Array]]] = {
    "simplified": (2, 2, _simplified),
    "halved": (3, 2, _halved),
}

# DPM-Solver-v3's few-step option: each derivative from as few values as it needs, which leaves order 2.
PSEUDO = {"pseudo": (0, 1), "pseudo-corrector": (1,)}  # of the predictor, 0, and of the corrector, 1


@dataclass(frozen=True)
class Adams:
    """An exponential Adams method.

    gauge:     what is integrated exactly, a `Gauge` or its name. order: how many values are interpolated, 1 to 8.
    variable:  the polynomial's: "lam", "t" or "rho" (sigma / alpha). A velocity along t goes with "t".
    eta:       of the SDE: the same polynomial under another kernel, and the exact noise.
    corrector: repeat every step with the value at its end as one more node (Adams-Moulton; SA-Solver, Xue et al. 2023,
               Algorithm 1). That value is the model's at the predicted state, which serves the next step too, so it
               costs no evaluation: a call turns the prediction of its node into the corrected state by what the two
               polynomials differ in, and that into the next prediction. The state at a node is the prediction.
    startup:   "ramp" uses as many past values as there are: no extra evaluations, but the first steps are of
               lower order, which caps the global order at 2 (3 with a corrector). "single-step" takes the first
               order - 1 steps by exponential Runge-Kutta methods of order - 1 (``order`` with a corrector, but at
               most 3), whose local error is of the global order.
    moments:   "exact", or the formula that other libraries ship: "simplified" (2M) or "halved" (3M, order 2). "pseudo"
               and "pseudo-corrector": the pseudo-order of DPM-Solver-v3, in both formulas or in the corrector, which
               then has order 2 where it is of more than two values.

    Raises ValueError, naming the field, for values that it cannot take.
    """

    gauge: Gauge | str = X0
    order: int = 1
    variable: Variable = "lam"
    eta: Stochasticity | float = NONE
    corrector: bool = False
    startup: Startup = "ramp"
    moments: str = "exact"
    evaluations = 1

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "gauge", as_gauge(self.gauge))
        put(self, "eta", stochasticity(self.eta))
        count("order", self.order, most=8)
        choice("variable", self.variable, get_args(Variable))
        flag("corrector", self.corrector)
        check_startup(self.startup)
        choice("moments", self.moments, ("exact", *SHIPPED, *PSEUDO))
        if self.moments in SHIPPED and (self.order != SHIPPED[self.moments][0] or self.corrector):
            raise ValueError(
                f"moments = {self.moments!r} is a formula of order {SHIPPED[self.moments][0]} without corrector"
            )
        if self.depth and as_gauge(self.gauge).own == "t" and self.variable != "t":
            raise ValueError(f"variable = {self.variable!r} does not go with a gauge along t; take 't'")

    @property
    def depth(self) -> int:
        """How many past values a step keeps."""
        return self.order - 1 + self.corrector

    @property
    def global_order(self) -> int:
        """The order of convergence; with noise, that of the law."""
        order = SHIPPED[self.moments][1] if self.moments in SHIPPED else self.depth + 1
        pseudo = self.moments == "pseudo" or (self.moments in PSEUDO and self.corrector)
        return weak(min(order, 2) if pseudo else order, self.eta)

    @property
    def stochastic(self) -> bool:
        return bool(self.eta)

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        """The table on ``grid``, float64 times, strictly monotone."""
        return _Table(self, schedule, grid).program()


class _Table:
    """The arrays behind one program: everything is computed for all steps at once, then written out call by call."""

    def __init__(self, adams: Adams, sch: Schedule, grid: Array) -> None:
        self.adams, self.sch, self.depth = adams, sch, adams.depth
        self.gauge = gauge = as_gauge(adams.gauge).with_eta(stochasticity(adams.eta))
        self.at = at = Nodes.at(sch, grid)
        self.u = at.variable(adams.variable)
        s, t = at[:-1], at[1:]
        self.ddim = gauge.breaks(sch, s, t)
        past = np.minimum(_usable_history(self.u, self.depth), adams.order - 1)
        self.staged = ~self.ddim & (past < adams.order - 1) & (adams.startup == "single-step")
        whole = ~self.ddim & ~self.staged
        groups = [np.flatnonzero(whole & (past == k)) for k in range(adams.order)]
        self.predicted = _joined(self._weights(steps, k) for k, steps in enumerate(groups))
        corrected = (self._weights(steps, k + 1, ahead=1) for k, steps in enumerate(groups) if adams.corrector)
        self.corrected = _joined(corrected)
        self.columns = gauge.columns(sch, at.t)
        self.ratio, self.offset = gauge.ratio(s, t), gauge.offset(s, t)
        self.std = gauge.std(sch, s, t) if gauge.eta else np.zeros(len(s.t))

    def program(self) -> Program:
        adams, notes = self.adams, ddim_notes(self.ddim, self.at)
        calls = [call for n in range(len(self.ddim)) for call in self._step(n)]
        most, order = 2 + adams.corrector, adams.global_order
        if adams.startup == "ramp" and order > most and not self.gauge.eta:
            notes += (f"the ramp start limits the global order to {most}; startup='single-step' keeps {order}",)
        times = tuple(map(float, self.at.t))
        return Program("adams", order, times, tuple(calls), notes, self.gauge.eta or None)

    def _step(self, n: int) -> list[Call]:
        """The calls that carry the state from node n to node n + 1."""
        keep = (self._slot(n),) if self.depth else ()
        s, t = self.at[n : n + 1], self.at[n + 1 : n + 2]
        if self.ddim[n]:
            return ddim_calls(self.gauge, self.sch, s, t, [n + 1], keep)
        if self.staged[n]:
            starter = STARTERS[min(self.depth, 3)]
            return stage_calls(starter, self.gauge, self.sch, s, t, [n + 1], 1 + self.depth, keep)[0]
        w, pair = self._step_weights(n), self.columns[n]
        one = (ONE,) if self.gauge.constant else ()
        reads = (*one, STATE, *(self._slot(n - 1 - j) for j in range(len(w) - 1)))
        noises = (NoiseKey(float(s.t[0]), float(t.t[0])),) if self.gauge.eta else ()
        update = [*(w[0] * pair), self.ratio[n], *w[1:], *[self.std[n]] * len(noises)]
        if self.gauge.constant:
            update[2] = update[2] + self.offset[n]
        store = [*pair] + [0.0] * (len(update) - len(pair))
        rows = table([update, store][: 1 + len(keep)], self.gauge.event)
        return [Call(float(s.t[0]), reads, (STATE, *keep), rows, noises=noises, node=n + 1)]

    def _step_weights(self, n: int) -> Array:
        """Of the values of N, newest first; with what corrects the state at node n, the corrector's weights less the
        predictor's."""
        w = self.predicted[n]
        if n - 1 not in self.corrected:
            return w
        before = self.predicted[n - 1]
        change = self.corrected[n - 1] - np.concatenate([np.zeros_like(before[:1]), before])
        size = max(len(w), len(change))
        return _padded(w, size) + self.ratio[n] * _padded(change, size)

    def _slot(self, n: int) -> int:
        """History is a ring: the value of node n takes the place of the one that is used for the last time."""
        return 1 + n % self.depth

    def _weights(self, steps: Steps, past: int, *, ahead: int = 0) -> dict[int, Array]:
        """The past + 1 weights, newest first, of every step in ``steps``; the newest value of step n is that of node
        n + ahead."""
        if not len(steps):
            return {}
        u, s, t = self.u, self.at[steps], self.at[steps + 1]
        total = self.gauge.total(s, t)[:, None]
        if past:
            nodes = u[steps[:, None] + ahead - np.arange(past + 1)] - u[steps, None]
            older = self._older(nodes, s, t, u[steps + 1] - u[steps], ahead)
            # a constant N is integrated exactly: the newest weight is what the older ones leave of the total
            total = np.concatenate([total - older.sum(axis=1, keepdims=True), older], axis=1)
        return dict(zip(steps.tolist(), total, strict=True))

    def _older(self, nodes: Array, s: Nodes, t: Nodes, length: Array, ahead: int) -> Array:
        """The weights of all but the newest value: nodes (n, J) from the start of the step on, result (n, J - 1),
        and the gauge's event."""
        integrate, adams = self.gauge.integrate, self.adams
        if ahead in PSEUDO.get(adams.moments, ()):
            moments = integrate(adams.variable, self.sch, s, t, powers(length, nodes.shape[1] - 1))
            return _pseudo(nodes / length[:, None], moments, ahead)[:, 1:]
        if adams.moments not in SHIPPED:
            return integrate(adams.variable, self.sch, s, t, lambda x: lagrange(nodes, x)[:, 1:])
        past = nodes.shape[1] - 1
        moments = SHIPPED[adams.moments][2](integrate(adams.variable, self.sch, s, t, powers(length, past)))
        theta = nodes / length[:, None]
        monomials = theta[:, None, :] ** np.arange(past + 1)[:, None]  # solve for l_j(theta) = sum_k c_jk theta^k
        older: Array = np.array(np.linalg.solve(monomials, moments[:, :, None])[:, 1:, 0])
        return older


def _pseudo(theta: Array, moments: Array, ahead: int) -> Array:
    """The weights of ``sum_k D_k theta^k`` with D_k the divided difference of the first k + 1 values: from the start of
    the step on, the corrector's second value being that at its end."""
    weights, order = np.zeros_like(moments), np.arange(theta.shape[1])
    order[: 1 + ahead] = order[: 1 + ahead][::-1]
    for k in range(theta.shape[1]):
        for j in order[: k + 1]:
            others = np.array([i for i in order[: k + 1] if i != j], dtype=int)
            share = 1 / np.prod(theta[:, [j]] - theta[:, others], axis=1)
            weights[:, j] += moments[:, k] * share.reshape(-1, *[1] * (moments.ndim - 2))
    return weights


def _usable_history(u: Array, depth: int) -> Array:
    """How many past values each step may interpolate: u is infinite only at the ends of a schedule."""
    finite = np.isfinite(u)
    count = np.zeros(len(u) - 1, dtype=int)
    for n in range(1, len(u) - 1):
        count[n] = min(count[n - 1] + 1, depth) if finite[n - 1] and finite[n] else 0
    return count


def _padded(weights: Array, size: int) -> Array:
    return np.concatenate([weights, np.zeros((size - len(weights), *weights.shape[1:]))])


def _joined(parts: Any) -> dict[int, Array]:
    return {n: weights for part in parts for n, weights in part.items()}
