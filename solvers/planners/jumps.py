"""Samplers that go back to more noise: Heun steps of the PF-ODE on x / alpha, with jumps between them.

A jump from t up to s is the forward process: ``x_s = (alpha_s / alpha_t) x_t + sigma_s sqrt(1 - e^(-2 (lam_t - lam_s)))
xi``. It maps the marginal at t to that at s exactly, so all error is that of the steps. sigma / alpha below is what EDM
calls sigma.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ..arrays import Array
from ..programs.call import STATE, Call, NoiseKey
from ..programs.program import Program
from ..schedules.base import Schedule
from .checks import count, nonnegative, number
from .gauges import EPS, Nodes
from .singlestep import ddim_notes, step_calls
from .tableaux import two_stage

HEUN = two_stage(1)
RAISED = 1  # the slot of the state after a jump
MOST_CHURN = np.sqrt(2) - 1  # of the noise: its variance at most doubles

Interval = tuple[int, float, float]


@dataclass(frozen=True)
class Churn:
    """EDM's stochastic sampler (Karras et al. 2022, Algorithm 2) in x / alpha.

    Before each step the noise sigma / alpha grows by ``min(s_churn / steps, sqrt(2) - 1)`` of itself where it lies in
    [s_tmin, s_tmax], as far as the schedule reaches; what is added is scaled by s_noise. Only the first step goes
    without, as a program begins with an evaluation.
    """

    s_churn: float = 40.0
    s_tmin: float = 0.05
    s_tmax: float = 50.0
    s_noise: float = 1.0
    evaluations = 2
    global_order = HEUN.order
    stochastic = True

    def __post_init__(self) -> None:
        for name in ("s_churn", "s_tmin", "s_noise"):
            object.__setattr__(self, name, nonnegative(name, getattr(self, name)))
        s_tmax = number("s_tmax", self.s_tmax, 0.0, np.inf, "a number of at least 0")
        object.__setattr__(self, "s_tmax", s_tmax)

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at = Nodes.at(schedule, grid)
        most = float(schedule.half_logsnr(schedule.domain[1]))
        inside = (self.s_tmin <= np.exp(-at.lam)) & (np.exp(-at.lam) <= self.s_tmax)
        inside &= np.arange(len(grid)) > 0
        lam = np.maximum(at.lam - np.log1p(min(self.s_churn / (len(grid) - 1), MOST_CHURN)), most)
        times = np.asarray(schedule.time(np.where(inside, lam, at.lam)))
        raised = np.where(inside & (lam < at.lam), times, at.t)
        legs = [(float(raised[n]), float(at.t[n + 1]), n + 1) for n in range(len(grid) - 1)]
        return _tour("churn", schedule, at, legs, self.s_noise)


@dataclass(frozen=True)
class Restart:
    """Restart sampling (Xu et al. 2023): Heun, and for each ``(times, low, high)`` of ``intervals``, on
    reaching the node next to sigma / alpha = low for the first time, so many jumps up to the node next to high, each
    followed by the same steps down again. Intervals within one step are left out, which a note says."""

    intervals: tuple[Interval, ...] = ((2, 0.06, 0.3), (1, 1.0, 5.0))
    evaluations = 2
    global_order = HEUN.order
    stochastic = True

    def __post_init__(self) -> None:
        said = (
            f"intervals = {self.intervals!r} must be a sequence of (times, low, high), times >= 1 and 0 < low < high "
            "in sigma / alpha"
        )
        try:
            found = tuple((count("times", times), float(low), float(high)) for times, low, high in self.intervals)
        except (TypeError, ValueError):
            raise ValueError(said) from None
        if not all(0 < low < high < np.inf for _, low, high in found):
            raise ValueError(said)
        object.__setattr__(self, "intervals", found)

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at = Nodes.at(schedule, grid)
        lam = np.where(np.isfinite(at.lam), at.lam, np.inf)  # nothing jumps to or from an end without noise or data
        tour, notes = [0], []
        for times, low, high in sorted(self.intervals, key=lambda interval: -interval[1]):
            last, first = (int(np.argmin(np.abs(lam + np.log(x)))) for x in (low, high))
            if first >= last:
                notes.append(f"no restart from {low:.6g} to {high:.6g}: both are next to the same node of this grid")
                continue
            tour += range(tour[-1] + 1, last + 1)
            for _ in range(times):
                tour += range(first, last + 1)
        tour += range(tour[-1] + 1, len(grid))
        t = at.t.tolist()
        moves = list(enumerate(pairwise(tour)))
        final = {b: k for k, (a, b) in moves if b > a}  # a node counts as reached at its last visit
        legs = [(t[a], t[b], b if final[b] == k else None) for k, (a, b) in moves if b > a]
        return _tour("restart", schedule, at, legs, 1.0, tuple(notes))


def _tour(
    name: str,
    sch: Schedule,
    at: Nodes,
    legs: Sequence[tuple[float, float, int | None]],
    s_noise: float,
    notes: tuple[str, ...] = (),
) -> Program:
    """Heun steps along ``legs`` (from, to, node reached), with a jump wherever one does not start at the last's end."""
    s, t = (Nodes.at(sch, np.array(times)) for times in (list(zip(*legs, strict=True))[:2]))
    nodes = [leg[2] for leg in legs]
    ddim = EPS.breaks(sch, s, t)
    calls: list[Call] = []
    start = STATE
    for k, (node, step) in enumerate(zip(nodes, step_calls(HEUN, EPS, sch, s, t, nodes, ddim, 2), strict=True)):
        leg = [_starting_at(call, start) for call in step]
        start = STATE
        if k + 1 < len(legs) and s.t[k + 1] != t.t[k]:
            start = STATE if node is None else RAISED
            leg[-1] = _jump(leg[-1], t[k], s[k + 1], s_noise, visit=k + 1)
        calls += leg
    steps = np.zeros(len(at.t) - 1, dtype=bool)
    steps[[node - 1 for node, broken in zip(nodes, ddim, strict=True) if broken and node is not None]] = True
    return Program(name, HEUN.order, tuple(map(float, at.t)), tuple(calls), (*notes, *ddim_notes(steps, at)))


def _starting_at(call: Call, slot: int) -> Call:
    return replace(
        call,
        at=slot if call.at == STATE else call.at,
        reads=tuple(slot if read == STATE else read for read in call.reads),
    )


def _jump(call: Call, t: Nodes, s: Nodes, s_noise: float, visit: int) -> Call:
    """The call with the jump from t up to s behind it: of the state itself, or beside it if it has reached a node."""
    row = call.matrix[call.writes.index(STATE)] * (s.alpha / t.alpha)
    noise = s_noise * s.sigma * np.sqrt(-np.expm1(2 * (s.lam - t.lam)))
    matrix = np.pad(np.concatenate([call.matrix, row[None]]), ((0, 0), (0, 1)))
    matrix[-1, -1] = noise
    writes = (*call.writes, RAISED)
    if call.node is None:  # nobody looks at the state before the jump
        keep = [r for r, slot in enumerate(writes) if slot != STATE]
        matrix, writes = matrix[keep], tuple(STATE if writes[r] == RAISED else writes[r] for r in keep)
    key = NoiseKey(float(t.t), float(s.t), visit)
    return replace(call, writes=writes, matrix=matrix, noises=(*call.noises, key))
