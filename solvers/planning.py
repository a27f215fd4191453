"""From what a user says of a solver and a grid to the program: shared by `solve` and by the analysis."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .catalogue import Solver
from .catalogue import solver as find_solver
from .grids import grid as make_grid
from .planners.multistep import Startup
from .program import Program
from .schedules.base import Schedule

FARTHER = 8  # how many programs in a row may be too long before `largest_within` gives up


def plan_program(
    solver: str | Solver | Program,
    sch: Schedule,
    *,
    steps: int | None = None,
    nfe: int | None = None,
    grid: str | Any = "logsnr",
    t_start: float | None = None,
    t_end: float | None = None,
    startup: Startup = "ramp",
) -> Program:
    """The program that `solve` runs for these options, which mean what they mean there.

    A `Program` is its own plan: it is returned as it is, and steps, nfe, t_start and t_end must be left out.
    Raises ValueError for options that do not fit together, and what `Solver.program` raises.
    """
    key = grid_key(grid)
    whole = isinstance(solver, Program) or not isinstance(key, str)
    if whole and any(a is not None for a in (steps, nfe, t_start, t_end)):
        what = "a program" if isinstance(solver, Program) else "an array of times"
        raise ValueError(f"{what} is the whole grid; leave out steps, nfe, t_start and t_end")
    if isinstance(solver, Program):
        return solver
    method = find_solver(solver)
    if not isinstance(key, str):
        return method.program(sch, key, startup=startup)

    def on(count: int) -> Program:
        times = make_grid(sch, count, key, t_start=t_start, t_end=t_end)
        return method.program(sch, times, startup=startup)

    if steps is not None and nfe is None:
        return on(steps)
    if nfe is not None and steps is None:
        return largest_within(on, nfe)
    raise ValueError(f"give either steps or nfe, not steps = {steps} and nfe = {nfe}")


def largest_within(on: Callable[[int], Program], nfe: int) -> Program:
    """The program with the most steps among those with at most ``nfe`` model evaluations, ``on(steps)``."""
    if isinstance(nfe, bool) or not isinstance(nfe, (int, np.integer)):
        raise ValueError(f"nfe must be an integer, not {nfe!r}")
    best = on(1)
    if len(best) > nfe:
        raise ValueError(f"nfe = {nfe} is impossible: {best.name} needs at least {len(best)} model evaluations")
    low, high = 1, nfe + 1  # every step evaluates the model at least once
    guess, uneven = nfe // len(best), _goes_back(best)
    while high - low > 1 and len(best) < nfe:
        program = on(min(max(guess, low + 1), high - 1))
        uneven = uneven or _goes_back(program)
        cost = (len(program) - len(best)) / (program.steps - best.steps)
        if len(program) <= nfe:
            low, best = program.steps, program
        else:
            high = program.steps
        guess = low + int((nfe - len(best)) / max(cost, 1.0))  # as all steps cost the same, but for a few at the ends
    tried = best.steps
    while uneven and tried < min(best.steps + FARTHER, nfe):
        tried += 1
        program = on(tried)
        best = program if len(program) <= nfe else best
    return best


def _goes_back(program: Program) -> bool:
    """Whether it returns to more noise: more steps can then take fewer evaluations, as other nodes are next to the
    levels between which it goes."""
    times = np.array([call.t for call in program])
    return bool((np.diff(times) * (program.grid[-1] - program.grid[0]) < 0).any())


def grid_key(grid: Any) -> str | tuple[float, ...]:
    """A grid as something to cache by: its name, or its times. ValueError unless it is one of the two."""
    if isinstance(grid, str):
        return grid
    if isinstance(grid, torch.Tensor):
        grid = grid.detach().cpu().double().numpy()
    try:
        array = np.asarray(grid, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"grid must be a name or a 1-D array of times, not {grid!s:.60}") from None
    if array.ndim != 1:
        raise ValueError(f"grid must be a name or a 1-D array of times, not an array of shape {array.shape}")
    return tuple(array.tolist())
