"""Weak orders: how fast the law of what a stochastic solver generates becomes the data's, without samples.

For Gaussian data the law of every solver is Gaussian and known (`moments`), so its distance from the exact one has
no sampling error and slopes can be read down to round-off. They are necessary only: a solver is linear there.
"""

from collections.abc import Callable
from functools import partial

from ..solvers.arrays import Array
from ..solvers.catalogue.catalogue import Solver
from ..solvers.planners.multistep import Startup
from ..solvers.schedules.base import Schedule
from .gaussian import Gaussian
from .moments import sampler_moments
from .orders import Convergence, fixed_step, refine, warped_grid


def three_modes() -> Gaussian:
    """The data on which weak orders are stated: narrower than the noise, about as wide, and wider, off centre."""
    return Gaussian([0.7, 0.3, -1.0], [0.25, 0.03, 1.7])


def weak_order(
    solver: str | Solver,
    problem: Gaussian | None,
    sch: Schedule,
    *,
    startup: Startup = "single-step",
    grids: Callable[[int], Array] | None = None,
    max_nfe: int = 2000,
) -> Convergence:
    """Measure the weak order of ``solver``, stochastic or not, from the exact marginal at the start of the grid.

    The error is the 2-Wasserstein distance between what is generated and the exact marginal at the end of the grid.
    problem: Gaussian data, `three_modes` if None. grids, max_nfe: as in `convergence_order`.
    Raises ValueError for solvers that choose their own steps, and TypeError for other data.
    """
    method = fixed_step(solver)
    data = three_modes() if problem is None else problem
    nodes = grids or partial(warped_grid, sch)

    def run(steps: int) -> tuple[int, float]:
        program = method.program(sch, nodes(steps), startup=startup)
        return len(program), sampler_moments(program, data, sch).w2

    return refine(run, method.name, method.order, startup, max_nfe)
