"""The Principles of Diffusion Models, appendix D.6: EDM's preconditioning."""

from math import sqrt

import numpy as np
import pytest
import torch

import logsnr

A = logsnr.analysis
SCHEDULES = [
    logsnr.VPLinear(), logsnr.VPCosine(), logsnr.SubVP(), logsnr.VE(), logsnr.EDM(),
    logsnr.FlowMatching(), logsnr.Trigonometric(),
]  # fmt: skip
by_schedule = pytest.mark.parametrize("sch", SCHEDULES, ids=lambda s: type(s).__name__)
SD = 0.5


def coefficients(sch: logsnr.Schedule, t: float) -> tuple[float, float, float]:
    """c_in, c_skip, c_out of (D.6.4)."""
    a, b = sch.alpha(t), sch.sigma(t)
    r = a**2 * SD**2 + b**2
    return 1 / sqrt(r), a * SD**2 / r, b * SD / sqrt(r)


@by_schedule
@pytest.mark.parametrize("lam", [-2.0, 0.2, 1.5])
def test_unit_variances_d_6_4(sch: logsnr.Schedule, lam: float) -> None:
    """Input and target have unit variance, are uncorrelated, and c_out is the least that (D.6.3) allows."""
    t = float(sch.time(lam))
    a, b = sch.alpha(t), sch.sigma(t)
    c_in, c_skip, c_out = coefficients(sch, t)
    target = np.array([1 - c_skip * a, -c_skip * b]) / c_out  # of (x0, eps)
    law = np.diag([SD**2, 1.0])
    state = c_in * np.array([a, b])
    assert state @ law @ state == pytest.approx(1, rel=1e-12)
    assert target @ law @ target == pytest.approx(1, rel=1e-10)
    assert target @ law @ state == pytest.approx(0, abs=1e-12)
    simplified = np.array([b, -a * SD**2]) / (SD * sqrt(a**2 * SD**2 + b**2))
    np.testing.assert_allclose(target, simplified, rtol=1e-10, atol=1e-13)
    for other in (0.9 * c_skip, 1.1 * c_skip):
        assert (1 - other * a) ** 2 * SD**2 + other**2 * b**2 > c_out**2


@by_schedule
def test_skip_connection_is_the_gaussian_denoiser(sch: logsnr.Schedule) -> None:
    """For data N(0, sigma_d^2) the optimal F of (D.6.1) is 0: x0 = c_skip x."""
    t, x = float(sch.time(0.2)), torch.linspace(-2, 2, 7, dtype=torch.float64)
    got = A.Gaussian(0.0, SD**2).denoiser(sch).x0(x, t)
    torch.testing.assert_close(got, coefficients(sch, t)[1] * x, rtol=1e-12, atol=1e-14)


def test_edm_special_case_d_6_5() -> None:
    """For alpha = 1, sigma = t the coefficients are (D.6.5) and the PF-ODE is (x - x0)/t."""
    sch, x = logsnr.EDM(), torch.linspace(-2, 2, 7, dtype=torch.float64)
    for t in (0.002, 1.3, 80.0):
        root = sqrt(SD**2 + t**2)
        assert coefficients(sch, t) == pytest.approx((1 / root, SD**2 / root**2, t * SD / root), rel=1e-12)
        den = A.GaussianMixture([-1.0, 0.8], [0.09, 0.2]).denoiser(sch)
        torch.testing.assert_close(den.velocity(x, t), (x - den.x0(x, t)) / t, rtol=1e-9, atol=1e-12)


@by_schedule
def test_state_in_the_footnote_of_d_6_1(sch: logsnr.Schedule) -> None:
    """The target of (D.6.2) follows from x_t = alpha x0 + sigma eps, not from the footnote's c_skip x0 +
    sigma eps."""
    t, x0, eps = float(sch.time(0.2)), 0.4, -0.8
    a, b = sch.alpha(t), sch.sigma(t)
    _, c_skip, c_out = coefficients(sch, t)
    target = ((1 - c_skip * a) * x0 - c_skip * b * eps) / c_out
    right, printed = (c_skip * (scale * x0 + b * eps) + c_out * target for scale in (a, c_skip))
    assert right == pytest.approx(x0, rel=1e-12)
    assert abs(printed - x0) > 1e-2


def test_marginal_density_in_d_6_2() -> None:
    """The marginal is int N(x; x0, t^2) p_data dx0; the printed kernel N(.; 0, t^2) does not involve the
    data."""
    mean, var, t, x = 0.7, 0.1225, 0.4, 1.0
    u = np.linspace(-4, 6, 20001)
    data = np.exp(-((u - mean) ** 2) / (2 * var)) / np.sqrt(2 * np.pi * var)
    total = float(A.Gaussian(mean, var).marginal(logsnr.EDM(), t)[1])
    truth = np.exp(-((x - mean) ** 2) / (2 * total)) / np.sqrt(2 * np.pi * total)
    kernels = [np.exp(-((x - centre) ** 2) / (2 * t**2)) / np.sqrt(2 * np.pi * t**2) for centre in (u, 0 * u)]
    right, printed = (float((k * data).sum() * (u[1] - u[0])) for k in kernels)
    assert right == pytest.approx(truth, rel=1e-8)
    assert abs(printed - truth) > 0.5
