"""DDPM, DDIM with noise and ancestral samplers against their published loops, with the same normals."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from loops import X, by_schedule, check, inside, levels, net, normals, play

import logsnr
from logsnr.analysis import Gaussian, sampler_moments
from logsnr.solvers.planners.combined import DPMFast
from logsnr.solvers.programs.program import NoiseKey


@by_schedule
def test_ancestral_samplers_without_noise(sch: logsnr.Schedule) -> None:
    """With eta = 0 DDIM eta and Euler ancestral are DDIM, and the two-stage ones DPM-2 and DPM-Solver++(2S)."""
    pairs = {"ddim-eta": "ddim", "euler-a": "ddim", "dpm2-a": "dpm-2", "dpmpp-2s-a": "dpmpp-2s"}
    for name, other in pairs.items():
        found = logsnr.solver(name, eta=0)
        assert not found.stochastic
        mine, theirs = (s.program(sch, inside(sch)) for s in (found, logsnr.solver(other)))
        assert not mine.noises
        np.testing.assert_allclose(play(mine, sch, {}), play(theirs, sch, {}), rtol=1e-12)
        assert (mine.order, found.order) == (theirs.order, theirs.order)


@pytest.mark.parametrize("variance", ["beta-tilde", "beta", 0.3])
def test_ddpm_is_the_posterior_of_ho(variance: str | float) -> None:
    """On a table of betas the steps are Ho et al. (2020), eq. 7 and 11, with beta, beta-tilde or between their logs."""
    betas = np.linspace(1e-2, 0.3, 20)
    bars = np.cumprod(1 - betas)
    sch = logsnr.Discrete(bars)
    program = logsnr.solver("ddpm", variance=variance).program(sch, np.arange(19.0, -1, -1))
    noises = normals(program)
    x = X
    for i in range(19, 0, -1):
        beta, bar, before = betas[i], bars[i], bars[i - 1]
        tilde = (1 - before) / (1 - bar) * beta
        v = {"beta-tilde": 0.0, "beta": 1.0}.get(variance, variance)  # type: ignore[call-overload]
        x0 = net(x, float(i))
        mean = np.sqrt(before) * beta / (1 - bar) * x0 + np.sqrt(1 - beta) * (1 - before) / (1 - bar) * x
        x = mean + np.exp((v * np.log(beta) + (1 - v) * np.log(tilde)) / 2) * noises[NoiseKey(i, i - 1)]
    np.testing.assert_allclose(play(program, sch, noises), x, rtol=1e-9)


@by_schedule
@pytest.mark.parametrize("c", [0.0, 0.04, 3.0])
def test_ddpm_with_the_data_variance_is_exact(c: float, sch: logsnr.Schedule) -> None:
    """Told the variance of Gaussian data, DDPM has their covariance after 1 step or 5, to 1e-13; else it has not."""
    for steps in (1, 5):
        grid = inside(sch, steps)
        want = float(sch.alpha(grid[-1]) ** 2 * c + sch.sigma(grid[-1]) ** 2)
        told = sampler_moments(logsnr.solver("ddpm", data_variance=c), Gaussian(0.7, c), sch, grid=grid)
        assert float(told.cov) == pytest.approx(want, rel=1e-13)
        plain = sampler_moments("ddpm", Gaussian(0.7, c), sch, grid=grid)
        assert (abs(float(plain.cov) / want - 1) > 1e-3) is (c > 0)


@by_schedule
@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_ddim_eta_and_euler_ancestral(eta: float, sch: logsnr.Schedule) -> None:
    """DDIM with noise is Song et al. (2021), eq. 12; k-diffusion's Euler ancestral on x / alpha is the same numbers."""

    def ddim(grid: list[float], xi: Callable) -> np.ndarray:
        x = X
        for s, t in pairwise(grid):
            (a, b, _), (c, d, _) = levels(sch, s), levels(sch, t)
            x0 = net(x, s)
            std = eta * d / b * np.sqrt(b**2 - (a / c) ** 2 * d**2)
            x = c * x0 + np.sqrt(d**2 - std**2) * (x - a * x0) / b + std * xi(s, t)
        return x

    def euler_ancestral(grid: list[float], xi: Callable) -> np.ndarray:
        x = X
        for s, t in pairwise(grid):
            (a, b, _), (c, d, _) = levels(sch, s), levels(sch, t)
            here, there = b / a, d / c
            up = eta * np.sqrt(there**2 * (here**2 - there**2) / here**2)
            down = np.sqrt(there**2 - up**2)
            slope = (x / a - net(x, s)) / here
            x = c * (x / a + slope * (down - here) + up * xi(s, t))
        return x

    check(logsnr.solver("ddim-eta", eta=eta), sch, ddim)
    check(logsnr.solver("euler-a", eta=eta), sch, euler_ancestral)


@by_schedule
@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_two_stage_ancestral_samplers(eta: float, sch: logsnr.Schedule) -> None:
    """k-diffusion's DPM2 and DPM++ 2S ancestral, on x / alpha and sigma / alpha."""

    def loop(grid: list[float], xi: Callable, second: Callable) -> np.ndarray:
        x = X
        for s, t in pairwise(grid):
            (a, b, _), (c, d, _) = levels(sch, s), levels(sch, t)
            here, there = b / a, d / c
            up = eta * np.sqrt(there**2 * (here**2 - there**2) / here**2)
            down = np.sqrt(there**2 - up**2)
            mid = np.exp((np.log(here) + np.log(down)) / 2)
            time = float(sch.time(-np.log(mid)))
            stage = x / a + (x / a - net(x, s)) / here * (mid - here)
            x0 = net(stage * sch.alpha(time), time)
            x = c * (second(x / a, stage, x0, here, mid, down) + up * xi(s, t))
        return x

    def dpm2(y: np.ndarray, stage: np.ndarray, x0: np.ndarray, here: float, mid: float, down: float) -> np.ndarray:
        return y + (stage - x0) / mid * (down - here)

    def dpmpp_2s(y: np.ndarray, stage: np.ndarray, x0: np.ndarray, here: float, mid: float, down: float) -> np.ndarray:
        return down / here * y + (1 - down / here) * x0

    check(logsnr.solver("dpm2-a", eta=eta), sch, lambda grid, xi: loop(grid, xi, dpm2), tol=1e-11)
    check(logsnr.solver("dpmpp-2s-a", eta=eta), sch, lambda grid, xi: loop(grid, xi, dpmpp_2s), tol=1e-11)


def test_reverse_diffusion_on_ve_is_ddpm_with_beta() -> None:
    """Where alpha = 1, Song et al.'s reverse diffusion step x + (ds^2) score + sqrt(ds^2) xi is ddpm's with beta."""
    sch = logsnr.VE()

    def loop(grid: list[float], xi: Callable) -> np.ndarray:
        x = X
        for s, t in pairwise(grid):
            gain = sch.sigma(s) ** 2 - sch.sigma(t) ** 2
            x = x - gain * (x - net(x, s)) / sch.sigma(s) ** 2 + np.sqrt(gain) * xi(s, t)
        return x

    check(logsnr.solver("ddpm", variance="beta"), sch, loop)


@pytest.mark.parametrize("sch", [logsnr.VPLinear(), logsnr.FlowMatching()])
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_dpm_fast_with_noise_has_the_data_s_law(sch: logsnr.Schedule, eta: float) -> None:
    """Down to a level of the schedule, and up again at another alpha: the covariance of Gaussian data, to second order
    and more."""
    data, found = Gaussian(0.5, 0.09), []
    wanted = sch.alpha(sch.t_end) ** 2 * 0.09 + sch.sigma(sch.t_end) ** 2
    for nfe in (30, 120):
        planner, steps = DPMFast(eta=eta).within(nfe)
        moments = sampler_moments(logsnr.Solver("fast", planner=planner), data, sch, steps=steps)
        assert planner.stochastic
        assert nfe - 3 < len(moments.program) <= nfe
        found.append(abs(float(moments.cov) / wanted - 1))
    assert found[1] < min(3e-4, found[0] / 16)
