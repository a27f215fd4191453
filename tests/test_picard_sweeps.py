"""Picard iteration on Gaussian data: closed form, exact sweeps, and what the executor does."""

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "dpmpp-3s", "deis-3", "ddpm"])
def test_rounds_are_those_of_the_executor(solver: str) -> None:
    """The rounds predicted are those that a parallel run takes, up to one: it moves on while it sweeps."""
    for std in (0.05, 0.5):
        den = logsnr.analysis.Gaussian(torch.zeros(8, dtype=torch.float64), std**2).denoiser(SCH, "v")
        x = torch.randn(1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        sweeps = picard_sweeps(solver, SCH, std, steps=60)
        for tol in (1e-2, 1e-4):
            how = logsnr.Picard(tol=tol, accelerate=None)
            noiseless = {"noise": lambda key, like: torch.zeros_like(like)}
            found = logsnr.solve(den, x, solver=solver, steps=60, parallel=how, **noiseless)  # type: ignore[arg-type]
            assert abs(found.rounds - int(sweeps.rounds(tol)[0])) <= 1


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "dpmpp-3s", "deis-3", "ddpm"])
def test_work_is_at_most_what_is_predicted(solver: str) -> None:
    """Sliding windows take 0.6 to 1 times the rounds and at most the evaluations of windows that move on as a whole,
    but for one round where noise is added; with a window of one call these are the calls."""
    sizes = [1, 7, 20, 60]
    for std in (0.05, 0.5):
        den = logsnr.analysis.Gaussian(torch.zeros(8, dtype=torch.float64), std**2).denoiser(SCH, "v")
        x = torch.randn(1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        for tol in (1e-2, 1e-4):
            rounds, evaluations = picard_work(solver, SCH, std, sizes, tol, steps=60)
            assert rounds[0, 0] == evaluations[0, 0] == len(logsnr.solver(solver).program(SCH, logsnr.grid(SCH, 60)))
            for window, most, work in zip(sizes, rounds[:, 0], evaluations[:, 0], strict=True):
                how = logsnr.Picard(window=window, tol=tol, accelerate=None)
                noiseless = {"noise": lambda key, like: torch.zeros_like(like)}
                found = logsnr.solve(den, x, solver=solver, steps=60, parallel=how, **noiseless)  # type: ignore[arg-type]
                extra = 1 if solver == "ddpm" else 0
                assert 0.55 * most <= found.rounds <= most + extra
                assert found.nfe <= work + extra * window


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
