"""The Principles of Diffusion Models, chapters 10 and 11: printed formulas of flow maps that fail."""

from math import exp, log, sqrt

import numpy as np
import pytest
import torch

import logsnr

A = logsnr.analysis
DATA = A.Gaussian(0.7, 0.1225)
FM = logsnr.FlowMatching()


def flow(x: float, s: float, t: float, sch: logsnr.Schedule = FM) -> float:
    return DATA.flow(torch.tensor([x], dtype=torch.float64), sch, s, t).item()


def velocity(x: float, s: float) -> float:
    return DATA.denoiser(FM).velocity(torch.tensor([x], dtype=torch.float64), s).item()


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpm-2", 2), ("dpm-3", 3)])
def test_local_error_of_a_solver_of_order_n(solver: str, order: int) -> None:
    """One step of a solver of order n is off by O(h^(n+1)), not O(h^n) as section 10.1 says."""
    sch, errors = logsnr.VPLinear(), []
    x = torch.linspace(-2, 2, 7, dtype=torch.float64)
    for h in (0.1, 0.05):
        s, t = (float(sch.time(v)) for v in (0.2, 0.2 + h))
        got = logsnr.sample(DATA.denoiser(sch), x, solver=solver, grid=[s, t])
        errors.append(float((got - DATA.flow(x, sch, s, t)).abs().max()))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order + 1, abs=0.3)


def test_guidance_weights_of_10_3_4() -> None:
    """(1 + w) cond - w uncond of (10.3.4) is (8.3.3), w cond + (1 - w) uncond, with its w lowered by 1."""
    cond, uncond, w = 1.3, -0.4, 3.5
    guided = w * cond + (1 - w) * uncond
    assert (1 + (w - 1)) * cond - (w - 1) * uncond == pytest.approx(guided, rel=1e-12)
    assert abs((1 + w) * cond - w * uncond - guided) > 1


def test_one_step_of_mean_flow() -> None:
    """x_0 = x_T - T h(x_T, T, 0), as (t - s) h with t = 0 says; section 11.5.2 has + T h."""
    x, end = -1.5, 0.95
    mean_velocity = (flow(x, end, 0.0) - x) / (0.0 - end)
    assert x - end * mean_velocity == pytest.approx(flow(x, end, 0.0), rel=1e-12)
    assert abs(x + end * mean_velocity - flow(x, end, 0.0)) > 0.2


def test_diagonal_of_ctm() -> None:
    """g*(x, s, s) = x - s v (Prop. 11.4.1), where section 11.5.3 prints x - v."""
    x, s = 1.1, 0.6
    t = s - 1e-6
    g = (s * flow(x, s, t) - t * x) / (s - t)
    assert g == pytest.approx(x - s * velocity(x, s), abs=1e-5)
    assert abs(g - (x - velocity(x, s))) > 0.05


@pytest.mark.parametrize("sch", [FM, logsnr.VPLinear(), logsnr.EDM()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("gamma", [0.3, 0.7])
def test_gamma_sampling_beyond_edm(sch: logsnr.Schedule, gamma: float) -> None:
    """Algorithm 11 keeps the marginals for alpha = 1, sigma = t only; elsewhere it must denoise to the time
    whose sigma/alpha is sqrt(1 - gamma^2) times smaller and rescale by alpha."""
    tau = float(sch.time(-0.3))
    mean, var = (float(m) for m in DATA.marginal(sch, tau))

    def law(denoised: float, scale: float) -> tuple[float, float]:
        m, v = (float(q) for q in DATA.marginal(sch, denoised))
        return scale * m, scale**2 * v + gamma**2 * sch.sigma(tau) ** 2

    shrunk = float(sch.time(sch.half_logsnr(tau) - log(1 - gamma**2) / 2))
    assert law(shrunk, sch.alpha(tau) / sch.alpha(shrunk)) == pytest.approx((mean, var), rel=1e-10)
    printed = law(sqrt(1 - gamma**2) * tau, 1.0)
    assert (abs(printed[0] - mean) + abs(printed[1] - var) < 1e-10) == isinstance(sch, logsnr.EDM)


def test_tangent_of_the_consistency_function_11_3() -> None:
    """df/ds = -cos(s) (sigma_d F - dx/ds) - sin(s) (x + sigma_d dF/ds): no gradient on the first F."""
    sd, s, h = 0.5, 0.6, 1e-5

    def state(u: float) -> float:
        return 0.9 * np.cos(u) + 0.4 * np.sin(u)

    def net(u: float) -> float:
        return float(np.sin(1.3 * state(u) / sd + u))

    def f(u: float) -> float:
        return float(np.cos(u) * state(u) - np.sin(u) * sd * net(u))

    slope, dx, dnet = ((q(s + h) - q(s - h)) / (2 * h) for q in (f, state, net))
    gradient = 1.3 / sd * np.cos(1.3 * state(s) / sd + s)
    right, printed = (
        -np.cos(s) * (sd * first - dx) - np.sin(s) * (state(s) + sd * dnet) for first in (net(s), gradient)
    )
    assert right == pytest.approx(slope, rel=1e-8)
    assert abs(printed - slope) > 0.1


def test_time_distribution_11_3_12() -> None:
    """For s = arctan(e^tau/sigma_d), tau normal, it is log(sigma_d tan s) that is normal, not e^{sigma_d tan
    s}."""
    sd = 0.5
    for tau in (-1.0, 0.4):
        s = float(np.arctan(exp(tau) / sd))
        assert log(sd * np.tan(s)) == pytest.approx(tau, rel=1e-12)
        assert abs(exp(sd * np.tan(s)) - tau) > 1
