"""Energy distance and MMD against scipy, sums over pairs, and closed forms of Gaussians."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from logsnr.analysis import Gaussian, discrepancies, energy_distance, mmd, sliced_w2
from logsnr.analysis.discrepancies import median_distance

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((7, 2, 3)), 0.5 + 2 * RNG.standard_normal((5, 2, 3))
BANDWIDTH = 1.3


def kernels(width: float = BANDWIDTH) -> dict[str, Callable[[float], float]]:
    return {"energy": lambda d: -d, "mmd": lambda d: math.exp(-(d**2) / (2 * width**2))}


def by_pairs(name: str, width: float = BANDWIDTH) -> float:
    """D^2 by three loops over pairs of points."""
    k = kernels(width)[name]

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([k(np.sqrt(((u - v) ** 2).sum())) for u, v in product(a, b)]))

    return mean(X, X) + mean(Y, Y) - 2 * mean(X, Y)


def test_energy_distance_is_that_of_scipy_on_the_line() -> None:
    """In one dimension the energy distance is scipy's, which integrates the distribution functions, to 1e-12."""
    x, y = RNG.standard_normal(40), 0.3 + RNG.standard_normal(31)
    assert energy_distance(x, y) == pytest.approx(stats.energy_distance(x, y), rel=1e-12)


@pytest.mark.parametrize("distance", [energy_distance, mmd, sliced_w2])
def test_complex_samples_are_their_parts(distance: Callable[..., float]) -> None:
    x, y = (np.stack([z, np.roll(z, 1, 0)], axis=-1) for z in (X, Y))
    complex_ones = [z[..., 0] + 1j * z[..., 1] for z in (x, y)]
    assert distance(*complex_ones) == distance(*map(torch.from_numpy, complex_ones)) == distance(x, y)
    with pytest.raises(ValueError, match="one event shape"):
        distance(complex_ones[0], y[..., 0])
    with pytest.raises(ValueError, match="mean must be real"):
        Gaussian(torch.tensor([1j]), 1.0)


@pytest.mark.parametrize("chunk", [1, 12, 2**20])
def test_both_are_sums_over_pairs(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Squared distances are those of loops over pairs, in any chunks, and of no wrong bandwidth."""
    monkeypatch.setattr(discrepancies, "CHUNK_ELEMENTS", chunk)
    assert energy_distance(X, Y) ** 2 == pytest.approx(by_pairs("energy"), rel=1e-13)
    found = mmd(X, Y, bandwidth=BANDWIDTH) ** 2
    assert found == pytest.approx(by_pairs("mmd"), rel=1e-13)
    wrong = by_pairs("mmd", width=BANDWIDTH / math.sqrt(2))  # exp(-d^2 / bandwidth^2)
    assert found != pytest.approx(wrong, rel=1e-2)


def mean_gap(shift: float, variance: float) -> float:
    """E|Z| for Z ~ N(shift, variance): the mean of the folded normal (Leone, Nelson and Nottingham 1961)."""
    std = math.sqrt(variance)
    near = std * math.sqrt(2 / math.pi) * math.exp(-(shift**2) / (2 * variance))
    return near + shift * math.erf(shift / (std * math.sqrt(2)))


def mean_kernel(shift: float, variance: float) -> float:
    """E exp(-Z^2 / (2 bandwidth^2)) for Z ~ N(shift, variance), by completing the square."""
    total = BANDWIDTH**2 + variance
    return BANDWIDTH / math.sqrt(total) * math.exp(-(shift**2) / (2 * total))


@pytest.mark.parametrize("name", ["energy", "mmd"])
def test_the_bias_is_what_the_module_says(name: str) -> None:
    """The mean of D^2 over 500 pairs of samples of N(0, 1) and N(0.4, 2.25) is the closed form plus the share of pairs
    of a point with itself, within 4 standard errors; without that share it is not."""
    draws = RNG.standard_normal((500, 15))
    pairs = [(z[:8], 0.4 + 1.5 * z[8:]) for z in draws]
    if name == "energy":
        within = [-mean_gap(0, 2), -mean_gap(0, 2 * 2.25)]
        want, itself = within[0] + within[1] + 2 * mean_gap(0.4, 1 + 2.25), 0.0
        found = np.array([energy_distance(x, y) ** 2 for x, y in pairs])
    else:
        within = [mean_kernel(0, 2), mean_kernel(0, 2 * 2.25)]
        want, itself = within[0] + within[1] - 2 * mean_kernel(0.4, 1 + 2.25), 1.0
        found = np.array([mmd(x, y, bandwidth=BANDWIDTH) ** 2 for x, y in pairs])
    bias = (itself - within[0]) / 8 + (itself - within[1]) / 7
    error = found.std() / math.sqrt(len(found))
    assert abs(found.mean() - want - bias) < 4 * error
    assert abs(found.mean() - want) > 12 * error


def test_they_are_symmetric_and_vanish_between_equal_samples() -> None:
    """Exchanging the samples changes nothing, and a sample is at distance 0 from itself in any order, to 1e-7."""
    assert energy_distance(X, Y) == pytest.approx(energy_distance(Y, X), rel=1e-13)
    assert mmd(X, Y, bandwidth=2.0) == pytest.approx(mmd(Y, X, bandwidth=2.0), rel=1e-13)
    assert energy_distance(X, X[::-1].copy()) < 1e-7
    assert mmd(X, X[::-1].copy()) < 1e-7


def test_an_offset_costs_no_digits() -> None:
    """Samples 1e6 away from the origin are as far apart as at the origin, to the rounding of the shift itself."""
    x, y = torch.tensor(X), torch.tensor(Y)
    assert energy_distance(x + 1e6, y + 1e6) == pytest.approx(energy_distance(x, y), rel=1e-8)


def test_the_bandwidth_is_the_median_distance_of_the_second_sample() -> None:
    """By default it is the lower of the two middle ones of y's 10 distances; of many points some count."""
    among = sorted(np.sqrt(((a - b) ** 2).sum()) for i, a in enumerate(Y) for b in Y[:i])
    assert median_distance(Y) == pytest.approx(among[4], rel=1e-13)
    assert mmd(X, Y) == mmd(X, Y, bandwidth=median_distance(Y))
    many = RNG.standard_normal((2500, 2))
    assert median_distance(many) == median_distance(many[::3])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: energy_distance(np.zeros((3, 2)), np.zeros((3, 1))), "must be samples"),
        (lambda: energy_distance(np.zeros((0, 2)), np.ones((3, 2))), "must be samples"),
        (lambda: energy_distance([math.nan], [0.0]), "x must be finite"),
        (lambda: mmd([1.0], [0.0, 1.0], bandwidth=0.0), "bandwidth must be positive and finite, not 0.0"),
        (lambda: mmd([1.0, 2.0], [0.5]), "less than two points apart"),
    ],
)
def test_bad_samples_and_bandwidths_are_refused(call: Callable[[], float], said: str) -> None:
    """What cannot be compared is a ValueError that names it."""
    with pytest.raises(ValueError, match=said):
        call()
