"""A cheaper run of the same problem: where parallel runs begin, and what carries corrections from block to block."""

from dataclasses import dataclass

import numpy as np
import torch

from ..kernels import advance
from .catalogue import Solver
from .catalogue import solver as find_solver
from .denoiser import Denoiser
from .gauges import Array
from .lower import Lowered, lower
from .options import count
from .parallel import evaluate
from .parallel_plan import Pair, Plan, rows
from .run import not_finite


@dataclass(frozen=True)
class Coarse:
    """A cheaper run, from which `Picard` takes its first guess: ``steps`` of a solver over nodes of the same grid.

    solver: a name or a `Solver`, with fixed steps and without noise.
    steps:  how many; no more than the run itself has.

    Raises ValueError for solvers and numbers that do not fit.
    """

    solver: str | Solver = "dpmpp-2m"
    steps: int = 10

    def __post_init__(self) -> None:
        check_coarse(self.solver)
        count("steps", self.steps)


def check_coarse(solver: str | Solver) -> Solver:
    """A solver that can be a coarse one; ValueError if it adds noise or chooses its own steps."""
    found = find_solver(solver)
    if found.planner is None:
        raise ValueError(f"a coarse run takes fixed steps; {found.name} is adaptive")
    if found.stochastic:
        raise ValueError(f"a coarse run adds no noise; {found.name} is stochastic")
    return found


def spread(steps: int, parts: int, what: str) -> Array:
    """(parts + 1,): nodes of a grid, from the first to the last, as even as integers can be."""
    if parts > steps:
        raise ValueError(f"{what} = {parts} must be at most the number of steps, {steps}")
    return np.rint(np.linspace(0, steps, parts + 1)).astype(np.int64)


def lower_coarse(solver: str | Solver, lowered: Lowered, nodes: Array, den: Denoiser) -> Lowered:
    """The coarse program on some nodes of the grid, for the same model."""
    program = find_solver(solver).program(den.schedule, lowered.grid[nodes])
    state, model = lowered.updates.dtypes[0], lowered.updates.dtypes[-1]
    return lower(program, den.schedule, den.prediction, state=state, model=model)


class Guess:
    """What a `Coarse` run takes (x0, eps) to be: linear between the nodes where it has asked the model, in the number
    of the node. ``nfe`` evaluations were made, one after the other.

    Raises ValueError if the run has fewer steps than the coarse one, and NonFiniteError or ValueError as `run.run`.
    """

    def __init__(self, coarse: Coarse, lowered: Lowered, den: Denoiser, x: torch.Tensor) -> None:
        grid = lowered.grid
        nodes = spread(len(grid) - 1, coarse.steps, "steps of the coarse run")
        plan = Plan.of(lower_coarse(coarse.solver, lowered, nodes, den), den, x)
        slots, pairs, self.nfe = plan.start(x), list[Pair](), len(plan)
        for n in range(len(plan)):
            seen = slots[plan.held[n][0]].clone()
            outputs = step(plan, den, slots, n)
            if not all(bool(y.isfinite().all()) for y in outputs):
                raise not_finite(x, n, len(plan), plan.lowered.times[n])
            if plan.begins(n):
                pairs.append(plan.pair_of(n, seen, outputs))
        pairs.append(_ending(float(plan.alpha[-1]), float(plan.sigma[-1]), slots[0], pairs[-1]))
        self.x0, self.eps = (torch.stack(parts) for parts in zip(*pairs, strict=True))
        sign = np.sign(grid[-1] - grid[0])
        at = np.interp(sign * np.array([*lowered.times, grid[-1]]), sign * grid, np.arange(len(grid)))
        self.place = np.interp(at, nodes, np.arange(len(nodes)))

    def of(self, sample: int, calls: slice) -> Pair:
        """For one sample, when these calls are made (the number of calls stands for the end): (W, 1, ...) each."""
        place = self.place[calls]
        before = np.minimum(place.astype(np.int64), len(self.x0) - 2)
        index = torch.from_numpy(before).to(self.x0.device)
        x0, eps = self.x0[:, sample : sample + 1], self.eps[:, sample : sample + 1]
        share = rows(place - before, x0)
        return torch.lerp(x0[index], x0[index + 1], share), torch.lerp(eps[index], eps[index + 1], share)


def step(plan: Plan, den: Denoiser, slots: torch.Tensor, n: int) -> list[torch.Tensor]:
    """Make call n of a program without noise: its answers. ``slots`` (S, B, ...) are carried on."""
    seen = slots[int(plan.recurrence.at[n])].to(plan.seen, copy=True)  # models may change what they are given
    outputs = evaluate(den, None, plan.recurrence.models, seen, plan.told[n].repeat(len(seen)))
    advance(slots, [y[None] for y in outputs], plan.recurrence, first=n, out=slots)
    return outputs


def _ending(alpha: float, sigma: float, end: torch.Tensor, last: Pair) -> Pair:
    """(x0, eps) at the end, where the model has not been asked: what weighs more there follows from the state."""
    x0, eps = last
    if alpha >= sigma:
        return (end - sigma * eps) / alpha, eps
    return x0, (end - alpha * x0) / sigma
