"""LCM and TCD against their loops, and PECE of SA-Solver against its equations."""

from itertools import pairwise

import numpy as np
import pytest
from loops import X, by_schedule, check, inside, levels, net

import logsnr
from logsnr.analysis import Gaussian, sampler_moments


@by_schedule
def test_lcm(sch: logsnr.Schedule) -> None:
    """x0, then alpha x0 + sigma xi (Song et al. 2023, Algorithm 1)."""

    def loop(grid: list[float], xi) -> np.ndarray:
        x = X
        for s, t in pairwise(grid):
            a, b, _ = levels(sch, t)
            x = a * net(x, s) + b * xi(s, t)
        return x

    check("lcm", sch, loop)


@by_schedule
@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_tcd(sch: logsnr.Schedule, gamma: float) -> None:
    """DDIM to the time (1 - gamma) t, then the forward process up to t (Zheng et al. 2024, Algorithm 4)."""

    def loop(grid: list[float], xi) -> np.ndarray:
        x = X
        for s, t in pairwise(grid):
            (a, b, _), (c, d, _) = levels(sch, s), levels(sch, t)
            low = (1 - gamma) * t
            e, f = float(sch.alpha(low)), float(sch.sigma(low))
            x0 = net(x, s)
            z = e * x0 + f * (x - a * x0) / b
            x = c / e * z + np.sqrt(d**2 - (c / e * f) ** 2) * xi(s, t)
        return x

    check(logsnr.solver("tcd", gamma=gamma), sch, loop, tol=1e-9)


def test_tcd_between_ddim_and_lcm() -> None:
    """gamma = 0 is DDIM, without noise and of first order; 1 is LCM where the schedule ends without noise."""
    sch = logsnr.FlowMatching(data_at=1)
    grid = inside(sch)
    ddim, lcm = (logsnr.solver(name).program(sch, grid) for name in ("ddim", "lcm"))
    none, all_ = (logsnr.solver("tcd", gamma=g) for g in (0.0, 1.0))
    assert (none.stochastic, none.order, all_.stochastic, all_.order) == (False, 1, True, 0)
    model = lambda x, t: (net(x, t), (x - sch.alpha(t) * net(x, t)) / sch.sigma(t))  # noqa: E731
    np.testing.assert_allclose(none.program(sch, grid).interpret(X, model), ddim.interpret(X, model), rtol=1e-12)
    for mine, theirs in zip(all_.program(sch, grid), lcm, strict=True):
        np.testing.assert_allclose(mine.matrix, theirs.matrix, atol=1e-15)


@pytest.mark.parametrize("name", ["lcm", "tcd"])
def test_the_last_step_to_the_data_adds_no_noise(name: str) -> None:
    sch = logsnr.FlowMatching()
    last = logsnr.solver(name).program(sch, logsnr.grid(sch, 3, t_end=0.0)).calls[-1]
    np.testing.assert_array_equal(last.matrix[0, :2], [1.0, 0.0])
    assert not last.noises


@by_schedule
def test_sa_pece(sch: logsnr.Schedule) -> None:
    """sa-1 with pece: exponential Euler for the SDE, the model's answer there, the line through both answers with the
    same noise, and the model again at the corrected state."""

    def loop(grid: list[float], xi) -> np.ndarray:
        x = X
        for s, t in pairwise(grid):
            (_, b, lam_s), (c, d, lam_t) = levels(sch, s), levels(sch, t)
            h = lam_t - lam_s
            base = d / b * np.exp(-h) * x + d * np.sqrt(-np.expm1(-2 * h)) * xi(s, t)
            decay = -np.expm1(-2 * h)
            old = net(x, s)
            new = net(base + c * decay * old, t)
            x = base + c * (decay * old + (1 - decay / (2 * h)) * (new - old))
        return x

    program = check(logsnr.solver("sa-1", pece=True), sch, loop)
    assert len(program) == 2 * program.steps


def test_pece_keeps_the_weak_order() -> None:
    """The law of what sa-2 with pece generates from Gaussian data converges with order 2."""
    sch, data = logsnr.VPLinear(), Gaussian(0.7, 0.25)
    errors = []
    for steps in (32, 64, 128):
        grid = np.asarray(sch.time(np.linspace(-2.5, 2.5, steps + 1)))
        moments = sampler_moments(logsnr.solver("sa-2", pece=True).program(sch, grid), data, sch)
        cov = data.marginal(sch, grid[-1])[1]
        errors.append(abs(float(moments.cov / cov) ** 0.5 - 1))
    assert np.log2(errors[-2] / errors[-1]) == pytest.approx(2, abs=0.2)
