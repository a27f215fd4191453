"""Tables for many budgets at once: grids and corrections that are smooth in the fraction of the run."""

import math
from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
import torch

from ..arrays import Array
from ..programs.program import Program
from .numbers import Numbers

GRID, ROWS, LAGS = 5, 4, 3  # degrees of the grid's and of the corrections' polynomials; answers that are corrected
DEGREE = 2  # in the logarithm of the scale of guidance
FEW = 4  # budgets are fitted to
USUAL = 8  # evaluations, where what goes with one over their number is 0


class Shared(Numbers):
    """Numbers that all budgets have in common; their tables are consistent.

    q (size,) are coefficients of Legendre polynomials in the fraction of the run, each once as it is and once times
    ``USUAL / n - 1``: of the logarithms of the steps, and of the corrections of the weights of the `LAGS` answers
    before the newest, in multiples of the newest one's weight. lam: (n + 1,), and level, as of `Numbers`. The size is
    that of all n.
    """

    def __init__(self, gauge: str, order: int, lam: Array, level: float = math.inf) -> None:
        super().__init__(gauge, order, lam, consistent=True, level=level)
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


def powers_of(scale: float, scales: tuple[float, float]) -> tuple[float, ...]:
    """What the numbers of tables that have guidance of several scales in common are multiplied with at one of them:
    Legendre polynomials of its logarithm, from -1 at the least to 1 at the largest."""
    low, high = map(math.log, scales)
    at = math.log(min(max(scale, scales[0]), scales[1]))
    return tuple(np.polynomial.legendre.legvander(2 * (at - low) / (high - low) - 1, DEGREE)[0].tolist())


def some_of(budgets: list[int], count: int = FEW) -> list[int]:
    """Those that a fit looks at: with the least and the most, and as even as can be in their logarithms."""
    known = sorted(set(budgets))
    wanted = np.geomspace(known[0], known[-1], count)
    return sorted({min(known, key=lambda n: abs(n - at)) for at in wanted.tolist()})


class Tables(dict[Any, Program]):
    """Programs by their number of evaluations, or by the scale of guidance; those between the smallest and the largest
    that were not fitted are made when they are asked for. KeyError for others. what: is counted, of this type."""

    def __init__(self, fitted: dict[Any, Program], make: Callable[[Any], Program], what: str, kind: type) -> None:
        super().__init__(fitted)
        self.make, self.what, self.kind, self.least, self.most = make, what, kind, min(fitted), max(fitted)

    def __missing__(self, key: Any) -> Program:
        known = isinstance(key, (Integral, self.kind)) and not isinstance(key, bool)
        if not known or not self.least <= key <= self.most:
            raise KeyError(f"these tables serve {self.least:g} to {self.most:g} {self.what}, not {key!r:.60}")
        return self.make(self.kind(key))
