"""What a solver is, in words and numbers: its table, its order, its cost, and the names it equals."""

from dataclasses import dataclass

import numpy as np

from ..solvers.catalogue import Solver, solver_names
from ..solvers.catalogue import solver as find_solver
from ..solvers.gauges import Array
from ..solvers.multistep import Startup
from ..solvers.program import STATE, Program
from ..solvers.schedule import Schedule

SAME = 1e-12  # relative difference of two maps that are equal up to rounding


@dataclass(frozen=True)
class Explanation:
    """program: the table; equals: other named solvers that do the same on this grid, found by comparing the
    tables; weights: largest sum of absolute weights of a step, in units of its own total: how much it
    extrapolates, hence how much it amplifies an error of the network."""

    solver: Solver
    program: Program
    equals: tuple[str, ...]
    weights: float

    def __str__(self) -> str:
        lines = [self.solver.summary, str(self.program)]
        lines.append(f"equal on this grid: {', '.join(self.equals) or 'no other named solver'}")
        lines.append(f"largest sum of |weights| in a step: {self.weights:.2f} times the sum of the weights")
        return "\n".join(lines)


def explain(name: str | Solver, sch: Schedule, grid: Array, *, startup: Startup = "ramp") -> Explanation:
    """Plan ``name`` on ``grid`` and say what came out. Raises what `Solver.program` raises."""
    method = find_solver(name)
    program = method.program(sch, grid, startup=startup)
    mine = affine_map(program, sch)
    equals = []
    for other in map(find_solver, solver_names()):
        if other.name != method.name and other.planner is not None:
            theirs = other.program(sch, grid, startup=startup)
            if len(theirs) == len(program) and _same(mine, affine_map(theirs, sch)):
                equals.append(other.name)
    return Explanation(method, program, tuple(equals), _extrapolation(program))


def affine_map(program: Program, sch: Schedule) -> tuple[Array, Array]:
    """When the model is called, and what becomes of the state, for any model: every slot is a linear
    combination of the start and of the x0 that the calls return, (calls + 1, calls + 1). Row n is the state
    that call n sees, the last row the result.

    The pair (x0, eps) of a call is one unknown: eps = (x - alpha x0) / sigma, or x0 from eps at sigma = 0.
    """
    n = len(program)
    slots: dict[int, Array] = {STATE: np.eye(n + 1)[0]}
    seen, times = [], []
    for i, call in enumerate(program):
        x = slots[call.at]
        seen.append(x)
        times.append(call.t)
        alpha, sigma = float(sch.alpha(call.t)), float(sch.sigma(call.t))
        unknown = np.eye(n + 1)[i + 1]
        pair = (unknown, (x - alpha * unknown) / sigma) if sigma else (x / alpha, unknown)
        columns = np.stack([*pair, *(slots[k] for k in call.reads)])
        slots.update(zip(call.writes, call.matrix @ columns, strict=True))
    return np.array(times), np.stack([*seen, slots[STATE]])


def _same(a: tuple[Array, Array], b: tuple[Array, Array]) -> bool:
    return all(np.abs(p - q).max() <= SAME * np.abs(p).max() for p, q in zip(a, b, strict=True))


def _extrapolation(program: Program) -> float:
    """max over calls that reach a node of sum |w_j| / |sum w_j| over the values of N that are combined."""
    worst = 1.0
    for call in program:
        if call.node is None:
            continue
        row = call.matrix[call.writes.index(STATE)]
        keep = [2 + j for j, k in enumerate(call.reads) if k != STATE]
        weights = np.array([row[:2].sum(), *row[keep]])
        if abs(weights.sum()) > 0:
            worst = max(worst, float(np.abs(weights).sum() / abs(weights.sum())))
    return worst
