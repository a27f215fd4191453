"""Work-precision tables of exact problems: the error of solvers at budgets of model evaluations."""

from collections.abc import Iterable
from typing import Any

import torch

from ..solvers.grids.grids import grid as make_grid
from ..solvers.planners.multistep import Startup
from ..solvers.programs.call import integer
from ..solvers.runs.watching import Bar
from ..solvers.schedules.base import Schedule
from ..solvers.schedules.formulas import VPLinear
from ..solvers.tuning.teacher import Teacher
from .compare import FEWEST_SAMPLES, Asked, Span, measured
from .compare_plan import candidates, whole_numbers
from .comparison import Comparison
from .problem import Problem

EXACT = 1e-10  # what references are good to


def work_precision(
    problem: Problem,
    solvers: Any,
    nfes: int | Iterable[int],
    *,
    sch: Schedule | None = None,
    grid: str | Iterable[str] = "logsnr",
    startup: Startup | Iterable[Startup] = "ramp",
    t_start: float | None = None,
    t_end: float | None = None,
    samples: int = 256,
    seed: int = 0,
) -> Comparison:
    """`compare` on an exact problem: its denoiser in float64, from draws of its marginal, against its exact ends.

    sch: VPLinear() if not given. samples, seed: of the draws; stochastic solvers start from as many others. The rest is
    as in `compare`, with ``grid`` and ``startup`` for its ``grids`` and ``startups``, and raises what that raises;
    TypeError for what is no problem.
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a problem of logsnr.analysis, not {type(problem).__name__}; use compare")
    integer("samples", samples, FEWEST_SAMPLES, 1_000_000)
    sch = VPLinear() if sch is None else sch
    den, span = problem.denoiser(sch), Span(t_start=t_start, t_end=t_end)
    s, t = make_grid(sch, 1, **span).tolist()
    generator = torch.Generator().manual_seed(seed)
    x, fresh = (problem.sample_at(sch, s, samples, generator=generator) for _ in range(2))
    planned, notes = candidates(den, tuple(x.shape[1:]), whole_numbers("nfes", nfes), solvers, grid, startup, span)
    if not any(candidate.noisy for candidate in planned):
        fresh = fresh[:0]
    teacher = Teacher(problem.reference(x, sch, s, t), EXACT, torch.ones(samples, dtype=torch.bool))
    return measured(den, planned, notes, x, fresh, teacher, Asked((s, t), samples, seed), Bar(False, "", None))
