"""Transfer functions: what a solver and a grid do to data of every scale, and which to choose for it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from ..solvers.arrays import Array
from ..solvers.catalogue.catalogue import Solver, solver_names
from ..solvers.catalogue.catalogue import solver as find_solver
from ..solvers.catalogue.planning import Layout, largest_within, plan_program
from ..solvers.grids.grids import GRIDS
from ..solvers.grids.grids import grid as make_grid
from ..solvers.planners.multistep import Startup
from ..solvers.programs.call import integer
from ..solvers.programs.checks import check_elements
from ..solvers.programs.program import Program
from ..solvers.schedules.base import Schedule
from .gaussian import Gaussian
from .layout import LayoutOptions
from .moments import propagate
from .rounding import execute, positive, weighted

SAMPLES = 32  # draws per mode behind an error measured in a dtype
MAX_NFE = 100  # where the search for a target gives up unless nfe= says otherwise


@dataclass(frozen=True, eq=False)
class Transfer:
    """A sampler's response to Gaussian data N(0, std^2), per standard deviation; all arrays are (N,).

    gain, exact: derivative of the end state with respect to the start, of the sampler and of the PF-ODE's
    flow, R_end / R_start with R^2 = alpha^2 std^2 + sigma^2. spread: the standard deviation of what is
    generated. error: root mean square of (end - exact end) over that of the exact end: |gain / exact - 1| if
    the run is deterministic and in full precision; for a program that adds noise, which follows no path,
    |spread / R_end - 1|.
    dtype: of the execution measured, None for exact arithmetic. program: the table.
    """

    stds: Array
    gain: Array
    exact: Array
    spread: Array
    error: Array
    dtype: torch.dtype | None
    program: Program = field(repr=False)

    def plot(self, path: str | Path) -> None:
        """Save a plot of the relative error, in the format of the path's suffix."""
        from .plots import saved
        from .plots import transfer as drawn

        saved(drawn(self), path)


@dataclass(frozen=True)
class Choice:
    """One way to sample and what it costs: options of `logsnr.sample`, its NFE, and its error, see `rank`."""

    solver: str
    grid: str
    startup: Startup
    nfe: int
    error: float


def transfer(
    solver: str | Solver | Program,
    sch: Schedule,
    stds: Any = None,
    *,
    dtype: torch.dtype | None = None,
    prediction: str = "eps",
    seed: int = 0,
    **layout: Unpack[LayoutOptions],
) -> Transfer:
    """The transfer function of ``solver`` on a grid, exactly, or of its execution in ``dtype``.

    stds:  (N,), positive, by default 121 from 1e-3 to 10.
    dtype: runs the executor with the exact denoiser rounded to this dtype, the head ``prediction``, on 32
           draws per std (``seed``); gain is then the least-squares slope. Without it both are of no effect.

    layout: steps, nfe, grid, t_start, t_end and startup, as in `logsnr.solve`; a `Program` is taken as it is.
    Raises ValueError for options that do not fit, and with a dtype for programs that add noise.
    """
    program = plan_program(solver, sch, **layout)
    check_elements(program)
    stds = positive("stds", np.geomspace(1e-3, 10.0, 121) if stds is None else stds)
    first, last = program.grid[0], program.grid[-1]
    start, end = (np.hypot(sch.alpha(t) * stds, sch.sigma(t)) for t in (first, last))
    exact = end / start
    if dtype is None:
        form = propagate(program, sch, stds**2)
        gain, spread = form.start, np.sqrt(form.variance(start**2))
        error = np.abs(spread / end - 1) if len(form.noise) else np.abs(gain / exact - 1)
    else:
        data = Gaussian(np.zeros_like(stds), stds**2)
        x = data.sample_at(sch, first, SAMPLES, generator=torch.Generator().manual_seed(seed))
        x = x.to(torch.promote_types(dtype, torch.float32))
        y = execute(program, data, sch, x, dtype=dtype, prediction=prediction).double().numpy()
        x0 = x.double().numpy()
        gain = (x0 * y).sum(axis=0) / (x0 * x0).sum(axis=0)
        spread = np.abs(gain) * start
        error = np.sqrt(((y - exact * x0) ** 2).mean(axis=0) / ((exact * x0) ** 2).mean(axis=0))
    return Transfer(stds, gain, exact, spread, error, dtype, program)


def rank(
    stds: Any,
    sch: Schedule,
    *,
    weights: Any = None,
    nfe: int | None = None,
    target: float | None = None,
    solvers: Iterable[str] | None = None,
    grids: Iterable[str] = GRIDS,
    t_start: float | None = None,
    t_end: float | None = None,
    best: int | None = None,
) -> list[Choice]:
    """Ways to sample data whose covariance has eigenvalues ``stds``^2, best first.

    stds:    (N,), positive: the standard deviations along the principal axes of the data.
    weights: (N,), nonnegative: how often each counts; 1 / std^2 asks for the same relative error everywhere.
    nfe:     a budget: every choice is the largest program within it, and the least error comes first.
    target:  an error to reach: every choice has the least NFE found for it, and the least NFE comes first.
             With nfe too, only what reaches the target within the budget is listed.
    solvers: names, by default all deterministic ones with fixed steps. grids: kinds of `logsnr.grid`.
    best:    how many to return, at least 1, by default all. A target is found sooner for a few.

    The error is the root of sum w (end - exact end)^2 over sum w (exact end)^2, computed exactly in the mean
    over Gaussian data with these eigenvalues. As long as no mode is flipped, and so below 1, it is the
    2-Wasserstein distance to the exact marginal at t_end relative to that marginal's size. The search for a
    target takes errors to fall with NFE; where they do not, it may miss a smaller NFE that reaches it too.

    Solvers that are other names for the same numbers are listed once. Raises ValueError for a spectrum or
    weights that are not one, for nfe or best < 1, and if neither nfe nor target is given.
    """
    stds, weights = weighted(stds, weights)
    if nfe is None and target is None:
        raise ValueError("give nfe (a budget), target (a relative error), or both")
    for name, value in (("nfe", nfe), ("best", best)):
        if value is not None:
            integer(name, value, 1, 1_000_000)
    if target is not None and not target > 0:
        raise ValueError(f"target must be positive, not {target}")

    def error(program: Program) -> float:
        last = program.grid[-1]
        size = weights * ((sch.alpha(last) * stds) ** 2 + sch.sigma(last) ** 2)
        return float(np.sqrt((size * transfer(program, sch, stds).error ** 2).sum() / size.sum()))

    choices: list[Choice] = []
    limit = MAX_NFE if nfe is None else nfe
    names = _deterministic() if solvers is None else solvers
    for kind, (method, startup) in product(grids, list(_settings(sch, names))[::-1]):  # the simplest are named first
        layout = Layout(grid=kind, t_start=t_start, t_end=t_end, startup=startup)
        on = cache(partial(_planned, layout, method, sch))
        program = None
        if len(on(1)) <= limit:
            program = largest_within(on, limit) if target is None else _reaching(on, error, target, limit)
        if program is not None:
            choices.append(Choice(method.name, kind, startup, len(program), error(program)))
        if target is not None and best is not None and len(choices) >= best:
            limit = sorted(choice.nfe for choice in choices)[best - 1]
    choices.sort(key=lambda c: (c.error, c.nfe) if target is None else (c.nfe, c.error))
    return choices[:best]


def _deterministic() -> list[str]:
    return [m.name for m in map(find_solver, solver_names()) if m.planner and not m.stochastic]


def _planned(layout: Layout, method: Solver, sch: Schedule, steps: int) -> Program:
    return replace(layout, steps=steps).program(method, sch)


def _settings(sch: Schedule, names: Iterable[str]) -> Iterator[tuple[Solver, Startup]]:
    """Solvers and start-ups, each set of numbers once."""
    seen: set[str] = set()
    times = make_grid(sch, 4)
    for method in map(find_solver, names):
        if not seen.isdisjoint(method.equals):
            continue
        seen.add(method.name)
        programs = {method.program(sch, times, startup=startup): startup for startup in ("single-step", "ramp")}
        yield from product([method], reversed(programs.values()))


def _reaching(
    on: Callable[[int], Program], error: Callable[[Program], float], target: float, limit: int
) -> Program | None:
    """The smallest program found with an error of at most ``target``, None if none within ``limit`` is, which has
    room for one step. on: from steps to programs. Doubles the steps, then interpolates.
    """
    missed, above, found = 0, np.inf, on(1)
    while (below := error(found)) > target:
        missed, above = found.steps, below
        found = on(2 * missed) if 2 * len(found) <= limit else largest_within(on, limit)
        if found.steps <= missed:
            return None
    tries = 0
    while (steps := found.steps) - missed > 1:
        middle, tries = (missed + steps) // 2, tries + 1
        if below > 0 and np.isfinite(above) and tries % 3:  # errors are nearly a power of the steps
            crossing = np.log(above / target) / np.log(above / below)
            middle = min(max(missed + 1, ceil(missed * (steps / missed) ** crossing)), steps - 1)
        if (e := error(on(middle))) <= target:
            found, below = on(middle), e
        else:
            missed, above = middle, e
    return found
