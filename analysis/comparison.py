"""What `compare` returns: rows, the best of them, and the verdict in words."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import comb, inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..solvers.arrays import Array
from ..solvers.programs.program import Program
from .compare_plan import Candidate
from .discrepancies import energy_distance
from .estimates import sample_errors, summary
from .metrics import sliced_w2

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPLITS = 100  # of the reference's ends, behind the distance of exact samples
RESOLVED = 3.0  # errors below so many times the reference's own are all the same
LUCK = 0.05  # the chance that a solver is taken for better than its equal
SHOWN = 8  # rows of one budget in print


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
    mean end. reference_cost, cost: evaluations of one sample, of which a guided call is one here."""

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


@dataclass(frozen=True, eq=False)
class Comparison:
    """rows: of deterministic solvers; laws: of stochastic ones; both by budget, then as they were asked for. exact: the
    energy distance and sliced W2 that exact samples have, with the end below which 95 % of them are. notes: what could
    not be run, and why."""

    conditions: Conditions
    rows: tuple[PathRow, ...]
    laws: tuple[LawRow, ...]
    notes: tuple[str, ...]
    exact: dict[str, tuple[float, float]]

    @property
    def budgets(self) -> tuple[int, ...]:
        return tuple(sorted({row.nfe for row in self.rows} | {law.nfe for law in self.laws}))

    def best(self, nfe: int | None = None) -> PathRow:
        """The deterministic row with the least median error at this budget; None is the largest. ValueError for a
        budget that was not measured. Its ``program`` can be given to `logsnr.sample`."""
        return self.ranked(nfe)[0]

    def ranked(self, nfe: int | None = None) -> list[PathRow]:
        """The deterministic rows at this budget, best first. What is below the resolution of the reference counts as
        equal to it, and stays in the order in which it was asked for."""
        measured = sorted({row.nfe for row in self.rows})
        nfe = measured[-1] if nfe is None and measured else nfe
        if nfe not in measured:
            raise ValueError(f"nfe = {nfe!r} was not measured; of solvers without noise there are: {measured}")
        return sorted((row for row in self.rows if row.nfe == nfe), key=lambda row: max(row.median, self.resolution))

    @property
    def resolution(self) -> float:
        """The error below which the reference cannot tell rows apart."""
        return RESOLVED * self.conditions.error

    def alike(self, nfe: int | None = None) -> list[PathRow]:
        """The rows that these samples do not tell from the best: those with both below the resolution, or, by a sign
        test of 5 %, those that the best does not beat on enough of the samples."""
        first, *others = self.ranked(nfe)
        return [row for row in others if row.median <= self.resolution or not beats(first.errors, row.errors)]

    def verdict(self, nfe: int | None = None) -> str:
        """One budget in words; None: all of them, one a line."""
        from .comparison_words import verdict

        return "\n".join(verdict(self, n) for n in (self.budgets if nfe is None else (nfe,)))

    def plot(self, path: str | Path | None = None) -> "Figure":
        """A figure, saved if there is a path: errors against evaluations, each solver on its best grid. ValueError if
        there are stochastic solvers alone."""
        from .plots import comparison, saved

        if not self.rows:
            raise ValueError("there is no solver without noise to draw; .laws has the others")
        return saved(comparison(self), path)

    def __str__(self) -> str:
        from .comparison_words import told

        return told(self)

    __repr__ = __str__


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


def beats(one: Array, other: Array) -> bool:
    """Whether the first errors are less than the second on more samples than luck would explain: a sign test."""
    less, more = int((one < other).sum()), int((one > other).sum())
    n = less + more
    return less > more and sum(comb(n, k) for k in range(less, n + 1)) / 2**n <= LUCK / 2


def _note(bad: Sequence[bool] | np.ndarray[Any, Any]) -> str:
    count = int(np.sum(bad))
    return f"{count} of {len(bad)} samples not finite" if count else ""
