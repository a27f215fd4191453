"""Intervals against the binomial distribution, and against how often they hold a known truth."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom

from logsnr.analysis.estimates import Estimate, jackknife, median, order_interval, p90, rms


@pytest.mark.parametrize("n", [1, 5, 6, 36, 37, 200])
@pytest.mark.parametrize("q", [0.5, 0.9])
def test_order_intervals_hold_for_every_distribution(n: int, q: float) -> None:
    """The ranks of the ends enclose a binomial count with probability >= 0.95, and narrower ranks do not."""
    low, high = order_interval(np.arange(1.0, n + 1), q)
    high = min(high, n + 1)

    def held(low: float, high: float) -> float:
        return binom.cdf(high - 1, n, q) - binom.cdf(low - 1, n, q)

    assert held(low, high) >= 0.95
    assert binom.cdf(low, n, q) > 0.025
    assert binom.sf(high - 2, n, q) > 0.025


@pytest.mark.parametrize(
    ("estimate", "truth"),
    [(median, 1.0), (p90, np.exp(0.5 * 1.2815515655444004)), (rms, np.exp(0.25)), ("scale", 0.5)],
)
def test_intervals_cover(estimate: Callable[[np.ndarray], Estimate] | str, truth: float) -> None:
    """Of 400 intervals for 80 log-normal errors between 92 % and 99 % hold the truth, of halved ones under 85 %."""
    draws = np.exp(0.5 * np.random.default_rng(0).standard_normal((400, 80)))

    def scale(errors: np.ndarray) -> Estimate:
        return jackknife(lambda kept: float(np.log(errors[kept]).std()), len(errors))

    function = scale if isinstance(estimate, str) else estimate
    found = np.log([function(errors) for errors in draws])
    middle, half = (found[:, 1] + found[:, 2]) / 2, (found[:, 2] - found[:, 1]) / 2
    off = np.abs(np.log(truth) - middle)
    assert 0.92 < np.mean(off <= half) < 0.99
    assert np.mean(off <= half / 2) < 0.85
    assert (found[:, 1] <= found[:, 0]).all()
    assert (found[:, 0] <= found[:, 2]).all()


@pytest.mark.filterwarnings("error")
def test_the_jackknife_of_one() -> None:
    """One sample tells nothing of the scatter, and takes no mean of nothing."""
    assert jackknife(lambda indices: 2.0, 1) == (2.0, 0.0, np.inf)


def test_the_jackknife_without_spread_or_with_zeros() -> None:
    """A zero or infinite statistic is its own interval; one that vanishes without a group is unknown above 0."""
    assert rms(np.zeros(5)) == Estimate(0.0, 0.0, 0.0)
    assert rms(np.full(5, np.inf)) == Estimate(np.inf, np.inf, np.inf)
    assert rms(np.ones(5)) == pytest.approx((1.0, 1.0, 1.0))
    assert rms(np.eye(5)[0])[1:] == (0.0, np.inf)
