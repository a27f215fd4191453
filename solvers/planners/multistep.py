"""Exponential Adams methods: one planner for DDIM, DEIS, LMS, DPM-Solver-1 and DPM-Solver++ nM.

In the gauge ``d(x / mu) = N dE`` an order-p step replaces N by the polynomial through its last p values in
an interpolation variable u, and integrates that polynomial exactly (Hochbruck and Ostermann 2010, 2.7; book
9.3 and 9.5.4):

    x_t = (mu_t / mu_s) x_s + sum_j w_j N_j,      w_j = mu_t int_s^t l_j(u) dE.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ..arrays import Array
from ..programs.call import ONE, STATE, Call, NoiseKey
from ..programs.program import Program
from ..schedules.base import Schedule
from .checks import choice, count, flag
from .gauge import table, usable_history
from .gauges import X0, Gauge, Nodes, Variable, as_gauge
from .quadrature import lagrange, powers
from .shipped import PSEUDO, SHIPPED, equal_weights, pseudo_weights, shipped_weights
from .singlestep import ddim_calls, ddim_notes, stage_calls, weak
from .stochasticity import NONE, Stochasticity, WithEta, stochasticity
from .tableaux import STARTERS, Tableau

Startup = Literal["ramp", "single-step"]
Closing = Literal["whole", "ramp", "ramp-both"]
Steps = np.ndarray[Any, np.dtype[np.intp]]


def check_startup(startup: Any) -> None:
    """Raise ValueError unless ``startup`` is "ramp" or "single-step"."""
    choice("startup", startup, get_args(Startup))


@dataclass(frozen=True)
class Adams(WithEta):
    """An exponential Adams method.

    gauge:     what is integrated exactly, a `Gauge` or its name. order: how many values are interpolated, 1 to 8.
    variable:  the polynomial's: "lam", "t", "rho" (sigma / alpha), or "clock" (of the gauges "v" and "straight"). A
               velocity along t goes with "t".
    eta:       of the SDE: the same polynomial under another kernel, and the exact noise.
    corrector: repeat every step with the value at its end as one more node (Adams-Moulton; SA-Solver, Xue et al. 2023,
               Algorithm 1). That value is the model's at the predicted state, which serves the next step too, so it
               costs no evaluation: a call turns the prediction of its node into the corrected state by what the two
               polynomials differ in, and that into the next prediction. The state at a node is the prediction.
    pece:      with a corrector, evaluate the model once more at every corrected state, and keep that value.
    startup:   "ramp" uses as many past values as there are: no extra evaluations, but the first steps are of
               lower order, which caps the global order at 2 (3 with a corrector). "single-step" takes the first
               order - 1 steps by exponential Runge-Kutta methods of order - 1 (``order`` with a corrector, but at
               most 4), whose local error is of the global order; or by those of the tableau ``starter``.
    moments:   "exact", or the formula that other libraries ship: "simplified" (2M), "halved" and "both-halved" (3M,
               order 2), "bh1" and "bh2" (UniPC), "equal" (the weights of equal steps on any grid, iPNDM: order 2 where
               steps change smoothly, 1 where they do not). "pseudo" and "pseudo-corrector": the pseudo-order of
               DPM-Solver-v3, in both formulas or in the corrector, which has order 2 then if of more than two values.
               "sum-in-time", "sum-in-rho", "variable-steps": ComfyUI's deis, er_sde and ipndm_v.
    closing:   "whole", or "ramp": the last steps take no more values than there are steps left, which caps the global
               order at 2 (``lower_order_final``); in "ramp-both" the corrector neither. DDIM's step to 0 is none.

    Raises ValueError, naming the field, for values that it cannot take.
    """

    gauge: Gauge | str = X0
    order: int = 1
    variable: Variable = "lam"
    eta: Stochasticity | float = NONE
    corrector: bool = False
    startup: Startup = "ramp"
    moments: str = "exact"
    pece: bool = False
    starter: Tableau | None = None
    closing: Closing = "whole"

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "gauge", as_gauge(self.gauge))
        put(self, "eta", stochasticity(self.eta))
        count("order", self.order, most=8)
        choice("variable", self.variable, get_args(Variable))
        flag("corrector", self.corrector)
        check_startup(self.startup)
        choice("closing", self.closing, get_args(Closing))
        choice("moments", self.moments, ("exact", *SHIPPED, *PSEUDO))
        shipped = SHIPPED.get(self.moments)
        if shipped and shipped.values not in (None, self.order * (not self.corrector)):
            raise ValueError(
                f"moments = {self.moments!r} is a formula of order {SHIPPED[self.moments].values} without corrector"
            )
        if shipped and shipped.weights and (self.corrector or self.order > shipped.up_to):
            raise ValueError(f"moments = {self.moments!r} is for at most {shipped.up_to} values and no corrector")
        flag("pece", self.pece)
        if self.pece and not self.corrector:
            raise ValueError("pece = True evaluates at corrected states: it needs corrector = True")
        if stochasticity(self.eta) != NONE:
            as_gauge(self.gauge).with_eta(stochasticity(self.eta))
        own = as_gauge(self.gauge).own
        if self.depth and own == "t" and self.variable != "t":
            raise ValueError(f"variable = {self.variable!r} does not go with a gauge along t; take 't'")
        if self.variable == "clock" and own != "clock":
            raise ValueError("variable = 'clock' is for the gauges 'v' and 'straight'; take 'lam', 'rho' or 't'")

    @property
    def depth(self) -> int:
        """How many past values a step keeps."""
        return self.order - 1 + self.corrector

    @property
    def global_order(self) -> int:
        """The order of convergence; with noise, that of the law."""
        most = SHIPPED[self.moments].most if self.moments in SHIPPED else 64
        if self.moments == "pseudo" or (self.moments in PSEUDO and self.corrector):
            most = 2
        most = min(most, 2 if self.closing != "whole" else most)
        return weak(min(self.depth + 1, most), self.eta)

    @property
    def evaluations(self) -> int:
        return 1 + self.pece

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        """The table on ``grid``, float64 times, strictly monotone."""
        return _Table(self, schedule, grid).program()


class _Table:
    """The arrays behind one program: everything is computed for all steps at once, then written out call by call."""

    def __init__(self, adams: Adams, sch: Schedule, grid: Array) -> None:
        self.adams, self.sch, self.depth = adams, sch, adams.depth
        self.gauge = gauge = as_gauge(adams.gauge).with_eta(stochasticity(adams.eta))
        self.at = at = Nodes.at(sch, grid)
        self.u = gauge.variable(adams.variable, at)
        s, t = at[:-1], at[1:]
        self.ddim = gauge.breaks(sch, s, t)
        past = np.minimum(usable_history(self.u, self.depth), adams.order - 1)
        self.staged = ~self.ddim & (past < adams.order - 1) & (adams.startup == "single-step")
        whole = ~self.ddim & ~self.staged
        left = np.cumsum(~self.ddim[::-1])[::-1] if adams.closing != "whole" else past + 2  # steps, with this one
        after = np.minimum(past, left - 1) + 1 if adams.closing != "ramp-both" else np.minimum(past + 1, left - 1)
        past = np.minimum(past, left - 1)
        self.predicted = _joined(self._weights(np.flatnonzero(whole & (past == k)), k) for k in range(adams.order))
        steps = [np.flatnonzero(whole & (after == k)) for k in range((adams.order + 1) * adams.corrector)]
        self.corrected = _joined(self._weights(some, k, ahead=1) for k, some in enumerate(steps))
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
        eta, basis = self.gauge.eta or None, self.gauge.basis
        return Program("adams", order, times, tuple(calls), notes, eta, basis=basis)

    def _step(self, n: int) -> list[Call]:
        """The calls that carry the state from node n to node n + 1."""
        adams, keep = self.adams, (self._slot(n),) if self.depth else ()
        s, t = self.at[n : n + 1], self.at[n + 1 : n + 2]
        if self.ddim[n]:
            return ddim_calls(self.gauge, self.sch, s, t, [n + 1], keep)
        if self.staged[n]:
            starter = adams.starter or STARTERS[min(self.depth, 4)]
            return stage_calls(starter, self.gauge, self.sch, s, t, [n + 1], 1 + self.depth, keep)[0]
        if adams.pece and np.isfinite(self.at.lam[n + 1]):  # nothing is asked at sigma = 0
            return self._evaluate_twice(n)
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

    def _evaluate_twice(self, n: int) -> list[Call]:
        """PECE: predict beside the state, and correct with the value there. The next step evaluates again."""
        start, end = map(float, self.at.t[n : n + 2])
        noises = (NoiseKey(start, end),) if self.gauge.eta else ()
        noise = [self.std[n]] * len(noises)
        p, c = self.predicted[n], self.corrected[n]
        predicted, slots = 1 + self.depth, [self._slot(n - j) for j in range(len(p))]
        c = _padded(c, len(p) + 1)
        update = [*(p[0] * self.columns[n]), self.ratio[n], *p[1:], *noise]
        store = [*self.columns[n]] + [0.0] * (len(update) - 2)
        corrected = [*(c[0] * self.columns[n + 1]), self.ratio[n], *c[1:], *noise]
        writes = (predicted, slots[0])
        return [
            Call(start, (STATE, *slots[1:]), writes, np.array([update, store]), noises=noises),
            Call(end, (STATE, *slots), (STATE,), np.array([corrected]), at=predicted, noises=noises, node=n + 1),
        ]

    def _step_weights(self, n: int) -> Array:
        """Of the values of N, newest first; with what corrects the state at node n, the corrector's weights less the
        predictor's."""
        w = self.predicted[n]
        if self.adams.pece or n - 1 not in self.corrected:
            return w
        before = self.predicted[n - 1]
        change = _padded(self.corrected[n - 1], len(before) + 1) - np.concatenate([np.zeros_like(before[:1]), before])
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
        shipped = SHIPPED.get(self.adams.moments)
        if past and shipped and shipped.weights:
            return dict(zip(steps.tolist(), shipped.weights(self.gauge, self.at, steps, past), strict=True))
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
        gauge, adams, past = self.gauge, self.adams, nodes.shape[1] - 1
        if ahead in PSEUDO.get(adams.moments, ()):
            moments = gauge.integrate(adams.variable, self.sch, s, t, powers(length, past))
            return pseudo_weights(nodes / length[:, None], moments, ahead)[:, 1:]
        if adams.moments not in SHIPPED:
            return gauge.integrate(adams.variable, self.sch, s, t, lambda x: lagrange(nodes, x)[:, 1:])
        change = SHIPPED[adams.moments].change
        if change is None:
            return np.outer(gauge.total(s, t), equal_weights(past, ahead)[1:])
        moments = gauge.integrate(adams.variable, self.sch, s, t, powers(length, past))
        kernel = gauge.rate(np.zeros((len(length), 1)), t)[:, 0] * (gauge.path(t) - gauge.path(s))
        return shipped_weights(change(moments, kernel), nodes / length[:, None])


def _padded(weights: Array, size: int) -> Array:
    return np.concatenate([weights, np.zeros((size - len(weights), *weights.shape[1:]))])


def _joined(parts: Any) -> dict[int, Array]:
    return {n: weights for part in parts for n, weights in part.items()}
