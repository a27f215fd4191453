"""Langevin samplers against their published loops, with the same normals, and what they converge to."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from loops import SCHEDULES, X, by_schedule, check, inside, levels, net
from sampled import sampled

import logsnr
from logsnr.analysis import Gaussian, sampler_moments


@by_schedule
def test_predictor_corrector(sch: logsnr.Schedule) -> None:
    """Ancestral predictor with the forward variance, then Langevin steps of 2 (snr sigma)^2 at the new level."""
    snr = 0.2

    def loop(grid: list[float], xi: Callable) -> np.ndarray:
        x = X
        for s, t in pairwise(grid):
            (a, b, _), (c, d, _) = levels(sch, s), levels(sch, t)
            share, forward = (a / c * d / b) ** 2, b**2 - (a / c * d) ** 2
            x = c * (1 - share) * net(x, s) + a / c * d**2 / b**2 * x + np.sqrt(forward) * xi(s, t)
            for m in (1, 2):
                score, step = -(x - c * net(x, t)) / d**2, 2 * snr**2 * d**2
                x = x + step * score + np.sqrt(2 * step) * xi(s, t, m)
        return x

    program = check(logsnr.solver("pc", snr=snr, corrections=2), sch, loop, tol=1e-11)
    assert len(program) == 3 * program.steps


@by_schedule
def test_annealed_langevin_reaches_the_last_level(sch: logsnr.Schedule) -> None:
    """Song and Ermon (2019), Algorithm 1, x / alpha carried from level to level, all of which have their steps."""

    def loop(grid: list[float], xi: Callable) -> np.ndarray:
        x, last = X, len(grid) - 1
        for n, t in enumerate(grid):
            a, b, _ = levels(sch, t)
            for m in (1, 2, 3):
                noise = xi(t, grid[n + 1], m) if n < last else xi(grid[n - 1], t, 3 + m)
                x = x - 0.2 * b**2 * (x - a * net(x, t)) / b**2 + np.sqrt(0.4) * b * noise
            x = x if n == last else x * sch.alpha(grid[n + 1]) / a
        return x

    program = check(logsnr.solver("ald", step=0.2, per_level=3), sch, loop, tol=1e-11)
    assert len(program) == 3 * (program.steps + 1)
    assert program.calls[-1].t == program.grid[-1]


def stationary(c: float, sch: logsnr.Schedule, t: float, step: float) -> float:
    """The variance that Langevin steps of ``step`` sigma^2 leave alone, S / (1 - step sigma^2 / (2 S)); not S."""
    sigma2 = sch.sigma(t) ** 2
    S = sch.alpha(t) ** 2 * c + sigma2
    return float(S / (1 - step * sigma2 / (2 * S)))


@pytest.mark.parametrize(("sch", "name", "c"), sampled(SCHEDULES, ["ula", "ald"], [0.0, 0.5], every=2))
def test_langevin_converges_to_its_own_law(name: str, c: float, sch: logsnr.Schedule) -> None:
    """With many steps at the last level the variance is S / (1 - step / 2 sigma^2 / S), which is not the data's S."""
    grid, step = np.asarray(sch.time(np.linspace(-1.5, 0.0, 301 if name == "ula" else 3))), 0.3
    options = {"step": step} | ({"per_level": 300} if name == "ald" else {})
    found = sampler_moments(logsnr.solver(name, **options), Gaussian(0.7, c), sch, grid=grid)
    mean, data = Gaussian(0.7, c).marginal(sch, grid[-1])
    assert float(found.mean) == pytest.approx(float(mean), rel=1e-9)
    assert float(found.cov) == pytest.approx(stationary(c, sch, float(grid[-1]), step), rel=1e-9)
    assert float(found.cov) > 1.005 * float(data)


def test_predictor_corrector_converges_to_the_corrector_s_law() -> None:
    """On ever finer grids corrections win: pc ends in the law of its Langevin steps, to first order in the step."""
    sch, c, snr = logsnr.VPLinear(), 0.04, 0.3
    data, errors = Gaussian(0.7, c), []
    for steps in (200, 400, 800):
        grid = inside(sch, steps)
        found = sampler_moments(logsnr.solver("pc", snr=snr), data, sch, grid=grid)
        errors.append(float(found.cov) / stationary(c, sch, float(grid[-1]), 2 * snr**2) - 1)
    assert abs(errors[-1]) < 0.02
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 1.0, atol=0.15)


def test_a_last_level_without_noise_is_denoised() -> None:
    """Where the grid ends at sigma = 0, Langevin's last level is the one before, and x0 is returned."""
    sch = logsnr.FlowMatching()
    for name in ("ula", "ald"):
        program = logsnr.solver(name).program(sch, [0.9, 0.5, 0.2, 0.0])
        assert program.calls[-1].t == program.calls[-2].t == 0.2
        np.testing.assert_array_equal(program.calls[-1].matrix, [[1.0, 0.0]])


def test_a_node_is_reached_once() -> None:
    """Where DDIM goes from alpha = 0 to a last level that has Langevin steps, these reach the last node."""
    sch = logsnr.FlowMatching()
    for grid in ([1.0, 0.1], [1.0, 0.5, 0.1], [1.0, 0.5, 0.0], [1.0, 0.0]):
        program = logsnr.solver("ald").program(sch, grid)
        assert [call.node for call in program if call.node is not None] == [*range(1, len(grid))]
