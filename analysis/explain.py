"""What a solver is, in words and numbers: its table, its order, its cost, and the names it equals."""

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from textwrap import wrap

import numpy as np

from ..solvers.arrays import Array
from ..solvers.catalogue.catalogue import Solver, solver_names
from ..solvers.catalogue.catalogue import solver as find_solver
from ..solvers.grids.grids import grid as make_grid
from ..solvers.planners.multistep import Startup
from ..solvers.programs.checks import check_elements
from ..solvers.programs.interpret import carry_out
from ..solvers.programs.program import ONE, STATE, Program
from ..solvers.schedules.base import Schedule
from ..solvers.schedules.formulas import VPLinear
from .stability import LONGEST, SETTLED, stability, stable_step

MAX_STEPS = 1000  # which take a quarter of a minute and fill a thousand lines
SAME = 1e-12  # relative difference of two maps that are equal up to rounding


@dataclass(frozen=True)
class Explanation:
    """program: the table; equals: other named solvers that do the same on this grid, found by comparing the
    tables; weights: largest sum of absolute weights of a step, in units of its own total: how much it
    extrapolates, hence how much it amplifies an error of the network.

    stable_step: the longest step in lam up to which no mode of Gaussian data grows (`stability`; 20 if none ever
    does). longest_step: the longest of this grid, but for those from or to an infinite lam. growth: by which the
    mode that grows most would grow in each of many such steps; 1 or less is stable. Both are NaN for solvers that do
    more than step along the grid."""

    solver: Solver
    program: Program
    equals: tuple[str, ...]
    weights: float
    stable_step: float
    longest_step: float
    growth: float

    def __str__(self) -> str:
        lines = [self.solver.summary, table := str(self.program)]
        if "[" in table:
            lines.append("x0 and eps are the model's answer at the call, x0[n] and eps[n] that of call n")
        equals = f"equal on this grid: {', '.join(self.equals) or 'no other named solver'}"
        lines += wrap(equals, 80, subsequent_indent="  ", break_on_hyphens=False)
        lines.append(f"largest sum of |weights| in a step: {self.weights:.2f} times the sum of the weights")
        if not np.isnan(self.growth):
            lines += wrap(self._stability(), 80, subsequent_indent="  ")
        return "\n".join(lines)

    def _stability(self) -> str:
        told = f"stability: no mode of Gaussian data grows for steps in lam of up to {self.stable_step:.3g}"
        if self.stable_step == LONGEST:
            return f"{told}, the longest tried"
        if not self.longest_step:
            return f"{told}; all steps of this grid start or end at an infinite lam"
        told += f"; the longest step of this grid is {self.longest_step:.3g}"
        return told if self.growth <= 1 + SETTLED else f"{told}: modes grow up to {self.growth:.3g} times in each such"


def explain(
    name: str | Solver,
    sch: Schedule | None = None,
    grid: Array | str = "logsnr",
    *,
    steps: int | None = None,
    startup: Startup = "ramp",
) -> Explanation:
    """Plan ``name`` on a schedule and a grid, and say what came out.

    sch:  `VPLinear` if none. grid: times (n + 1,), or a name of `grid_names` with its number of ``steps``, 5 if none.

    Raises ValueError for more than 1000 steps, for ``steps`` beside times, and what `Solver.program` raises.
    """
    sch, method = sch or VPLinear(), find_solver(name)
    if isinstance(grid, str):
        check_length(steps := 5 if steps is None else steps)
        grid = make_grid(sch, steps, grid)
    elif steps is not None:
        raise ValueError(f"steps = {steps} is for grids by their name; this one has {len(grid) - 1}")
    check_length(len(grid) - 1)
    program = method.program(sch, grid, startup=startup)
    check_elements(program)
    mine = affine_map(program, sch)
    equals = []
    for other in map(find_solver, solver_names()):
        if other.name != method.name and other.planner is not None:
            try:
                theirs = other.program(sch, grid, startup=startup)
            except ValueError:  # it cannot run on this grid
                continue
            if len(theirs) == len(program) and _same(mine, affine_map(theirs, sch)):
                equals.append(other.name)
    lam = np.asarray(sch.half_logsnr(program.times))
    longest = min(float(np.abs(np.diff(lam[np.isfinite(lam)])).max(initial=0.0)), LONGEST)
    stable = growth = float("nan")
    with suppress(ValueError):  # where a solver does more than step along a grid
        stable = stable_step(method)
        growth = float(stability(method, steps=[longest]).growth.max()) if longest else 1.0
    return Explanation(method, program, tuple(equals), _extrapolation(program, sch), stable, longest, growth)


def check_length(steps: int) -> None:
    """Raise ValueError if so many steps would take too long."""
    if steps > MAX_STEPS:
        raise ValueError(f"steps = {steps} is too long to explain; at most {MAX_STEPS}")


def affine_map(program: Program, sch: Schedule) -> tuple[Array, Array]:
    """The times of the calls, and the linear map that the program is, for any model: every slot is a linear
    combination of the start, of the x0 that the calls return and of the noises, but for constants,
    (calls + 1, 1 + calls + noises). Row n is the state that call n sees, the last row the result.

    The pair (x0, eps) of a call is one unknown: eps = (x - alpha x0) / sigma, or x0 from eps at sigma = 0.
    """
    units = np.eye(1 + len(program) + len(program.noises))
    unknowns, seen = iter(units[1:]), list[Array]()

    def model(x: Array, t: float) -> tuple[Array, Array]:
        unknown, alpha, sigma = next(unknowns), float(sch.alpha(t)), float(sch.sigma(t))
        seen.append(x)
        return (unknown, (x - alpha * unknown) / sigma) if sigma else (x / alpha, unknown)

    noises = dict(zip(program.noises, units[1 + len(program) :], strict=True))
    slots = {STATE: units[0], ONE: 0 * units[0]}
    deque(carry_out(program, slots, model, noises), 0)
    return np.array([call.t for call in program if call.asks]), np.stack([*seen, slots[STATE]])


def _same(a: tuple[Array, Array], b: tuple[Array, Array]) -> bool:
    return all(p.shape == q.shape and np.abs(p - q).max() <= SAME * np.abs(p).max() for p, q in zip(a, b, strict=True))


def _extrapolation(program: Program, sch: Schedule) -> float:
    """max over calls that reach a node of sum |w_j| / |sum w_j| over the values of N that are combined."""
    worst = 1.0
    states = {call.at for call in program}
    for call in program:
        row = call.matrix[call.writes.index(STATE)] if call.node is not None else None
        older = [] if row is None else [2 + j for j, k in enumerate(call.reads) if k not in {*states, ONE}]
        if row is None or not older:
            continue
        newest = row[:2].sum()
        if row[:2].all():  # N is neither x0 nor eps, but alpha' x0 + sigma' eps
            velocity = np.array([sch.dalpha(call.t), sch.dsigma(call.t)])
            newest = row[:2] @ velocity / (velocity @ velocity)
        weights = np.array([newest, *row[older]])
        worst = max(worst, float(np.abs(weights).sum() / abs(weights.sum())))
    return worst
