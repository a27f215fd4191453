"""Runs solvers on a problem and measures what they make of its starts, path by path or in law."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch

from ..analysis.compare_plan import OWN, brings_grid, is_fitted
from ..analysis.timing import timed_solve
from ..analysis.work_precision import least_nfe
from ..solvers.catalogue import Solver, solver, solver_names
from ..solvers.grids import GRIDS, KINDS, grid
from ..solvers.names import grid_hint
from ..solvers.planners.multistep import Startup
from ..solvers.planning import plan_program
from ..solvers.schedules.base import Schedule
from .problems import BenchProblem
from .references import Reference
from .results import Case, Row, versions

ALL = "all"  # instead of names: every solver
NFES = (5, 6, 8, 10, 15, 20, 40)
MAX_NFE = 10_000
RTOLS = (1e-2, 1e-3, 1e-4, 1e-5)
LAW_SOLVERS = ("ddim", "dpmpp-2m", "ddpm", "sde-dpmpp-2m", "er-sde-2", "edm-churn")  # if none are named
LAW_GRIDS = ("logsnr",)
FITTED = ("auto", "universal")  # which bring their own grids


@dataclass(frozen=True)
class Plan:
    """What a bench is to measure. samples None is each problem's own number.

    solvers: deterministic ones are measured path by path. If a stochastic one is among them, all are measured in law,
    but for those that only have adaptive steps. ("all",) is every solver, one of each set of equal ones. Empty: every
    deterministic one and `FITTED` path by path, or the problem's own choice, and on images `LAW_SOLVERS` in law.
    grids: empty is every grid for paths, and `LAW_GRIDS` in law.
    """

    solvers: tuple[str, ...] = ()
    nfes: tuple[int, ...] = NFES
    grids: tuple[str, ...] = ()
    rtols: tuple[float, ...] = RTOLS
    samples: int | None = None
    seed: int = 0


def default_solvers() -> list[str]:
    """Every deterministic solver, and of those with equal numbers the first."""
    return [name for name in distinct(solver_names()) if not solver(name).stochastic]


def distinct(names: Iterable[str]) -> list[str]:
    """The names, each once, and of solvers with equal numbers the first."""
    chosen: list[str] = []
    for name in dict.fromkeys(names):
        if not set(solver(name).equals) & set(chosen):
            chosen.append(name)
    return chosen


def check_plan(plan: Plan) -> None:
    """Raise ValueError for numbers that are not positive or too large, and unknown grids and solvers."""
    numbers = {
        "nfe": plan.nfes,
        "rtol": plan.rtols,
        "samples": () if plan.samples is None else (plan.samples,),
    }
    for name, values in numbers.items():
        for value in values:
            if not value > 0:
                raise ValueError(f"{name} = {value} must be positive")
    if max(plan.nfes, default=1) > MAX_NFE:
        raise ValueError(f"nfe = {max(plan.nfes)} takes too long; at most {MAX_NFE}")
    for kind in plan.grids:
        if kind not in KINDS:
            raise ValueError(f"grid = {kind!r} is unknown{grid_hint(kind, KINDS)}")
    if not 0 <= plan.seed < 1 << 64:
        raise ValueError(f"seed = {plan.seed} must be from 0 to 2^64 - 1")
    if ALL in plan.solvers and len(plan.solvers) > 1:
        raise ValueError(f"solvers = {ALL!r} leaves none to be named beside it")
    for name in _named(plan):
        solver(name)


def cases(problem: BenchProblem, plan: Plan) -> list[Case]:
    """The cases that `plan` asks of this problem and that are possible; ValueError if none is."""
    sch, named = problem.denoiser.schedule, _named(plan)
    fixed = Case(problem.name, "", "ramp", "", None, None, plan.samples or problem.samples, plan.seed)
    found = []
    for method in map(solver, named or problem.solvers or [*default_solvers(), *FITTED]):
        this = replace(fixed, solver=method.name)
        if brings_grid(method):
            found += _fitted(this, plan.nfes, sch)
        elif not method.stochastic:
            found += _fixed_steps(this, plan.grids or GRIDS, startups(method, sch), plan.nfes, sch)
        if method.adaptive:
            found += [replace(this, grid="adaptive", rtol=rtol) for rtol in plan.rtols]
    fixed = replace(fixed, samples=plan.samples or problem.law.samples, compared="law")
    for method in map(solver, _compared_in_law(named) if named or not problem.law.default else LAW_SOLVERS):
        this = replace(fixed, solver=method.name)
        found += _fixed_steps(this, plan.grids or LAW_GRIDS, ("ramp",), plan.nfes, sch)
    if not found:
        told = ", ".join(f"{name} {least_nfe(solver(name), sch)}" for name in named)
        raise ValueError(f"nfe = {plan.nfes} is too little; the least possible is: {told}")
    return found


def left_out(plan: Plan, planned: Iterable[Case], sch: Schedule) -> dict[str, int]:
    """The solvers named that fit no budget, and how many evaluations they need."""
    there = {case.solver for case in planned}
    return {name: least_nfe(solver(name), sch) for name in _named(plan) if name not in there and solver(name).planner}


def _named(plan: Plan) -> list[str]:
    every = [*distinct(solver_names()), *FITTED]
    return every if plan.solvers == (ALL,) else list(dict.fromkeys(plan.solvers))


def _compared_in_law(named: Iterable[str]) -> list[str]:
    """The named solvers with fixed steps if one of them is stochastic, else none."""
    methods = [solver(name) for name in named]
    stochastic = any(method.stochastic for method in methods)
    return [method.name for method in methods if method.planner and stochastic and not brings_grid(method)]


def _fixed_steps(
    this: Case, grids: Iterable[str], starts: Iterable[Startup], nfes: Iterable[int], sch: Schedule
) -> list[Case]:
    """The case on every grid, with every start-up, at every budget of at least one step."""
    forms = [replace(this, startup=startup, grid=kind) for startup in starts for kind in grids]
    least = {form: least_nfe(solver(form.solver), sch, startup=form.startup, grid=form.grid) for form in forms}
    return [replace(form, nfe=nfe) for form in forms for nfe in nfes if nfe >= least[form]]


def _fitted(this: Case, nfes: Iterable[int], sch: Schedule) -> list[Case]:
    """The case at every budget that there is a table for."""
    programs = {nfe: plan_program(this.solver, sch, nfe=nfe) for nfe in nfes}
    planner = solver(this.solver).planner
    return [replace(this, grid=OWN, nfe=n) for n, p in programs.items() if is_fitted(planner, p)]


def startups(method: Solver, sch: Schedule) -> tuple[Startup, ...]:
    """The start-ups that make a difference to this solver; none if it only has adaptive steps."""
    if method.planner is None:
        return ()
    times = grid(sch, 8)
    ramp, single = (method.program(sch, times, startup=s) for s in get_args(Startup))
    return ("ramp",) if ramp == single else ("ramp", "single-step")


def measure(problem: BenchProblem, case: Case, reference: Reference) -> tuple[Row, torch.Tensor]:
    """The row, and the end states, float64. A solver that diverges or gives up has infinite errors or distances and the
    evaluations it spent."""
    run = timed_solve(problem.denoiser, reference.start.to(problem.dtype), **options(case))
    row = Row(
        case=case,
        nfe_used=run.nfe,
        statistics=reference.statistics(run.end),
        overhead_us_per_step=1e6 * run.outside / run.nfe,
        seconds=run.seconds,
        versions=versions(),
    )
    return row, run.end


def options(case: Case) -> dict[str, Any]:
    """The arguments of `logsnr.solve` for this case."""
    if case.nfe is None:
        return dict(solver=case.solver, rtol=case.rtol, atol=case.rtol)
    where = {} if case.grid == OWN else dict(grid=case.grid, startup=case.startup)
    return dict(solver=case.solver, nfe=case.nfe, seed=case.seed, **where)
