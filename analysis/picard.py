"""How Picard iteration converges on Gaussian data, exactly, and how many rounds a parallel run needs.

For x0 ~ N(0, c) the denoiser is linear, E[x0 | x] = (alpha c / R^2) x with R^2 = alpha^2 c + sigma^2, and so is a
sweep. With u = x / sigma and x0 frozen, as `logsnr.Picard` does it without acceleration, a PF-ODE's sweep is

    u_new(lam) = u(lam_0) + int e^lam x0 dlam = u(lam_0) + int K u dlam,      K = c e^(2 lam) / (1 + c e^(2 lam)).

Its fixed point grows like e^G, G(lam) = int K dlam = log (R / sigma) - log (R_0 / sigma_0). From the guess x0 = 0
sweeps add the terms G^j / j! of the Taylor series of e^G one by one: after k sweeps the share that is missing is the
tail of a Poisson law of mean G,

    1 - e^-G sum_(j <= k) G^j / j! = P(k + 1, G),

the regularised incomplete gamma function. So rounds depend on how far the data rises above the noise at the end, and
hardly on the number of steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

import numpy as np
import torch

from ..solvers.arrays import Array
from ..solvers.catalogue.catalogue import Solver
from ..solvers.catalogue.planning import plan_program
from ..solvers.parallel.picard import picard
from ..solvers.parallel.plan import resting_pair
from ..solvers.parallel.settings import Picard
from ..solvers.programs.checks import check_elements
from ..solvers.programs.lower import lower
from ..solvers.programs.program import Program
from ..solvers.schedules.base import Schedule
from .gaussian import Gaussian
from .layout import LayoutOptions
from .moments import Units
from .rounding import positive


@dataclass(frozen=True, eq=False)
class Sweeps:
    """What sweeps over a whole grid do, for Gaussian data of N standard deviations.

    stds: (N,). growth: (N,), G of the PF-ODE from the first to the last time of the grid.
    errors: (K, N), the relative distance of the end from the fixed point after 1, 2, ... sweeps. changes: (K, N), by
    how much, relative to the new, a sweep changes the node that it changes most. tails: (K, N), P(k + 1, G): what
    errors are for many steps of an ODE solver from the guess x0 = 0. program: the table.
    """

    stds: Array
    growth: Array
    errors: Array
    changes: Array
    tails: Array
    program: Program = field(repr=False)

    def rounds(self, tol: float) -> Array:
        """(N,): the sweeps of a run with the window open over the grid: until all changes are at most ``tol``.

        Raises ValueError if not all are within the sweeps made.
        """
        enough = self.changes <= tol
        if not enough.any(axis=0).all():
            raise ValueError(f"tol = {tol:g} takes more than the {len(enough)} sweeps made")
        return np.asarray(enough.argmax(axis=0) + 1)


def picard_sweeps(
    solver: str | Solver | Program, sch: Schedule, stds: Any, *, sweeps: int = 30, **layout: Unpack[LayoutOptions]
) -> Sweeps:
    """Sweeps of ``logsnr.Picard(accelerate=None)`` over all calls of a program, exactly, in float64, from the first
    guess of that: the line of constant (x0, eps), or what a program that adds noise makes of its x0.

    stds: (N,) or a number, positive. layout: steps, nfe, grid, t_start, t_end and startup, as in `logsnr.solve`; a
    `Program` is taken as it is. The start and the noises are independent normals, and norms are root mean squares over
    them: those of a sample of many elements, from which those of few scatter. (Without noise they are the same for
    every sample.) Raises ValueError for options that do not fit.
    """
    program, stds = plan_program(solver, sch, **layout), positive("stds", np.atleast_1d(stds))
    check_elements(program)
    if program.constant:
        raise ValueError(f"{program.name} adds constants, and how fast sweeps converge is known without them only")
    if len(program) < len(program.calls):
        raise ValueError(f"{program.name} has calls that ask no model; take the program without known calls")
    times = np.array([*(call.t for call in program), program.grid[-1]])
    alpha, sigma = (np.asarray(f(times))[:, None] for f in (sch.alpha, sch.sigma))
    units = Units(program, np.zeros((3 + len(program.noises), len(stds))))
    start = units.at(1) * np.hypot(alpha[0] * stds, sigma[0])

    def sweep(x0: Sequence[Array]) -> Array:
        """What the calls see, and the end, if they answer these x0: (calls + 1, rows, N)."""
        answers, seen = zip(x0, alpha, sigma, strict=False), list[Array]()

        def model(x: Array, t: float) -> tuple[Array, Array]:
            answer, a, s = next(answers)
            seen.append(x)
            return answer, (x - a * answer) / s

        end = program.interpret(start, model, units)
        return np.stack([*seen, end])

    (x0, _), (eps, _) = resting_pair(alpha[0], sigma[0])
    line = (alpha * x0 + sigma * eps)[..., None] * start
    nodes = sweep([x0 * start] * len(program)) if program.noises else line
    slopes = (alpha * stds**2 / (alpha**2 * stds**2 + sigma**2))[:-1, None]
    ends, changes = [], []
    for _ in range(max(sweeps, 1) + len(program)):
        new = sweep(slopes * np.concatenate([start[None], nodes[1:-1]]))
        ends.append(new[-1])
        changes.append(_changes(new[1:], nodes[1:]).max(axis=0))
        if np.array_equal(new, nodes):
            break
        nodes = new
    growth, k = np.diff(np.log(np.hypot(alpha * stds, sigma) / sigma)[[0, -1]], axis=0)[0], np.arange(1, sweeps + 1)
    from scipy.special import gammainc  # a third of a second, for those who need it

    errors, tails = _changes(ends[-1], np.stack(ends)), np.asarray(gammainc(k[:, None] + 1, growth))
    return Sweeps(stds, growth, errors[:sweeps], np.array(changes)[:sweeps], tails, program)


def _changes(new: Array, old: Array) -> Array:
    """How much slots (..., rows, N) have changed, relative to the new: (..., N)."""
    return np.asarray(np.linalg.norm(new - old, axis=-2) / np.linalg.norm(new, axis=-2))


def picard_work(
    solver: str | Solver | Program, sch: Schedule, stds: Any, windows: Any, tol: float, **layout: Unpack[LayoutOptions]
) -> tuple[Array, Array]:
    """How many rounds and evaluations of the model ``logsnr.Picard(window, tol, accelerate=None)`` takes, (M, N) each,
    for M windows and Gaussian data of N standard deviations.

    A run is linear in the normals that it starts from and adds, so the executor itself is run in float64 on their
    coefficients: norms are then root mean squares over the normals, those of a sample of many elements.

    windows: (M,) or a number, at least 1. tol: positive. layout: as of `picard_sweeps`, and raises what it does.
    """
    program = plan_program(solver, sch, **layout)
    stds, sizes = positive("stds", np.atleast_1d(stds)), np.atleast_1d(windows)
    if not (sizes.dtype.kind == "i" and (sizes >= 1).all()):
        raise ValueError(f"windows must be integers of at least 1, not {windows}")
    if not tol > 0:
        raise ValueError(f"tol = {tol!r} must be positive")
    lowered = lower(program, sch, "x0", state=torch.float64, model=torch.float64)
    number = {key: n for n, key in enumerate(program.noises, start=1)}

    def unit(n: int) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([n]), 1 + len(number)).double()

    def counts(size: int, std: float) -> tuple[int, int]:
        den = Gaussian(0.0, std**2).denoiser(sch)
        start = math.hypot(sch.alpha(program.grid[0]) * std, sch.sigma(program.grid[0])) * unit(0)
        how = Picard(window=min(size, len(program)), tol=tol, accelerate=None)
        found = picard(lowered, den, start, how, noise=lambda key, like: unit(number[key]))
        return found.rounds, found.nfe

    found = np.array([[counts(size, std) for std in stds.tolist()] for size in sizes.tolist()])
    return found[..., 0], found[..., 1]
