"""Errors of whole runs, beside diffusers, k-diffusion and azula: every solver on every grid at every budget.

    python -m logsnr.bench.peers accuracy
    python -m logsnr.bench.peers accuracy --problem mixture-16 --nfe 10

All start from the same noise and are compared with the same exact ends. A budget is a number of evaluations a sample,
which the model counts: each solver runs the most steps that fit. A row that was measured once is kept in the CSV.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from ..analysis.estimates import per_sample_rms
from ..solvers.arrays import Array
from ..solvers.catalogue import Solver, solver
from ..solvers.run import NonFiniteError
from ..solvers.sampling import solve
from ..solvers.schedules.formulas import VPLinear
from .peer_rows import Case, Row
from .peer_samplers import PACKAGES, Counted, Sampler, largest_within
from .problems import BenchProblem
from .references import CHECK_TOL, CHECKED, cached
from .results import fingerprint
from .work_precision import default_solvers, least_nfe

OURS, OWN = "logsnr", "its own"
FAR = 0.1  # of the data's spread: samples with larger errors are counted
SAMPLES = {"digits": 64, "digits-net": 32, "photos-net": 32}  # of those whose model is dear; 1000 of the others
OUR_GRIDS = ("logsnr", "karras", "time", "arctan", "logistic")
# Where the nodes are for peers, by x = sigma/alpha: uniform in log x, in x^(1/7), in the time of VPLinear, and in
# x / (1 + x), the time of flow matching.
PEER_GRIDS = ("exponential", "karras", "vp", "flow")


@dataclass(frozen=True)
class Task:
    """A problem with its starts, their exact ends and the error of these."""

    problem: BenchProblem
    start: torch.Tensor
    end: torch.Tensor
    error: float

    def row(self, case: Case, end: torch.Tensor, counted: Counted) -> Row:
        errors = np.nan_to_num(per_sample_rms(end.double() - self.end), nan=np.inf)
        spread = float(self.end.flatten(1).std(0).square().mean().sqrt())
        with np.errstate(over="ignore"):
            rms = float(np.sqrt(np.mean(errors**2)))
        found = float(np.median(errors)), rms, float((errors > FAR * spread).mean())
        return Row(case, counted.samples / len(end), *found, self.error)


def load_task(problem: BenchProblem, seed: int, cache: Path) -> Task:
    """The exact ends come from the folder ``cache`` if they are there. Their error is how far from the first of them
    torchdiffeq's dopri8 at 1e-10 ends, root mean square."""
    start = problem.start(SAMPLES.get(problem.name, 1000), seed)
    told = f"{problem.name} {problem.summary} {problem.precise.schedule} {fingerprint('logsnr.analysis')}".encode()
    key = hashlib.sha256(told + start.numpy().tobytes()).hexdigest()[:16]

    def compute() -> dict[str, np.ndarray]:
        end = problem.exact(start)
        check = solve(problem.precise, start[:CHECKED], solver="dopri8", rtol=CHECK_TOL, atol=CHECK_TOL)
        return {"end": end.numpy(), "error": per_sample_rms(check.x - end[:CHECKED]).max()}

    found = cached(cache / f"{problem.name}-peers-{key}.npz", compute)
    return Task(problem, start, torch.from_numpy(found["end"]), float(found["error"]))


def cases(
    task: Task, package: str, nfes: Sequence[int], peer_grids: Sequence[str], seed: int
) -> Iterator[tuple[Case, Solver | Sampler]]:
    """All that is measured of a package, with what is run."""
    sch, told = task.problem.denoiser.schedule, version_of(package)
    runs: list[tuple[Solver | Sampler, Sequence[str], int]] = []
    if package == OURS:
        runs = [(method, OUR_GRIDS, least_nfe(method, sch)) for method in our_solvers()]
        runs.append((solver("auto"), (OWN,), 1))
    else:
        runs = [(s, peer_grids[:1] if s.own_grid else peer_grids, 1) for s in PACKAGES[package]()]
    for method, grids, least in runs:
        for kind in grids:
            for nfe in nfes:
                if nfe >= least:
                    yield Case(
                        task.problem.name, package, told, method.name, kind, nfe, len(task.start), seed
                    ), method  # fmt: skip


def our_solvers() -> list[Solver]:
    """Every deterministic solver with steps, of equal ones the first; and with a corrector where that is an option."""
    named = [method for method in map(solver, default_solvers()) if method.planner]
    return named + [solver(method, corrector=True) for method in named if "corrector" in method.options]


@lru_cache
def version_of(package: str) -> str:
    """Its version; this library's is a fingerprint of its code."""
    return version(package) if package != OURS else fingerprint("logsnr.solvers", "logsnr.kernels")


def measure(task: Task, case: Case, method: Solver | Sampler) -> Row | None:
    """The row; None for budgets that the solver cannot take. Whatever diverges has infinite errors."""
    return _measure_peer(task, case, method) if isinstance(method, Sampler) else _measure_ours(task, case, method)


def _measure_ours(task: Task, case: Case, method: Solver) -> Row:
    den, x = task.problem.denoiser, task.start.to(task.problem.dtype)
    counted = Counted(den.model)
    try:
        end = solve(
            den.like(counted, x), x, solver=method, nfe=case.nfe, grid=None if case.grid == OWN else case.grid
        ).x
    except NonFiniteError:
        end = torch.full_like(task.end, torch.inf)
    return task.row(case, end, counted)


def _measure_peer(task: Task, case: Case, sampler: Sampler) -> Row | None:
    """In the coordinates x / alpha = x0 + (sigma / alpha) eps, in float64 but for the network."""
    problem, steps = task.problem, _steps(sampler, case.nfe)
    if steps is None:
        return None
    den, sch = problem.denoiser, problem.denoiser.schedule
    first, last = (float(sch.alpha(t)) for t in (sch.t_start, sch.t_end))

    def model(y: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        t = torch.as_tensor(sch.time(-torch.log(sigma.double()))).expand(len(y))
        alpha = torch.as_tensor(sch.alpha(t)).reshape(-1, *[1] * (y.ndim - 1))
        return den.x0((alpha * y).to(problem.dtype), t).to(y.dtype)

    counted = Counted(model)
    with torch.no_grad():
        end = last * sampler(counted, task.start / first, torch.from_numpy(sigmas(task, case.grid, steps)))
    return task.row(case, end, counted)


@cache
def _steps(sampler: Sampler, nfe: int) -> int | None:
    return largest_within(sampler, nfe)


def sigmas(task: Task, kind: str, steps: int) -> Array:
    """The levels sigma/alpha of a grid of `PEER_GRIDS` over the span of the problem's schedule, float64."""
    sch, vp = task.problem.denoiser.schedule, VPLinear()
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
