"""How far apart two samples are in law, by means over pairs: energy distance and maximum mean discrepancy.

Both are D^2 = E k(X, X') + E k(Y, Y') - 2 E k(X, Y) for a kernel k, with X' and Y' independent copies:
k(a, b) = -|a - b| gives the energy distance (Szekely and Rizzo 2013), a Gaussian k the MMD (Gretton et al. 2012). The
means are over all pairs, each point with itself too (the V-statistic): the distance D >= 0 between the two empirical
laws. Of independent samples of one law it is not 0: D^2 is too large by about (k(0, 0) - E k) (1/N + 1/M).
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from .metrics import samples

CHUNK_ELEMENTS = 2**20  # of the matrix of pairs that is in memory at once: 8 MiB
MEDIAN_OF = 1000  # points between which the median distance is taken

Kernel = Callable[[torch.Tensor], torch.Tensor]  # of distances, in place


def energy_distance(x: Any, y: Any) -> float:
    """D, not squared, between the empirical laws of two samples: sqrt(2 E|X-Y| - E|X-X'| - E|Y-Y'|) over all pairs.

    x: (N, ...), y: (M, ...), arrays or tensors with one event shape; computed in float64. Of one-dimensional samples
    it is sqrt(2) times the L2 distance between their distribution functions.

    Raises ValueError for shapes that do not fit, empty samples and values that are not finite.
    """
    return _distance(x, y, torch.Tensor.neg_)


def mmd(x: Any, y: Any, *, bandwidth: float | None = None) -> float:
    """The MMD, not squared, between the empirical laws of samples; the kernel is exp(-|a - b|^2 / (2 bandwidth^2)).

    x: (N, ...), y: (M, ...), arrays or tensors with one event shape; computed in float64. The bandwidth is by default
    the `median_distance` of y, which makes it the same whatever is compared with y.

    Raises ValueError for shapes that do not fit, empty samples, values that are not finite, and a bandwidth that is
    not positive.
    """
    return _distance(x, y, _gaussian(y, bandwidth))


def median_distance(y: Any) -> float:
    """The median distance between different points of a sample, of which at most 1000, evenly spread, are looked at.

    Raises ValueError for less than two points and if the median is 0.
    """
    _, y = samples(y, y)
    few = y[:: -(-len(y) // MEDIAN_OF)]
    among = torch.pdist(few)
    if not len(among) or not (median := float(among.median())):
        raise ValueError("y has less than two points apart, so that a bandwidth must be given")
    return median


def _gaussian(y: Any, bandwidth: float | None) -> Kernel:
    width = median_distance(y) if bandwidth is None else bandwidth
    if not 0 < width < math.inf:
        raise ValueError(f"bandwidth must be positive and finite, not {width!r}")
    return lambda distances: distances.square_().mul_(-0.5 / width**2).exp_()


def _distance(x: Any, y: Any, kernel: Kernel) -> float:
    x, y = samples(x, y)
    n, m = len(x), len(y)
    squared = _sum(x, x, kernel) / n**2 + _sum(y, y, kernel) / m**2 - 2 * _sum(x, y, kernel) / (n * m)
    return math.sqrt(max(squared, 0.0))  # below 0 by rounding only: both kernels are (conditionally) positive definite


def _sum(x: torch.Tensor, y: torch.Tensor, kernel: Kernel) -> float:
    """The kernel summed over all pairs; distances are sums of squares of differences, in which nothing cancels."""
    parts = x.split(max(1, CHUNK_ELEMENTS // len(y)))
    exact = "donot_use_mm_for_euclid_dist"
    return sum(float(kernel(torch.cdist(part, y, compute_mode=exact)).sum()) for part in parts)
