"""The options that lay a solver out on a grid, and the program that they make."""

from typing import Any, TypedDict, Unpack

from ..solvers.catalogue import Solver
from ..solvers.planners.multistep import Startup
from ..solvers.planning import plan_program
from ..solvers.program import Program
from ..solvers.schedules.base import Schedule


class LayoutOptions(TypedDict, total=False):
    """The keywords of `logsnr.solve` that choose a program; functions of the analysis take them as ``layout``."""

    steps: int | None
    nfe: int | None
    grid: str | Any
    t_start: float | None
    t_end: float | None
    startup: Startup


def laid_out(solver: str | Solver | Program, sch: Schedule, **layout: Unpack[LayoutOptions]) -> Program:
    """The program that `logsnr.solve` runs for these options; a `Program` is taken as it is.

    Raises ValueError for options that do not fit together.
    """
    return plan_program(solver, sch, **layout)
