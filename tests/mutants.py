"""Solvers with changed numbers in their tables, which order tests must catch."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

import logsnr
from logsnr.solvers.catalogue.solver import Planner
from logsnr.solvers.programs.call import Call


@dataclass(frozen=True)
class Altered:
    """A planner whose tables are those of another with the matrix of every call changed."""

    planner: Planner
    change: Callable[[Call], np.ndarray]
    startup: str = "ramp"

    @property
    def stochastic(self) -> bool:
        return bool(getattr(self.planner, "stochastic", False))

    def plan(self, schedule: logsnr.Schedule, grid: np.ndarray) -> logsnr.Program:
        planner = self.planner
        if hasattr(planner, "startup"):
            planner = replace(planner, startup=self.startup)  # type: ignore[type-var]
        program = planner.plan(schedule, grid)
        return replace(program, calls=tuple(replace(call, matrix=self.change(call)) for call in program))


def altered(method: logsnr.Solver, change: Callable[[Call], np.ndarray]) -> logsnr.Solver:
    """The solver with ``change`` of every call's matrix, under the same name and of the same declared order."""
    assert method.planner is not None
    return replace(method, planner=Altered(method.planner, change))
