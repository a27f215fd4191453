"""What a doctor looks at: a solver as another library ships it, and its levels of noise for any number of steps."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...solvers.arrays import Array
from ...solvers.catalogue.catalogue import Solver, solver
from ...solvers.schedules.base import Schedule
from ...solvers.schedules.formulas import Trigonometric
from ...solvers.schedules.straight import EDM, FlowMatching

SAME = 1e-6  # relative: of levels in fp32


@dataclass(frozen=True, eq=False)
class Subject:
    """name, library: whose it is. solver, compat: what that is here. grid: in words. lay: levels by the number of
    steps. asked: by the number of steps, the levels that the model is told, (n,), where those are not the same. head:
    what the model returns. flow: whether levels are of x = (1 - sigma) x0 + sigma eps. config: of a scheduler. own: the
    formula, where no solver here has it."""

    name: str
    library: str
    solver: str | Solver
    compat: bool | str
    grid: str
    lay: Callable[[int], Array]
    steps: int
    asked: Callable[[int], Array] | None = None
    head: str = "eps"
    flow: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    own: Solver | None = None

    @property
    def shipped(self) -> Solver:
        """The formula that the library has."""
        return self.own or solver(self.solver, compat=self.compat)

    @property
    def right(self) -> Solver:
        """The formula that the name stands for."""
        return solver(self.solver)

    def levels(self, steps: int | None = None) -> Array:
        return self.lay(self.steps if steps is None else steps)

    def nodes(self, steps: int | None = None) -> tuple[Schedule, Array]:
        """A schedule and the times of the levels on it, without repeats."""
        levels = self.levels(steps)
        levels = levels[np.append(np.logical_not(same(levels)), True)]
        if self.flow:
            return FlowMatching(), levels
        if math.isinf(levels[0]):
            return Trigonometric(), np.arctan(levels)
        small = float(levels[levels > 0][-1])
        return EDM(min(small, float(levels[0]) / 2), float(levels[0])), levels


def same(levels: Array) -> Array:
    """Where a level is the next one, up to rounding."""
    return np.asarray(levels[:-1] - levels[1:] <= SAME * levels[1:])
