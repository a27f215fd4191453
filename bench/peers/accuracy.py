"""Errors of whole runs, beside diffusers, k-diffusion and azula: every solver on every grid at every budget.

    python -m logsnr.bench.peers accuracy
    python -m logsnr.bench.peers accuracy --problem mixture-16 --nfe 10

All start from the same noise and are compared with the same exact ends. A budget is a number of evaluations a sample,
which the model counts: each solver runs the most steps that fit. A row that was measured once is kept in the CSV.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version

import numpy as np
import torch

from ...analysis.compare_plan import OWN
from ...solvers.arrays import Array
from ...solvers.catalogue.catalogue import Solver, solver
from ...solvers.catalogue.planning import plan_program
from ...solvers.denoisers.denoiser import Denoiser
from ...solvers.schedules.base import Schedule
from ...solvers.schedules.formulas import VPLinear
from ..problems import BenchProblem
from ..references import Reference
from ..results import OURS, Case, Row, fingerprint
from ..work_precision import Counted, default_solvers
from ..work_precision import measure as measure_ours
from .samplers import PACKAGES, Sampler, largest_within

SAMPLES = {"digits": 256, "digits-net": 256, "photos-net": 32}  # of those whose model is dear; 1000 of the others
OUR_GRIDS = ("logsnr", "karras", "time", "arctan", "logistic", "flow")
# Where the nodes are for peers, by x = sigma/alpha: uniform in log x, in x^(1/7), in the time of VPLinear, and in
# x / (1 + x), the time of flow matching.
PEER_GRIDS = ("exponential", "karras", "vp", "flow")


def cases(
    problem: BenchProblem, package: str, nfes: Sequence[int], peer_grids: Sequence[str], seed: int
) -> Iterator[tuple[Case, Solver | Sampler]]:
    """All that is measured of a package, with what is run."""
    sch, runs = problem.denoiser.schedule, list[tuple[Solver | Sampler, Sequence[str], int]]()
    if package == OURS:
        runs = [(method, OUR_GRIDS, len(plan_program(method, sch, steps=1))) for method in our_solvers()]
        runs.append((solver("auto"), (OWN,), 1))
    else:
        runs = [(s, s.grids(peer_grids), 1) for s in PACKAGES[package]()]
    fixed = Case(problem.name, "", "ramp", "", None, None, samples_of(problem), seed, package=package)
    for method, grids, least in runs:
        for kind in grids:
            for nfe in nfes:
                if nfe >= least:
                    yield replace(fixed, solver=method.name, grid=kind, nfe=nfe), method


def samples_of(problem: BenchProblem) -> int:
    """How many noises a problem is run on."""
    return SAMPLES.get(problem.name, 1000)


def our_solvers() -> list[Solver]:
    """Every deterministic solver with steps, of equal ones the first; and with a corrector where that is an option."""
    named = [method for method in map(solver, default_solvers()) if method.planner]
    return named + [solver(method, corrector=True) for method in named if "corrector" in method.options]


@cache
def version_of(package: str) -> str:
    """Its version; this library's is a fingerprint of its code."""
    return version(package) if package != OURS else fingerprint("logsnr.solvers", "logsnr.kernels")


def measure(problem: BenchProblem, case: Case, reference: Reference, method: Solver | Sampler) -> Row | None:
    """The row; None for budgets that the solver cannot take. Whatever diverges has infinite errors."""
    row = (
        _measure_peer(problem, case, reference, method)
        if isinstance(method, Sampler)
        else measure_ours(problem, case, reference, method)[0]
    )
    return row and replace(row, versions=version_of(case.package))


def _measure_peer(problem: BenchProblem, case: Case, reference: Reference, sampler: Sampler) -> Row | None:
    assert case.nfe is not None
    found = end_of_peer(problem.denoiser, problem.dtype, case.grid, case.nfe, reference.start, sampler)
    return found and Row(case, found[1], reference.statistics(found[0]), "")


def end_of_peer(
    den: Denoiser, dtype: torch.dtype, kind: str, nfe: int, start: torch.Tensor, sampler: Sampler
) -> tuple[torch.Tensor, int] | None:
    """Where a sampler takes the start (B, ...), float64, on one of `PEER_GRIDS`, and its evaluations by sample; None
    for budgets that it cannot take. In the coordinates x / alpha = x0 + (sigma / alpha) eps, in float64 but for the
    model, which sees this dtype."""
    steps = _steps(sampler, nfe)
    if steps is None:
        return None
    sch = den.schedule
    first, last = (float(sch.alpha(t)) for t in (sch.t_start, sch.t_end))

    def model(y: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        t = torch.as_tensor(sch.time(-torch.log(sigma.double()))).expand(len(y))
        alpha = torch.as_tensor(sch.alpha(t)).reshape(-1, *[1] * (y.ndim - 1))
        return den.x0((alpha * y).to(dtype), t).to(y.dtype)

    counted = Counted(model)
    with torch.no_grad():
        end = last * sampler(counted, start / first, torch.from_numpy(sigmas(sch, kind, steps)))
    return end.double(), round(counted.samples / len(start))


_steps = cache(largest_within)


def sigmas(sch: Schedule, kind: str, steps: int) -> Array:
    """The levels sigma/alpha of a grid of `PEER_GRIDS` over the span of the schedule, float64."""
    vp = VPLinear()
    shapes: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
        "exponential": (np.log, np.exp),
        "karras": (lambda x: x ** (1 / 7), lambda u: u**7),
        "vp": (lambda x: np.asarray(vp.time(-np.log(x))), lambda u: np.exp(-np.asarray(vp.half_logsnr(u)))),
        "flow": (lambda x: x / (1 + x), lambda u: u / (1 - u)),
    }
    ends = np.exp(-np.array([float(sch.half_logsnr(t)) for t in (sch.t_start, sch.t_end)]))
    into, out = shapes[kind]
    first, last = into(ends).tolist()
    levels = np.array(out(np.linspace(first, last, steps + 1)))
    levels[[0, -1]] = ends
    return levels
