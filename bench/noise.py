"""Are the addressed normals independent standard normals? Tests over many draws, and their price.

    python -m logsnr.bench.noise

Every figure comes with its distance from the exact value in standard errors, or with a p-value, and the command
fails if one of them is beyond what chance allows.
"""

from collections.abc import Callable, Iterator
from math import prod, sqrt
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from scipy import special, stats

from ..kernels import Noise, combine
from .clock import best_of
from .command import run_command

LENGTH = 1 << 22  # of a sample: draws are the elements of one sample after the other
SEED, SAMPLE, INTERVAL, STREAM = 8, 4, 2, 1
# By chance, one of the 42 figures is beyond this in one address of 3000.
DEVIATION, PVALUE = 4.5, 1e-5
CELLS = 4096

# What is correlated with the normals of sample n, element by element: those at another address, and those some
# elements later.
NEIGHBOURS: dict[str, Callable[[int], dict[str, int]]] = {
    "next seed": lambda n: {"sample": n, "seed": SEED + 1},
    "seed, upper word": lambda n: {"sample": n, "seed": SEED + 2**32},
    "next sample": lambda n: {"sample": n + 1},
    "next interval": lambda n: {"sample": n, "interval": INTERVAL + 1},
    "next stream": lambda n: {"sample": n, "stream": STREAM + 1},
    "sample and interval exchanged": lambda n: {"sample": INTERVAL, "interval": n},
}
LAGS = (1, 2, 3, 4, 8, 64, 128, 4096)


class Figure(NamedTuple):
    """One line of the report: ``score`` in standard errors, or else a p-value."""

    name: str
    value: float
    score: float | None = None
    pvalue: float | None = None

    @property
    def passes(self) -> bool:
        return (self.score is None or abs(self.score) < DEVIATION) and (self.pvalue is None or self.pvalue > PVALUE)


def draw(
    count: int, *, seed: int = SEED, sample: int = SAMPLE, interval: int = INTERVAL, stream: int = STREAM
) -> np.ndarray:
    """The first elements of one sample, fp32, as the fused kernel makes them."""
    noise = Noise(torch.tensor([seed]), torch.tensor([sample]), ((interval, stream),))
    (z,), _ = combine([torch.zeros(1, count)], np.array([[0.0, 1.0]]), noise=noise)
    return z[0].numpy()


def parts(draws: int) -> Iterator[tuple[int, int]]:
    """Numbers of samples, and how many elements of each are drawn."""
    for k, begin in enumerate(range(0, draws, LENGTH)):
        yield SAMPLE + k, min(LENGTH, draws - begin)


def normal_moment(k: int) -> int:
    return prod(range(1, k, 2)) if k % 2 == 0 else 0


def moments(draws: int) -> list[Figure]:
    """Mean of z^k for k from 1 to 8."""
    sums = np.zeros(9)
    for sample, count in parts(draws):
        z = draw(count, sample=sample).astype(np.float64)
        power = np.ones_like(z)
        for k in range(1, 9):
            power *= z
            sums[k] += power.sum()
    figures = []
    for k in range(1, 9):
        error = sqrt((normal_moment(2 * k) - normal_moment(k) ** 2) / draws)
        figures.append(Figure(f"mean of z^{k}", sums[k] / draws, (sums[k] / draws - normal_moment(k)) / error))
    return figures


def distribution(draws: int) -> list[Figure]:
    """Kolmogorov-Smirnov over all draws, chi-squared over cells of equal probability, and counts in the tails."""
    z = np.concatenate([draw(count, sample=sample) for sample, count in parts(draws)])
    z.sort()
    distance, cells = 0.0, np.zeros(CELLS)
    for begin in range(0, draws, LENGTH):
        p = special.ndtr(z[begin : begin + LENGTH].astype(np.float64))
        rank = np.arange(begin, begin + len(p))
        distance = max(distance, ((rank + 1) / draws - p).max(), (p - rank / draws).max())
        cells += np.bincount((p * CELLS).astype(np.int64), minlength=CELLS)
    chi = stats.chisquare(cells)
    figures = [
        Figure("Kolmogorov-Smirnov distance", distance, pvalue=float(stats.kstwobign.sf(distance * sqrt(draws)))),
        Figure(f"chi-squared of {CELLS} cells", float(chi.statistic), pvalue=float(chi.pvalue)),
    ]
    for bound in (3, 4, 5, 6):
        found = draws - np.searchsorted(z, bound) + np.searchsorted(z, -bound)
        expected = 2 * draws * special.ndtr(-bound)
        tails = stats.poisson.cdf(found, expected), stats.poisson.sf(found - 1, expected)
        figures.append(Figure(f"draws beyond {bound} / expected", found / expected, pvalue=min(1.0, 2 * min(tails))))
    return figures


def correlations(draws: int) -> list[Figure]:
    """Correlations of z and of z^2 - 1 with the neighbours'."""
    sums: dict[str, np.ndarray] = {}
    for sample, count in parts(draws):
        z = draw(count, sample=sample).astype(np.float64)
        for name, address in NEIGHBOURS.items():
            sums[name] = sums.get(name, 0) + _products(z, draw(count, **address(sample)).astype(np.float64))
        for lag in LAGS:
            sums[f"element + {lag}"] = sums.get(f"element + {lag}", 0) + _products(z[:-lag], z[lag:])
    figures = []
    for name, (*totals, count) in sums.items():
        for what, total in zip(("z", "z^2"), totals, strict=True):
            figures.append(Figure(f"correlation of {what}: {name}", total / count, total / sqrt(count)))
    return figures


def _products(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sums of z and of z^2 - 1 with the neighbour's, each of variance 1, and their number."""
    return np.array([x @ y, (x * x - 1) @ (y * y - 1) / 2, len(x)])


def nanoseconds(count: int = 1 << 15) -> float:
    """Per normal, in one thread, within the second-level cache: the fastest of many calls."""
    draw(count)
    return best_of(500, lambda: draw(count)) / count * 1e9


def report(draws: int) -> list[Figure]:
    return [*moments(draws), *distribution(draws), *correlations(draws)]


def main(draws: Annotated[int, typer.Option(min=10**5, help="Normals in every test.")] = 10**8) -> None:
    """Moments, distribution, tails and correlations of the addressed normals."""
    table = Table(title=f"{draws:.0e} normals, {nanoseconds():.2f} ns each in one thread")
    for column in ("figure", "value", "standard errors", "p-value"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    figures = report(draws)
    for name, value, score, pvalue in figures:
        table.add_row(
            name, f"{value:.4g}", "" if score is None else f"{score:+.2f}", "" if pvalue is None else f"{pvalue:.3f}"
        )
    Console().print(table)
    failed = [figure.name for figure in figures if not figure.passes]
    if failed:
        raise SystemExit(f"beyond chance: {', '.join(failed)}")


if __name__ == "__main__":
    run_command(main)
