"""What a named solver is: a planner with its arguments, and what is known of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .grids import check_grid
from .options import Option
from .planners.multistep import Startup, check_startup
from .planners.stochasticity import Stochasticity
from .program import Program
from .schedules.base import Schedule

Planner = Callable[..., Program]


@dataclass(frozen=True)
class Solver:
    """A named solver.

    order: global order of convergence (with startup="single-step" for multistep solvers of order > 2). Of stochastic
    solvers it is the weak order, that of the law of what they generate; 0 if that does not converge to the data's.
    evaluations: model calls per step, with its default options. planner: None for methods that only exist with
    adaptive steps. adaptive: torchdiffeq's name of the method, if it offers it. equals: other names of the same
    numbers. options: what `solver` may change of it. ode_order: its order without noise, where an option can switch
    that off.
    """

    name: str
    order: int
    summary: str
    evaluations: int = 1
    planner: Planner | None = None
    adaptive: str | None = None
    equals: tuple[str, ...] = ()
    stochastic: bool = False
    options: tuple[Option, ...] = ()
    ode_order: int = 0

    @property
    def eta(self) -> Stochasticity | None:
        """Of the SDE that the solver is derived from, if it is from one."""
        eta = getattr(self.planner, "keywords", {}).get("eta")
        return eta if isinstance(eta, Stochasticity) else None

    def program(self, sch: Schedule, grid: Any, *, startup: Startup = "ramp") -> Program:
        """The table of this solver on ``grid``, a 1-D array of times (see `logsnr.grid`). Raises ValueError for
        grids that are not strictly monotone or leave the schedule, for grids of stochastic solvers that do not go from
        noise to data, and for adaptive-only methods."""
        if self.planner is None:
            raise ValueError(f"{self.name} chooses its own steps and has no program; give rtol and atol to solve")
        check_startup(startup)
        times = check_grid(sch, grid)
        if self.stochastic and times[0] < times[-1]:
            raise ValueError(f"{self.name} adds noise: its grid must go from noise to data, with times that decrease")
        return self.planner(sch, times, startup)
