"""Work-precision tables: the error of solvers at budgets of model evaluations, with intervals and times."""

from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Any

import numpy as np
import torch

from ..solvers.catalogue import Solver
from ..solvers.catalogue import solver as find_solver
from ..solvers.denoiser import Denoiser
from ..solvers.grids import KINDS
from ..solvers.grids import grid as make_grid
from ..solvers.names import grid_hint
from ..solvers.planners.multistep import Startup, check_startup
from ..solvers.planning import plan_program
from ..solvers.schedules.base import Schedule
from ..solvers.schedules.formulas import VPLinear
from .estimates import Estimate, median, p90, per_sample_rms, rms
from .problem import Problem
from .targets import Noise, Target, check_start, of_denoiser, of_problem
from .timing import timed_solve
from .work_precision_table import Conditions, WorkPrecision, WorkPrecisionRow

LEAST_SAMPLES = 4


def work_precision(
    problem: Problem | Denoiser,
    solvers: str | Solver | Iterable[str | Solver],
    nfes: int | Iterable[int],
    *,
    sch: Schedule | None = None,
    grid: str = "logsnr",
    startup: Startup = "ramp",
    t_start: float | None = None,
    t_end: float | None = None,
    samples: int = 256,
    seed: int = 0,
    repeats: int = 5,
    x: torch.Tensor | None = None,
    event_shape: Sequence[int] | None = None,
    precise: Denoiser | None = None,
    name: str | None = None,
) -> WorkPrecision:
    """Measure what each solver makes of each budget: every run starts from the same states.

    problem:  an exact problem, run in float64 with its exact denoiser on ``sch`` (VPLinear() if not given) from
              draws of its marginal; or a `Denoiser`, with its own schedule.
    nfes:     budgets; each solver runs the largest program within each. Pairs that are impossible are left out,
              and named in ``notes``.
    grid, startup, t_start, t_end: as in `logsnr.solve`, ``grid`` by name.
    samples, seed: number and seed of the starts. repeats: timed runs of each pair, in as many rounds.
    name:     what to call the problem in the table; by default its repr with a digest of its numbers, or the name of
              the denoiser's model.

    For a denoiser only:
    event_shape: starts are sigma(t_start) times normals of this shape, in the model's dtype, float32 at least; or
    x:        the starts themselves (B, ...), at t_start, which then count instead of ``samples``.
    precise:  the same network in float64, for the reference; without it a float32 network is its own.

    The reference of a problem is its own exact one; of a denoiser, DOP853 by scipy on the same ODE in another
    variable, at tolerance sqrt(eps) of the dtype. ``reference_error`` estimates how far off it may be.

    The numbers, each with an interval of 95 %:
    median, p90  of the samples' errors, each a root mean square over the event; between order statistics, exact
                 for any distribution, with 0 or infinity where the samples are too few (p90: under 36).
    rms          root mean square of the same; jackknife over 20 groups of samples, on a logarithmic scale.
    w2           2-Wasserstein distance between the Gaussians fitted to the end states and to the exact ends of
                 the same starts; jackknife. For Gaussian data that is the distance itself, else a lower bound
                 that misses what two moments miss.
    sliced_w2    over 256 directions, from the end states to the exact ends of the same starts; jackknife.
    As both samples come from the same starts, most of their sampling error cancels in the distances. What it would
    be between independent exact samples of this size is ``w2_noise`` and ``sliced_w2_noise`` (for a denoiser:
    between halves of the exact ends, divided by sqrt 2): a distance below that is smaller than exact samples are apart.
    seconds, outside: the median over the repeats, between the fastest and the slowest, for the whole batch.

    A run that diverges has infinite errors. Raises ValueError or TypeError before any work for arguments that do
    not fit, for solvers that choose their own steps or are stochastic, and if no pair is possible; and what
    `logsnr.solve` and `reference_flow` raise.
    """
    sch = _schedule(problem, sch)
    methods, budgets = _methods(solvers), _budgets(nfes)
    for what, count, least in (("samples", samples, LEAST_SAMPLES), ("repeats", repeats, 1)):
        _check_count(what, count, least)
    if grid not in KINDS:
        raise ValueError(f"grid = {grid!r} is unknown{grid_hint(grid, KINDS)}")
    check_startup(startup)
    options = dict(grid=grid, startup=startup, t_start=t_start, t_end=t_end)
    pairs, notes = _possible(methods, budgets, sch, options)
    s, t = make_grid(sch, 1, grid, t_start=t_start, t_end=t_end).tolist()
    target, noise = _target(problem, sch, s, t, samples, seed, x, event_shape, precise)
    rows = _measure(pairs, target, repeats, options)
    dtype = str(target.x.dtype).removeprefix("torch.")
    conditions = Conditions(
        name or target.name, str(sch), s, t, grid, startup, target.begun, len(target.x), seed, dtype, repeats,
        target.reference, target.error, *noise, _versions(),
    )  # fmt: skip
    return WorkPrecision(conditions, rows, notes)


def least_nfe(method: Solver, sch: Schedule, **options: Any) -> int:
    """The evaluations of one step: no smaller budget is possible. options: as of `plan_program`."""
    return len(plan_program(method, sch, steps=1, **options))


def _measure(
    pairs: list[tuple[Solver, int]], target: Target, repeats: int, options: dict[str, Any]
) -> tuple[WorkPrecisionRow, ...]:
    """The rows, measured in rounds over all pairs: a machine that is slow for a while is slow for all alike."""
    found: list[tuple[Any, ...]] = []
    times = np.empty((2, repeats, len(pairs)))
    for k in range(repeats):
        for i, (method, nfe) in enumerate(pairs):
            run = timed_solve(target.den, target.x, solver=method, nfe=nfe, **options)
            times[:, k, i] = run.seconds, run.outside
            if k == 0:
                found.append((method.name, nfe, run.nfe, *_errors(run.end.cpu(), target)))
    spread = np.stack([np.median(times, 1), times.min(1), times.max(1)], -1).tolist()
    cells = [
        (*errors, Estimate(*seconds), Estimate(*outside))
        for errors, seconds, outside in zip(found, *spread, strict=True)
    ]
    return tuple(WorkPrecisionRow(*row) for row in cells)


def _errors(end: torch.Tensor, target: Target) -> tuple[Estimate, ...]:
    """median, rms, p90, w2, sliced_w2."""
    errors = per_sample_rms(end - target.end)
    finite = bool(torch.isfinite(end).all())
    distances = (target.w2(end), target.sliced_w2(end)) if finite else [Estimate(*[np.inf] * 3)] * 2
    return median(errors), rms(errors), p90(errors), *distances


def _target(
    problem: Problem | Denoiser, sch: Schedule, s: float, t: float, samples: int, seed: int,
    x: Any, event_shape: Any, precise: Denoiser | None,
) -> tuple[Target, Noise]:  # fmt: skip
    if isinstance(problem, Denoiser):
        start = check_start(problem, x, event_shape)
        if isinstance(start, torch.Tensor):
            _check_count("len(x)", len(start), LEAST_SAMPLES)
        return of_denoiser(problem, s, t, start, samples, seed, precise)
    for what, value in (("x", x), ("event_shape", event_shape), ("precise", precise)):
        if value is not None:
            raise ValueError(f"{what} is for a denoiser; {problem!r} draws its own starts and knows its answers")
    return of_problem(problem, sch, s, t, samples, seed)


def _schedule(problem: Any, sch: Schedule | None) -> Schedule:
    if isinstance(problem, Denoiser):
        if sch not in (None, problem.schedule):
            raise ValueError(f"sch = {sch}, but the denoiser was made for {problem.schedule}; leave it out")
        return problem.schedule
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a problem of logsnr.analysis or a Denoiser, not {type(problem).__name__}")
    return VPLinear() if sch is None else sch


def _methods(solvers: str | Solver | Iterable[str | Solver]) -> list[Solver]:
    """The solvers, each once; ValueError for none and for those that cannot be compared at a budget."""
    chosen = [solvers] if isinstance(solvers, (str, Solver)) else solvers
    methods = list(dict.fromkeys(map(find_solver, chosen)))
    if not methods:
        raise ValueError("solvers is empty; logsnr.solver_names() lists them")
    for method in methods:
        if method.planner is None:
            raise ValueError(f"solver = {method.name!r} chooses its own steps, so it cannot be held to a budget")
        if method.stochastic:
            raise ValueError(f"solver = {method.name!r} is stochastic: its samples have no reference to compare with")
    return methods


def _budgets(nfes: int | Iterable[int]) -> list[int]:
    if not isinstance(nfes, Iterable | int | np.integer):
        raise ValueError(f"nfes must be an integer or several, not {nfes!r}")
    budgets = list(nfes) if isinstance(nfes, Iterable) else [nfes]
    if not budgets:
        raise ValueError("nfes is empty; give budgets of model evaluations, such as (5, 10, 20)")
    for nfe in budgets:
        _check_count("nfe", nfe, 1)
    return sorted(map(int, set(budgets)))


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, not {value!r}")


def _possible(
    methods: list[Solver], budgets: list[int], sch: Schedule, options: dict[str, Any]
) -> tuple[list[tuple[Solver, int]], tuple[str, ...]]:
    """The pairs of solver and budget that can be run, and a note for each solver that misses some."""
    pairs, notes = [], []
    for method in methods:
        least = least_nfe(method, sch, **options)
        pairs += [(method, nfe) for nfe in budgets if nfe >= least]
        if missed := [str(nfe) for nfe in budgets if nfe < least]:
            notes.append(f"{method.name} needs at least {least} model evaluations: no row at {', '.join(missed)}")
    if not pairs:
        raise ValueError(f"nothing is possible: {'; '.join(notes)}")
    return pairs, tuple(notes)


def _versions() -> str:
    return " ".join(f"{package} {metadata.version(package)}" for package in ("logsnr", "torch", "numpy", "scipy"))
