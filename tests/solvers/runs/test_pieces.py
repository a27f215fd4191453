"""A run in pieces with one seed is the whole run: noise is addressed by its interval of time."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import logsnr

SCH = logsnr.VPLinear()
GRID = logsnr.grid(SCH, 6)
X = logsnr.randn((3, 2, 5), seed=1)
DEN = logsnr.Denoiser(lambda x, t: 0.3 * torch.sin(x) + 0.5 * x, SCH, "eps")
ONE_STEP = ["ddpm", "ddim-eta", "euler-a", "euler-maruyama", "euler-maruyama-lam", "sde-dpmpp-1", "sde-dpmpp-2s",
            "seeds-1", "seeds-2", "seeds-3", "er-sde-1", "dpm2-a", "dpmpp-2s-a", "pc"]  # fmt: skip


@pytest.mark.parametrize("name", ONE_STEP)
def test_pieces_are_the_whole(name: str) -> None:
    """One call per step with the same seed draws the normals of the whole run, bit for bit."""
    x = X
    for n in range(len(GRID) - 1):
        x = logsnr.sample(DEN, x, solver=name, grid=GRID[n : n + 2], seed=7)
    assert torch.equal(x, logsnr.sample(DEN, X, solver=name, grid=GRID, seed=7))


def test_two_pieces_of_a_brownian_path_are_the_whole() -> None:
    """The base takes the first half, a refiner the second."""
    first = logsnr.sample(DEN, X, solver="ddpm", grid=GRID[:4], seed=7, brownian=True)
    second = logsnr.sample(DEN, first, solver="ddpm", grid=GRID[3:], seed=7, brownian=True)
    assert torch.equal(second, logsnr.sample(DEN, X, solver="ddpm", grid=GRID, seed=7, brownian=True))


def test_pieces_have_the_law_of_the_whole() -> None:
    """Twenty one-step calls of DDPM with one seed: the standard deviation of data N(0, 0.4^2), not three times it."""
    data = logsnr.analysis.Gaussian(0.0, 0.16)
    den = data.denoiser(SCH, "eps")
    x = logsnr.start(SCH, (4000, 1), seed=0)
    grid = logsnr.grid(SCH, 20)
    for n in range(20):
        x = logsnr.sample(den, x, solver="ddpm", grid=grid[n : n + 2], seed=7)
    want = logsnr.analysis.sampler_moments("ddpm", data, SCH, grid=grid).cov
    assert abs(float(x.std()) / float(want) ** 0.5 - 1) < 0.04


def test_addresses_tell_intervals_and_streams_apart() -> None:
    """Two keys share a normal only if they are the same; those of streams of starts and Brownian paths are others."""
    keys = [logsnr.solvers.NoiseKey(s, t, k) for s, t in pairwise(GRID) for k in (0, 1, 2**32 - 1)]
    addresses = {key.address for key in keys}
    assert len(addresses) == len(keys)
    assert all(0 <= interval < 2**32 and 2**31 <= stream < 2**32 for interval, stream in addresses)
    assert logsnr.solvers.NoiseKey(1.0, 0.0).address == logsnr.solvers.NoiseKey(1.0, -0.0).address
    assert np.isfinite(GRID).all()


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_seeds_use_all_their_bits(seed: int) -> None:
    """Neighbouring seeds give other noise, at the ends of the range too."""
    a, b = (logsnr.randn((1, 50), seed=s) for s in (seed, seed ^ 1))
    assert (a != b).any()
    assert torch.equal(a, logsnr.randn((1, 50), seed=seed))
    c, d = (logsnr.sample(DEN, X, solver="ddpm", steps=2, seed=s) for s in (seed, seed ^ 1 << 63))
    assert (c != d).any()
