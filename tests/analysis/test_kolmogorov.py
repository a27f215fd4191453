"""Expectations by quadrature against the exact law of Gaussian data, and what cannot be integrated."""

import numpy as np
import pytest
import torch
from kolmogorov import expectation

import logsnr
from logsnr.analysis import Gaussian, GaussianMixture, sampler_moments, two_gaussians, warped_grid

SCH = logsnr.VPLinear()


def waves(x: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(x), np.sin(2 * x)], axis=1)


@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m", "ddpm", "sde-dpmpp-2m", "seeds-2", "sa-1", "edm-churn", "pc"])
def test_gaussian_data(name: str) -> None:
    """For a mixture of one Gaussian the expectations are those of the exact law N(mean, cov), to 1e-8."""
    program = logsnr.solver(name).program(SCH, warped_grid(SCH, 4, -0.8, 0.8))
    law = sampler_moments(program, Gaussian(0.3, 0.25), SCH)
    m, v = float(law.mean), float(law.cov)
    want = [np.exp(-v / 2) * np.cos(m), np.exp(-2 * v) * np.sin(2 * m)]
    np.testing.assert_allclose(expectation(program, GaussianMixture([0.3], [0.25]), SCH, waves), want, atol=1e-8)


def test_deterministic_solvers_move_the_start() -> None:
    """On a mixture, expectations of a run without noise are those of its ends, weighted by the start's density."""
    program = logsnr.solver("dpm-2").program(SCH, warped_grid(SCH, 4, -0.8, 0.4))
    data, x = two_gaussians(), torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    alpha, sigma = SCH.alpha(program.grid[0]), SCH.sigma(program.grid[0])
    spread = torch.sqrt(alpha**2 * data.covs + sigma**2)
    start = torch.distributions.Normal(alpha * data.means, spread)
    density = (start.log_prob(x[:, None]).exp() * data.weights).sum(1).numpy()
    end = program.interpret(x, data.pair(SCH)).numpy()
    want = (density[:, None] * waves(end)).sum(0) * float(x[1] - x[0])
    np.testing.assert_allclose(expectation(program, data, SCH, waves), want, atol=2e-6)


def test_what_cannot_be_integrated() -> None:
    """Other shapes, more history than one value and more normals in a step than three are refused, by what they are."""
    grid = warped_grid(SCH, 4, -0.8, 0.8)

    def of(name: str | logsnr.Solver, data: GaussianMixture) -> None:
        expectation(logsnr.solver(name).program(SCH, grid), data, SCH, waves)

    with pytest.raises(ValueError, match="one-dimensional data"):
        of("ddpm", GaussianMixture([[0.0, 1.0]], [1.0]))
    with pytest.raises(ValueError, match="keeps 2 values of history"):
        of("sde-dpmpp-3m", two_gaussians())
    with pytest.raises(ValueError, match="a step adds 6 normals"):
        of(logsnr.solver("pc", corrections=5), two_gaussians())


@pytest.mark.parametrize(("name", "steps"), [("seeds-2", 5), ("seeds-2", 8), ("dpm2-a", 5), ("sde-dpmpp-2m", 5)])
def test_what_is_not_resolved_is_refused(name: str, steps: int) -> None:
    """Unstable solvers and steps too long for the data's structure, whose numbers would be off by 0.01 to 0.5."""

    def f(x: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(x), np.sin(x), np.cos(2 * x)], axis=1)

    with pytest.raises(ValueError, match=f"{steps} steps is not resolved: .* differ by .*; take more steps"):
        expectation(logsnr.solver(name).program(SCH, logsnr.grid(SCH, steps)), two_gaussians(), SCH, f)
