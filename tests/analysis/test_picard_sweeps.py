"""Picard iteration on Gaussian data: closed form, exact sweeps, and what the executor does."""

import numpy as np
import pytest
import torch
from sampled import sampled

import logsnr
from logsnr.analysis import picard_sweeps, picard_work

SCH = logsnr.VPLinear()
STDS = np.array([0.03, 0.3, 1.0, 3.0])


def test_the_tail_of_a_poisson_law() -> None:
    """For many steps of ddim what k sweeps leave is P(k + 1, G), to first order in the step; P(k, G) is not."""
    sch, end = logsnr.FlowMatching(), 0.01  # alpha = 0 at the start: the first guess is x0 = 0
    errors = []
    for steps in (200, 400, 800):
        found = picard_sweeps("ddim", sch, STDS, sweeps=12, steps=steps, t_end=end)
        assert found.growth == pytest.approx(np.log(np.hypot((1 - end) * STDS, end) / end), rel=1e-12)
        errors.append(np.abs(found.errors - found.tails).max())
        assert np.abs(found.errors[1:] - found.tails[:-1]).max() > 0.1
    assert errors[2] < 0.02
    assert np.divide(errors[:-1], errors[1:]) == pytest.approx(2, abs=0.2)


SOLVERS = ["ddim", "dpmpp-2m", "dpmpp-3s", "deis-3", "sde-dpmpp-2m", "ddpm", "seeds-2"]


def drawn(solver: str, std: float, how: logsnr.Picard) -> logsnr.Solution:
    """A run of one sample with 2000 elements, of 60 steps."""
    den = logsnr.analysis.Gaussian(torch.zeros(2000, dtype=torch.float64), std**2).denoiser(SCH, "v")
    x = torch.randn(1, 2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return logsnr.solve(den, x, solver=solver, steps=60, seed=0, parallel=how)


@pytest.mark.parametrize("solver", SOLVERS)
def test_rounds_are_those_of_the_executor(solver: str) -> None:
    """The rounds predicted are those that a parallel run takes, up to one: it moves on while it sweeps."""
    for std, tol in ((0.05, 1e-4), (0.5, 1e-2)):
        sweeps = picard_sweeps(solver, SCH, std, steps=60)
        found = drawn(solver, std, logsnr.Picard(tol=tol, accelerate=None))
        assert abs(found.rounds - int(sweeps.rounds(tol)[0])) <= 1


@pytest.mark.parametrize("solver", sampled(SOLVERS, every=4))
def test_work_is_what_is_predicted(solver: str) -> None:
    """Rounds and evaluations are those of a run with many elements: exactly without noise, with noise to 5 %, by which
    its norms are random; with a window of one call they are the calls."""
    sizes = [1, 7, 1000]
    program = logsnr.solver(solver).program(SCH, logsnr.grid(SCH, 60))
    off = 0.05 if program.noises else 0.0
    for std, tol in ((0.05, 1e-2), (0.5, 1e-4), (3.0, 1e-2)):
        rounds, evaluations = (found[:, 0] for found in picard_work(solver, SCH, std, sizes, tol, steps=60))
        assert rounds.shape == evaluations.shape == (3,)
        assert rounds[0] == evaluations[0] == len(program)
        for size, most, work in zip(sizes, rounds, evaluations, strict=True):
            found = drawn(solver, std, logsnr.Picard(window=size, tol=tol, accelerate=None))
            assert abs(found.rounds - most) <= off * most + (off > 0)
            assert abs(found.nfe - work) <= off * work


def test_noise_makes_work() -> None:
    """Without its noise a stochastic solver takes far fewer rounds: noise moves x0 away from the first guess."""
    how, rounds = (
        logsnr.Picard(window=20, tol=1e-4, accelerate=None),
        picard_work("ddpm", SCH, 0.5, 20, 1e-4, steps=60)[0],
    )
    den = logsnr.analysis.Gaussian(torch.zeros(50, dtype=torch.float64), 0.25).denoiser(SCH, "v")
    x = torch.ones(1, 50, dtype=torch.float64)
    quiet = logsnr.solve(den, x, solver="ddpm", steps=60, parallel=how, noise=lambda key, like: torch.zeros_like(like))
    assert quiet.rounds < 0.5 * rounds[0, 0]


def test_bad_arguments() -> None:
    """Standard deviations must be positive, and a tolerance within reach."""
    with pytest.raises(ValueError, match="stds must"):
        picard_sweeps("ddim", SCH, [0.0], steps=4)
    with pytest.raises(ValueError, match="takes more than the 2 sweeps"):
        picard_sweeps("ddim", SCH, 0.5, steps=40, sweeps=2).rounds(1e-6)
    with pytest.raises(ValueError, match="windows must"):
        picard_work("ddim", SCH, 0.5, [4, 0], 1e-3, steps=40)
    with pytest.raises(ValueError, match="tol = 0"):
        picard_work("ddim", SCH, 0.5, 4, 0, steps=40)
