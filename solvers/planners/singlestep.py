"""Single-step methods: one planner for classical and exponential Runge-Kutta tableaux in any gauge."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..arrays import Array, Mask
from ..denoisers.heads import HEADS, Level, to_pair
from ..programs.call import ONE, STATE, Call, NoiseKey
from ..programs.program import Program
from ..schedules.base import Schedule
from .checks import choice
from .gauge import table
from .gauges import X0, Gauge, Nodes, as_gauge
from .quadrature import powers
from .stochasticity import NONE, Stochasticity, WithEta, stochasticity
from .tableaux import DDIM, Tableau

ASKED = ("v", "velocity")  # heads that mean something at sigma = 0, and that networks are trained to give there


@dataclass(frozen=True)
class ExponentialRungeKutta(WithEta):
    """One step of ``tableau`` per interval of the grid, in ``gauge``, a `Gauge` or its name.

    With ``eta`` every stage has the noise that the SDE has gathered up to it (SEEDS, Gonzalez et al. 2023).
    prediction: the head that the network returns, if it is known. The last step of a method that has a stage at its
    end takes it at sigma = 0 only if this head says there what dx/dt is; else that step is DDIM's, of first order.
    Raises ValueError, naming the field, for values that it cannot take.
    """

    tableau: Tableau = DDIM
    gauge: Gauge | str = X0
    eta: Stochasticity | float = NONE
    prediction: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.tableau, Tableau):
            raise ValueError(f"tableau must be a Tableau, not {self.tableau!r:.60}")
        if self.prediction is not None:
            choice("prediction", self.prediction, HEADS)
        gauge, eta = as_gauge(self.gauge), stochasticity(self.eta)
        gauge.with_eta(eta)
        if self.tableau.borrowed and (eta or not gauge.exponential):
            raise ValueError("this tableau is made of phi functions: it needs gauge = 'x0' or 'eps', and eta = 0")
        object.__setattr__(self, "gauge", gauge)
        object.__setattr__(self, "eta", eta)

    @property
    def global_order(self) -> int:
        """The order of convergence; with noise, that of the law."""
        return weak(self.tableau.order, self.eta)

    @property
    def evaluations(self) -> int:
        return self.tableau.stages

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        """The table on ``grid``, float64 times, strictly monotone."""
        gauge = as_gauge(self.gauge).with_eta(stochasticity(self.eta))
        at = Nodes.at(schedule, grid)
        s, t = at[:-1], at[1:]
        ddim = gauge.breaks(schedule, s, t) | (np.isposinf(t.lam) & self._blind(schedule, float(at.t[-1])))
        steps = step_calls(self.tableau, gauge, schedule, s, t, range(1, len(grid)), ddim)
        times, calls = tuple(map(float, at.t)), tuple(call for step in steps for call in step)
        told = ddim_notes(ddim, at), gauge.eta or None
        return Program("runge-kutta", self.global_order, times, calls, *told, basis=gauge.basis)

    def _blind(self, schedule: Schedule, end: float) -> bool:
        """Whether a stage would ask the network at the time ``end`` for what its head does not say there."""
        if 1 not in self.tableau.nodes[:-1]:
            return False
        if self.prediction not in ASKED:
            return True
        with np.errstate(divide="ignore", invalid="ignore"):
            pair = to_pair(self.prediction, Level.at(schedule, np.asarray(end)))
        return not np.isfinite(np.array(pair, dtype=np.float64)).all()


def weak(order: int, eta: object) -> int:
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


def step_calls(
    tableau: Tableau,
    gauge: Gauge,
    sch: Schedule,
    s: Nodes,
    t: Nodes,
    nodes: Sequence[int | None],
    ddim: Mask,
    first_slot: int = 1,
) -> list[list[Call]]:
    """The calls of each step: `stage_calls`, or, where ``ddim`` says so, `ddim_calls`."""
    whole = np.flatnonzero(~ddim)
    staged = iter(stage_calls(tableau, gauge, sch, s[whole], t[whole], [nodes[k] for k in whole.tolist()], first_slot))
    return [
        ddim_calls(gauge, sch, s[n : n + 1], t[n : n + 1], [node]) if ddim[n] else next(staged)
        for n, node in enumerate(nodes)
    ]


def ddim_calls(
    gauge: Gauge, sch: Schedule, s: Nodes, t: Nodes, nodes: Sequence[int | None], keep: tuple[int, ...] = ()
) -> list[Call]:
    """``x_t = alpha_t x0 + sigma_t (e^-D eps + sqrt(1 - e^(-2 D)) xi)``, D = E_t - E_s: the first-order step that is
    exact in the limits sigma = 0 and alpha = 0 on either side (book 9.2.3). ``keep`` names a history slot that
    receives N."""
    columns = gauge.columns(sch, s.t)
    pair = gauge.leap(sch, s, t)
    noise = np.zeros((len(nodes), 0))
    if gauge.eta:
        energy = gauge.eta.energy(s.lam, t.lam)
        pair[:, 1] *= np.exp(-energy)
        noise = (t.sigma * np.sqrt(-np.expm1(-2 * energy)))[:, None]
    return [
        Call(
            float(s.t[n]),
            (ONE,) if gauge.constant else (),
            (STATE, *keep),
            table([[*pair[n], *noise[n]], *[[*columns[n], *0 * noise[n]]] * len(keep)], gauge.event),
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
    if tableau.along_t:
        inner = s.t[:, None] + theta[1:] * (t.t - s.t)[:, None]
    else:
        inner = gauge.times(sch, start[:, None] + theta[1:] * (end - start)[:, None])
    times = np.concatenate([s.t[:, None], inner, t.t[:, None]], axis=1)
    columns = gauge.columns(sch, times[:, :-1])
    ends = Nodes.at(sch, times[:, 1:].ravel())
    starts = s[np.repeat(np.arange(len(nodes)), stages)]
    length = np.repeat(end - start, stages)
    moments = gauge.integrate(gauge.own, sch, starts, ends, powers(length, tableau.degree))
    moments[:, 0] = gauge.total(starts, ends)
    moments = moments.reshape(len(nodes), stages, tableau.degree + 1, *gauge.event)
    ratio, offset = (
        part(starts, ends).reshape(len(nodes), stages, *gauge.event) for part in (gauge.ratio, gauge.offset)
    )
    one = (ONE,) if gauge.constant else ()
    coefficients = [np.array([_padded(entry, tableau.degree) for entry in row]) for row in tableau.rows]
    borrowed = _borrowed(tableau, moments, gauge.rate(np.zeros((len(ends.t), 1)), ends)) if tableau.borrowed else None
    keys, noise = _stage_noise(tableau, gauge, sch, times)

    stage_state, values = first_slot, [*keep, *range(first_slot + 1 + len(keep), first_slot + 1 + stages)]
    steps = []
    for n, node in enumerate(nodes):
        calls = []
        for i, row in enumerate(coefficients):
            last = i == stages - 1
            weights = np.tensordot(row, moments[n, i], 1) if gauge.event else row @ moments[n, i]
            if borrowed is not None:
                weights += borrowed[n, i, : i + 1]
            reads = (*one, STATE, *values[:i])
            pair = columns[n, i]
            update = [*(weights[i] * pair), ratio[n, i], *weights[:i], *noise[n, i]]
            if gauge.constant:
                update[2] = update[2] + offset[n, i]
            store = [*pair] + [0.0] * (len(update) - len(pair))
            writes = (STATE if last else stage_state, values[i])
            at, reached = stage_state if i else STATE, node if last else None
            rows = table([update, store], gauge.event)
            calls.append(Call(float(times[n, i]), reads, writes, rows, at=at, noises=keys[n], node=reached))
        steps.append(calls)
    return steps


def _borrowed(tableau: Tableau, moments: Array, kernel: Array) -> Array:
    """The weights (n, stages, stages) by moments of other stages than their own, (n, stages, degree + 1): of an
    exponential kernel, which at the end of a stage is ``kernel``, they are the same but for that factor."""
    weights = np.zeros((len(moments), tableau.stages, tableau.stages))
    kernel = kernel.reshape(weights.shape[:2])
    for i, j, m, k, a in tableau.borrowed:
        weights[:, i, j] += float(a) * moments[:, m, k] * kernel[:, i] / kernel[:, m]
    return weights


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
    at = [Nodes.at(sch, column) for column in times.T] if parts else []
    for k, (a, b) in enumerate(pairwise(order[: parts + 1])):
        std = gauge.std(sch, at[a], at[b])
        for i in range(tableau.stages):
            if thetas[i + 1] >= thetas[b]:
                noise[:, i, k] = std * gauge.ratio(at[b], at[i + 1])
    rows = times[:, order].tolist()
    return [tuple(NoiseKey(*part) for part in pairwise(row)) if parts else () for row in rows], noise


def _padded(entry: Sequence[object], degree: int) -> list[float]:
    return [float(a) for a in entry] + [0.0] * (degree + 1 - len(entry))  # type: ignore[arg-type]
