"""Tables for many budgets at once: grids and corrections that are smooth in the fraction of the run."""

from collections.abc import Callable

import numpy as np
import torch

from .arrays import Array
from .program import Program
from .tune_numbers import Numbers

GRID, ROWS, LAGS = 5, 4, 3  # degrees of the grid's and of the corrections' polynomials; answers that are corrected
FEW = 4  # budgets are fitted to
USUAL = 8  # evaluations, where what goes with one over their number is 0


class Shared(Numbers):
    """Numbers that all budgets have in common; their tables are consistent.

    q (size,) are coefficients of Legendre polynomials in the fraction of the run, each once as it is and once times
    ``USUAL / n - 1``: of the logarithms of the steps, and of the corrections of the weights of the `LAGS` answers
    before the newest, in multiples of the newest one's weight. lam: (n + 1,), as of `Numbers`. The size is that of all
    n.
    """

    def __init__(self, gauge: str, order: int, lam: Array) -> None:
        super().__init__(gauge, order, lam, consistent=True)
        lag = self.rows - self.columns + 1
        few = lag <= LAGS
        self.rows, self.columns, lag = self.rows[few], self.columns[few], lag[few].numpy()
        self.scale = self.base.diagonal(1).abs()[self.rows]
        steps = _polynomials((np.arange(self.n) + 0.5) / self.n, 1, GRID, self.n)  # a constant changes no grid
        within = _polynomials(np.arange(self.n) / (self.n - 1), 0, ROWS, self.n)[self.rows.numpy()]
        corrections = np.concatenate([within * (lag == k + 1)[:, None] for k in range(LAGS)], axis=1)
        logs = (steps - steps[-1])[:-1]  # the last one is what is left
        self.map = torch.block_diag(torch.from_numpy(logs), torch.from_numpy(corrections))
        self.size = self.map.shape[1]

    def weights(self, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return super().weights(self.map @ q)


def _polynomials(at: Array, least: int, most: int, n: int) -> Array:
    """Of these degrees, (len(at), twice as many as there are)."""
    values = np.polynomial.legendre.legvander(2 * at - 1, most)[:, least:]
    return np.concatenate([values, (USUAL / n - 1) * values], axis=1)


def some_of(budgets: list[int], count: int = FEW) -> list[int]:
    """Those that a fit looks at: with the least and the most, and as even as can be in their logarithms."""
    known = sorted(set(budgets))
    wanted = np.geomspace(known[0], known[-1], count)
    return sorted({min(known, key=lambda n: abs(n - at)) for at in wanted.tolist()})


class Tables(dict[int, Program]):
    """Programs by their number of evaluations; those between the smallest and the largest that were not fitted are made
    when they are asked for. KeyError for others."""

    def __init__(self, fitted: dict[int, Program], make: Callable[[int], Program]) -> None:
        super().__init__(fitted)
        self.make, self.least, self.most = make, min(fitted), max(fitted)

    def __missing__(self, nfe: int) -> Program:
        if isinstance(nfe, bool) or not isinstance(nfe, int) or not self.least <= nfe <= self.most:
            raise KeyError(f"these tables serve {self.least} to {self.most} evaluations, not {nfe!r:.60}")
        return self.make(nfe)
