"""Grids for a denoiser as it is: the best choice among many times, by dynamic programming along exact trajectories."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from ..solvers.catalogue.catalogue import Solver
from ..solvers.catalogue.catalogue import solver as find_solver
from ..solvers.catalogue.planning import Layout
from ..solvers.denoisers.denoiser import Denoiser, check_denoiser
from ..solvers.grids.grids import grid as make_grid
from ..solvers.planners.checks import choice
from ..solvers.programs.checks import check_elements
from ..solvers.programs.interpret import carry_out
from ..solvers.programs.program import STATE, Program
from ..solvers.sampling import sample, solve
from .optimal_grid import OptimalGrid

Pair = tuple[torch.Tensor, torch.Tensor]
COMPARED = ("logsnr", "karras", "time")


def trajectory_grid(
    den: Denoiser,
    x: torch.Tensor,
    solver: str | Solver,
    nfe: int,
    *,
    objective: str = "global",
    candidates: int = 60,
    teacher: str | Solver = "deis-3",
    t_start: float | None = None,
    t_end: float | None = None,
) -> OptimalGrid:
    """The best ``nfe`` steps among the times of a fine grid, for this denoiser and these starts.

    x:          (B, ...), pure noise at t_start; 64 or more samples tell enough, and other ones should judge.
    solver:     one evaluation a step, without noise; it starts with the ramp.
    objective:  "global": every state that the solver reaches after k steps, at every candidate time, comes from the
                state after k - 1 steps that brings it closest to the teacher's (OptimalSteps, arXiv:2503.21774; the
                solver's own history goes along, where the paper has Euler's step). B evaluations at most ``nfe`` times
                ``candidates``. "local": the least sum of the errors of single DDIM steps from the teacher's states, in
                x/alpha (GITS, arXiv:2405.11326); B evaluations at every candidate.
    candidates: steps of the fine grid, uniform in lam. teacher: runs on it, and its states are taken for exact.

    ``error`` is the mean over samples of the root mean square distance of the ends to the teacher's; `before` has it on
    named grids. Neither search is exact: "global" keeps one state for each time and step, "local" does not know the
    solver.

    Raises ValueError for solvers with noise or with more evaluations a step, and for more steps than candidates.
    """
    check_denoiser(den)
    choice("objective", objective, ("global", "local"))
    method, sch = find_solver(solver), den.schedule
    span: dict[str, Any] = dict(t_start=t_start, t_end=t_end)
    program = Layout(nfe=nfe, **span).program(method, sch)
    check_elements(program)
    steps = program.steps
    if len(program) != steps or program.noises:
        raise ValueError(f"{method.name} must take one evaluation a step, and add no noise")
    times = make_grid(sch, candidates, **span)
    if steps > candidates:
        raise ValueError(f"candidates = {candidates} are too few for {steps} steps")
    fine = solve(den, x, solver=teacher, grid=times, trajectory=True)
    assert fine.trajectory is not None
    search, stepping = (_path, method) if objective == "global" else (_shortest, find_solver("ddim"))
    path = search(_Search(den, stepping, times, fine.trajectory), steps)
    found = method.program(sch, times[list(path)])

    def error(program: Program) -> float:
        return _distance(sample(den, x, solver=program), fine.x)

    grids = {name: make_grid(sch, steps, name, **span) for name in COMPARED}
    before = {name: error(method.program(sch, grid)) for name, grid in grids.items()}
    return OptimalGrid(np.array(found.grid), found, error(found), before)


@dataclass(frozen=True)
class _Search:
    """What both searches share: the fine grid, the teacher's states on it, and steps between any two of its times."""

    den: Denoiser
    method: Solver
    times: np.ndarray
    exact: torch.Tensor

    def pair(self, x: torch.Tensor, i: int) -> Pair:
        """The denoiser's (x0, eps) at candidate i."""
        sch, t = self.den.schedule, float(self.times[i])
        with torch.no_grad():
            x0 = self.den.x0(x, t)
        return x0, (x - float(sch.alpha(t)) * x0) / float(sch.sigma(t))

    def stepper(self) -> tuple[int, Callable[..., np.ndarray]]:
        """How many older answers a step needs; and ``weights(*nodes)``, of the last step through these candidates:
        of the state, and of (x0, eps) at every node but the last."""

        @cache
        def weights(*nodes: int) -> np.ndarray:
            program = self.method.program(self.den.schedule, self.times[list(nodes)], startup="ramp")
            units = np.eye(2 * len(nodes))
            calls = iter(range(2, len(units), 2))

            def model(slot: Any, t: float) -> Any:
                k = next(calls)
                return units[k], units[k + 1]

            slots: dict[int, Any] = {STATE: units[1]}
            for n, _ in enumerate(carry_out(program, slots, model)):
                if n == len(nodes) - 3:  # where the last step begins, the state is whatever the solver has reached
                    slots[STATE] = units[1]
                elif n < len(nodes) - 3:
                    slots[STATE] = units[0]
            if slots[STATE][0]:
                raise ValueError(f"{self.method.name} needs older states, not only older answers")
            found: np.ndarray = slots[STATE][1:]
            return found

        inner = np.linspace(1, len(self.times) - 2, min(8, len(self.times) - 2)).astype(int).tolist()
        answers = np.abs(weights(*inner)[1:]).reshape(-1, 2).sum(1)
        return len(answers) - 1 - int(np.flatnonzero(answers > 1e-14)[0]), weights


@dataclass(frozen=True)
class _Reached:
    """A state after some steps, the candidates it came through, and the answers on the way that are still needed."""

    state: torch.Tensor
    path: tuple[int, ...]
    answers: tuple[Pair, ...]


def _path(search: _Search, steps: int) -> tuple[int, ...]:
    memory, weights = search.stepper()
    end = len(search.times) - 1
    level = {0: _Reached(search.exact[0], (0,), ())}
    for k in range(1, steps + 1):
        best: dict[int, tuple[float, _Reached]] = {}
        for i, at in level.items():
            answers = (*at.answers, search.pair(at.state, i))
            columns = torch.stack([at.state, *(a for pair in answers for a in pair)])
            for j in range(i + 1, end - steps + k + 1) if k < steps else (end,):
                row = torch.from_numpy(weights(*at.path[-len(answers) :], j)).to(columns)
                state = torch.tensordot(row, columns, 1)
                far = _distance(state, search.exact[j])
                if j not in best or far < best[j][0]:
                    kept = answers[len(answers) - min(memory, len(answers)) :]
                    best[j] = far, _Reached(state, (*at.path, j), kept)
        level = {j: reached for j, (_, reached) in best.items()}
    return level[end].path


def _shortest(search: _Search, steps: int) -> tuple[int, ...]:
    """By the errors of single steps from the teacher's states."""
    _, weights = search.stepper()
    size, alphas = len(search.times), np.asarray(search.den.schedule.alpha(search.times))
    cost = np.full((size, size), np.inf)
    for i in range(size - 1):
        columns = torch.stack([search.exact[i], *search.pair(search.exact[i], i)])
        for j in range(i + 1, size):
            state = torch.tensordot(torch.from_numpy(weights(i, j)).to(columns), columns, 1)
            cost[i, j] = _distance(state, search.exact[j]) / alphas[j]
    least, back = cost[0], []  # to every candidate in one step, in two, ...
    for _ in range(steps - 1):
        sums = least[:, None] + cost
        back.append(sums.argmin(0))
        least = sums.min(0)
    path = [size - 1]
    for came in reversed(back):
        path.append(int(came[path[-1]]))
    return 0, *path[::-1]


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The mean over the samples of the root mean square over their elements: a few far ones count less than in all."""
    return float((a - b).flatten(1).square().mean(1).sqrt().mean())
