"""The bench of guidance on Gaussian posteriors measures what it says."""

import math

import pytest
import torch

from logsnr.bench import posteriors as bench
from logsnr.control import LinearProblem, PiGDM, mask

DATA = bench.images(4)
A = bench.operators(4)["superresolution"]
PROBLEM = LinearProblem(A, A(DATA.sample(1, generator=torch.Generator().manual_seed(0))), 0.3)


def test_posterior_by_precisions() -> None:
    """(C^-1 + A^T A/std^2)^-1, the other form of the formula; without noise nothing is left along A."""
    a, exact = bench.dense(A, DATA), bench.posterior(DATA, PROBLEM)
    cov = torch.linalg.inv(torch.linalg.inv(DATA.cov) + a.mT @ a / 0.09)
    torch.testing.assert_close(exact.cov, cov, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(exact.mean.flatten(), cov @ a.mT @ PROBLEM.y.flatten() / 0.09, rtol=1e-8, atol=1e-10)
    certain = bench.posterior(DATA, LinearProblem(A, PROBLEM.y))
    assert (a @ certain.cov).abs().max() < 1e-10
    torch.testing.assert_close(A(certain.mean[None]), PROBLEM.y)


def test_the_exact_classifier_is_the_exact_denoiser() -> None:
    guides = bench.methods(DATA, PROBLEM)
    biases = {name: bench.bias(DATA, PROBLEM, guides[name], 20) for name in ("exact denoiser", "classifier", "MMPS")}
    for found in biases.values():
        assert found.w2 == pytest.approx(biases["exact denoiser"].w2, rel=1e-6)
        assert found.w2 < 0.06
    assert bench.bias(DATA, PROBLEM, guides["PiGDM"], 20).w2 > 0.3


def test_the_law_is_that_of_samples() -> None:
    """The affine map of D + 1 starts, against 2,000 samples."""
    den = bench.guided(DATA, PiGDM(PROBLEM))
    mean, cov = bench.generated(den, 10, DATA.event_shape)
    x = 80 * torch.randn(2000, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = bench.sample(den, x, solver=bench.SOLVER, steps=10).flatten(1)
    torch.testing.assert_close(ends.mean(0), mean, rtol=0, atol=0.1)
    torch.testing.assert_close(ends.mT.cov(), cov, rtol=0, atol=0.1)


def test_report() -> None:
    page = bench.report([0.3], [5], ["mask"], size=4)
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert rows == ["method", *bench.methods(DATA, PROBLEM)]
    with pytest.raises(ValueError, match="operator must be one of mask, superresolution, blur, not gray"):
        bench.main(operator=["gray"])
    assert str(bench.Bias(math.nan, 1.0, math.nan)) == "diverges"
    assert str(bench.Bias(0.12345, 1.0, 12.345)) == "0.12 / 1.00 / 12.3"
    assert isinstance(bench.operators(4)["mask"], type(mask(torch.ones(4))))
