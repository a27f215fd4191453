"""Weak orders: how fast the law of what a stochastic solver generates becomes the data's, without samples.

For Gaussian data the law of every solver is Gaussian and known (`moments`), so its distance from the exact one has
no sampling error and slopes can be read down to round-off. They are necessary only: a solver is linear there. On a
mixture a few expectations are computed by quadrature (`expectation`).
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from ..solvers.arrays import Array
from ..solvers.catalogue import Solver
from ..solvers.planners.multistep import Startup
from ..solvers.program import Program
from ..solvers.schedules.base import Schedule
from .expectation import backward, marginal
from .gaussian import Gaussian
from .mixture import GaussianMixture
from .moments import sampler_moments
from .orders import Convergence, fixed_step, refine, warped_grid

FREQUENCIES = np.array([1.0, 2.0])  # of the waves whose expectations are compared


def three_modes() -> Gaussian:
    """The data on which weak orders are stated: narrower than the noise, about as wide, and wider, off centre."""
    return Gaussian([0.7, 0.3, -1.0], [0.25, 0.03, 1.7])


def weak_order(
    solver: str | Solver,
    problem: Gaussian | GaussianMixture | None,
    sch: Schedule,
    *,
    startup: Startup = "single-step",
    grids: Callable[[int], Array] | None = None,
    max_nfe: int = 2000,
) -> Convergence:
    """Measure the weak order of ``solver``, stochastic or not, from the exact marginal at the start of the grid.

    problem: a `Gaussian` (`three_modes` if None), where the error is the 2-Wasserstein distance between what is
             generated and the exact marginal at the end of the grid; or a `GaussianMixture` of event shape (), where it
             is the root mean square error of the expectations of cos x, sin x, cos 2x and sin 2x.
    grids, max_nfe: as in `convergence_order`; on a mixture 64 evaluations take seconds.
    Raises ValueError for solvers that choose their own steps, and what `backward` of `expectation` raises.
    """
    method = fixed_step(solver)
    data = three_modes() if problem is None else problem
    nodes = grids or partial(warped_grid, sch)
    error = _distance if isinstance(data, Gaussian) else _miss

    def run(steps: int) -> tuple[int, float]:
        program = method.program(sch, nodes(steps), startup=startup)
        return len(program), error(program, data, sch)  # type: ignore[arg-type]

    return refine(run, method.name, method.order, startup, max_nfe)


def _distance(program: Program, data: Gaussian, sch: Schedule) -> float:
    return sampler_moments(program, data, sch).w2


def _miss(program: Program, data: GaussianMixture, sch: Schedule) -> float:
    means, stds, weights = marginal(data, sch, program.grid[-1])
    exact = weights @ (np.exp(-np.square(np.outer(stds, _twice(FREQUENCIES))) / 2) * _waves(means))
    return float(np.sqrt(np.square(backward(program, data, sch, _waves) - exact).mean()))


def _waves(x: Array) -> Array:
    """(N,) -> (N, 4)."""
    phase = np.outer(x, FREQUENCIES)
    return np.concatenate([np.cos(phase), np.sin(phase)], axis=1)


def _twice(values: Array) -> Array:
    return np.concatenate([values, values])
