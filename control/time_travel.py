"""Time travel: steps repeated from the noise that they began with, for any solver."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..solvers.arrays import Array
from ..solvers.catalogue.catalogue import solver as find_solver
from ..solvers.catalogue.solver import KnownStart
from ..solvers.planners.checks import count
from ..solvers.planners.gauge import Nodes
from ..solvers.programs.call import STATE, Call, NoiseKey
from ..solvers.programs.checks import check_elements
from ..solvers.programs.program import Program
from ..solvers.schedules.base import Schedule

STREAMS = 1 << 10  # of a pass; the last one is that of its jump


@dataclass(frozen=True)
class TimeTravel:
    """Every ``length`` steps are made ``repeats`` times: down from s to t, and back up by the forward process,

        x_s = (alpha_s / alpha_t) x_t + sigma_s sqrt(1 - e^(-2 (lam_t - lam_s))) xi,

    with new noise: the time travel of FreeDoM (Yu et al. 2023, Algorithm 2), the resampling of RePaint (Lugmayr et al.
    2022, whose jump length is ``length``), the self-recurrence of universal guidance (Bansal et al. 2023). The jump
    maps the law at t to that at s exactly, so with the exact denoiser nothing changes but that errors of before are
    forgotten. So is what guidance has done before: to be led as far by an energy it takes a larger scale.

    solver:   any solver with fixed steps: its name, or it. Each pass is planned for itself, so that no history crosses
              a jump: multistep solvers begin anew, and one step alone is of their first order.
    interval: (lo, hi) in lam, beyond which steps are made once; the steps that lie within are repeated.
    startup:  of multistep solvers, see `logsnr.solve`.

    Costs ``repeats`` times the evaluations of the steps in the interval. A node counts as reached at its last visit.
    Raises ValueError for numbers out of range, for adaptive solvers, for those whose programs are in a basis, and for
    those with known calls, to be left out of the whole: ``logsnr.solver(TimeTravel("ddim")).with_known(...)``.
    """

    solver: Any = "ddim"
    repeats: int = 2
    length: int = 1
    interval: tuple[float, float] | None = None
    startup: str | None = None

    def __post_init__(self) -> None:
        count("repeats", self.repeats)
        count("length", self.length)
        object.__setattr__(self, "solver", find_solver(self.solver))
        if self.interval is not None:
            try:
                low, high = map(float, self.interval)
            except (TypeError, ValueError):
                low = high = np.nan
            if not low < high:
                raise ValueError(f"interval = {self.interval!r:.60} must be (lo, hi) in lam with lo < hi")
            object.__setattr__(self, "interval", (low, high))
        if self.solver.planner is None:
            raise ValueError(f"{self.solver.name} chooses its own steps: time travel repeats steps of a grid")
        if isinstance(self.solver.planner, KnownStart):
            raise ValueError(
                f"{self.solver.name} leaves out the first calls of a run, not of each pass of it: repeat the solver, "
                "and leave out calls of all that, logsnr.solver(TimeTravel(solver)).with_known(gaussian, calls)"
            )

    @property
    def global_order(self) -> int:
        """At most 1 of multistep solvers: each pass has a first step, whose errors are not of a higher order."""
        order: int = self.solver.order
        return min(order, 1) if hasattr(self.solver.planner, "startup") else order

    @property
    def evaluations(self) -> int:
        evaluations: int = self.solver.evaluations * self.repeats
        return evaluations

    @property
    def stochastic(self) -> bool:
        return bool(self.solver.stochastic) or self.repeats > 1

    @property
    def gauge(self) -> Any:
        return getattr(self.solver.planner, "gauge", None)

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at, method = Nodes.at(schedule, grid), self.solver
        calls, visit, parts = list[Call](), 0, list[Program]()
        for first, last, times in self._legs(at.lam):
            part = method.program(schedule, grid[first : last + 1], startup=self.startup)
            check_elements(part)  # programs in a basis have no noise, and jumps do
            parts.append(part)
            for left in reversed(range(times)):
                if not left:
                    calls += [replace(c, node=None if c.node is None else c.node + first) for c in part]
                    continue
                visit += 1
                *before, end = [_again(call, visit) for call in part]
                calls += [*before, *_jump(end, at[last], at[first], visit)]
        name = f"{method.name}, {self.repeats} times"
        notes = dict.fromkeys(note for part in parts for note in part.notes)
        return Program(name, self.global_order, tuple(grid), tuple(calls), tuple(notes), parts[0].eta)

    def _legs(self, lam: Array) -> Iterator[tuple[int, int, int]]:
        """(first node, last node, times) of what is planned in one piece."""
        low, high = self.interval or (-np.inf, np.inf)
        inside = (lam >= low) & (lam <= high)
        steps = (inside[:-1] & inside[1:] & (self.repeats > 1)).tolist()
        n = 0
        while n < len(steps):
            last = n + 1
            while last < len(steps) and steps[last] == steps[n] and (not steps[n] or last - n < self.length):
                last += 1
            yield n, last, self.repeats if steps[n] else 1
            n = last


def _again(call: Call, visit: int) -> Call:
    """A call of an earlier pass: it reaches no node, and has noise of its own."""
    keys = tuple(key._replace(stream=key.stream + visit * STREAMS) for key in call.noises)
    return replace(call, node=None, noises=keys)


def _jump(call: Call, t: Nodes, s: Nodes, visit: int) -> list[Call]:
    """The call with the state carried from t back up to s."""
    scale, std = float(s.alpha / t.alpha), float(s.sigma * np.sqrt(-np.expm1(2 * (s.lam - t.lam))))
    key = NoiseKey(float(t.t), float(s.t), visit * STREAMS + STREAMS - 1)
    if call.learned:  # the width that the network says is that of all noises of a call: the jump has a call of its own
        return [call, Call(float(t.t), (STATE,), (STATE,), np.array([[scale, std]]), noises=(key,))]
    matrix = np.concatenate([call.matrix, np.zeros_like(call.matrix[:, :1])], axis=1)
    state = call.writes.index(STATE)
    matrix[state] *= scale
    matrix[state, -1] = std
    return [replace(call, matrix=matrix, noises=(*call.noises, key))]
