"""The grid with the least bound on what a network's errors do: from the table alone, without data or a network."""

from dataclasses import replace
from typing import Any

import numpy as np

from ..solvers.arrays import Array
from ..solvers.catalogue.catalogue import Solver
from ..solvers.catalogue.catalogue import solver as find_solver
from ..solvers.grids.grids import WINDOW
from ..solvers.programs.program import Program
from ..solvers.schedules.base import Schedule
from .optimal_grid import OptimalGrid, check_request, searched


def bound_grid(
    solver: str | Solver,
    nfe: int,
    schedule: Schedule,
    *,
    power: float = 1.0,
    t_start: float | None = None,
    t_end: float | None = None,
    startup: str | None = None,
) -> OptimalGrid:
    """The grid on which errors of the network, of the size sigma^power / alpha in x0, do least at the end.

    The end of a run is a sum of the answers x0 at its calls, with weights W that the table has (noises apart).
    Minimised is sum |W| sigma^power / alpha (Xue et al., DM-NonUniform, arXiv:2402.17376, with power = 1 for pixels and
    2 for latents). lam beyond 7 counts as 7. It says nothing of the solver's own error: a grid for few steps, where the
    two grow alike, and not for many. ``error`` is the bound; the search is that of `optimal_grid`.

    Raises ValueError for a power that is not a number, and what `optimal_grid` raises.
    """
    check_request(nfe, schedule)
    if isinstance(power, bool) or not isinstance(power, (int, float)) or not abs(power) < np.inf:
        raise ValueError(f"power = {power!r:.60} must be a number")

    def residuals(program: Program) -> Array:
        times = np.array([call.t for call in program])
        inside = np.asarray(schedule.time(np.clip(schedule.half_logsnr(times), -WINDOW, WINDOW)))
        roots: Array = np.sqrt(np.abs(answer_weights(program, schedule)) * schedule.sigma(inside) ** power)
        return roots / np.sqrt(schedule.alpha(inside))

    method = find_solver(solver)
    found = searched(method, nfe, schedule, residuals, t_start=t_start, t_end=t_end, startup=startup)
    squares = {name: norm**2 for name, norm in found.before.items()}  # of roots: the sum itself
    return replace(found, error=found.error**2, before=squares)


def answer_weights(program: Program, sch: Schedule) -> Array:
    """What the end state has of the answer x0 at every call, (calls,); eps is (x - alpha x0) / sigma."""
    units = np.eye(len(program) + 1)
    answers = iter(units[1:])

    def model(x: Any, t: float) -> tuple[Any, Any]:
        x0 = next(answers)
        return x0, (x - sch.alpha(t) * x0) / sch.sigma(t)

    zero = {key: np.zeros(len(units)) for key in program.noises}
    end: Array = program.interpret(units[0], model, zero)
    return end[1:]
