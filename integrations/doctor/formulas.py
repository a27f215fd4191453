"""Formulas of other libraries that no solver here has, since they are of lower order than their name says, as planners.

All take Solver's arguments; those in sigma are for alpha = 1, x = x0 + sigma eps.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from ...solvers.arrays import Array
from ...solvers.catalogue.catalogue import solver
from ...solvers.catalogue.solver import Solver
from ...solvers.planners.multistep import Adams
from ...solvers.programs.call import NoiseKey
from ...solvers.programs.program import STATE, Call, Program
from ...solvers.schedules.base import Schedule


@dataclass(frozen=True)
class WeightedHeun:
    """heunpp2 of ComfyUI: a step of dx/dsigma = eps takes the slopes at its start and at the next two nodes, weighted
    by sigma / (3 sigma_0) there and the rest at the start. No rule of order 2 has weights that depend on sigma_0. The
    last step is Euler's, the one before has two slopes."""

    evaluations: ClassVar[int] = 3

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        calls, steps = list[Call](), len(grid) - 1
        for n in range(steps):
            slopes = min(3, steps - n)
            nodes = grid[n : n + slopes]
            weights = nodes / (slopes * grid[0])
            weights[0] = 1 - weights[1:].sum()
            lengths = np.diff(grid[n : n + slopes + 1])  # of the Euler steps to where the slopes are
            for k, (t, weight) in enumerate(zip(nodes.tolist(), weights * lengths[0], strict=True)):
                state, last = [0.0, weight, 1.0], k == slopes - 1
                ahead = [0.0, lengths[k], 1.0] if k == 0 else [0.0, lengths[k], 0.0, 1.0]
                reads = (STATE,) if k == 0 or last else (STATE, 1)
                rows = [state] if last else [state + [0.0] * (k > 0), ahead]
                writes = (STATE,) if last else (STATE, 1)
                calls.append(Call(t, reads, writes, np.array(rows), at=1 if k else STATE, node=n + 1 if last else None))
        return Program("heunpp2", 1, tuple(grid.tolist()), tuple(calls))


@dataclass(frozen=True)
class AveragedSteps:
    """dpm++2mv2 of stable-diffusion.cpp: DPM-Solver++(2M) with the mean of the last two steps for h in the weight of
    x0, so that weights do not add up to the step where steps differ."""

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        with np.errstate(divide="ignore"):
            steps = -np.diff(np.log(grid))
        calls = []
        for n, (h, s, t) in enumerate(zip(steps, grid[:-1].tolist(), grid[1:].tolist(), strict=True)):
            plain = n == 0 or t == 0
            both = np.array([h, steps[n - 1]])
            part = 0.0 if plain else both.min() / both.max() / 2
            weight = -np.expm1(-(h if plain else both.mean()))
            state = [weight * (1 + part), 0.0, t / s, *([-weight * part] if n else [])]
            kept = [1.0, *[0.0] * (len(state) - 1)]
            reads = (STATE, 1) if n else (STATE,)
            calls.append(Call(s, reads, (STATE, 1), np.array([state, kept]), node=n + 1))
        return Program("dpm++2mv2", 1, tuple(grid.tolist()), tuple(calls))


@dataclass(frozen=True)
class WrongSign:
    """sde-dpmsolver++ of order 3 in diffusers: with D1 and D2 for h f' and h^2 f'' / 2, the weight of D2 is
    ((1 - e^{-2h}) - 2h) / (2h)^2 - 1/2 where it should be + 1/2, and twice that."""

    stochastic: ClassVar[bool] = True

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        alpha, sigma = np.asarray(schedule.alpha(grid)), np.asarray(schedule.sigma(grid))
        h, calls = np.diff(np.asarray(schedule.half_logsnr(grid))), list[Call]()
        for n, (s, t) in enumerate(zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True)):
            past = min(n, 2) if np.isfinite(h[n]) else 0
            decay = -np.expm1(-2 * h[n])
            weights = decay * np.array([1.0, 0.0, 0.0])
            first = (
                np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])[: max(past, 1)] / h[[n - 1, n - 2]][: max(past, 1), None]
            )
            if past == 2:
                second = (first[0] - first[1]) / (h[n - 1] + h[n - 2])
                first[0] += second * h[n - 1]
                weights += ((decay - 2 * h[n]) / (2 * h[n]) ** 2 - 0.5) * h[n] ** 2 * second
            if past:
                weights += (1 - decay / (2 * h[n])) * h[n] * first[0]
            kept = sigma[n + 1] / sigma[n] * np.exp(-h[n])
            update = [alpha[n + 1] * weights[0], 0.0, kept, *(alpha[n + 1] * weights[1 : 1 + past])]
            noise = sigma[n + 1] * np.sqrt(decay)
            store = [1.0, *[0.0] * len(update)]
            reads = (STATE, *(1 + (n - 1 - j) % 2 for j in range(past)))
            rows = np.array([[*update, noise], store])
            calls.append(Call(s, reads, (STATE, 1 + n % 2), rows, noises=(NoiseKey(s, t),), node=n + 1))
        return Program("sde-dpmsolver++ 3", 1, tuple(grid.tolist()), tuple(calls))


@dataclass(frozen=True)
class MixedTimes:
    """REABSampler of azula: exponential Adams of v in lam, whose integral over a step from s to t is multiplied by
    sqrt(alpha_t^2 + sigma_s^2) where it should be sqrt(alpha_t^2 + sigma_t^2): order 1 at any ``order``."""

    order: int

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        program = Adams("v", self.order, "lam").plan(schedule, grid)
        alpha, sigma = np.asarray(schedule.alpha(grid)), np.asarray(schedule.sigma(grid))
        factors = np.hypot(alpha[1:], sigma[:-1]) / np.hypot(alpha[1:], sigma[1:])
        calls = []
        for call, factor in zip(program.calls, factors, strict=True):
            matrix, kept = call.matrix.copy(), 2 + call.reads.index(STATE)
            matrix[call.writes.index(STATE), np.arange(matrix.shape[1]) != kept] *= factor
            calls.append(replace(call, matrix=matrix))
        return replace(program, name=f"REAB {self.order}", order=1, calls=tuple(calls))


def mixed_times(order: int) -> tuple[Solver, Solver]:
    """The right formula of REAB and the one that it has."""
    right = solver("adams", gauge="v", variable="lam", order=order)
    return right, Solver(f"REAB {order}", "exponential Adams of v with one wrong time", MixedTimes(order), order=1)


class Formula(NamedTuple):
    """solver: the one here whose name it has. library: whose it is."""

    solver: str
    library: str
    form: Solver


SDCPP = "stable-diffusion.cpp"
FORMULAS = {  # by name
    "heunpp2": Formula(
        "heun-rho", "ComfyUI", Solver("heunpp2", "Heun's method with weights by sigma", WeightedHeun(), order=1),
    ),
    "dpm++2mv2": Formula(
        "dpmpp-2m", SDCPP, Solver("dpm++2mv2", "DPM-Solver++(2M) with a mean of two steps", AveragedSteps(), order=1),
    ),
    # Its second step alone knows of steps that differ.
    "sd.cpp ipndm_v": Formula(
        "deis-rho-4", SDCPP, replace(solver("ipndm-4"), name="ipndm_v", summary="Adams' weights of equal steps"),
    ),
}  # fmt: skip
WRONG_SIGN = Solver("sde-dpmsolver++ 3", "SDE-DPM-Solver++(3M) with one wrong sign", WrongSign(), order=1)
