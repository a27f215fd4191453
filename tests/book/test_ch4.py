"""The Principles of Diffusion Models, chapter 4: forward SDEs, transition kernels, PF-ODE and likelihood."""

from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import logsnr

A = logsnr.analysis
MEAN, VAR = 0.7, 0.1225
DATA = A.Gaussian(MEAN, VAR)
SCHEDULES = [
    logsnr.VPLinear(), logsnr.VPCosine(), logsnr.SubVP(), logsnr.VE(), logsnr.EDM(),
    logsnr.FlowMatching(), logsnr.Trigonometric(),
]  # fmt: skip
by_schedule = pytest.mark.parametrize("sch", SCHEDULES, ids=lambda s: type(s).__name__)
VP = logsnr.VPLinear()


def span(sch: logsnr.Schedule) -> tuple[float, float]:
    """A noisy and a clean time."""
    return float(sch.time(-1.0)), float(sch.time(0.5))


def variance(sch: logsnr.Schedule, t: float) -> float:
    """Of x_t, for the data N(0.7, 0.1225)."""
    return float(DATA.marginal(sch, t)[1])


def test_ddpm_needs_beta_dt_4_1_1() -> None:
    """sqrt(1 - beta dt) x + sqrt(beta dt) eps is 4.1.1's DDPM step to O(dt^2); its middle form lacks the
    dt."""
    beta, dt = 0.5, 1e-3
    scale, noise = 1 - beta * dt / 2, sqrt(beta * dt)
    assert sqrt(1 - beta * dt) == pytest.approx(scale, abs=dt**2)
    assert sqrt(beta * dt) == noise
    assert abs(sqrt(1 - beta) - scale) > 0.2
    assert abs(sqrt(beta) - noise) > 0.5


def test_ddpm_chain_converges_to_the_vp_sde() -> None:
    """The product of sqrt(1 - beta(t_i)/N) tends to alpha(1) of the VP SDE, with a relative error of order
    1/N."""
    errors = []
    for n in (1000, 2000):
        beta = 0.1 + 19.9 * np.arange(1, n + 1) / n
        errors.append(float(np.prod(np.sqrt(1 - beta / n)) / VP.alpha(1.0) - 1))
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)


@by_schedule
def test_forward_kernel_4_4_5(sch: logsnr.Schedule) -> None:
    """alpha_{s|t} = exp int f and sigma_{s|t}^2 = int E^2 g^2, the solution (4.3.4) of the moment ODEs
    (4.3.3)."""
    s, t = span(sch)
    ratio = exp(quad(sch.drift, t, s, epsrel=1e-12)[0])
    noise = quad(lambda u: (sch.alpha(s) / sch.alpha(u)) ** 2 * sch.diffusion2(u), t, s, epsrel=1e-12)[0]
    assert ratio == pytest.approx(sch.alpha(s) / sch.alpha(t), rel=1e-9)
    assert noise == pytest.approx(sch.sigma(s) ** 2 - ratio**2 * sch.sigma(t) ** 2, rel=1e-9)


def test_ve_kernel_of_table_4_1() -> None:
    """The VE SDE adds sigma^2(t) - sigma^2(0) from t = 0 on, and VP 1 - e^{-B}: Table 4.1."""
    sch = logsnr.VE(0.5, 50.0)
    added = quad(sch.diffusion2, 0, 0.4, epsrel=1e-12)[0]
    assert added == pytest.approx(sch.sigma(0.4) ** 2 - sch.sigma(0.0) ** 2, rel=1e-10)
    big_b = quad(VP.diffusion2, 0, 0.4, epsrel=1e-12)[0]  # g^2 = beta
    assert VP.sigma(0.4) ** 2 == pytest.approx(1 - exp(-big_b), rel=1e-10)


def test_nonpositive_drift_does_not_forget_the_data() -> None:
    """f <= 0 is not enough for the mean to vanish (4.1.2): VE has f = 0 and keeps it; int f must be
    -infinity."""
    sch = logsnr.VE()
    assert sch.drift(0.7) == 0
    assert sch.alpha(1.0) == 1
    assert exp(quad(logsnr.FlowMatching().drift, 0, 1 - 1e-9)[0]) == pytest.approx(1e-9, rel=1e-4)


@by_schedule
def test_sde_coefficients_4_4_2(sch: logsnr.Schedule) -> None:
    """f = (log alpha)' and g^2 = (sigma^2)' - 2 f sigma^2 = -2 sigma^2 lam' (Lemma 4.4.1), by differences."""
    t, h = float(sch.time(0.2)), 1e-5
    ends = [t - h, t + h]
    f, ds2, dlam = (
        float(np.diff(q)[0]) / (2 * h)
        for q in (
            [log(sch.alpha(u)) for u in ends],
            [sch.sigma(u) ** 2 for u in ends],
            [sch.half_logsnr(u) for u in ends],
        )
    )
    assert sch.drift(t) == pytest.approx(f, rel=1e-6, abs=1e-9)
    assert sch.diffusion2(t) == pytest.approx(ds2 - 2 * f * sch.sigma(t) ** 2, rel=1e-6)
    assert sch.diffusion2(t) == pytest.approx(-2 * sch.sigma(t) ** 2 * dlam, rel=1e-6)


@by_schedule
def test_reverse_conditional_kernel_4_4_4(sch: logsnr.Schedule) -> None:
    """Lemma 4.4.2 is the conditional law of x_t in the joint normal law of (x_t, x_s) given x0."""
    s, t = span(sch)
    a, b, c, d = sch.alpha(s), sch.sigma(s), sch.alpha(t), sch.sigma(t)
    ratio, x0, x = a / c, 0.4, -1.1
    noise2 = b**2 - ratio**2 * d**2
    cov = ratio * d**2
    mean = c * x0 + cov / b**2 * (x - a * x0)
    assert ratio * d**2 / b**2 * x + c * noise2 / b**2 * x0 == pytest.approx(mean, rel=1e-12)
    assert noise2 * d**2 / b**2 == pytest.approx(d**2 - cov**2 / b**2, rel=1e-10)


def test_ddpm_posterior_2_2_4_is_4_4_4() -> None:
    """On a DDPM table Lemma 2.2.2 and the mean of (2.2.14) are Lemma 4.4.2 with alpha^2 + sigma^2 = 1."""
    beta2 = np.linspace(1e-4, 2e-2, 50)
    sch, i = logsnr.Discrete(np.cumprod(1 - beta2)), 20
    a, b, c, d = sch.alpha(i), sch.sigma(i), sch.alpha(i - 1), sch.sigma(i - 1)
    ratio, noise2 = a / c, b**2 - (a / c) ** 2 * d**2
    x0, eps = 0.4, -0.8
    x = a * x0 + b * eps
    general = ratio * d**2 / b**2 * x + c * noise2 / b**2 * x0
    assert noise2 == pytest.approx(beta2[i], rel=1e-10)
    assert c * beta2[i] / (1 - a**2) * x0 + (1 - c**2) * ratio / (1 - a**2) * x == pytest.approx(general, rel=1e-10)
    assert (x - (1 - ratio**2) / sqrt(1 - a**2) * eps) / ratio == pytest.approx(general, rel=1e-10)


@by_schedule
def test_kl_is_half_the_snr_difference_4_4_7(sch: logsnr.Schedule) -> None:
    """The KL of two reverse kernels is (SNR_t - SNR_s)/2 times the squared distance of their x0."""
    s, t = span(sch)
    b, c, d = sch.sigma(s), sch.alpha(t), sch.sigma(t)
    noise2 = b**2 - (sch.alpha(s) / c) ** 2 * d**2
    kl = (c * noise2 / b**2) ** 2 / (2 * noise2 * d**2 / b**2)
    snr = [exp(2 * sch.half_logsnr(u)) for u in (s, t)]
    assert kl == pytest.approx((snr[1] - snr[0]) / 2, rel=1e-10)


@by_schedule
def test_flow_is_a_semigroup_that_moves_p_s_to_p_t_4_1_9(sch: logsnr.Schedule) -> None:
    """Psi_{r->t} = Psi_{s->t} Psi_{r->s}; data are pushed to p_t by Psi_{0->t}, not Psi_{t->0} (4.1.5)."""
    s, t = span(sch)
    x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    middle = DATA.flow(x, sch, s, (s + t) / 2)
    torch.testing.assert_close(DATA.flow(middle, sch, (s + t) / 2, t), DATA.flow(x, sch, s, t), rtol=1e-12, atol=1e-12)
    forward, backward = (float(torch.diff(y)) ** 2 for y in (DATA.flow(x, sch, t, s), DATA.flow(x, sch, s, t)))
    assert forward * variance(sch, t) == pytest.approx(variance(sch, s), rel=1e-12)
    assert abs(backward * variance(sch, t) / variance(sch, s) - 1) > 0.2


@by_schedule
def test_pf_ode_4_1_7(sch: logsnr.Schedule) -> None:
    """The velocity is f x - g^2/2 score (4.1.7), and with it the variance keeps the moment ODE (4.3.3)."""
    t, h = float(sch.time(0.2)), 1e-5
    den, x = DATA.denoiser(sch), torch.tensor([0.0, 1.0], dtype=torch.float64)
    velocity = den.velocity(x, t)
    torch.testing.assert_close(
        velocity, sch.drift(t) * x - sch.diffusion2(t) / 2 * den.score(x, t), rtol=1e-11, atol=1e-11
    )
    growth = 2 * float(torch.diff(velocity)) * variance(sch, t)
    assert growth == pytest.approx(2 * sch.drift(t) * variance(sch, t) + sch.diffusion2(t), rel=1e-10)
    assert growth == pytest.approx((variance(sch, t + h) - variance(sch, t - h)) / (2 * h), rel=1e-5)


def test_likelihood_along_the_pf_ode_4_2_7() -> None:
    """log p(x_t) = log p(x_s) + the integral of div v from t to s, for a mixture."""
    mix, sch = A.GaussianMixture([-1.0, 0.8], [0.09, 0.2], [0.35, 0.65]), logsnr.VPLinear()
    s, t, x = 0.7, 0.15, torch.tensor([0.3], dtype=torch.float64)
    den = mix.denoiser(sch)

    def log_density(y: torch.Tensor, u: float) -> float:
        v = sch.alpha(u) ** 2 * mix.covs + sch.sigma(u) ** 2
        parts = mix.weights * torch.exp(-((y - sch.alpha(u) * mix.means) ** 2) / (2 * v)) / torch.sqrt(2 * torch.pi * v)
        return float(torch.log(parts.sum()))

    def divergence(u: float) -> float:
        y = mix.reference(x, sch, t, u).requires_grad_()
        return float(torch.autograd.grad(den.velocity(y, u).sum(), y)[0])

    end = mix.reference(x, sch, t, s)
    delta = quad(divergence, t, s, epsrel=1e-9)[0]
    assert log_density(x, t) == pytest.approx(log_density(end, s) + delta, abs=1e-8)
