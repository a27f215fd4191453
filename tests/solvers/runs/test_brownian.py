"""The virtual Brownian tree: one path for every grid, with the law of Brownian motion."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

import logsnr
from logsnr.kernels import Seeds
from logsnr.solvers.planners.stochasticity import Smooth, Stochasticity, Window
from logsnr.solvers.programs.program import Call, NoiseKey, Program
from logsnr.solvers.runs.brownian import BrownianNoise

SCH = logsnr.EDM()  # lam = -log t
F64 = torch.float64
ETAS = {
    "1": Window(1.0),
    "0.3": Window(0.3),
    "5": Window(5.0),
    "window": Window(1.0, -1.0, 1.0),
    "smooth": Smooth(lambda lam: 1 / np.cosh(lam)),
}


def path(eta: Stochasticity = ETAS["1"], batch: int = 1, seed: int = 0) -> BrownianNoise:
    return BrownianNoise(SCH, eta, Seeds(torch.full((batch,), seed), torch.arange(batch)))


def increment(noise: BrownianNoise, s: float, t: float, like: torch.Tensor) -> torch.Tensor:
    """Between two lam, not normalised, in units of the clock at the end."""
    z = noise(NoiseKey(math.exp(-s), math.exp(-t)), like)
    return z * math.sqrt(-math.expm1(-2 * float(noise.eta.energy(np.float64(s), np.float64(t)))))


@pytest.mark.parametrize("name", ETAS)
def test_increments_add_up(name: str) -> None:
    """The increment over an interval is the sum of those over its parts, to round-off, however it is cut, in whatever
    order they are asked for, and also beyond the range of the tree."""
    eta, like = ETAS[name], torch.empty(3, 4, dtype=F64)
    for s, m, t in [(-0.9, 0.1, 0.7), (-0.5, 0.0, 0.5), (-0.8, -0.8 + 1e-3, 0.9), (-18.0, 0.25, 17.5)]:
        whole = increment(path(eta, 3), s, t, like)
        noise = path(eta, 3)
        second = increment(noise, m, t, like)  # the later part first
        first = increment(noise, s, m, like)
        decay = math.exp(-float(eta.energy(np.float64(m), np.float64(t))))
        torch.testing.assert_close(first * decay + second, whole, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["1", pytest.param("5", marks=pytest.mark.slow), "smooth"])
def test_increments_are_independent_normals(name: str) -> None:
    """Over disjoint intervals, long and short, equal and unequal, increments are standard normals without
    correlation: Kolmogorov and Smirnov's test and 5 standard errors, with 40,000 samples."""
    like = torch.empty(40_000, 1, dtype=F64)
    lam = np.array([-20, -6, -2.0, -1.99, -0.3, 0.4, 0.40001, 2.5, 16.0, 19.0])
    noise = path(ETAS[name], len(like))
    z = torch.cat([noise(NoiseKey(math.exp(-s), math.exp(-t)), like) for s, t in pairwise(lam)], 1)
    for column in z.T.numpy():
        assert stats.kstest(column, "norm").pvalue > 1e-4
    correlation = np.corrcoef(z.T.numpy()) - np.eye(z.shape[1])
    assert np.abs(correlation).max() < 5 / math.sqrt(len(like))


def test_paths_of_samples_and_seeds_differ() -> None:
    """Other samples and other seeds have other paths; the same ones the same, alone and in a batch."""
    key, like = NoiseKey(2.0, 0.5), torch.empty(4, 6)
    z = path(batch=4)(key, like)
    assert torch.equal(path(batch=1)(key, like[:1]), z[:1])
    assert not torch.equal(z[0], z[1])
    assert not torch.equal(path(batch=4, seed=1)(key, like), z)


@pytest.mark.parametrize("solver", ["ddpm", pytest.param("sa-2", marks=pytest.mark.slow)])
def test_paths_have_a_limit(solver: str) -> None:
    """With brownian=True runs of ever more steps converge to one path, at first strong order; with fresh noise they
    have nothing to converge to."""
    den = logsnr.analysis.GaussianMixture([[-0.5], [0.5]], 0.3, [0.5, 0.5]).denoiser(SCH)
    x = logsnr.randn((50, 1), seed=1, dtype=F64) * 2
    lam = np.linspace(-math.log(2), math.log(50), 513)

    def end(steps: int, **options: object) -> torch.Tensor:
        return logsnr.sample(den, x, solver=solver, grid=np.exp(-lam[:: 512 // steps]), seed=3, **options)

    exact = end(512, brownian=True)
    errors = [float((end(n, brownian=True) - exact).square().mean().sqrt()) for n in (16, 64)]
    assert abs(math.log(errors[0] / errors[1], 4) - 1) < 0.15, errors
    other = end(512)
    fresh = [float((end(n) - other).square().mean().sqrt()) for n in (16, 64)]
    assert min(fresh) > 5 * errors[-1]


@pytest.mark.parametrize("solver", ["sde-dpmpp-2m", "er-sde-2"])
def test_paths_begin_at_pure_noise(solver: str) -> None:
    """From alpha = 0, infinitely long ago, to sigma = 0 a path has increments too."""
    x = logsnr.randn((2, 3), seed=0)
    den = logsnr.Denoiser(lambda x, t: torch.full_like(x, 0.5), logsnr.FlowMatching(), "x0")
    states = logsnr.solve(den, x, solver=solver, steps=5, seed=1, brownian=True, trajectory=True).trajectory
    assert states is not None
    assert torch.isfinite(states).all()
    assert (states[1:-1].std(dim=(1, 2)) > 1e-4).all()
    assert torch.equal(states[-1], torch.full_like(x, 0.5))


def test_noise_back_to_more_noise_is_refused_at_once() -> None:
    """On stream 0; the error says how such a key is written. Other noise takes it."""
    called: list[int] = []
    sch, x = logsnr.VPLinear(), logsnr.randn((2, 3), seed=0)
    den = logsnr.Denoiser(lambda x, t: called.append(1) or torch.tanh(x), sch)  # type: ignore[func-returns-value]
    for stream in (0, 1):
        call = Call(1.0, (0,), (0,), [[0.5, 0.0, 1.0, 1.0]], noises=((0.5, 1.0, stream),), node=1)  # type: ignore[arg-type]
        program = Program("back", 1, (1.0, 0.5), (call,))
        if stream:
            assert torch.isfinite(logsnr.sample(den, x, solver=program, seed=1, brownian=True)).all()
            continue
        with pytest.raises(ValueError, match=r"noise\(0.5, 1\) goes back to more noise: write noise\(1, 0.5\)"):
            logsnr.sample(den, x, solver=program, seed=1, brownian=True)
        assert not called


def test_without_noise_there_is_no_path() -> None:
    """An interval in which eta is 0 has no increment; other streams than the driving one are not on the path."""
    with pytest.raises(ValueError, match="eta is 0 there"):
        path(ETAS["window"])(NoiseKey(0.1, 0.05), torch.empty(1))
    x = logsnr.randn((2, 3), seed=0)
    den = logsnr.Denoiser(lambda x, t: torch.tanh(x), logsnr.VPLinear(), "x0")
    churned = [logsnr.sample(den, x, solver="edm-churn", steps=4, seed=5, brownian=b) for b in (True, False)]
    assert torch.equal(*churned)
