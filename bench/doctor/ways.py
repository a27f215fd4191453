"""How the doctor measures a sampler of another library on exact problems, whatever that library is.

Without noise: the error against the exact ends of the same paths. With noise: how far the standard deviation of what
it generates from N(0.7, 0.25) is off, by many samples.
"""

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from ...analysis.gaussian import Gaussian
from ...analysis.orders import refine, two_gaussians
from ...analysis.problem import Problem
from ...integrations.doctor.doctor import LOST, Finding
from ...integrations.doctor.orders import SAMPLES
from ...solvers.arrays import Array
from ...solvers.schedules.base import Schedule
from ...solvers.schedules.straight import EDM

DRAWS, RUNS = 100_000, (10, 20, 40, 80, 160)
SEEN = 4  # times what chance does, and it is an error
LEVELS = 14.6, 0.03  # of a formula alone
ALONE = EDM(0.01, 20.0)

Run = Callable[[Problem, torch.Tensor], tuple[torch.Tensor, int]]  # from starts (n,) to ends, and how many calls
Made = tuple[Run, Schedule, Array]  # and times on a schedule from its first level to its last
Make = Callable[[int], Made]  # by the number of steps


class Way(NamedTuple):
    """One way to run it: in words; how it is made; the order it should have; whether it adds noise; its most steps."""

    told: str
    make: Make
    order: int
    noisy: bool = False
    finest: int = 256


def smooth(steps: int) -> Array:
    """Levels uniform in log sigma, (steps + 1,)."""
    return np.geomspace(*LEVELS, steps + 1)


def measured(way: Way) -> Finding:
    """Its order and errors, as a finding."""
    try:
        return _of_law(way) if way.noisy else _of_paths(way)
    except (ValueError, RuntimeError, IndexError, AssertionError) as error:
        told = f"{type(error).__name__} {error!s:.200}".strip()
        return Finding("measured", "danger", f"{way.told}: it stops with an error, {told}.")


def quiet(run: Callable[[], Any]) -> Any:
    """Without what libraries say of their own future."""
    with redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run()


def answer(problem: Problem, seen: torch.Tensor, alpha: float, sigma: float, head: str) -> torch.Tensor:
    """What an exact network says of x = alpha x0 + sigma eps, in float64."""
    x0, eps = problem.posterior(seen.double(), alpha, sigma)
    return {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0, "velocity": eps - x0}[head]


def _of_paths(way: Way) -> Finding:
    problem, exact = two_gaussians(), dict[tuple[float, float], Any]()

    def run(steps: int) -> tuple[int, float]:
        go, sch, times = quiet(partial(way.make, steps))
        ends = float(times[0]), float(times[-1])
        if ends not in exact:
            x = problem.sample_at(sch, ends[0], SAMPLES, generator=torch.Generator().manual_seed(0))
            exact[ends] = x, problem.reference(x, sch, *ends)
        x, end = exact[ends]
        found, calls = quiet(partial(go, problem, x))
        return calls, float((found - end).square().mean().sqrt())

    found = refine(run, way.told, way.order, "its own", way.finest)
    errors = [f"{error:.1e}" for error in found.errors]
    broken = not np.isfinite(found.errors).all()
    grows = found.errors[-1] > 2 * min(found.errors)
    short = not found.order > way.order - LOST * max(1, way.order - 2)  # their own start costs high orders more
    order = "NaN" if broken else f"order {found.order:.2f}"
    return Finding(
        "measured", "danger" if broken or grows else "warning" if short else "good",
        f"{way.told}: {order}; error {', '.join(errors)} at {found.steps[0]}, {found.steps[1]}, ... {found.steps[-1]} "
        f"steps{' (it grows)' * grows}.",
    )  # fmt: skip


def _of_law(way: Way) -> Finding:
    data, errors = Gaussian(0.7, 0.25), []
    for steps in RUNS:
        go, sch, times = quiet(partial(way.make, steps))
        first, last = float(times[0]), float(times[-1])
        x = data.sample_at(sch, first, DRAWS, generator=torch.Generator().manual_seed(1))
        end, _ = quiet(partial(go, data, x))
        errors.append(float(end.std()) / float(np.hypot(0.5 * float(sch.alpha(last)), sch.sigma(last))) - 1)
    chance = (2 * DRAWS) ** -0.5
    last = max((n for n, error in enumerate(errors) if abs(error) > SEEN * chance), default=0)
    slope = float(np.log2(abs(errors[1] / errors[last])) / max(last - 1, 1))
    order = (
        f"weak order {slope:.2f}, from {RUNS[1]} to {RUNS[last]} steps" if last > 1 else "no error is seen from 40 on"
    )
    return Finding(
        "measured", "warning" if last > 1 and slope < way.order - LOST else "good", f"{way.told}: {order}; standard "
        f"deviation off by {', '.join(f'{e:+.1%}' for e in errors)} at {', '.join(map(str, RUNS))} steps, "
        f"{chance:.1%} of that by chance.",
    )  # fmt: skip
