"""Measured orders of convergence: local slopes of the global error on a nonlinear problem with a reference."""

from dataclasses import dataclass

import numpy as np
import torch

from ..solvers.catalogue import Solver
from ..solvers.catalogue import solver as find_solver
from ..solvers.gauges import Array
from ..solvers.multistep import Startup
from ..solvers.sampling import solve
from ..solvers.schedule import Schedule
from .problem import Problem

# Below this the rounding of the float64 state (about 1e-14 a run) would bend the slopes.
FLOOR = 3e-13
SPAN = 2.5  # half-log-SNR from -2.5 to 2.5: the part of every schedule in which the data is formed
WARP = 0.3  # relative change of the step over the grid: orders are measured on non-uniform grids


@dataclass(frozen=True)
class Convergence:
    """Errors of one solver as its grid is refined, and what they say.

    steps, nfe: of each run. errors: root mean square over samples and coordinates. slopes: signed local
    orders ``-log(e_i / e_{i-1}) / log(n_i / n_{i-1})``. order: the slope of the two finest grids whose errors
    lie above the round-off floor; NaN when no slope can be measured. declared: what the solver promises.
    """

    solver: str
    declared: int
    startup: str
    steps: tuple[int, ...]
    nfe: tuple[int, ...]
    errors: tuple[float, ...]
    slopes: tuple[float, ...]
    order: float


def warped_grid(sch: Schedule, steps: int, lam_start: float = -SPAN, lam_end: float = SPAN) -> Array:
    """A smooth non-uniform grid: the steps in lam vary by +-30 % and every grid refines the coarser ones."""
    x = np.linspace(0.0, 1.0, steps + 1)
    lam = lam_start + (lam_end - lam_start) * (x + WARP * np.sin(np.pi * x) / np.pi)
    return np.asarray(sch.time(lam))


def convergence_order(
    solver: str | Solver,
    problem: Problem,
    sch: Schedule,
    *,
    startup: Startup = "single-step",
    max_nfe: int = 10_000,
    samples: int = 16,
    seed: int = 0,
) -> Convergence:
    """Measure the order of ``solver`` on ``problem``, in float64, on `warped_grid`.

    The number of steps doubles from 8 until the error is below 3e-13 or a run would cost more than max_nfe. Starts are exact
    draws from the marginal at the first node; the reference is ``problem.reference``. With startup="ramp" the
    multistep solvers show what that start leaves of their order: at most 2.
    """
    method = find_solver(solver)
    if method.planner is None:
        raise ValueError(f"{method.name} chooses its own steps: there is no order to measure on a grid")
    low, high = (float(sch.half_logsnr(t)) for t in (sch.t_start, sch.t_end))
    ends = max(-SPAN, low), min(SPAN, high)
    s, t = (float(sch.time(lam)) for lam in ends)
    generator = torch.Generator().manual_seed(seed)
    clean = problem.sample(samples, generator=generator)
    noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    x = sch.alpha(s) * clean + sch.sigma(s) * noise
    reference = problem.reference(x, sch, s, t)
    den = problem.denoiser(sch)
    steps, nfe, errors = [], [], []
    n = 8
    while not errors or (2 * max(nfe[-1], steps[-1]) <= max_nfe and errors[-1] > FLOOR):
        solution = solve(den, x, solver=method, grid=warped_grid(sch, n, *ends), startup=startup)
        steps.append(n)
        nfe.append(solution.nfe)
        errors.append(float((solution.x - reference).square().mean().sqrt()))
        n *= 2
    slopes = tuple(float(-np.log2(b / a)) if a > 0 < b else float("nan") for a, b in zip(errors, errors[1:], strict=False))
    above = [p for p, e in zip(slopes, errors[1:], strict=True) if e > FLOOR]
    return Convergence(
        method.name, method.order, startup, tuple(steps), tuple(nfe), tuple(errors), slopes,
        above[-1] if above else float("nan"),
    )  # fmt: skip
