"""What runs of stochastic solvers generate has the law that the analysis says, by Monte Carlo."""

import math

import numpy as np
import pytest
import torch
from kolmogorov import backward, expectation

import logsnr
from logsnr.analysis import Gaussian, GaussianMixture, sampler_moments
from logsnr.solvers.planners.stochasticity import Window
from logsnr.solvers.programs.program import NoiseKey
from logsnr.solvers.runs.brownian import BrownianNoise

SCH = logsnr.VPLinear()
NOISY = [name for name in logsnr.solver_names() if logsnr.solver(name).stochastic]
GRID = logsnr.grid(SCH, 6, t_start=0.9, t_end=0.02)
RUNS = 20_000
MANY = 4.5  # standard errors: 2 in 300,000 by chance


PATHS = ["ddpm", "seeds-2", "er-sde-2"]  # one noise a step, two, and a clock of its own


@pytest.mark.parametrize(("name", "brownian"), [*((name, False) for name in NOISY), *((name, True) for name in PATHS)])
def test_moments_of_runs(name: str, brownian: bool) -> None:
    """On Gaussian data the mean and the variance of 20,000 runs are those of `sampler_moments` within 4.5 standard
    errors, whether noise is fresh or the increment of a path."""
    data = Gaussian([0.7, -0.2], [0.05, 1.3])
    moments = sampler_moments(name, data, SCH, grid=GRID)
    x = data.sample_at(SCH, GRID[0], RUNS, generator=torch.Generator().manual_seed(0))
    end = logsnr.sample(data.denoiser(SCH), x, solver=name, grid=GRID, seed=1, brownian=brownian)
    assert ((end.mean(0) - moments.mean).abs() < MANY * (moments.cov / RUNS).sqrt()).all()
    assert ((end.var(0) / moments.cov - 1).abs() < MANY * math.sqrt(2 / RUNS)).all()


def waves(x: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(2 * x), np.sin(2 * x)], axis=1)


@pytest.mark.parametrize("name", ["ddpm", "sde-dpmpp-2m", "dpm2-a"])
def test_expectations_of_runs(name: str) -> None:
    """On a mixture the means of cos 2x and sin 2x over 20,000 runs have confidence intervals of 4.5 standard errors
    that hold their exact values for this solver and grid, and not those for a grid of half the steps."""
    fine = np.asarray(logsnr.grid(SCH, 12, t_start=0.9, t_end=0.02))  # short steps: no state is far from the data
    data = GaussianMixture([-1.0, 0.9], [0.02, 0.05], [0.4, 0.6])
    x = data.sample_at(SCH, fine[0], RUNS, generator=torch.Generator().manual_seed(0))
    end = logsnr.sample(data.denoiser(SCH), x[:, None], solver=name, grid=fine, seed=1)
    found = waves(end[:, 0].numpy())
    error = found.std(0) / math.sqrt(RUNS)
    exact = expectation(logsnr.solver(name).program(SCH, fine), data, SCH, waves)
    other = backward(logsnr.solver(name).program(SCH, fine[::2]), data, SCH, waves)  # of long steps, by one resolution
    assert np.all(np.abs(found.mean(0) - exact) < MANY * error)
    assert np.any(np.abs(found.mean(0) - other) > MANY * error)


def test_halved_steps_follow_the_same_path() -> None:
    """Where the model is constant an exponential step is exact, so runs with ever more steps end at the same point, to
    round-off."""
    den = logsnr.Denoiser(lambda x, t: torch.full_like(x, 0.3), SCH, "x0")
    x = logsnr.randn((3, 4), seed=0, dtype=torch.float64)
    grid = np.asarray(logsnr.grid(SCH, 64, t_start=0.9, t_end=0.02))
    for eta in (0.5, 1.5):
        ends = [
            logsnr.sample(den, x, solver="sde-dpmpp-1", grid=grid[::every], seed=2, brownian=True, eta=eta)
            for every in (1, 2, 8, 64)
        ]
        for end in ends[1:]:
            torch.testing.assert_close(end, ends[0], rtol=0, atol=1e-12)
        fresh = logsnr.sample(den, x, solver="sde-dpmpp-1", grid=grid, seed=2, eta=eta)
        assert (fresh - ends[0]).abs().max() > 0.01


def test_paths_do_not_know_the_batch_or_the_order() -> None:
    """Increments asked for backwards, alone and in a batch are the same bits."""
    key = [NoiseKey(0.9, 0.5), NoiseKey(0.5, 0.2)]
    like = torch.empty(5, 3)
    seeds = logsnr.kernels.Seeds(torch.full((5,), 3), torch.arange(5))
    path = BrownianNoise(SCH, Window(1.0), seeds)
    forwards = [path(k, like) for k in key]
    backwards = [path(k, like) for k in key[::-1]][::-1]
    one = BrownianNoise(SCH, path.eta, logsnr.kernels.Seeds(seeds.seeds[2:3], seeds.samples[2:3]))
    for a, b, k in zip(forwards, backwards, key, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a[2:3], one(k, like[:1]))
