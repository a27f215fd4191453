"""Divergences from random probes: what their errors and intervals say."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import logsnr
from logsnr import analysis
from logsnr.analysis.divergence import trace
from logsnr.analysis.likelihood import from_estimates

SCH = logsnr.VPLinear()
GAUSSIAN = analysis.Gaussian(np.array([0.5, -1.0, 0.0]), np.array([0.3, 1.0, 2.0]))
GAUSSIAN_1D = analysis.Gaussian(-1.0, 1.0)
X = GAUSSIAN.sample_at(SCH, SCH.t_end, 4, generator=torch.Generator().manual_seed(0))


def rotated(variances: torch.Tensor) -> analysis.Gaussian:
    size = len(variances)
    basis = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=SEEDED.manual_seed(2)))[0]
    return analysis.Gaussian(np.zeros(size), (basis @ torch.diag(variances) @ basis.T).numpy())


SEEDED = torch.Generator()
PROBLEMS = {
    "gaussian": rotated(torch.logspace(-2, 0.5, 16, dtype=torch.float64)),
    "mixture": analysis.GaussianMixture(
        torch.randn(8, 16, dtype=torch.float64, generator=SEEDED.manual_seed(5)), torch.full((8,), 0.1)
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_probes_tell_their_error(problem: str) -> None:
    """Of the exact values, 95 % lie within the interval; each sample has probes of its own."""
    data = PROBLEMS[problem]
    x = data.sample_at(SCH, SCH.t_end, 300, generator=SEEDED.manual_seed(3))
    den, spread = data.denoiser(SCH, "x0"), []
    exact = analysis.log_likelihood(den, x, steps=4)
    for method, estimates in (("hutchinson", 24), ("hutch++", 8)):
        found = analysis.log_likelihood(den, x, method=method, steps=4, probes=24)
        low, high = found.interval(0.95)
        inside = (low <= exact.value) & (exact.value <= high)
        assert 0.92 <= float(inside.double().mean()) <= 0.98
        assert found.estimates == estimates
        off = found.value - exact.value
        assert abs(float(off.mean())) < 3 * float(off.std()) / math.sqrt(300)  # without bias
        spread.append(float(off.std()))
    assert spread[1] < 0.8 * spread[0]


def test_intervals_of_skew_estimates() -> None:
    """Where one direction has all of the divergence, estimates by probes are as skew as chi squared of one degree:
    Student's interval alone covers 90 %."""
    size = 8
    data = analysis.Gaussian(np.zeros(size), 0.01 * np.eye(size) + 1)
    x = data.sample_at(SCH, SCH.t_end, 600, generator=SEEDED.manual_seed(3))
    den, inside = data.denoiser(SCH, "x0"), []
    exact = analysis.log_likelihood(den, x, steps=4).value
    found = analysis.log_likelihood(den, x, method="hutchinson", steps=4, probes=24)
    for one in (found, replace(found, skewness=0.0)):
        low, high = one.interval(0.95)
        inside.append(float(((low <= exact) & (exact <= high)).double().mean()))
    assert abs(inside[0] - 0.95) < 0.015
    assert inside[1] < 0.92


SPECTRA = {
    "flat": torch.linspace(0.5, 1, 16, dtype=torch.float64),
    "two levels": torch.tensor([1.0] * 8 + [0.0] * 8, dtype=torch.float64),
    "power law": 1 / torch.arange(1, 17, dtype=torch.float64),
    "geometric": 0.7 ** torch.arange(16, dtype=torch.float64),
    "decades": torch.logspace(0, -3, 16, dtype=torch.float64),
    "one direction": torch.tensor([1.0] + [0.01] * 15, dtype=torch.float64),
}


def coverage(method: str, probes: int) -> tuple[list[float], list[float]]:
    """On matrices of six spectra, 2,500 repetitions each: the shares within intervals of 95 %, and within 1.96
    errors."""
    basis = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64, generator=SEEDED.manual_seed(1)))[0]
    zero, covered, plain = torch.zeros(2500, 16, dtype=torch.float64), [], []
    for spectrum in SPECTRA.values():
        matrix = basis @ torch.diag(spectrum) @ basis.T
        values = trace(method, zero, probes, 3)(lambda v, matrix=matrix: v @ matrix)  # type: ignore[misc]
        found, exact = from_estimates(values, zero), float(spectrum.sum())
        low, high = found.interval(0.95)
        covered.append(float(((low <= exact) & (exact <= high)).double().mean()))
        plain.append(float(((found.value - exact).abs() <= 1.96 * found.error).double().mean()))
    return covered, plain


@pytest.mark.parametrize(("method", "probes"), [("hutch++", 12), ("hutch++", 20), ("hutchinson", 12)])
def test_intervals_cover_95_percent(method: str, probes: int) -> None:
    """The plain normal interval covers less than 90 %."""
    covered, plain = coverage(method, probes)
    assert 0.94 <= sum(covered) / len(covered) <= 0.965
    assert min(covered) > 0.935
    assert max(covered) < 0.97
    assert min(plain) < 0.9


@pytest.mark.parametrize(
    ("method", "probes"), [("hutch++", 6), ("hutch++", 8), *(("hutchinson", n) for n in (2, 3, 4, 6))]
)
def test_intervals_of_the_fewest_probes_cover_enough(method: str, probes: int) -> None:
    """One direction that has all of the divergence, too, of which the plain interval covers 58 to 80 %."""
    covered, plain = coverage(method, probes)
    assert min(covered) > 0.925
    assert sum(covered) / len(covered) > 0.955
    assert min(plain) < 0.82


def test_intervals_of_traces_without_chance() -> None:
    """What a sketch takes whole is exact but for rounding, which the interval holds."""
    matrix = torch.diag(SPECTRA["one direction"])
    zero = torch.zeros(50, 16, dtype=torch.float64)
    found = from_estimates(trace("hutch++", zero, 48, 0)(lambda v: v @ matrix), zero)
    low, high = found.interval()
    assert bool(((low <= matrix.trace()) & (matrix.trace() <= high)).all())
    assert float((high - low).max()) < 1e-9


def flat(x: torch.Tensor) -> torch.Tensor:
    return x.new_zeros(len(x))


def test_probes_that_need_no_luck() -> None:
    """Random signs are exact on diagonal Jacobians, and Hutch++ on those of few large eigenvalues; the probes of a
    sample are the same in any batch."""
    diagonal = analysis.log_likelihood(GAUSSIAN.denoiser(SCH), X, method="hutchinson", steps=20, probes=2)
    assert float(diagonal.error.max()) < 1e-9
    data = rotated(torch.tensor([1.0, 0.5, *[0.0] * 10], dtype=torch.float64))  # rank 2
    den, x = data.denoiser(SCH, "x0"), 0.1 * logsnr.randn((5, 12), seed=0, dtype=torch.float64)
    exact = analysis.log_likelihood(den, x, steps=5, prior=flat)
    sketched = analysis.log_likelihood(den, x, method="hutch++", steps=5, probes=12, prior=flat)
    torch.testing.assert_close(sketched.value, exact.value, rtol=0, atol=1e-8)
    alone = analysis.log_likelihood(den, x[:1], method="hutchinson", steps=5, probes=6, prior=flat)
    whole = analysis.log_likelihood(den, x, method="hutchinson", steps=5, probes=6, prior=flat)
    assert abs(float(alone.error[0] - whole.error[0])) < 1e-12
    assert float(whole.error.min()) > 1e-3
