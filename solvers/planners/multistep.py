"""Exponential Adams methods: one planner for DDIM, DEIS, LMS, DPM-Solver-1 and DPM-Solver++ nM.

In the gauge ``d(x / mu) = N dE`` an order-p step replaces N by the polynomial through its last p values in
an interpolation variable u, and integrates that polynomial exactly (Hochbruck and Ostermann 2010, 2.7; book
9.3 and 9.5.4):

    x_t = (mu_t / mu_s) x_s + sum_j w_j N_j,      w_j = mu_t int_s^t l_j(u) dE.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np

from ..program import STATE, Call, NoiseKey, Program
from ..schedules.base import Schedule
from .gauges import Array, Gauge, Nodes
from .quadrature import Variable, integrate, lagrange, powers, variable
from .singlestep import ddim_calls, ddim_notes, stage_calls, weak
from .stochasticity import NONE, Stochasticity
from .tableaux import STARTERS

Startup = Literal["ramp", "single-step"]
Compat = Callable[[Array], Array]


def check_startup(startup: Any) -> None:
    if startup not in get_args(Startup):
        raise ValueError(f"startup must be 'ramp' or 'single-step', not {startup!r}")


def multistep(
    sch: Schedule,
    grid: Array,
    startup: Startup,
    *,
    name: str,
    order: int,
    gauge: Gauge,
    var: Variable,
    eta: Stochasticity = NONE,
    corrector: bool = False,
    compat: Compat | None = None,
) -> Program:
    """Plan an exponential Adams method on ``grid`` (float64 times, strictly monotone).

    ``order`` is the number of values interpolated; ``compat`` alters the moments of the step, see `COMPAT`.
    ``eta`` makes it a method for the SDE: the same polynomial under another kernel, and the exact noise.

    ``corrector`` repeats every step with the value at its end as one more node (Adams-Moulton; SA-Solver, Xue et al.
    2023, Algorithm 1). That value is the model's at the predicted state, which serves the next step too, so it costs no
    evaluation: a call turns the prediction of its node into the corrected state by what the two polynomials differ
    in, and that into the next prediction. The state at a node, and at the end, is the prediction.

    startup "ramp" uses as many past values as there are: no extra evaluations, but the first steps are of
    lower order, which caps the global order at 2 (3 with a corrector). "single-step" takes the first order - 1 steps
    by exponential Runge-Kutta methods of order - 1 (``order`` with a corrector, but at most 3), whose local error is
    of the global order.
    """
    gauge = replace(gauge, eta=eta)
    at = Nodes.at(sch, grid)
    u = variable(var, at)
    s, t = at[:-1], at[1:]
    depth = order - 1 + corrector
    ddim = gauge.breaks(sch, s, t)
    past = np.minimum(_usable_history(u, depth), order - 1)
    staged = ~ddim & (past < order - 1) & (startup == "single-step")
    adams = ~ddim & ~staged
    plans = [(gauge, var, sch, at, u, np.flatnonzero(adams & (past == k))) for k in range(order)]
    weights = _by_step(_weights(*plan, k, compat) for k, plan in enumerate(plans))
    corrected = _by_step(_weights(*plan, k + 1, compat, ahead=1) for k, plan in enumerate(plans) if corrector)
    columns = gauge.columns(sch, at.t)
    ratio = gauge.ratio(s, t)
    std = gauge.std(sch, s, t) if eta else np.zeros(len(s.t))
    calls: list[Call] = []
    for n in range(len(grid) - 1):
        keep = (_slot(n, depth),) if depth else ()
        one = slice(n, n + 1), slice(n + 1, n + 2)
        if ddim[n]:
            calls += ddim_calls(gauge, sch, at[one[0]], at[one[1]], [n + 1], keep)
        elif staged[n]:
            starter = STARTERS[min(depth, 3)]
            calls += stage_calls(starter, gauge, sch, at[one[0]], at[one[1]], [n + 1], 1 + depth, keep)[0]
        else:
            w = weights[n]
            if n - 1 in corrected:  # of the state: what the corrector's weights are more than the predictor's
                change = corrected[n - 1] - np.concatenate([[0.0], weights[n - 1]])
                size = max(len(w), len(change))
                w = np.pad(w, (0, size - len(w))) + ratio[n] * np.pad(change, (0, size - len(change)))
            reads = (STATE, *(_slot(n - 1 - j, depth) for j in range(len(w) - 1)))
            noises = (NoiseKey(float(at.t[n]), float(at.t[n + 1])),) if eta else ()
            update = [*(w[0] * columns[n]), ratio[n], *w[1:], *[std[n]] * len(noises)]
            store = [*columns[n]] + [0.0] * (len(update) - 2)
            rows = np.array([update, store][: 1 + len(keep)])
            calls.append(Call(float(at.t[n]), reads, (STATE, *keep), rows, noises=noises, node=n + 1))
    notes = ddim_notes(ddim, at)
    most = 2 + corrector
    if startup == "ramp" and depth + 1 > most and not eta:
        notes += (f"the ramp start limits the global order to {most}; startup='single-step' keeps {depth + 1}",)
    return Program(name, weak(depth + 1, eta), tuple(map(float, at.t)), tuple(calls), notes)


def _slot(n: int, depth: int) -> int:
    """History is a ring: the value of node n takes the place of the one that is used for the last time."""
    return 1 + n % depth


def _usable_history(u: Array, depth: int) -> Array:
    """How many past values each step may interpolate: u is infinite only at the ends of a schedule."""
    finite = np.isfinite(u)
    count = np.zeros(len(u) - 1, dtype=int)
    for n in range(1, len(u) - 1):
        count[n] = min(count[n - 1] + 1, depth) if finite[n - 1] and finite[n] else 0
    return count


def _weights(
    gauge: Gauge,
    var: Variable,
    sch: Schedule,
    at: Nodes,
    u: Array,
    which: np.ndarray[Any, np.dtype[np.intp]],
    past: int,
    compat: Compat | None,
    *,
    ahead: int = 0,
) -> dict[int, Array]:
    """The past + 1 weights, newest first, of every step n in ``which``; the newest value is that of node n + ahead."""
    if not len(which):
        return {}
    s, t = at[which], at[which + 1]
    total = gauge.total(s, t)[:, None]
    if past:
        nodes = u[which[:, None] + ahead - np.arange(past + 1)] - u[which, None]
        if compat:
            length = u[which + 1] - u[which]
            moments = compat(integrate(gauge, var, sch, s, t, powers(length, past)))
            theta = nodes / length[:, None]
            monomials = theta[:, None, :] ** np.arange(past + 1)[:, None]  # solve for l_j(theta) = sum_k c_jk theta^k
            older = np.linalg.solve(monomials, moments[:, :, None])[:, 1:, 0]
        else:
            older = integrate(gauge, var, sch, s, t, lambda x: lagrange(nodes, x)[:, 1:])
        # a constant N is integrated exactly: the newest weight is what the older ones leave of the total
        total = np.concatenate([total - older.sum(axis=1, keepdims=True), older], axis=1)
    return dict(zip(which.tolist(), total, strict=True))


def _by_step(parts: Iterable[dict[int, Array]]) -> dict[int, Array]:
    return {n: weights for part in parts for n, weights in part.items()}


def _simplified(moments: Array) -> Array:
    """DPM-Solver++(2M) as published (Lu et al. 2022b, Algorithm 2; book Algorithm 7): the first moment of the
    exponential kernel is replaced by half its zeroth. Second order all the same."""
    return moments * [1, 0] + np.outer(moments[:, 0], [0, 0.5])


def _halved(moments: Array) -> Array:
    """ "3M" as all libraries ship it: the second difference, which is half a second derivative, meets the
    weight of a second derivative. Second order."""
    return moments * np.array([1, 1, 0.5])[: moments.shape[1]]


# What the field ships under the name of a solver, as a change of its moments M_k = mu int theta^k dE.
COMPAT: dict[str, tuple[int, Compat]] = {"dpmpp-2m": (2, _simplified), "dpmpp-3m": (2, _halved)}
