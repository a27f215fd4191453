"""What generated samples are compared with: the exact end of each path, or samples of the law they should have."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from ..analysis.discrepancies import energy_distance, mmd
from ..analysis.estimates import Estimate, sample_errors, summary
from ..analysis.metrics import sliced_w2
from ..solvers.programs.provenance import fingerprint as model_of
from ..solvers.sampling import solve
from .problems import BenchProblem
from .results import Compared, fingerprint

CHECKED = 4  # samples on which a reference is checked
CHECK_TOL = 1e-10
REPLICAS = 40  # sets of exact samples behind a sampling error
FAR = 0.1  # of the data's spread: samples with larger errors are counted
TAIL = 0.05  # of them on each side of its band
DISTANCES = {"sliced_w2": sliced_w2, "energy_distance": energy_distance, "mmd": mmd}


@dataclass(frozen=True)
class Reference(ABC):
    """start: float64 (samples, *event), what every solver starts from. answer: float64 (n, *event), what it should make
    of it: path by path, or in law."""

    start: torch.Tensor
    answer: torch.Tensor

    @abstractmethod
    def statistics(self, end: torch.Tensor) -> dict[str, float]:
        """The statistics of end states, by the name of their column; infinite where a solver diverged."""


@dataclass(frozen=True)
class PathReference(Reference):
    """answer: where the PF-ODE takes each start. error: how far from it an independent integration (torchdiffeq's
    dopri8 at rtol = atol = 1e-10) takes the first samples, the largest root-mean-square."""

    error: float

    def statistics(self, end: torch.Tensor) -> dict[str, float]:
        errors = sample_errors(end, self.answer)
        spread = float(self.answer.flatten(1).std(0).square().mean().sqrt())
        return summary(errors) | {"far": float((errors > FAR * spread).mean()), "reference_error": self.error}


@dataclass(frozen=True)
class LawReference(Reference):
    """answer: the problem's target. exact: by distance, what as many samples of a perfect sampler as there are starts
    have from it, the median and the 90 % in the middle. All are compared with one target, solvers too, so that its own
    sampling error is in the median and not in the spread."""

    exact: dict[str, Estimate]

    def statistics(self, end: torch.Tensor) -> dict[str, float]:
        finite = bool(torch.isfinite(end).all())
        found = {name: f(end, self.answer) if finite else np.inf for name, f in DISTANCES.items()}
        for name, (value, low, high) in self.exact.items():
            found |= {f"{name}_exact": value, f"{name}_low": low, f"{name}_high": high}
        return found


def load_reference(problem: BenchProblem, compared: Compared, samples: int, seed: int, cache: Path) -> Reference:
    """The reference, with what is dear of it from the folder `cache`, or computed and put there."""
    start = problem.start(samples, seed)
    code = fingerprint("logsnr.analysis", *["logsnr.solvers"] * (problem.solved is not None))
    told = f"{problem.name} {problem.summary} {model_of(problem.precise)} {code}".encode()
    key = hashlib.sha256(told + start.numpy().tobytes()).hexdigest()[:16]
    path = cache / f"{problem.name}-{compared}-{key}.npz"
    if compared == "law":
        exact = cached(path, lambda: _exact_distances(problem, samples))
        return LawReference(start, problem.law.target, {name: Estimate(*exact[name].tolist()) for name in DISTANCES})
    found = cached(path, lambda: _exact_ends(problem, start))
    return PathReference(start, torch.from_numpy(found["end"]), float(found["error"]))


def cached(path: Path, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    with suppress(OSError, ValueError, EOFError, BadZipFile), np.load(path) as stored:  # missing, or damaged
        return dict(stored)
    found = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".tmp.npz")  # moved into place: an interrupt leaves no half-written reference
    np.savez(whole, **found)  # type: ignore[arg-type]
    os.replace(whole, path)
    return found


def _exact_ends(problem: BenchProblem, start: torch.Tensor) -> dict[str, np.ndarray]:
    if problem.solved:
        end, known = problem.solved(start)
        return {"end": end.numpy(), "error": np.array(known)}
    end = problem.exact(start)
    first = slice(min(CHECKED, len(start)))
    check = solve(problem.precise, start[first], solver="dopri8", rtol=CHECK_TOL, atol=CHECK_TOL)
    return {"end": end.numpy(), "error": sample_errors(check.x, end[first]).max()}


def _exact_distances(problem: BenchProblem, samples: int) -> dict[str, np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    draws = [problem.law.draw(samples, generator) for _ in range(REPLICAS)]
    return {
        name: np.quantile([f(draw, problem.law.target) for draw in draws], [0.5, TAIL, 1 - TAIL])
        for name, f in DISTANCES.items()
    }
