"""The grid with the least exact error on Gaussian data: for a spectrum, a solver and a budget."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from ..solvers.arrays import Array
from ..solvers.catalogue.catalogue import Solver
from ..solvers.catalogue.catalogue import solver as find_solver
from ..solvers.catalogue.planning import Layout
from ..solvers.grids.grids import lam_window
from ..solvers.programs.call import integer
from ..solvers.programs.checks import check_elements
from ..solvers.programs.program import Program
from ..solvers.schedules.base import Schedule, check_schedule
from .moments import propagate
from .rounding import weighted

BEGINNINGS = ("logsnr", "karras", "time", "arctan", "beta")
DESCENTS = 2  # from how many of them
ITERATIONS = 40
MODES = 256  # a spectrum of more is summed up by so many quantiles
LONGEST = 100

Residuals = Callable[[Program], Array]


@dataclass(frozen=True, eq=False)
class OptimalGrid:
    """A grid that was searched for; it can be given as ``grid=`` as it is.

    times: (steps + 1,), float64. program: the solver on it. error: what was minimised. before: by the name of each grid
    that the search began with, or compared with, the same error.
    """

    times: Array
    program: Program = field(repr=False)
    error: float
    before: dict[str, float]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.times, dtype=dtype)

    def __len__(self) -> int:
        return len(self.times)

    def __iter__(self) -> Iterator[float]:
        return iter(self.times.tolist())


def optimal_grid(
    stds: Any,
    solver: str | Solver,
    nfe: int,
    schedule: Schedule,
    *,
    weights: Any = None,
    t_start: float | None = None,
    t_end: float | None = None,
    startup: str | None = None,
) -> OptimalGrid:
    """The grid on which ``solver`` has the least error at ``nfe`` evaluations, for Gaussian data.

    stds:    (N,), positive: the standard deviations along the principal axes of the data.
    weights: (N,), nonnegative: how often each counts, by default all the same. startup: as in `logsnr.solve`.

    The error is that of `rank`: the root of sum w (end - exact end)^2 over sum w (exact end)^2, from exact moments,
    without samples and without a network. For a solver with noise, the standard deviations at the end are compared. A
    spectrum of more than 256 numbers is summed up by as many means of neighbours.

    The inner nodes are moved in lam, from the two best of five named grids, by least squares on the errors of all modes
    (Levenberg-Marquardt in a trust region; derivatives by differences, float64). That finds a local minimum, never
    worse than the grid it began with. Where an end has an infinite lam, the nodes beside it stay within |lam| = 7, or
    below the last level at which the network is asked.

    Raises ValueError for a spectrum or weights that are none, nfe < 1 or > 100, a budget too small for one step, and
    solvers that choose their own steps.
    """
    check_request(nfe, schedule)
    method = find_solver(solver)
    stds, weights = weighted(stds, weights)
    if len(stds) > MODES:
        groups = np.array_split(np.argsort(stds), MODES)
        means = np.array([np.sqrt((stds[group] ** 2).mean()) for group in groups])
        stds, weights = means, np.array([weights[group].sum() for group in groups])

    def residuals(program: Program) -> Array:
        first, last = ((schedule.alpha(t) * stds, schedule.sigma(t)) for t in (program.grid[0], program.grid[-1]))
        start, end = np.hypot(*first), np.hypot(*last)
        form = propagate(program, schedule, stds**2)
        got = np.sqrt(form.variance(start**2)) if len(form.noise) else form.start * start
        scaled: Array = np.sqrt(weights) * (got - end) / np.sqrt((weights * end**2).sum())
        return scaled

    return searched(method, nfe, schedule, residuals, t_start=t_start, t_end=t_end, startup=startup)


def check_request(nfe: Any, schedule: Any) -> None:
    """TypeError for a schedule that is none, ValueError for a budget that no search is made for."""
    check_schedule(schedule)
    integer("nfe", nfe, 1, LONGEST)


def searched(method: Solver, nfe: int, schedule: Schedule, residuals: Residuals, **layout: Any) -> OptimalGrid:
    """The grid on which the norm of ``residuals(program)`` has a local minimum, from the best of the `BEGINNINGS`."""

    def error(program: Program) -> float:
        return float(np.linalg.norm(residuals(program)))

    programs = {name: Layout(nfe=nfe, grid=name, **layout).program(method, schedule) for name in BEGINNINGS}
    check_elements(programs[BEGINNINGS[0]])  # as all are of one gauge
    before = {name: error(program) for name, program in programs.items()}
    best = sorted(programs, key=before.__getitem__)[:DESCENTS]
    moved = [_descended(programs[name], method, schedule, layout.get("startup"), residuals) for name in best]
    found = min([programs[best[0]], *moved], key=error)
    return OptimalGrid(np.array(found.grid), found, error(found), before)


def _descended(program: Program, method: Solver, sch: Schedule, startup: str | None, residuals: Residuals) -> Program:
    """The program with its inner nodes at a local minimum."""
    times = np.array(program.grid)
    if len(times) < 3:
        return program
    low, high = _room(sch, times)
    lams = np.clip(np.asarray(sch.half_logsnr(times[1:-1])), min(low, high), max(low, high))
    edges = np.array([low, *lams, high])
    gaps = np.maximum(np.diff(edges) / (high - low), 1e-3)

    def on(numbers: Array) -> Program:
        parts = np.exp(numbers - numbers.max())
        inner = low + (high - low) * np.cumsum(parts / parts.sum())[:-1]
        grid = np.array([times[0], *np.asarray(sch.time(inner)).tolist(), times[-1]])
        return method.program(sch, grid, startup=startup)

    begin = np.log(gaps)
    scale = max(float(np.linalg.norm(residuals(program))), 1e-300)

    def at(numbers: Array) -> Array:
        found: Array = residuals(on(numbers)) / scale
        return np.where(np.isfinite(found), found, 1e6)

    fit = least_squares(at, begin, bounds=(begin - 6, begin + 6), max_nfev=ITERATIONS, xtol=1e-6, ftol=1e-5)
    return on(fit.x)


def _room(sch: Schedule, times: Array) -> tuple[float, float]:
    """Between which lam the inner nodes may lie, in the direction of the run."""
    first, end = times[[0, -1]].tolist()
    level = sch.last_before(first, end)
    return lam_window(sch, np.array([first, end if level is None else level]))
