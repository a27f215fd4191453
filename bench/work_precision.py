"""Runs solvers on a problem and measures their error against the reference, from the same noise."""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from ..analysis.estimates import median, p90, per_sample_rms, rms
from ..analysis.timing import timed_solve
from ..analysis.work_precision import least_nfe
from ..solvers.catalogue import Solver, solver, solver_names
from ..solvers.grids import GRIDS, grid
from ..solvers.multistep import Startup
from ..solvers.names import nearest
from ..solvers.sampling import solve
from ..solvers.schedule import Schedule
from .problems import BenchProblem
from .results import Case, Row, versions

NFES = (5, 6, 8, 10, 15, 20, 40)
RTOLS = (1e-2, 1e-3, 1e-4, 1e-5)
CHECKED = 4  # samples on which the reference is checked
CHECK_TOL = 1e-10


@dataclass(frozen=True)
class Plan:
    """What to measure. An empty choice means all: every deterministic solver (one of each set of equal ones)
    and every grid; samples None is each problem's own number."""

    solvers: tuple[str, ...] = ()
    nfes: tuple[int, ...] = NFES
    grids: tuple[str, ...] = ()
    rtols: tuple[float, ...] = RTOLS
    samples: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Reference:
    """start and end: float64 (samples, *event). error: how far from `end` an independent integration
    (torchdiffeq's dopri8 at rtol = atol = 1e-10) takes the first samples, the largest root-mean-square."""

    start: torch.Tensor
    end: torch.Tensor
    error: float


def default_solvers() -> list[str]:
    """Every deterministic solver, and of those with equal numbers the first."""
    chosen: list[str] = []
    for name in solver_names():
        candidate = solver(name)
        if not candidate.stochastic and not set(candidate.equals) & set(chosen):
            chosen.append(name)
    return chosen


def check_plan(plan: Plan) -> None:
    """Raise ValueError for numbers that are not positive and for unknown grids and solvers."""
    numbers = {
        "nfe": plan.nfes,
        "rtol": plan.rtols,
        "samples": () if plan.samples is None else (plan.samples,),
    }
    for name, values in numbers.items():
        for value in values:
            if not value > 0:
                raise ValueError(f"{name} = {value} must be positive")
    for kind in plan.grids:
        if kind not in GRIDS:
            raise ValueError(f"grid = {kind!r} is unknown{nearest(kind, GRIDS)}")
    for name in plan.solvers:
        if solver(name).stochastic:
            raise ValueError(f"solver = {name!r} is stochastic: its samples have no reference to compare with")


def cases(problem: BenchProblem, plan: Plan) -> list[Case]:
    """All that `plan` asks of this problem and that is possible; ValueError if nothing is."""
    sch = problem.denoiser.schedule
    fixed = Case(problem.name, "", "ramp", "", None, None, plan.samples or problem.samples, plan.seed)
    found = []
    for method in map(solver, plan.solvers or default_solvers()):
        this = replace(fixed, solver=method.name)
        for startup in startups(method, sch):
            for kind in plan.grids or GRIDS:
                least = least_nfe(method, sch, startup, kind)
                form = replace(this, startup=startup, grid=kind)
                found += [replace(form, nfe=nfe) for nfe in plan.nfes if nfe >= least]
        if method.adaptive:
            found += [replace(this, grid="adaptive", rtol=rtol) for rtol in plan.rtols]
    if not found:
        told = ", ".join(f"{name} {least_nfe(solver(name), sch)}" for name in plan.solvers)
        raise ValueError(f"nfe = {plan.nfes} is too little; the least possible is: {told}")
    return found


def startups(method: Solver, sch: Schedule) -> tuple[Startup, ...]:
    """The start-ups that make a difference to this solver; none if it only has adaptive steps."""
    if method.planner is None:
        return ()
    times = grid(sch, 8)
    ramp, single = (method.program(sch, times, startup=s) for s in get_args(Startup))
    return ("ramp",) if ramp == single else ("ramp", "single-step")


def measure(problem: BenchProblem, case: Case, reference: Reference) -> tuple[Row, torch.Tensor]:
    """The row, and the end states, float64. A solver that diverges or gives up has infinite errors and the
    evaluations it spent."""
    run = timed_solve(problem.denoiser, reference.start.to(problem.dtype), **options(case))
    errors = per_sample_rms(run.end - reference.end)
    row = Row(
        case=case,
        nfe_used=run.nfe,
        median=median(errors).value,
        rms=rms(errors).value,
        p90=p90(errors).value,
        overhead_us_per_step=1e6 * run.outside / run.nfe,
        seconds=run.seconds,
        reference_error=reference.error,
        versions=versions(),
    )
    return row, run.end


def options(case: Case) -> dict[str, Any]:
    """What the case is to `logsnr.solve`."""
    if case.nfe is None:
        return dict(solver=case.solver, rtol=case.rtol, atol=case.rtol)
    return dict(solver=case.solver, nfe=case.nfe, grid=case.grid, startup=case.startup)


def load_reference(problem: BenchProblem, samples: int, seed: int, cache: Path) -> Reference:
    """The reference from the folder `cache`, or computed and put there."""
    start = problem.start(samples, seed)
    told = f"{problem.name} {problem.summary} {problem.precise.schedule} {versions()}".encode()
    key = hashlib.sha256(told + start.numpy().tobytes()).hexdigest()[:16]
    path = cache / f"{problem.name}-{key}.npz"
    if path.exists():
        with np.load(path) as stored:
            return Reference(start, torch.from_numpy(stored["end"]), float(stored["error"]))
    end = problem.exact(start)
    reference = Reference(start, end, _reference_error(problem, start, end))
    cache.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".tmp.npz")  # moved into place: an interrupt leaves no half-written reference
    np.savez(whole, end=end.numpy(), error=reference.error)
    os.replace(whole, path)
    return reference


def _reference_error(problem: BenchProblem, start: torch.Tensor, end: torch.Tensor) -> float:
    first = slice(min(CHECKED, len(start)))
    check = solve(problem.precise, start[first], solver="dopri8", rtol=CHECK_TOL, atol=CHECK_TOL)
    return float(per_sample_rms(check.x - end[first]).max())
