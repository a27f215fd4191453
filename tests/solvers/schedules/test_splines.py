"""Monotone pieces of degree 5: positive slopes with the right means, two continuous derivatives, high order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import BPoly

from logsnr.solvers.schedules import splines
from logsnr.solvers.schedules.splines import bernstein, binomials, monotone_slopes

RISES = st.lists(st.floats(1e-8, 1.0), min_size=1, max_size=40).map(np.array)


@given(RISES)
def test_slopes_are_positive_with_the_rises_as_means(rise: np.ndarray) -> None:
    """Of any positive rises: every Bernstein coefficient is positive, and their means are the rises."""
    slopes = monotone_slopes(rise)
    assert slopes.shape == (len(rise), 5)
    assert (slopes > 0).all()
    np.testing.assert_allclose(slopes.mean(1), rise, rtol=1e-14)


@given(RISES)
def test_two_derivatives_are_continuous(rise: np.ndarray) -> None:
    """Pieces that meet have the same slope there and the same derivative of it."""
    slopes = monotone_slopes(rise)
    left, right = slopes[:-1], slopes[1:]
    np.testing.assert_array_equal(left[:, 4], right[:, 0])
    largest = np.maximum(left, right).max(1) if len(rise) > 1 else 0.0
    assert (abs((left[:, 4] - left[:, 3]) - (right[:, 1] - right[:, 0])) <= 1e-15 * largest).all()


def test_order() -> None:
    """On exp the slopes between the entries err by h^6, down to rounding; with derivatives from two rises by h^2."""

    def errors(nearest: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        monkeypatch.setattr(splines, "NEAREST", nearest)
        found = []
        for n in (16, 32):
            x, u = np.linspace(0, 1, n + 1), np.linspace(0, 1, 21)
            slopes = n * bernstein(monotone_slopes(np.diff(np.exp(x)))[:, None] * binomials(4), u, np)
            found.append(abs(slopes - np.exp(x[:-1, None] + u / n)).max())
        return found

    with pytest.MonkeyPatch.context() as monkeypatch:
        coarse, fine = errors(6, monkeypatch)
        assert coarse / fine > 0.8 * 2**5
        coarse, fine = errors(2, monkeypatch)
        assert coarse / fine < 2**3


def test_without_the_limit_a_jump_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The polynomials through the entries of a jump fall somewhere, and it is the limit that keeps them from it."""
    jump = np.array([1.0, 1.0, 1.0, 1e-3, 1e-3, 1e-3, 1e-3, 1.0, 1.0])
    assert monotone_slopes(jump).min() > 0
    monkeypatch.setattr(splines, "LEAST", -np.inf)
    assert monotone_slopes(jump).min() < 0


@pytest.mark.parametrize("degree", [1, 4, 5])
def test_bernstein_is_scipys(degree: int) -> None:
    """`bernstein` is scipy's BPoly, and exact at both ends."""
    c, u = np.random.default_rng(degree).uniform(size=degree + 1), np.linspace(0, 1, 101)
    found = bernstein(c * binomials(degree), u, np)
    np.testing.assert_allclose(found, BPoly(c[:, None], [0, 1])(u), rtol=1e-14)
    assert (found[0], found[-1]) == (c[0], c[-1])
