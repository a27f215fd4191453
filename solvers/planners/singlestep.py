"""Single-step methods: one planner for classical and exponential Runge-Kutta tableaux in any gauge."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from ..program import STATE, Call, NoiseKey, Program
from ..schedules.base import Schedule
from .gauges import Array, Gauge, Mask, Nodes
from .quadrature import integrate, powers
from .stochasticity import NONE, Stochasticity
from .tableaux import Tableau


def single_step(
    sch: Schedule,
    grid: Array,
    startup: object = None,
    *,
    name: str,
    gauge: Gauge,
    tableau: Tableau,
    eta: Stochasticity = NONE,
) -> Program:
    """Plan one step of ``tableau`` per interval of ``grid`` (float64 times, strictly monotone).

    There is nothing to start: ``startup`` is accepted, so that all planners are called alike, and ignored. With
    ``eta`` every stage has the noise that the SDE has gathered up to it (SEEDS, Gonzalez et al. 2023).
    """
    del startup
    gauge = replace(gauge, eta=eta)
    at = Nodes.at(sch, grid)
    s, t = at[:-1], at[1:]
    ddim = gauge.breaks(sch, s, t)
    whole = np.flatnonzero(~ddim)
    staged = iter(stage_calls(tableau, gauge, sch, s[whole], t[whole], (whole + 1).tolist(), first_slot=1))
    calls: list[Call] = []
    for n in range(len(grid) - 1):
        one = slice(n, n + 1)
        calls += ddim_calls(gauge, sch, s[one], t[one], [n + 1]) if ddim[n] else next(staged)
    return Program(name, weak(tableau.order, eta), tuple(map(float, at.t)), tuple(calls), ddim_notes(ddim, at))


def weak(order: int, eta: Stochasticity) -> int:
    """The order of the law of what a formula of ``order`` generates: with noise at most 2, as a step has one normal for
    each of its parts, while what x0 sees of the noise within the part, its integral, is another."""
    return min(order, 2) if eta else order


def ddim_notes(ddim: Mask, at: Nodes) -> tuple[str, ...]:
    """What the program says of the steps that had to be DDIM steps."""
    notes = []
    for n in np.flatnonzero(ddim).tolist():
        where = "ends at sigma = 0" if np.isposinf(at.lam[n + 1]) else "starts or ends at an infinite log-SNR"
        notes.append(f"step {n + 1} {where} and is first order (DDIM); t_start or t_end inside avoids it")
    return tuple(notes)


def ddim_calls(
    gauge: Gauge, sch: Schedule, s: Nodes, t: Nodes, nodes: Sequence[int | None], keep: tuple[int, ...] = ()
) -> list[Call]:
    """``x_t = alpha_t x0 + sigma_t (e^-D eps + sqrt(1 - e^(-2 D)) xi)``, D = E_t - E_s: the first-order step that is
    exact in the limits sigma = 0 and alpha = 0 on either side (book 9.2.3). ``keep`` names a history slot that
    receives N."""
    columns = gauge.columns(sch, s.t)
    pair = np.stack([t.alpha, t.sigma], axis=1)
    noise = np.zeros((len(nodes), 0))
    if gauge.eta:
        energy = gauge.eta.energy(s.lam, t.lam)
        pair[:, 1] *= np.exp(-energy)
        noise = (t.sigma * np.sqrt(-np.expm1(-2 * energy)))[:, None]
    return [
        Call(
            float(s.t[n]),
            (),
            (STATE, *keep),
            np.array([[*pair[n], *noise[n]], *[[*columns[n], *0 * noise[n]]] * len(keep)]),
            noises=(NoiseKey(float(s.t[n]), float(t.t[n])),) * noise.shape[1],
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
    nodes: Sequence[int | None],
    first_slot: int,
    keep: tuple[int, ...] = (),
) -> list[list[Call]]:
    """The calls of each step from s to t, arrays (n,), that end at the grid nodes ``nodes``.

    Slots from ``first_slot`` on hold the stage state and the stage values of N; ``keep`` names the history
    slot of a multistep method that receives N at the start of the step. The noises of an SDE are keyed by the parts
    into which the stages cut a step.
    """
    stages = tableau.stages
    start, end = gauge.path(s), gauge.path(t)
    theta = np.array([0.0, *map(float, tableau.nodes[:-1])])
    path = start[:, None] + theta * (end - start)[:, None]
    inner = path[:, 1:] if not gauge.in_lam else np.asarray(sch.time(path[:, 1:]))
    times = np.concatenate([s.t[:, None], inner, t.t[:, None]], axis=1)
    columns = gauge.columns(sch, times[:, :-1])
    ends = Nodes.at(sch, times[:, 1:].ravel())
    starts = s[np.repeat(np.arange(len(nodes)), stages)]
    length = np.repeat(end - start, stages)
    moments = integrate(gauge, "lam" if gauge.in_lam else "t", sch, starts, ends, powers(length, tableau.degree))
    moments[:, 0] = gauge.total(starts, ends)
    moments = moments.reshape(len(nodes), stages, tableau.degree + 1)
    ratio = gauge.ratio(starts, ends).reshape(len(nodes), stages)
    coefficients = [np.array([_padded(entry, tableau.degree) for entry in row]) for row in tableau.rows]
    keys, noise = _stage_noise(tableau, gauge, sch, times)

    stage_state, values = first_slot, [*keep, *range(first_slot + 1 + len(keep), first_slot + 1 + stages)]
    steps = []
    for n, node in enumerate(nodes):
        calls = []
        for i, row in enumerate(coefficients):
            last = i == stages - 1
            weights = row @ moments[n, i]
            reads = (STATE, *values[:i])
            pair = columns[n, i]
            update = [*(weights[i] * pair), ratio[n, i], *weights[:i], *noise[n, i]]
            store = [*pair] + [0.0] * (len(update) - 2)
            writes = (STATE if last else stage_state, values[i])
            at, reached = stage_state if i else STATE, node if last else None
            rows = np.array([update, store])
            calls.append(Call(float(times[n, i]), reads, writes, rows, at=at, noises=keys[n], node=reached))
        steps.append(calls)
    return steps


def _stage_noise(
    tableau: Tableau, gauge: Gauge, sch: Schedule, times: Array
) -> tuple[list[tuple[NoiseKey, ...]], Array]:
    """The noise of each step, cut at the stages: keys, one per part, and coefficients (n, stages, parts).

    times: (n, stages + 1), of the start, the stages and the end. A stage has gathered the parts before it, each
    carried from its end to the stage by the linear part.
    """
    thetas = np.array([0.0, *map(float, tableau.nodes)])
    # a stage at the end of the step is where the grid says, not where the inverse of lam rounds to
    order = len(thetas) - 1 - np.unique(thetas[::-1], return_index=True)[1]
    parts = len(order) - 1 if gauge.eta else 0
    noise = np.zeros((len(times), tableau.stages, parts))
    at = [Nodes.at(sch, column) for column in times.T]
    for k, (a, b) in enumerate(pairwise(order[: parts + 1])):
        std = gauge.std(sch, at[a], at[b])
        for i in range(tableau.stages):
            if thetas[i + 1] >= thetas[b]:
                noise[:, i, k] = std * gauge.ratio(at[b], at[i + 1])
    rows = times[:, order].tolist()
    return [tuple(NoiseKey(*part) for part in pairwise(row)) if parts else () for row in rows], noise


def _padded(entry: Sequence[object], degree: int) -> list[float]:
    return [float(a) for a in entry] + [0.0] * (degree + 1 - len(entry))  # type: ignore[arg-type]
