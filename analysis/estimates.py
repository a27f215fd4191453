"""Statistics of a sample of errors, each with a 95 % interval.

Order statistics have exact intervals whatever the distribution; other functionals have those of the jackknife.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from ..solvers.arrays import Array

GROUPS = 20  # of samples, each left out once
TAIL = 0.025  # on each side of an interval


class Estimate(NamedTuple):
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float


def per_sample_rms(difference: torch.Tensor) -> Array:
    """Root-mean-square of each sample: (B, ...) -> (B,)."""
    rms: Array = difference.reshape(len(difference), -1).square().mean(1).sqrt().cpu().numpy()
    return rms


def median(errors: Array) -> Estimate:
    """The sample median, with the interval of `order_interval`."""
    return Estimate(float(np.median(errors)), *order_interval(errors, 0.5))


def p90(errors: Array) -> Estimate:
    """The 90th percentile, one of the errors, as interpolation between infinite ones is NaN; `order_interval`."""
    return Estimate(float(np.quantile(errors, 0.9, method="inverted_cdf")), *order_interval(errors, 0.9))


def rms(errors: Array) -> Estimate:
    """The root mean square, with the interval of `jackknife`."""
    return jackknife(lambda kept: float(np.sqrt(np.mean(errors[kept] ** 2))), len(errors))


def order_interval(errors: Array, q: float) -> tuple[float, float]:
    """Two of the errors between which the q-quantile of their distribution lies with probability >= 0.95.

    The number of errors below the quantile is binomial, so this holds for every distribution (Conover 1999,
    sec. 3.2). Errors are not negative: where there are too few of them, an end is 0 or infinity.
    """
    from scipy.special import bdtr  # 0.3 s, which whoever only imports this package need not wait for

    below = bdtr(np.arange(len(errors)), len(errors), q)  # P(at most k errors lie below the quantile)
    ordered = np.concatenate([[0.0], np.sort(errors), [np.inf]])
    low, high = np.searchsorted(below, [TAIL, 1 - TAIL])
    return float(ordered[low]), float(ordered[high + 1])


def jackknife(statistic: Callable[[np.ndarray], float], n: int) -> Estimate:
    """``statistic`` of all n samples, of which it is given the indices, and the interval of its logarithm.

    The delete-a-group jackknife with 20 groups (or n, if fewer) and Student's t: value * exp(+- t s), where s^2
    is (K - 1) / K times the sum of squared deviations of log(statistic) over the K samples that lack a group.
    It tells the scatter between samples of this size, not what their size adds to the value. Where samples
    that lack a group have the value 0, nothing is known: from 0 to infinity.
    """
    from scipy.special import stdtrit

    groups, every = min(n, GROUPS), np.arange(n)
    value = statistic(every)
    if value == 0 or not np.isfinite(value):
        return Estimate(value, value, value)
    if n < 2:
        return Estimate(value, 0.0, np.inf)
    left = np.array([statistic(every[every % groups != k]) for k in range(groups)])
    if not (left > 0).all():
        return Estimate(value, 0.0, np.inf)
    spread = float(np.sqrt((groups - 1) * np.log(left).var()))
    factor = float(np.exp(stdtrit(groups - 1, 1 - TAIL) * spread))
    return Estimate(value, value / factor, value * factor)
