"""The rows of a comparison: what one run, or one law of samples, was measured to be."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
import torch

from ..solvers.arrays import Array
from ..solvers.programs.program import Program
from .compare_plan import Candidate
from .discrepancies import energy_distance
from .estimates import sample_errors, summary
from .metrics import sliced_w2

SPLITS = 100  # of the reference's ends, behind the distance of exact samples


@dataclass(frozen=True, eq=False)
class PathRow:
    """A deterministic run.

    errors: (B,), of each sample, infinite where it is not finite; median, rms: of them; far: the share above the
    threshold. grid: "own" where the solver brings it. startup: "" where there is no choice."""

    solver: str
    grid: str
    startup: str
    nfe: int
    nfe_used: int
    median: float
    rms: float
    far: float
    note: str
    errors: Array = field(repr=False)
    program: Program = field(repr=False)


@dataclass(frozen=True, eq=False)
class LawRow:
    """A stochastic run: distances of its samples' law from that of the reference's ends; infinite if not finite."""

    solver: str
    grid: str
    startup: str
    nfe: int
    nfe_used: int
    energy_distance: float
    sliced_w2: float
    note: str
    program: Program = field(repr=False)


@dataclass(frozen=True)
class Conditions:
    """What all rows share.

    error: of the reference, its median over the samples. spread: standard deviation of the ends' elements about the
    mean end. reference_cost, cost: evaluations, of each sample and all in all; a guided call is one here."""

    denoiser: str
    t_start: float
    t_end: float
    event_shape: tuple[int, ...]
    samples: int
    law_samples: int
    seed: int
    error: float
    spread: float
    threshold: float
    reference_cost: int
    cost: int
    tuned: int


def on_path(candidate: Candidate, made: torch.Tensor, end: torch.Tensor, far: float) -> PathRow:
    """The row of the end states ``made``, (B, ...) float64, where ``end`` would be exact."""
    solver, grid, startup, nfe, program = candidate
    errors = sample_errors(made, end)
    found, share = summary(errors), float(np.mean(errors > far))
    return PathRow(
        solver, grid, startup, nfe, len(program), found["median"], found["rms"], share, _note(np.isinf(errors)),
        errors, program,
    )  # fmt: skip


def in_law(candidate: Candidate, made: torch.Tensor, end: torch.Tensor) -> LawRow:
    """The row of samples ``made`` whose law would be that of ``end``."""
    solver, grid, startup, nfe, program = candidate
    bad = ~torch.isfinite(made.flatten(1)).all(1)
    distances = (inf, inf) if bad.any() else (energy_distance(made, end), sliced_w2(made, end))
    return LawRow(solver, grid, startup, nfe, len(program), *distances, _note(bad.numpy()), program)


def exact_distances(end: torch.Tensor, samples: int, seed: int) -> dict[str, tuple[float, float]]:
    """What ``samples`` exact samples have, from ``end`` (N, ...): the median and the end of 95 %, from random halves of
    the ends, whose distance is scaled to the sizes by the root of 1/n + 1/m."""
    rng, half = np.random.default_rng(seed), len(end) // 2
    scale = float(np.sqrt((1 / samples + 1 / len(end)) / (1 / half + 1 / (len(end) - half))))
    pairs = [(end[order[:half]], end[order[half:]]) for order in (rng.permutation(len(end)) for _ in range(SPLITS))]
    found: dict[str, Any] = {}
    for distance in (energy_distance, sliced_w2):
        values = [scale * distance(one, other) for one, other in pairs]
        found[distance.__name__] = tuple(np.quantile(values, [0.5, 0.95]).tolist())
    return found


def _note(bad: Sequence[bool] | np.ndarray[Any, Any]) -> str:
    count = int(np.sum(bad))
    return f"{count} of {len(bad)} samples not finite" if count else ""
