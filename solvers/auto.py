"""solver="auto": the method and the grid that a budget gets, from measured tables (`auto_table`).

`python -m logsnr.bench.choose_auto` measures them: by kind of range, from the noisiest to the cleanest lam, and by
budget, the exponential Adams method and the logistic grid whose errors are least over random problems.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .arrays import Array
from .auto_table import TABLE
from .planners.clocks import ClockGauge
from .planners.gauges import GAUGES
from .planners.multistep import Adams
from .program import Program
from .schedules.base import Schedule
from .solver import Solver

FAR = 7.0  # where an infinite lam is taken to be


class Choice(NamedTuple):
    """A solver, and a grid by its name and options."""

    solver: Solver
    grid: str
    options: dict[str, float]


@dataclass(frozen=True)
class Auto:
    """Chooses for a number of steps, each of one evaluation, what was measured on the most alike range.

    On a grid that is given it chooses the method only. The rows of the table hold from their number of steps up to the
    next.
    """

    evaluations = 1

    def choose(self, schedule: Schedule, first: float, last: float, steps: int) -> Choice:
        """What to run from the time ``first`` to the time ``last`` in so many steps."""
        lam = np.nan_to_num(np.asarray(schedule.half_logsnr(np.array([first, last]))), posinf=FAR, neginf=-FAR)
        noisy, clean = sorted(lam.tolist())
        rows = TABLE[min(TABLE, key=lambda ends: math.hypot(ends[0] - noisy, ends[1] - clean))]
        return _made(*rows[max((n for n in rows if n <= steps), default=min(rows))])

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        """The table of the method that is chosen for as many steps, on this grid."""
        found = self.choose(schedule, float(grid[0]), float(grid[-1]), len(grid) - 1).solver
        return found.program(schedule, grid)


@lru_cache
def _made(
    gauge: str, order: int, corrector: bool, spread: float, share: float, mu: float, scale: float
) -> Choice:  # fmt: skip
    return Choice(adams(gauge, order, corrector, spread), "logistic", {"share": share, "mu": mu, "scale": scale})


def adams(gauge: str, order: int, corrector: bool, spread: float) -> Solver:
    """The solver of a row of the table. ``spread`` is for gauges with a clock, as the variable is theirs."""
    made, told = GAUGES[gauge], repr(gauge)
    if isinstance(made, ClockGauge):
        made, told = replace(made, spread=spread), f"{gauge!r}, spread={spread}"
    planner = Adams(made, order, made.own, corrector=corrector)
    return Solver(f"auto: adams(gauge={told}, order={order}, corrector={corrector})", planner=planner)


AUTO = Solver("auto", "chooses the method and the grid for the budget", Auto())
