"""From what a user says of a solver and a grid to the program: shared by `solve` and by the analysis."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from ..arrays import Array
from ..grids.grids import check_grid, end_time
from ..grids.grids import grid as make_grid
from ..grids.levels import Shift, as_shift, level_times, numbers
from ..planners.multistep import check_startup
from ..programs.checks import check_times
from ..programs.program import Program
from ..schedules.base import Schedule
from .catalogue import Solver
from .catalogue import solver as find_solver
from .solver import Planner

ROUNDING = 1e-9  # of a run's length: stages that stand at a node may be so far from it
FARTHER = 8  # how many programs in a row may be too long before `largest_within` gives up


@dataclass(frozen=True)
class Layout:
    """How a solver is laid out in time: the arguments of `logsnr.solve` of these names, checked.

    Raises ValueError, naming the argument, for values of the wrong kind; whether they fit a schedule is seen when a
    program is made.
    """

    steps: int | None = None
    nfe: int | None = None
    grid: str | tuple[float, ...] | Callable[[float], Any] | None = None
    t_start: float | None = None
    t_end: float | None = None
    startup: str | None = None
    grid_options: tuple[tuple[str, Any], ...] = ()
    sigmas: tuple[float, ...] | None = None
    lams: tuple[float, ...] | None = None
    shift: Shift | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("steps", "nfe"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
                raise ValueError(f"{name} must be an integer of at least 1, not {value!r:.60}")
        put(self, "grid", grid_key(self.grid))
        put(self, "grid_options", options_key(self.grid_options))
        put(self, "sigmas", levels_key("sigmas", self.sigmas))
        put(self, "lams", levels_key("lams", self.lams))
        put(self, "shift", as_shift(self.shift))
        put(self, "t_start", end_time("t_start", self.t_start))
        put(self, "t_end", end_time("t_end", self.t_end))
        if self.startup is not None:
            check_startup(self.startup)

    @property
    def named(self) -> bool:
        """Whether the grid is one of the named ones, or a function, and not an array of times or levels."""
        return not isinstance(self.grid, tuple) and self.sigmas is None and self.lams is None

    def nodes(self, sch: Schedule) -> Array:
        """The times of an array of times or levels, which is the whole grid. ValueError for what goes with it."""
        given = {"an array of times is": self.grid, "sigmas are": self.sigmas, "lams are": self.lams}
        whole = [name for name, value in given.items() if isinstance(value, tuple)]
        rest = [f.name for f in fields(self) if f.name not in ("startup", "grid", "sigmas", "lams")]
        extra = [name for name in rest if getattr(self, name) not in (None, ())]
        if len(whole) > 1 or (whole != ["an array of times is"] and self.grid is not None):
            extra.append("grid" if len(whole) == 1 else whole[1].split()[0])
        if extra:
            raise ValueError(f"{whole[0]} the whole grid; leave out {' and '.join(extra)}")
        if isinstance(self.grid, tuple):
            return check_grid(sch, self.grid)
        return level_times(sch, *(("sigmas", self.sigmas) if self.lams is None else ("lams", self.lams)))

    @property
    def unplanned(self) -> bool:
        """Whether neither a number of steps, nor a budget, nor an array of times is given."""
        return self.steps is None and self.nfe is None and self.named

    def program(
        self, solver: str | Solver | Planner | Program, sch: Schedule, prediction: str | None = None
    ) -> Program:
        """The program that `solve` runs for a network that returns the head ``prediction``.

        A `Program` is its own layout: it is returned as it is, after a look at its times, and all fields must have
        their defaults. Raises ValueError for fields that do not fit together, and what `Solver.program` raises.
        """
        if isinstance(solver, Program):
            if given := [f.name for f in fields(self) if getattr(self, f.name) not in (f.default, "ramp")]:
                raise ValueError(f"a program is the whole grid; leave out {' and '.join(given)}")
            check_times(sch, solver)
            return solver
        method, layout, notes = self._chosen(find_solver(solver), sch)
        program = layout._planned(method, sch, prediction)
        return program.renamed(program.name, *notes) if notes else program

    def _chosen(self, method: Solver, sch: Schedule) -> tuple[Solver, "Layout", tuple[str, ...]]:
        """The solver and the grid, where the planner is one that chooses them for a budget (`auto`), and notes."""
        choose: Any = getattr(method.planner, "choose", None)
        budget = self.nfe or self.steps
        if not choose or not self.named or budget is None or bool(self.nfe) == bool(self.steps):
            return method, self, ()
        first, last = make_grid(sch, 1, t_start=self.t_start, t_end=self.t_end).tolist()
        found = choose(
            sch, first, last, budget, free=self.grid is None and self.shift is None, fewer=self.steps is None
        )
        method, steps, grid, options, notes = found
        layout = replace(self, steps=steps, nfe=None)
        if self.grid is not None or grid is None:  # the user's own, or the solver's
            return method, layout, notes
        named = ", ".join(f"{name}={value:g}" for name, value in options.items())
        named_so = replace(method, name=f"{method.name} on {grid}({named})")
        return named_so, replace(layout, grid=grid, grid_options=tuple(options.items())), notes

    def _planned(self, method: Solver, sch: Schedule, prediction: str | None) -> Program:
        if not self.named:
            return method.program(sch, self.nodes(sch), startup=self.startup, prediction=prediction)

        def on(count: int, method: Solver = method) -> Program:
            times = self._laid_out(sch, count)
            return method.program(sch, times, startup=self.startup, prediction=prediction)

        fill = getattr(method.planner, "within", None)
        if fill and self.nfe is not None and self.steps is None:
            found = fill(self.nfe)
            if not isinstance(found, tuple) or len(found) != 2:
                raise TypeError(f"within({self.nfe}) of {method.name} must return (planner, steps), not {found!r:.60}")
            planner, count = found
            return on(count, replace(method, planner=planner))
        if self.steps is not None and self.nfe is None:
            return on(self.steps)
        if self.nfe is not None and self.steps is None:
            return largest_within(on, self.nfe)
        told = "neither was given" if self.steps is None else f"not steps = {self.steps} and nfe = {self.nfe}"
        raise ValueError(f"give either steps or nfe, a budget of evaluations: {told}")

    def span(self, sch: Schedule) -> Array:
        """Where adaptive runs must stop: the ends, or every time of an array."""
        return self._laid_out(sch, 1) if self.named else self.nodes(sch)

    def _laid_out(self, sch: Schedule, steps: int) -> Array:
        kind: Any = self.grid if self.grid is not None else "logsnr"
        return make_grid(
            sch, steps, kind, t_start=self.t_start, t_end=self.t_end, shift=self.shift, **dict(self.grid_options)
        )


def plan_program(solver: str | Solver | Planner | Program, sch: Schedule, **layout: Any) -> Program:
    """The program for a `Layout` given by its fields."""
    return Layout(**layout).program(solver, sch)


def largest_within(on: Callable[[int], Program], nfe: int) -> Program:
    """The program with the most steps among those with at most ``nfe`` model evaluations, ``on(steps)``."""
    best = on(1)
    if len(best) > nfe:
        raise ValueError(f"nfe = {nfe} is impossible: {best.name} needs at least {len(best)} model evaluations")
    low, high = 1, 2 * nfe + 2  # a step that evaluates nothing is rare
    guess, uneven = nfe // max(len(best), 1), _goes_back(best)
    while high - low > 1 and len(best) < nfe:
        tried = min(max(guess, low + 1), high - 1)
        program = on(tried)
        uneven = uneven or _goes_back(program)
        cost = (len(program) - len(best)) / (tried - low)
        if len(program) <= nfe:
            low, best = tried, program
        else:
            high = tried
        guess = low + int((nfe - len(best)) / max(cost, 1.0))  # as all steps cost the same, but for a few at the ends
    tried = low
    while uneven and tried < min(low + FARTHER, nfe):
        tried += 1
        program = on(tried)
        low, best = (tried, program) if len(program) <= nfe else (low, best)
    return best


def _goes_back(program: Program) -> bool:
    """Whether it returns to more noise: more steps can then take fewer evaluations, as other nodes are next to the
    levels between which it goes."""
    times, way = np.array([call.t for call in program]), program.grid[-1] - program.grid[0]
    return bool((np.diff(times) * way < -ROUNDING * way * way).any())


def grid_key(grid: Any) -> Any:
    """A grid as something to cache by: its name, its function, or its times; or None. ValueError for anything else."""
    if grid is None or isinstance(grid, str) or callable(grid):
        return grid
    return _line("grid must be a name or a 1-D array of times", grid)


def levels_key(name: str, levels: Any) -> tuple[float, ...] | None:
    """Levels as something to cache by. ValueError unless they are a 1-D list of numbers, or None."""
    if levels is None or isinstance(levels, tuple):
        return levels
    return _line(f"{name} must be a 1-D list of numbers", levels)


def options_key(options: Any) -> tuple[tuple[str, Any], ...]:
    """Options of a grid, a dictionary or None, as something to cache by. ValueError for anything else."""
    if options is None or isinstance(options, tuple):
        return options or ()
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise ValueError(f"grid_options must be a dictionary from names to values, not {options!r:.60}")
    try:
        hash(key := tuple(sorted(options.items())))
    except TypeError:
        raise ValueError(f"grid_options must have plain numbers for values, not {options!r:.60}") from None
    return key


def _line(told: str, values: Any) -> tuple[float, ...]:
    array = numbers(told, values)
    if array.ndim != 1:
        raise ValueError(f"{told}, not an array of shape {array.shape}")
    return tuple(array.tolist())


def layout_key(
    steps: Any, nfe: Any, grid: Any, t_start: Any, t_end: Any, startup: Any, options: Any, sigmas: Any, lams: Any,
    shift: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The fields of a `Layout`, in order, as something to cache by."""
    ends = end_time("t_start", t_start), end_time("t_end", t_end)
    levels = levels_key("sigmas", sigmas), levels_key("lams", lams)
    fields = steps, nfe, grid_key(grid), *ends, startup, options_key(options), *levels, as_shift(shift)
    return tuple(map(specialised, fields)) if torch.compiler.is_compiling() else fields


def specialised(value: Any) -> Any:
    """A number as a constant of a graph: Dynamo takes one that has changed for a symbol, for which there is no plan."""
    if isinstance(value, float):
        return float.fromhex(value.hex())
    return operator.index(value) if isinstance(value, int) else value
