"""Single-step methods: one planner for classical and exponential Runge-Kutta tableaux in any gauge."""

from collections.abc import Sequence

import numpy as np

from .gauges import Array, Gauge, Mask, Nodes
from .program import STATE, Call, Program
from .quadrature import integrate, powers
from .schedule import Schedule
from .tableaux import Tableau


def single_step(
    sch: Schedule, grid: Array, startup: object = None, *, name: str, gauge: Gauge, tableau: Tableau
) -> Program:
    """Plan one step of ``tableau`` per interval of ``grid`` (float64 times, strictly monotone).

    There is nothing to start: ``startup`` is accepted, so that all planners are called alike, and ignored.
    """
    del startup
    at = Nodes.at(sch, grid)
    s, t = at[:-1], at[1:]
    # Where sigma grows from 0 with infinite slope, as of VPLinear, dx/dt is 0 * inf at the start.
    ddim = gauge.breaks(s, t) | ~np.isfinite(gauge.columns(sch, s.t)).all(axis=1)
    whole = np.flatnonzero(~ddim)
    staged = iter(stage_calls(tableau, gauge, sch, s[whole], t[whole], (whole + 1).tolist(), first_slot=1))
    calls: list[Call] = []
    for n in range(len(grid) - 1):
        one = slice(n, n + 1)
        calls += ddim_calls(gauge, sch, s[one], t[one], [n + 1]) if ddim[n] else next(staged)
    return Program(name, tableau.order, tuple(map(float, at.t)), tuple(calls), ddim_notes(ddim, at))


def ddim_notes(ddim: Mask, at: Nodes) -> tuple[str, ...]:
    """What the program says of the steps that had to be DDIM steps."""
    notes = []
    for n in np.flatnonzero(ddim).tolist():
        where = "ends at sigma = 0" if np.isposinf(at.lam[n + 1]) else "starts or ends at an infinite log-SNR"
        notes.append(f"step {n + 1} {where} and is first order (DDIM); t_start or t_end inside avoids it")
    return tuple(notes)


def ddim_calls(
    gauge: Gauge, sch: Schedule, s: Nodes, t: Nodes, nodes: Sequence[int], keep: tuple[int, ...] = ()
) -> list[Call]:
    """``x_t = alpha_t x0 + sigma_t eps``: the first-order step that is exact in the limits sigma = 0 and
    alpha = 0 on either side (book 9.2.3). ``keep`` names a history slot that receives N."""
    columns = gauge.columns(sch, s.t)
    return [
        Call(
            float(s.t[n]),
            (),
            (STATE, *keep),
            np.array([[t.alpha[n], t.sigma[n]], *[columns[n]] * len(keep)]),
            node=node,
        )
        for n, node in enumerate(nodes)
    ]


def stage_calls(
    tableau: Tableau,
    gauge: Gauge,
    sch: Schedule,
    s: Nodes,
    t: Nodes,
    nodes: Sequence[int],
    first_slot: int,
    keep: tuple[int, ...] = (),
) -> list[list[Call]]:
    """The calls of each step from s to t, arrays (n,), that end at the grid nodes ``nodes``.

    Slots from ``first_slot`` on hold the stage state and the stage values of N; ``keep`` names the history
    slot of a multistep method that receives N at the start of the step.
    """
    stages = tableau.stages
    start, end = gauge.path(s), gauge.path(t)
    theta = np.array([0.0, *map(float, tableau.nodes[:-1])])
    path = start[:, None] + theta * (end - start)[:, None]
    inner = path[:, 1:] if not gauge.exponential else np.asarray(sch.time(path[:, 1:]))
    times = np.concatenate([s.t[:, None], inner, t.t[:, None]], axis=1)
    columns = gauge.columns(sch, times[:, :-1])
    ends = Nodes.at(sch, times[:, 1:].ravel())
    starts = s[np.repeat(np.arange(len(nodes)), stages)]
    length = np.repeat(end - start, stages)
    moments = integrate(gauge, "lam" if gauge.exponential else "t", sch, starts, ends, powers(length, tableau.degree))
    moments[:, 0] = gauge.total(starts, ends)
    moments = moments.reshape(len(nodes), stages, tableau.degree + 1)
    ratio = gauge.ratio(starts, ends).reshape(len(nodes), stages)
    coefficients = [np.array([_padded(entry, tableau.degree) for entry in row]) for row in tableau.rows]

    stage_state, values = first_slot, [*keep, *range(first_slot + 1 + len(keep), first_slot + 1 + stages)]
    steps = []
    for n, node in enumerate(nodes):
        calls = []
        for i, row in enumerate(coefficients):
            last = i == stages - 1
            weights = row @ moments[n, i]
            reads = (STATE, *values[:i])
            pair = columns[n, i]
            update = [*(weights[i] * pair), ratio[n, i], *weights[:i]]
            store = [*pair] + [0.0] * len(reads)
            writes = (STATE if last else stage_state, values[i])
            at, reached = stage_state if i else STATE, node if last else None
            calls.append(Call(float(times[n, i]), reads, writes, np.array([update, store]), at=at, node=reached))
        steps.append(calls)
    return steps


def _padded(entry: Sequence[object], degree: int) -> list[float]:
    return [float(a) for a in entry] + [0.0] * (degree + 1 - len(entry))  # type: ignore[arg-type]
