"""solver="auto": the method and the grid that a budget gets, from measured tables (`auto_table`).

`python -m logsnr.bench.choose_auto` measures them: by kind of range, from the noisiest to the cleanest lam, and by
budget, the exponential Adams method and the logistic grid whose errors are least over random problems.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import numpy as np

from ..arrays import Array
from ..planners.clocks import ClockGauge
from ..planners.gauges import GAUGES
from ..planners.multistep import Adams
from ..programs.program import Program
from ..schedules.base import Schedule
from ..tuning.serving import DataHints
from ..tuning.stored import RANGES
from ..tuning.universal import Universal, find_table
from .auto_table import TABLE
from .solver import Solver

FAR = 7.0  # where an infinite lam is taken to be
MOST = RANGES[-1][-1]  # steps of universal tables
# A corrector of third order pays from MANY steps on; on networks, with fewer, it has 2 to 15 times the error. Where a
# run begins with more than SEEN of the data, beside the noise, one of second order pays from SOME steps on, and guided
# answers are too rough for the third.
MANY, SOME, SEEN = 36, 15, 0.4
NOISY = -6.0  # in lam: from noisier starts on, Karras' grid comes too late to where the flow of narrow data bends
BACK = 12  # steps below which what was measured on the way to the data is worse, on that to the noise, than `_wide`
ENOUGH = 0.75  # of a budget: on narrow data, a table for as many evaluations beats formulas that use it up,
OWN = 0.8  # and one that was fitted to as many alone beats one that has its numbers in common with others


class Choice(NamedTuple):
    """A solver, how many steps it takes, a grid by its name and options, or none where it brings its own, and what is
    to be said of it."""

    solver: Solver
    steps: int
    grid: str | None = None
    options: Mapping[str, float] = MappingProxyType({})
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Auto(DataHints):
    """Chooses for a number of steps, each of one evaluation.

    Up to some forty steps it takes a universal table, if there is one for the range, the number and the data
    (`Universal`), and the grid is free. Else, by formula, what was measured on the most alike range, for the next
    smaller number of steps in the table, or for wide data `_wide`; on a grid that is given it chooses the method only.
    """

    evaluations: ClassVar[int] = 1

    def choose(
        self, schedule: Schedule, first: float, last: float, steps: int, *, free: bool = True, fewer: bool = False
    ) -> Choice:
        """What to run from the time ``first`` to the time ``last``. free: whether the grid may be chosen. fewer:
        whether a table for some fewer steps may be taken."""
        if free and steps < BACK and schedule.half_logsnr(first) > schedule.half_logsnr(last):
            return _wide(3, False, "karras")._replace(steps=steps)
        found = self.formula(schedule, first, last, steps)
        if not free or self.width is None:
            return found
        least, why = math.ceil(ENOUGH * steps) if fewer and self.narrow else steps, list[str]()
        best = 0
        for n in range(min(steps, MOST), least - 1, -1):
            table = find_table(self, schedule, first, last, n)
            if isinstance(table, str):
                why.append(f"no universal table: {table}")
                continue
            if not best or (n >= OWN * steps and not table.of_range):
                best = n
            if n <= OWN * steps or not table.of_range:
                break  # smaller ones are no better
        if best:
            name = f"auto: universal(width={self.width:.3g}, data_std={self.data_std:g}), {best} steps of its own"
            return Choice(Solver(name, planner=Universal(**vars(self))), best)
        return found._replace(notes=tuple(why[:1]))

    def formula(self, schedule: Schedule, first: float, last: float, steps: int) -> Choice:
        """The exponential Adams method and the grid."""
        narrow = self.narrow or not self.width
        lam = np.asarray(schedule.half_logsnr(np.array([first, last])))
        if not narrow or schedule.last_before(first, last) is not None:
            seen = self.usual_width * self.data_std * math.exp(lam.min()) > SEEN
            corrector = steps >= (SOME if seen else MANY)
            order = 2 if seen and (self.guided or SOME <= steps < MANY) else 3
            grid = "karras" if not narrow or lam.min() > NOISY else "logsnr"
            return _wide(order, corrector, grid)._replace(steps=steps)
        noisy, clean = sorted(np.nan_to_num(lam, posinf=FAR, neginf=-FAR).tolist())
        rows = TABLE[min(TABLE, key=lambda ends: math.hypot(ends[0] - noisy, ends[1] - clean))]
        return _made(*rows[max((n for n in rows if n <= steps), default=min(rows))])._replace(steps=steps)

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        """The table of the method that is chosen for as many steps, on this grid."""
        return self.formula(schedule, float(grid[0]), float(grid[-1]), len(grid) - 1).solver.program(schedule, grid)


@lru_cache
def _wide(order: int, corrector: bool, grid: str) -> Choice:
    """For data with wide directions, whose flow bends where the measured grids have few nodes: what is best among the
    named solvers on images' spectra (`python -m logsnr.bench.unseen --problem image-15 --nfe 12 --nfe 40`, and with
    guidance, which makes answers rough, `--range sd --problem image-15-guided-4`). And for runs past the last level
    that a network knows, whose last step must be DDIM's: other gauges go on with what older answers say of it, which is
    not what networks are trained for."""
    name = f"auto: adams(gauge='eps', order={order}, corrector={corrector})"
    return Choice(Solver(name, planner=Adams("eps", order, corrector=corrector)), 0, grid)


@lru_cache
def _made(
    gauge: str, order: int, corrector: bool, spread: float, share: float, mu: float, scale: float
) -> Choice:  # fmt: skip
    grid = {"share": share, "mu": mu, "scale": scale}
    return Choice(adams(gauge, order, corrector, spread), 0, "logistic", MappingProxyType(grid))


def adams(gauge: str, order: int, corrector: bool, spread: float) -> Solver:
    """The solver of a row of the table. ``spread`` is for gauges with a clock, as the variable is theirs."""
    made, told = GAUGES[gauge], repr(gauge)
    if isinstance(made, ClockGauge):
        made, told = replace(made, spread=spread), f"{gauge!r}, spread={spread}"
    planner = Adams(made, order, made.own, corrector=corrector)
    return Solver(f"auto: adams(gauge={told}, order={order}, corrector={corrector})", planner=planner)


AUTO = Solver("auto", "chooses the method and the grid for the budget", Auto(), options=("data_std", "width"))
