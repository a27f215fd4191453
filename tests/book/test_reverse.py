"""The Principles of Diffusion Models, sections 4.1 to 4.5 and appendix D.2: diffusions run backwards."""

from collections.abc import Callable
from math import exp, sqrt

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import logsnr

DATA = logsnr.analysis.Gaussian(0.7, 0.1225)
SCHEDULES = [
    logsnr.VPLinear(), logsnr.VPCosine(), logsnr.SubVP(), logsnr.VE(), logsnr.EDM(),
    logsnr.FlowMatching(), logsnr.Trigonometric(),
]  # fmt: skip
by_schedule = pytest.mark.parametrize("sch", SCHEDULES, ids=lambda s: type(s).__name__)
VP = logsnr.VPLinear()


def variance(sch: logsnr.Schedule, t: float) -> float:
    """Of x_t, for the data N(0.7, 0.1225)."""
    return float(DATA.marginal(sch, t)[1])


def score_slope(sch: logsnr.Schedule, t: float) -> float:
    """d score / dx of the library's exact denoiser, which is linear for Gaussian data."""
    scores = DATA.denoiser(sch).score(torch.tensor([0.0, 1.0], dtype=torch.float64), t)
    return float(scores[1] - scores[0])


def integrate(slope: Callable[[float, float], float], a: float, b: float, start: float) -> float:
    solution = solve_ivp(lambda t, y: [slope(t, y[0])], (a, b), [start], method="DOP853", rtol=1e-9, atol=1e-12)
    return float(solution.y[0, -1])


@by_schedule
def test_reverse_sde_marginals_4_1_6(sch: logsnr.Schedule) -> None:
    """Run down in t from p_s, dx = (f x - g^2 score) dt + g dw has the variance of p_t at every t."""
    s, t = float(sch.time(-1.0)), float(sch.time(0.5))

    def slope(u: float, v: float) -> float:  # dt < 0: the noise enters with a minus sign
        return 2 * (sch.drift(u) - sch.diffusion2(u) * score_slope(sch, u)) * v - sch.diffusion2(u)

    assert integrate(slope, s, t, variance(sch, s)) == pytest.approx(variance(sch, t), rel=1e-7)


def test_reversal_on_a_rising_clock() -> None:
    """With r = T - t rising the drift is -f x + g^2 score at T - r; as printed in Thm 4.1.1 (started at p_T)
    and in appendix D.2.5 (its sign lost) the SDE does not reach the data."""
    low, high = 0.1, 0.5

    def right(r: float, v: float) -> float:
        t = low + high - r
        return 2 * (-VP.drift(t) + VP.diffusion2(t) * score_slope(VP, t)) * v + VP.diffusion2(t)

    def theorem(r: float, v: float) -> float:
        return 2 * (VP.drift(r) - VP.diffusion2(r) * score_slope(VP, r)) * v + VP.diffusion2(r)

    def appendix(r: float, v: float) -> float:
        t = low + high - r
        return 2 * (VP.drift(t) - VP.diffusion2(t) * score_slope(VP, t)) * v + VP.diffusion2(t)

    start, target = variance(VP, high), variance(VP, low)
    assert integrate(right, low, high, start) == pytest.approx(target, rel=1e-7)
    assert integrate(theorem, low, high, start) > 2 * target
    assert integrate(appendix, low, high, start) > 2 * target


def test_extra_terms_of_appendix_d_2_5() -> None:
    """-div(-g^2/2 grad p) + g^2/2 Lap p is g^2 Lap p, not 0; with +g^2/2 score in the drift it is 0."""
    x, v, g2 = 0.4, 0.6, 1.7
    laplacian = (x**2 / v**2 - 1 / v) * exp(-(x**2) / (2 * v))
    drift_term = [-sign * g2 / 2 * laplacian for sign in (-1, 1)]  # -div(sign g^2/2 grad p)
    assert abs(drift_term[0] + g2 / 2 * laplacian) == pytest.approx(abs(g2 * laplacian))
    assert drift_term[1] + g2 / 2 * laplacian == 0


def test_sign_of_the_gaussian_reverse_drift_4_1_6() -> None:
    """The one-step reverse mean gives dx = +(f + g^2/s^2) x dt - g^2 m/s^2 dt with dt < 0 (section 4.1.6 has
    -)."""
    f, g2, m, var, x, dt = -0.8, 1.3, 0.7, 0.5, 1.1, 1e-5
    a, r2 = 1 + f * dt, g2 * dt
    mean = (m / var + a * x / r2) / (1 / var + a**2 / r2)
    rate = (mean - x) / -dt
    right = (f + g2 / var) * x - g2 / var * m
    assert rate == pytest.approx(right, rel=1e-3)
    assert rate != pytest.approx(-right, rel=0.5)
    assert right == pytest.approx(f * x - g2 * -(x - m) / var)  # f x - g^2 score
    assert 1 / (1 / var + a**2 / r2) == pytest.approx(g2 * dt, rel=1e-3)


def test_ddpm_is_euler_maruyama_only_to_first_order() -> None:
    """DDPM's mean (2.2.14) is not the Euler-Maruyama mean (4.2.4): they differ by 3/8 beta^2 x + beta^2
    score/2."""
    x, score = 1.3, -0.4
    for beta in (1e-2, 1e-3):
        ancestral = (x + beta * score) / sqrt(1 - beta)
        euler = x + beta / 2 * x + beta * score
        assert (ancestral - euler) / beta**2 == pytest.approx(3 / 8 * x + score / 2, rel=3 * beta)


def test_frozen_reverse_sde_is_not_langevin_at_its_own_density() -> None:
    """With f = 0 and frozen tau the drift 2 tau grad log pi and noise sqrt(2 tau) settle at pi^2, half the
    variance; Langevin dynamics of pi has the drift tau grad log pi (section 4.1.3)."""
    tau, var = 0.7, 0.5

    def late(factor: int) -> float:
        return integrate(lambda _, v: -2 * factor * tau / var * v + 2 * tau, 0, 20, 3.0)

    assert late(2) == pytest.approx(var / 2, rel=1e-6)
    assert late(1) == pytest.approx(var, rel=1e-6)


def test_taylor_remainder_of_4_5_2_is_of_order_dt() -> None:
    """The remainder of (4.5.2) has an expectation of order dt, g^2/2 (log p)'' dt, and not dt^2."""
    x, f, g2 = 0.6, -0.8, 1.3  # log p = -log cosh
    z, w = np.polynomial.hermite_e.hermegauss(40)
    for dt in (1e-3, 1e-5):
        h = f * dt + sqrt(g2 * dt) * z
        remainder = np.log(np.cosh(x) / np.cosh(x + h)) + np.tanh(x) * h
        expectation = float(w @ remainder) / w.sum()
        assert expectation / dt == pytest.approx(-g2 / 2 / np.cosh(x) ** 2, rel=1e-2)


def test_completing_the_square_leaves_a_cross_term() -> None:
    """|d - mu|^2 + 2 g^2 dt s d is |d - (mu - g^2 dt s)|^2 - |g^2 dt s|^2 + 2 g^2 dt mu s (section 4.5.2)."""
    d, mu, g2dt, s = 0.3, 0.2, 0.05, -1.4
    left = (d - mu) ** 2 + 2 * g2dt * s * d
    printed = (d - (mu - g2dt * s)) ** 2 - (g2dt * s) ** 2
    assert left == pytest.approx(printed + 2 * g2dt * mu * s, rel=1e-12)
    assert abs(left - printed) > 1e-2
