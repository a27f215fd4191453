"""What a solver is: a planner with a name, and what is known of it."""

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..arrays import Array
from ..grids.grids import check_grid
from ..planners.checks import count, nonnegative
from ..planners.pairs import Pair
from ..programs.checks import SLACK, check_times
from ..programs.known import FAR, check_gaussian, with_known
from ..programs.program import Program
from ..schedules.base import Schedule
from ..statistics.wiener import Wiener

WIDE = 3.0  # a result that is so many times as wide as its data is noted
FEW = "too few steps for this method here"  # the note's beginning


@runtime_checkable
class Planner(Protocol):
    """Anything that lays a method out on a grid.

    Known planners are frozen dataclasses whose fields are the options of the method. Those that have ``startup`` among
    them take the argument of that name; ``global_order``, ``evaluations`` (model calls per step) and ``stochastic``
    are told to users where a planner has them. Where steps differ in their cost, a method ``within(nfe)`` gives the
    planner and the number of steps that fill a budget.
    """

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        """The table on ``grid``, float64 times, strictly monotone, or on other nodes between its ends."""
        ...


@dataclass(frozen=True)
class Solver:
    """A named solver.

    name:     what it is called. summary: one line about it, which may be empty.
    planner:  lays it out; None for methods that only exist with adaptive steps.
    adaptive: what chooses its own steps: an embedded `Pair`, or torchdiffeq's name of the method.
    equals:   other names of the same numbers.
    options:  which fields of the planner, or the pair, users may set, by the name that they have for users.
    order:    global order of convergence (with startup="single-step" for multistep solvers of order > 2). Of
              stochastic solvers it is the weak order, that of the law of what they generate; 0 if that does not
              converge to the data's. By default the planner's ``global_order``, or else 0: not known.
    evaluations: model calls per step; by default the planner's, or else 1.
    """

    name: str
    summary: str = ""
    planner: Planner | None = None
    adaptive: Pair | str | None = None
    equals: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    order: int = -1
    evaluations: int = -1

    def __post_init__(self) -> None:
        texts: dict[str, Any] = {"name": self.name, "summary": self.summary}
        for what, text in texts.items():
            if not isinstance(text, str):
                hint = "; a planner is given as planner=" if isinstance(text, Planner) else ""
                raise TypeError(f"{what} must be a line of text, not {text!r:.60}{hint}")
        if self.planner is None and self.adaptive is None:
            raise TypeError(f"the solver {self.name!r:.60} needs a planner, or adaptive, what chooses its own steps")
        if self.planner is not None and not isinstance(self.planner, Planner):
            raise TypeError(f"planner must have a method plan(schedule, grid), not be {self.planner!r:.60}")
        try:
            hash(self.planner)  # plans are kept by it
        except TypeError as error:
            raise TypeError(
                f"planner must be hashable, as a frozen dataclass of hashable fields is, not {self.planner!r:.60} "
                f"({error})"
            ) from None
        for name, known, default in (("order", "global_order", 0), ("evaluations", "evaluations", 1)):
            if getattr(self, name) < 0:
                object.__setattr__(self, name, getattr(self.planner or self.adaptive, known, default))

    @property
    def stochastic(self) -> bool:
        """Whether it adds noise."""
        return bool(getattr(self.planner, "stochastic", False))

    def program(
        self, sch: Schedule, grid: Any, *, startup: str | None = None, prediction: str | None = None
    ) -> Program:
        """The table of this solver on ``grid``, a 1-D array of times (see `logsnr.grid`).

        startup, prediction: for planners that have such fields, which None leaves as they are: "ramp" or
        "single-step", and the head that the network returns. Raises ValueError for grids that are not strictly
        monotone or leave the schedule, for grids of stochastic solvers that do not go from noise to data, and for
        adaptive-only methods, and for a planner that goes elsewhere; TypeError if it does not return a `Program`.
        """
        planner = self.planner
        if planner is None:
            raise ValueError(f"{self.name} chooses its own steps and has no program; give rtol and atol to solve")
        given = {"startup": startup, "prediction": prediction}
        if fields := {name: value for name, value in given.items() if value is not None and hasattr(planner, name)}:
            planner = replace(planner, **fields)  # type: ignore[type-var]
        times = check_grid(sch, grid)
        self._check_direction(times, self.stochastic)
        program = planner.plan(sch, times)
        if not isinstance(program, Program):
            raise TypeError(f"the planner of {self.name} must return a Program, not {type(program).__name__}")
        (s, t), (first, last) = times[[0, -1]], program.times[[0, -1]]
        if max(abs(first - s), abs(last - t)) > SLACK * abs(t - s):
            raise ValueError(
                f"the planner of {self.name} must go from t = {s:.6g} to {t:.6g} as its grid does, and goes from "
                f"{first:.6g} to {last:.6g}"
            )
        self._check_direction(times, bool(program.noises))
        check_times(sch, program, f"the planner of {self.name} tells it")
        left = float(sch.sigma(times[-1])) if times[0] > times[-1] else 0.0
        notes = [f"noise of sigma = {left:.3g} is left at t = {times[-1]:.6g}"] if left else []
        if (wide := _width(program, sch)) > WIDE:
            notes.append(f"{FEW}: normal data come out {wide:.3g} times as wide")
        return program.renamed(self.name, *(note for note in notes if note not in program.notes))

    def with_known(self, gaussian: Wiener, calls: int = 1, *, least: float = FAR) -> "Solver":
        """The solver whose programs are this one's `Program.with_known`: ``nfe=8`` is then a step more than without.

        gaussian, calls, least: as for `Program.with_known`. Programs of no more than ``calls`` evaluations stay as they
        are, with a note. Raises ValueError for solvers that have no program, or one for each budget, as "auto" has:
        take `Program.with_known` there; and for numbers out of range, TypeError for what is no `Wiener`.
        """
        planner = KnownStart(self, gaussian, calls, least)
        return Solver(planner.name, self.summary, planner, order=self.order, evaluations=self.evaluations)

    def _check_direction(self, times: Array, noisy: bool) -> None:
        if noisy and times[0] < times[-1]:
            raise ValueError(f"{self.name} adds noise: its grid must go from noise to data, with times that decrease")


@dataclass(frozen=True)
class KnownStart:
    """The planner of `Solver.with_known`."""

    solver: Solver
    gaussian: Wiener
    calls: int = 1
    least: float = FAR
    startup: str | None = None
    prediction: str | None = None

    def __post_init__(self) -> None:
        planner = self.solver.planner
        if planner is None or hasattr(planner, "within") or hasattr(planner, "suited"):
            raise ValueError(f"{self.solver.name} has no program of its own on a grid; take Program.with_known")
        check_gaussian(self.gaussian)
        count("calls", self.calls)
        nonnegative("least", self.least)

    @property
    def name(self) -> str:
        return f"{self.solver.name}-known"

    @property
    def stochastic(self) -> bool:
        return self.solver.stochastic

    @property
    def gauge(self) -> Any:
        return getattr(self.solver.planner, "gauge", None)

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        program = self.solver.program(schedule, grid, startup=self.startup, prediction=self.prediction)
        if len(program) <= self.calls:
            return program.renamed(self.name, f"no call is left out of so few: {len(program)}")
        return with_known(program, schedule, self.gaussian, self.calls, self.least)


def _width(program: Program, sch: Schedule) -> float:
    """How many times as wide as it should be the table makes standard normal data, whose model is known and linear:
    carried out on unit vectors, one for the start and one for each noise. 1 for tables that are not for numbers."""
    if program.event or program.constant:
        return 1.0
    times = np.array([*(call.t for call in program), program.grid[0], program.grid[-1]])
    alpha, sigma = np.asarray(sch.alpha(times)), np.asarray(sch.sigma(times))
    level = alpha**2 + sigma**2
    pairs = dict(zip(times.tolist(), zip(alpha / level, sigma / level, strict=True), strict=True))
    keys = list(dict.fromkeys(program.noises))
    start, *normals = np.eye(1 + len(keys))
    noises = dict(zip(keys, normals, strict=True))
    end = program.interpret(level[-2] ** 0.5 * start, lambda x, t: (pairs[t][0] * x, pairs[t][1] * x), noises)
    return float(np.linalg.norm(end) / level[-1] ** 0.5)
