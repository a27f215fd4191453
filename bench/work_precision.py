"""Runs solvers on a problem and measures what they make of its starts, path by path or in law."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, get_args

import torch

from ..analysis.compare_plan import OWN, brings_grid, distinct, is_fitted
from ..solvers.catalogue.catalogue import Solver, solver, solver_names
from ..solvers.catalogue.planning import plan_program
from ..solvers.grids.grids import GRIDS, KINDS, grid
from ..solvers.names import grid_hint
from ..solvers.planners.multistep import Startup
from ..solvers.runs.run import NonFiniteError
from ..solvers.sampling import solve
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
    return [method.name for method in distinct(map(solver, solver_names())) if not method.stochastic]


def check_plan(plan: Plan) -> None:
    """Raise ValueError for numbers that are not positive or too large, and unknown grids and solvers."""
    samples = () if plan.samples is None else (plan.samples,)
    for name, values in {"nfe": plan.nfes, "rtol": plan.rtols, "samples": samples}.items():
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
    _named(plan)


def cases(problem: BenchProblem, plan: Plan) -> tuple[list[Case], list[str]]:
    """The cases that `plan` asks of this problem and that are possible, and a note on each solver that misses budgets.
    ValueError if nothing is possible."""
    sch, named, notes = problem.denoiser.schedule, _named(plan), dict[str, None]()
    fixed = Case(problem.name, "", "ramp", "", None, None, plan.samples or problem.samples, plan.seed)
    found = list[Case]()

    def add(this: Case, layouts: Iterable[tuple[Startup, str]]) -> None:
        """The case in every layout at every budget that it is possible at."""
        method = solver(this.solver)
        for startup, kind in layouts:
            if kind == OWN:
                allowed = [n for n in plan.nfes if is_fitted(method.planner, plan_program(method, sch, nfe=n))]
                why = "has no table there"
            else:
                least = len(plan_program(method, sch, steps=1, startup=startup, grid=kind))
                allowed, why = [n for n in plan.nfes if n >= least], f"needs at least {least}"
            found.extend(replace(this, startup=startup, grid=kind, nfe=n) for n in allowed)
            if missed := [str(n) for n in plan.nfes if n not in allowed]:
                notes[f"no row of {method.name} at {', '.join(missed)}: it {why}"] = None

    for method in named or map(solver, problem.solvers or (*default_solvers(), *FITTED)):
        this = replace(fixed, solver=method.name)
        if brings_grid(method):
            add(this, [("ramp", OWN)])
        elif not method.stochastic:
            add(this, product(startups(method, sch), plan.grids or GRIDS))
            found += [replace(this, grid="adaptive", rtol=rtol) for rtol in plan.rtols if method.adaptive]
    fixed = replace(fixed, samples=plan.samples or problem.law.samples, compared="law")
    noisy = any(method.stochastic for method in named)
    laws = [method.name for method in named if noisy and method.planner and not brings_grid(method)]
    for name in LAW_SOLVERS if problem.law.default and not named else laws:
        add(replace(fixed, solver=name), product(["ramp"], plan.grids or LAW_GRIDS))
    if not found:
        raise ValueError(f"there is nothing to measure: {'; '.join(notes)}")
    return found, list(notes)


def _named(plan: Plan) -> list[Solver]:
    if plan.solvers == (ALL,):
        return distinct(map(solver, [*solver_names(), *FITTED]))
    return [solver(name) for name in dict.fromkeys(plan.solvers)]


def startups(method: Solver, sch: Schedule) -> tuple[Startup, ...]:
    """The start-ups that make a difference to this solver; none if it only has adaptive steps."""
    if method.planner is None:
        return ()
    times = grid(sch, 8)
    ramp, single = (method.program(sch, times, startup=s) for s in get_args(Startup))
    return ("ramp",) if ramp == single else ("ramp", "single-step")


class Counted:
    """A model that counts its calls, and the samples which it is asked about: two of them in one call are two."""

    def __init__(self, model: Any) -> None:
        self.model, self.calls, self.samples = model, 0, 0

    def __call__(self, x: torch.Tensor, t: torch.Tensor, **conditions: Any) -> Any:
        self.calls += 1
        self.samples += len(x)
        return self.model(x, t, **conditions)


def measure(
    problem: BenchProblem, case: Case, reference: Reference, method: Solver | None = None
) -> tuple[Row, torch.Tensor]:
    """The row, and the end states, float64; of ``method``, if the case has no name for `solve`. A solver that diverges
    or gives up has infinite errors or distances and the evaluations it spent."""
    x, counted = reference.start.to(problem.dtype), Counted(problem.denoiser.model)
    given = options(case) | ({} if method is None else {"solver": method})
    failures = (NonFiniteError,) if case.rtol is None else (NonFiniteError, RuntimeError)
    try:
        end = solve(problem.denoiser.like(counted, x), x, **given).x.double()
    except failures:  # a RuntimeError: a tolerance out of the dtype's reach
        end = torch.full_like(x, torch.inf, dtype=torch.float64)
    return Row(case, counted.calls, reference.statistics(end), versions()), end


def options(case: Case) -> dict[str, Any]:
    """The arguments of `logsnr.solve` for this case."""
    if case.nfe is None:
        return dict(solver=case.solver, rtol=case.rtol, atol=case.rtol)
    where = {} if case.grid == OWN else dict(grid=case.grid, startup=case.startup)
    return dict(solver=case.solver, nfe=case.nfe, seed=case.seed, **where)
