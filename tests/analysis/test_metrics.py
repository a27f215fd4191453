"""Distances against closed forms, mpmath and integrals."""

import math

import mpmath as mp
import numpy as np
import pytest
import torch

from logsnr.analysis.metrics import kl_gaussian, sliced_w2, w2_gaussian

RNG = np.random.default_rng(0)


def covariance(size: int, rank: int, seed: int = 0) -> np.ndarray:
    root = np.random.default_rng(seed).standard_normal((size, rank))
    return root @ root.T


def bures_by_mpmath(s1: np.ndarray, s2: np.ndarray) -> float:
    """sqrt(tr S1 + tr S2 - 2 tr (S1^1/2 S2 S1^1/2)^1/2) with 50 digits."""
    with mp.workdps(50):
        values, vectors = mp.eigsy(mp.matrix(s1.tolist()))
        root = vectors * mp.diag([mp.sqrt(max(v, 0)) for v in values]) * vectors.T
        cross = mp.eigsy(root * mp.matrix(s2.tolist()) * root, eigvals_only=True)
        traces = sum(mp.mpf(v) for v in [*np.diag(s1), *np.diag(s2)])
        return float(mp.sqrt(traces - 2 * sum(mp.sqrt(max(v, 0)) for v in cross)))


def test_w2_in_one_dimension() -> None:
    """W2 of N(1, 0.25) and N(4, 4) is sqrt(3^2 + 1.5^2)."""
    assert w2_gaussian(1.0, 0.25, 4.0, 4.0) == pytest.approx(math.sqrt(9 + 2.25), rel=1e-15)


@pytest.mark.parametrize("ranks", [(4, 4), (4, 2), (2, 3), (1, 1), (4, 0)])
def test_w2_of_full_covariances(ranks: tuple[int, int]) -> None:
    """W2 of full covariances is the trace formula in mpmath, to 1e-12, or 1e-7 where one is singular."""
    s1, s2 = (covariance(4, rank, seed) for seed, rank in enumerate(ranks))
    got = w2_gaussian(np.zeros(4), s1, np.zeros(4), s2)
    assert got == pytest.approx(bures_by_mpmath(s1, s2), rel=1e-12 if ranks == (4, 4) else 1e-7)
    assert got == pytest.approx(w2_gaussian(np.zeros(4), s2, np.zeros(4), s1), rel=1e-7)


def test_w2_of_close_covariances_does_not_cancel() -> None:
    """S and (1 + 1e-10)^2 S are 1e-10 sqrt(tr S) apart, to 1e-5, where the trace formula has noise of 1e-8."""
    s = covariance(5, 5)
    got = w2_gaussian(np.zeros(5), s, np.zeros(5), (1 + 1e-10) ** 2 * s)
    assert got == pytest.approx(1e-10 * math.sqrt(np.trace(s)), rel=1e-4)
    assert w2_gaussian(np.ones(5), s, np.ones(5), s) < 1e-14 * np.trace(s)
    singular = covariance(5, 2)
    assert w2_gaussian(np.zeros(5), singular, np.zeros(5), singular) < 1e-14 * np.trace(singular)


def test_forms_of_covariances_agree() -> None:
    """A number, equal variances and a multiple of the identity give one W2 and one KL, in any mixture."""
    m1, m2, var = torch.zeros(2, 2), torch.ones(2, 2), np.array([[0.3, 1.0], [2.0, 0.5]])
    forms = [0.7, np.full((2, 2), 0.7), 0.7 * np.eye(4)]
    others = [var, np.diag(var.ravel())]
    for distance in (w2_gaussian, kl_gaussian):
        values = [distance(m1, a, m2, b) for a in forms for b in others]
        assert values == pytest.approx([values[0]] * 6, rel=1e-13)


def test_kl_is_the_integral() -> None:
    """KL(N(0.3, 0.5) || N(-0.2, 1.7)) is the integral of p log(p / q), to 1e-13."""

    def log_density(x: mp.mpf, mean: float, var: float) -> mp.mpf:
        return -((x - mean) ** 2) / (2 * mp.mpf(var)) - mp.log(2 * mp.pi * var) / 2

    def integrand(x: mp.mpf) -> mp.mpf:
        p, q = log_density(x, 0.3, 0.5), log_density(x, -0.2, 1.7)
        return mp.exp(p) * (p - q)

    with mp.workdps(25):
        want = float(mp.quad(integrand, [-8, -2, 0, 1, 3, 9]))
    assert kl_gaussian(0.3, 0.5, -0.2, 1.7) == pytest.approx(want, rel=1e-13)


def test_kl_of_full_covariances() -> None:
    """KL of full covariances is torch's closed form, to 1e-11."""
    s1, s2, m1, m2 = covariance(4, 4), covariance(4, 6, 1), RNG.standard_normal(4), RNG.standard_normal(4)
    p, q = (torch.distributions.MultivariateNormal(torch.tensor(m), torch.tensor(s)) for m, s in ((m1, s1), (m2, s2)))
    want = torch.distributions.kl_divergence(p, q).item()
    assert kl_gaussian(m1, s1, m2, s2) == pytest.approx(want, rel=1e-11)


def test_kl_of_close_gaussians_does_not_cancel() -> None:
    """Variances that differ by 1e-7 relative have KL = 1e-14 / 4 each, to 1e-6."""
    assert kl_gaussian(0.0, 1 + 1e-7, 0.0, 1.0) == pytest.approx(2.5e-15, rel=1e-6)
    assert kl_gaussian(np.zeros(3), (1 + 1e-7) * np.eye(3), np.zeros(3), np.eye(3)) == pytest.approx(7.5e-15, rel=1e-6)


@pytest.mark.parametrize("full", [False, True])
def test_kl_of_singular_gaussians(full: bool) -> None:
    """KL is infinite unless both live in the same subspace, where it is the KL within that subspace."""
    form = np.diag if full else np.asarray
    flat, other, solid = form([1.0, 0.0, 2.0]), form([0.5, 0.0, 1.0]), form([1.0, 1e-3, 1.0])
    zero, off, along = np.zeros(3), np.array([0.0, 1e-3, 0.0]), np.array([0.4, 0.0, 0.0])
    assert kl_gaussian(zero, flat, zero, solid) == math.inf
    assert kl_gaussian(zero, solid, zero, flat) == math.inf
    assert kl_gaussian(off, other, zero, flat) == math.inf
    want = kl_gaussian([0.4, 0.0], [0.5, 1.0], [0.0, 0.0], [1.0, 2.0])
    assert kl_gaussian(along, other, zero, flat) == pytest.approx(want, rel=1e-13)
    assert kl_gaussian(zero, 0.0, zero, 0.0) == 0.0


def test_kl_of_rotated_subspaces() -> None:
    """Full covariances of equal rank on different planes have infinite KL, on the same plane a finite one."""
    one, other = covariance(4, 2), covariance(4, 3)[:2, :2]
    q = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0]
    values, vectors = np.linalg.eigh(one)
    plane = vectors[:, 2:]
    inside = plane @ other @ plane.T
    zero = np.zeros(4)
    assert kl_gaussian(zero, q @ one @ q.T, zero, one) == math.inf
    want = kl_gaussian(zero[:2], other, zero[:2], np.diag(values[2:]))
    assert kl_gaussian(zero, (inside + inside.T) / 2, zero, one) == pytest.approx(want, rel=1e-10)


def test_sliced_w2_in_one_dimension() -> None:
    """For scalars it is the sorted coupling, for 2 against 3 points the hand-made one."""
    x, y = RNG.standard_normal(50), RNG.standard_normal(50) + 2
    want = math.sqrt(np.mean((np.sort(x) - np.sort(y)) ** 2))
    assert sliced_w2(x, y) == pytest.approx(want, rel=1e-13)
    want = math.sqrt((2 * 0**2 + 1 * 1**2 + 1 * 1**2 + 2 * 0**2) / 6)  # 0 0 0 2 2 2 against 0 0 1 1 2 2
    assert sliced_w2([0.0, 2.0], [2.0, 0.0, 1.0]) == pytest.approx(want, rel=1e-13)


def test_sliced_w2_of_a_translation() -> None:
    """A translation by d in D dimensions is |d| / sqrt(D) apart, up to the directions drawn; seeds repeat."""
    x = torch.randn(30, 2, 3)
    shift = torch.ones(2, 3)
    got = sliced_w2(x, x + shift, projections=4000)
    assert got == pytest.approx(1.0, abs=5 * math.sqrt(2 / 4000) / 2)  # var of D (u.d)^2/|d|^2 is below 2
    assert got == sliced_w2(x, x + shift, projections=4000)
    assert got != sliced_w2(x, x + shift, projections=4000, seed=1)
    assert sliced_w2(x, x) == 0


@pytest.mark.parametrize("distance", [w2_gaussian, kl_gaussian])
@pytest.mark.parametrize(
    ("m2", "cov", "message"),
    [
        ([0.0, 0.0], [[1.0, 0.5], [0.4, 1.0]], "S2 must be symmetric"),
        ([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]], "S2 must be positive semidefinite, but has the eigenvalue -1"),
        ([0.0, 0.0], [1.0, -1.0], "S2 must not be negative, but holds -1"),
        ([0.0, 0.0], [1.0, 1.0, 1.0], r"S2 has shape \(3,\); for means of shape \(2,\)"),
        ([0.0, 0.0], math.nan, "S2 must be finite"),
        ([0.0], 1.0, r"m1 and m2 must have one shape, not \(2,\) and \(1,\)"),
    ],
)
def test_bad_gaussians_are_refused(distance: object, m2: object, cov: object, message: str) -> None:
    """What is no pair of Gaussians raises ValueError with the argument and its value or shape."""
    with pytest.raises(ValueError, match=message):
        distance([0.0, 0.0], np.eye(2), m2, cov)  # type: ignore[operator]


def test_bad_samples_are_refused() -> None:
    """Samples of different event shapes or none at all raise ValueError, and so do zero projections."""
    for x, y in ((np.zeros((3, 2)), np.zeros((3, 1))), (np.zeros((0, 2)), np.zeros((3, 2))), (0.0, 1.0)):
        with pytest.raises(ValueError, match="must be samples"):
            sliced_w2(x, y)
    with pytest.raises(ValueError, match="projections must be at least 1, not 0"):
        sliced_w2([0.0], [0.0], projections=0)
