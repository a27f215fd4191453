"""Measured orders of convergence: local slopes of the error on a nonlinear problem with an exact answer.

The asymptotic window and the round-off floor are found in the measurements, not assumed, slopes keep their
sign, and grids are non-uniform. A slope alone proves little: an order test also needs a mutant that fails.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..solvers.arrays import Array
from ..solvers.catalogue.catalogue import Solver
from ..solvers.catalogue.catalogue import solver as find_solver
from ..solvers.planners.multistep import Startup
from ..solvers.programs.checks import check_elements
from ..solvers.programs.interpret import carry_out
from ..solvers.programs.program import STATE
from ..solvers.sampling import solve
from ..solvers.schedules.base import Schedule
from .mixture import GaussianMixture
from .problem import Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPAN = 2.5  # half-log-SNR from -2.5 to 2.5: the part of every schedule in which the data is formed
WARP = 0.3  # relative change of the step over the grid
AGREE = 0.15  # slopes that differ by less belong to one asymptotic window
MARGIN = 10.0  # over round-off: a tenth of an error changes a slope by 0.14 at most


@dataclass(frozen=True)
class Convergence:
    """Errors of one solver as its grid is refined, and what they say.

    steps, nfe: of each run. errors: root mean square over samples and coordinates.
    slopes: signed local orders ``log2(e_i / e_{i+1})`` between neighbouring runs.
    floor:  the level at which refinement stopped helping; None if it was not reached.
    window: first and last index into slopes that agree within 0.15 and lie ten times above the floor and above
            what n roundings of the result's root mean square add up to if they are independent, ``sqrt(n) 2^-53``
            for data of unit scale.
    order:  the finest slope of the window; NaN if nothing could be measured.
    limit:  its extrapolation to h = 0: slopes differ from the order by a term in h, which every halving halves.
    interval: from order to limit, widened by what the floor may have done.
    verdict: one sentence; says why where no order can be measured.
    """

    solver: str
    declared: int
    startup: str
    steps: tuple[int, ...]
    nfe: tuple[int, ...]
    errors: tuple[float, ...]
    slopes: tuple[float, ...]
    floor: float | None
    window: tuple[int, int] | None
    order: float
    limit: float
    interval: tuple[float, float]
    verdict: str

    def __str__(self) -> str:
        """The verdict, and a line for every run."""
        lines = [f"{self.solver}: {self.verdict}", f"{'steps':>6} {'NFE':>6} {'error':>10} {'slope':>7}"]
        slopes = ["", *(f"{slope:.3f}" for slope in self.slopes)]
        for steps, nfe, error, slope in zip(self.steps, self.nfe, self.errors, slopes, strict=True):
            lines.append(f"{steps:6} {nfe:6} {error:10.3e} {slope:>7}".rstrip())
        return "\n".join(lines)

    def plot(self, path: str | Path | None = None) -> "Figure":
        """A figure of the errors against the evaluations, beside the slope of the declared order; saved if there is a
        path, in the format of its suffix."""
        from .plots import convergence, saved

        return saved(convergence(self), path)


def two_gaussians() -> GaussianMixture:
    """The one-dimensional data on which orders are stated: nonlinear, with an exact reference."""
    return GaussianMixture(means=[-1.0, 0.8], covs=[0.09, 0.04], weights=[0.3, 0.7])


def warped_grid(sch: Schedule, steps: int, lam_start: float = -SPAN, lam_end: float = SPAN) -> Array:
    """A smooth non-uniform grid: the steps in lam vary by +-30 %, and every grid refines the coarser ones. The
    span in lam is cut to what a solve on this schedule covers."""
    low, high = (float(sch.half_logsnr(t)) for t in (sch.t_start, sch.t_end))
    lam_start, lam_end = max(lam_start, low), min(lam_end, high)
    x = np.linspace(0.0, 1.0, steps + 1)
    lam = lam_start + (lam_end - lam_start) * (x + WARP * np.sin(np.pi * x) / np.pi)
    return np.asarray(sch.time(lam))


def convergence_order(
    solver: str | Solver,
    problem: Problem,
    sch: Schedule,
    *,
    prediction: str = "x0",
    startup: Startup = "single-step",
    grids: Callable[[int], Array] | None = None,
    max_nfe: int = 10_000,
    samples: int = 16,
    seed: int = 0,
) -> Convergence:
    """Measure the global order of ``solver`` on ``problem``, in float64, with the exact network that returns
    the head ``prediction``: the conversion between heads is measured with the rest.

    grids: from a number of steps, 8 and its doubles, to times, every grid a refinement of the coarser ones;
    `warped_grid` unless given. Steps double until refinement stops helping or a run would cost more than
    max_nfe. Starts are exact draws from the marginal at the first node; the reference is ``problem.reference``. With
    startup="ramp" the multistep solvers show what that start leaves of their order: at most 2.
    Raises ValueError for solvers that choose their own steps or add noise, and for an unknown head.
    """
    method = _deterministic(solver)
    nodes = grids or partial(warped_grid, sch)
    first, *_, last = map(float, nodes(8))
    x = problem.sample_at(sch, first, samples, generator=torch.Generator().manual_seed(seed))
    reference = problem.reference(x, sch, first, last)
    den = problem.denoiser(sch, prediction)

    def run(steps: int) -> tuple[int, float]:
        solution = solve(den, x, solver=method, grid=nodes(steps), startup=startup)
        return solution.nfe, _rms(solution.x - reference)

    return refine(run, method.name, method.order, startup, max_nfe, scale=_rms(reference))


def local_order(
    solver: str | Solver, problem: Problem, sch: Schedule, *, samples: int = 16, seed: int = 0
) -> Convergence:
    """Measure the order of one step, declared order + 1: the error of the last step of a grid of order + 1
    nodes around lam = 0, all earlier states being exact, as the distance between the nodes is halved."""
    method = _deterministic(solver)
    first = float(sch.time(-SPAN / 2))
    x = problem.sample_at(sch, first, samples, generator=torch.Generator().manual_seed(seed))
    count = method.order + 1

    def run(steps: int) -> tuple[int, float]:
        lam = np.linspace(0.0, 1.0, count) ** 1.2 * (count - 1) / steps  # non-uniform here too
        times = np.asarray(sch.time(lam))
        exact = [problem.reference(x, sch, first, float(t)) for t in times]
        program = method.program(sch, times, startup="ramp")
        check_elements(program)
        slots = {STATE: exact[0]}
        for call in carry_out(program, slots, problem.pair(sch)):
            if call.node is not None and call.node < program.steps:
                slots[STATE] = exact[call.node]
        return len(program), _rms(slots[STATE] - exact[-1])

    return refine(run, method.name, method.order + 1, "exact", 2**16, local=True)


def refine(
    run: Callable[[int], tuple[int, float]],
    name: str,
    declared: int,
    startup: str,
    max_cost: int,
    *,
    scale: float = 1.0,
    local: bool = False,
) -> Convergence:
    """Double the steps until refinement stops helping or the next run would cost more than ``max_cost``."""
    steps, nfe, errors, slopes = [8], [], [], []
    while True:
        cost, error = run(steps[-1])
        nfe.append(cost)
        errors.append(error)
        if len(errors) > 1:
            slopes.append(float(np.log2(errors[-2] / error)) if min(errors[-2:]) > 0 else float("nan"))
        floor = _floor(errors, slopes, declared)
        if error == 0 or floor is not None or 2 * max(cost, steps[-1]) > max_cost:
            break
        steps.append(2 * steps[-1])
    roundings = [2.0**-53 * scale * (1 if local else n**0.5) for n in steps]
    window = _window(errors, slopes, [max(floor or 0.0, r) for r in roundings])
    order, limit, interval, verdict = _conclude(errors, slopes, floor, window, declared)
    return Convergence(
        name, declared, startup, tuple(steps), tuple(nfe), tuple(errors), tuple(slopes), floor, window, order,
        limit, interval, verdict,
    )  # fmt: skip


def _floor(errors: list[float], slopes: list[float], declared: int) -> float | None:
    """The error at which a refinement gained less than half of what it should have, below 1e-9: above that a small
    slope is a method's own."""
    stalled = bool(slopes) and slopes[-1] < declared / 2 and errors[-2] < 1e-9
    return max(errors[-2:]) if stalled else None


def _window(errors: list[float], slopes: list[float], floors: list[float]) -> tuple[int, int] | None:
    usable = [i for i, slope in enumerate(slopes) if np.isfinite(slope) and errors[i + 1] > MARGIN * floors[i + 1]]
    if not usable:
        return None
    last = first = usable[-1]
    while first > 0 and abs(slopes[first - 1] - slopes[last]) < AGREE:
        first -= 1
    return first, last


def _conclude(
    errors: list[float],
    slopes: list[float],
    floor: float | None,
    window: tuple[int, int] | None,
    declared: int,
) -> tuple[float, float, tuple[float, float], str]:
    nan = float("nan")
    if window is None:
        return (
            nan,
            nan,
            (nan, nan),
            f"no order can be measured: the error is {errors[0]:.1e} at once (exact or round-off)",
        )
    first, last = window
    order = slopes[last]
    limit = 2 * order - slopes[last - 1] if last else order
    bend = 1.5 * (floor or 0.0) / errors[last + 1]
    interval = min(order, limit) - bend, max(order, limit) + bend
    asymptotic = last > first
    told = f"order {order:.2f}, between {interval[0]:.2f} and {interval[1]:.2f}; declared {declared}"
    return order, limit, interval, told if asymptotic else told + "; the slopes have not settled"


def fixed_step(solver: str | Solver) -> Solver:
    method = find_solver(solver)
    if method.planner is None:
        raise ValueError(f"{method.name} chooses its own steps: there is no order to measure on a grid")
    return method


def _deterministic(solver: str | Solver) -> Solver:
    method = fixed_step(solver)
    if method.stochastic:
        raise ValueError(f"{method.name} adds noise and follows no path: measure its weak_order")
    return method


def _rms(difference: torch.Tensor) -> float:
    return float(difference.square().mean().sqrt())
