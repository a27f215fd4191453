"""What `compare` returns: rows, the best of them, and the verdict in words."""

from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING

from ..solvers.arrays import Array
from .comparison_rows import Conditions, LawRow, PathRow
from .comparison_words import told, verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESOLVED = 3.0  # errors below so many times the reference's own are all the same
LUCK = 0.05  # the chance that a solver is taken for better than its equal


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
        return "\n".join(verdict(self, n) for n in (self.budgets if nfe is None else (nfe,)))

    def plot(self, path: str | Path | None = None) -> "Figure":
        """A figure, saved if there is a path: errors against evaluations, each solver on its best grid. ValueError if
        there are stochastic solvers alone."""
        from .plots import comparison, saved

        if not self.rows:
            raise ValueError("there is no solver without noise to draw; .laws has the others")
        return saved(comparison(self), path)

    def __str__(self) -> str:
        return told(self)

    __repr__ = __str__


def beats(one: Array, other: Array) -> bool:
    """Whether the first errors are less than the second on more samples than luck would explain: a sign test."""
    less, more = int((one < other).sum()), int((one > other).sum())
    n = less + more
    return less > more and sum(comb(n, k) for k in range(less, n + 1)) / 2**n <= LUCK / 2
