"""The Principles of Diffusion Models, chapters 2, 3, 5, 7, 8, appendix C: printed formulas that fail."""

from collections.abc import Callable
from math import exp, log, pi, sqrt

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq

import logsnr


def integrate(slope: Callable[[float, float], float], a: float, b: float, start: float) -> float:
    solution = solve_ivp(lambda t, y: [slope(t, y[0])], (a, b), [start], rtol=1e-10, atol=1e-13)
    return float(solution.y[0, -1])


def normal(x: float, mean: float, var: float) -> float:
    return exp(-((x - mean) ** 2) / (2 * var)) / sqrt(2 * pi * var)


def test_first_term_of_the_ddpm_loss_2_2_6() -> None:
    """sigma^2(1) = 0 by (2.2.4), so the weights 1/(2 sigma^2(i)) of (2.2.6-8, 2.2.13) are finite from i = 2
    on only."""
    sch = logsnr.Discrete(np.cumprod(1 - np.linspace(1e-4, 2e-2, 50)))
    signal = np.array([1.0, *(sch.alpha(i) ** 2 for i in range(5))])  # abar_i^2, i = 0, 1, ...
    beta2 = 1 - signal[1:] / signal[:-1]
    posterior = (1 - signal[:-1]) / (1 - signal[1:]) * beta2
    assert posterior[0] == 0
    assert (posterior[1:] > 0).all()


def test_denoising_operator_of_section_3_3_6() -> None:
    """(x p + sigma^2 p')/p is alpha E[x0 | x] (Tweedie, 3.3.6); the section drops the alpha that it has in
    p_sigma."""
    sch, data, t, x = logsnr.VPLinear(), logsnr.analysis.Gaussian(0.7, 0.1225), 0.5, 0.9
    den, state = data.denoiser(sch), torch.tensor([0.9], dtype=torch.float64)
    operator = x + sch.sigma(t) ** 2 * den.score(state, t).item()
    x0 = den.x0(state, t).item()
    assert operator == pytest.approx(sch.alpha(t) * x0, rel=1e-12)
    assert abs(operator - x0) > 0.1


def test_annealed_langevin_must_visit_the_last_level() -> None:
    """Algorithm 1 for l = L, ..., 2 ends near p at sigma_2; l = L, ..., 1 reaches sigma_1 (exact
    variances)."""
    sigma, var, delta = np.geomspace(0.01, 10, 10), 1e-4, 2e-5

    def run(levels: np.ndarray) -> float:
        v = 1.0
        for level in levels:
            total, eta = var + level**2, delta * level**2 / sigma[0] ** 2
            for _ in range(200):
                v = (1 - eta / total) ** 2 * v + 2 * eta
        return v

    target = var + sigma[0] ** 2
    assert run(sigma[::-1]) == pytest.approx(target, rel=0.1)
    assert run(sigma[:0:-1]) > 2 * target


def test_ncsn_noise_in_table_3_1() -> None:
    """Steps sqrt(sigma_{i+1}^2 - sigma_i^2) eps add up to x + sigma_i eps, not to the x + sigma_i^2 eps of
    Table 3.1."""
    levels = np.array([0.0, *np.geomspace(0.01, 10, 10)])
    std = sqrt(np.diff(levels**2).sum())
    assert std == pytest.approx(levels[-1], rel=1e-12)
    assert abs(std - levels[-1] ** 2) > 1


def test_instantaneous_change_of_variables_5_1_9() -> None:
    """-div F is the total derivative of log p along z(t), as its proof in D.3.1 says, not the partial one
    (5.1.9)."""
    z, t, h = 0.7, 0.4, 1e-5  # F = z, p_t = N(0, e^{2t})
    partial = (log(normal(z, 0, exp(2 * (t + h)))) - log(normal(z, 0, exp(2 * (t - h))))) / (2 * h)
    ends = [log(normal(z * exp(d), 0, exp(2 * (t + d)))) for d in (-h, h)]
    assert (ends[1] - ends[0]) / (2 * h) == pytest.approx(-1, rel=1e-8)
    assert abs(partial + 1) > 0.1


def test_endpoints_of_table_5_2() -> None:
    """In FM time (x_0 the prior) VE has a_0 = sigma_max, a_1 = 0 and VP a_0 = 1, b_0 = 0, a_1 = 0, b_1 = 1;
    the table lists both in diffusion time."""
    vp, ve = logsnr.VPLinear(), logsnr.VE(1e-4, 50.0)
    for fm_time, a, b in ((0.0, 1, 0), (1.0, 0, 1)):  # the printed pairs are (0, 1) and (1, 0)
        t = 1 - fm_time
        assert (vp.sigma(t), vp.alpha(t)) == pytest.approx((a, b), abs=1e-2)
        assert (vp.sigma(t), vp.alpha(t)) != pytest.approx((b, a), abs=0.5)
    assert (ve.sigma(1.0), ve.sigma(0.0)) == pytest.approx((50, 0), abs=1e-3)  # a_0, a_1; printed 0, a_1


def test_unconditional_path_of_section_5_3_3() -> None:
    """mu_t + A_t x0 with A_t = sigma_t/sigma_0 is the printed flow for mu_t = mu(t) - sigma_t/sigma_0 mu(0)
    only."""
    mu0, mu, scale, x0 = 0.7, -0.2, 1.7, 1.1
    flow = mu + scale * (x0 - mu0)
    assert (mu - scale * mu0) + scale * x0 == pytest.approx(flow, rel=1e-12)
    assert abs(mu + scale * x0 - flow) > 1


def test_orientation_of_reflow_5_4_1() -> None:
    """Regressing z1 - z0 on (1 - t) z0 + t z1 transports z0 to z1; on the printed t z0 + (1 - t) z1 it does
    not."""

    def partner(z: float) -> float:
        return z + 0.8 * z**3 + 1

    def end(first: Callable[[float], float], start: float) -> float:
        def slope(t: float, x: float) -> float:
            z = brentq(lambda z: first(t) * z + (1 - first(t)) * partner(z) - x, -20, 20, xtol=1e-13)
            return partner(z) - z

        return integrate(slope, 0, 1, start)

    assert end(lambda t: 1 - t, 1.5) == pytest.approx(partner(1.5), rel=1e-7)
    assert end(lambda t: t, 1.5) > 2 * partner(1.5)


def test_small_noise_limit_of_schroedinger_bridges_thm_7_3_2() -> None:
    """2 eps SB_eps tends to W2^2; SB_eps of (7.2.9) itself tends to infinity (two centred normals)."""
    s1, s2, values = 0.8, 1.3, []
    for eps in (1e-2, 1e-4):
        cov = (-2 * eps + sqrt(4 * eps**2 + 16 * s1**2 * s2**2)) / 4
        spread = s2**2 - cov**2 / s1**2
        values.append((s1**2 + s2**2 - 2 * cov) / (2 * eps) + (log(eps / spread) - 1) / 2)
    assert 2e-4 * values[1] == pytest.approx((s1 - s2) ** 2, rel=1e-2)
    assert values[1] > 50 * values[0] > 500


def test_sign_of_the_backward_control_7_2_16() -> None:
    """On the clock of (7.2.15) the control is +g^2 grad log Psi_hat: with f = 0, Psi = 1 it takes N(0, s^2 +
    T) back to N(0, s^2), and the printed -g^2 grad log Psi_hat does not."""
    var, end = 0.3, 1.2

    def final(sign: int) -> float:
        return integrate(lambda r, v: -2 * sign * v / (var + end - r) + 1, 0, end, var + end)

    assert final(1) == pytest.approx(var, rel=1e-7)
    assert abs(final(-1) - var) > 1


def test_residual_of_tilted_densities_8_1() -> None:
    """The bracket of the residual needs -g^2/2 grad log p . grad log h: it vanishes for an exact classifier,
    w = 1."""
    x, t, c, r2 = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.6, 0.8, 1.1, 0.3))
    var = 1 + t**2  # x0 ~ N(0, 1), sigma = t, g^2 = 2t; c given x0 is N(x0, r2)
    log_p = -(x**2) / (2 * var) - torch.log(var) / 2
    spread = r2 + t**2 / var
    log_h = -((c - x / var) ** 2) / (2 * spread) - torch.log(spread) / 2
    dp = torch.autograd.grad(log_p, x, retain_graph=True)[0]
    dh, ht = torch.autograd.grad(log_h, (x, t), create_graph=True)
    ddh = torch.autograd.grad(dh, x)[0]
    printed = ht - t * dp * dh - t * (ddh + dh**2)  # Z is constant here
    assert abs((printed - t * dp * dh).item()) < 1e-14
    assert abs(printed.item()) > 0.1


def test_guiding_only_the_noise_8_4_2() -> None:
    """Correction B of (8.4.2) alone has the weight -sigma_{t-1} sigma_t and raises the loss; guiding the
    score in x0 too lowers it."""
    sch, s, t, x, y = logsnr.Trigonometric(), 1.0, 0.9, 0.5, 2.0
    a, b, c, d = sch.alpha(s), sch.sigma(s), sch.alpha(t), sch.sigma(t)
    x0, score, g = a * x, -x, -a * (a * x - y)  # data N(0, 1), loss (x0 - y)^2 / 2, G = -grad

    def loss(state: float) -> float:
        return (c * state - y) ** 2 / 2

    plain = loss(c * x0 - d * b * score)
    guided = score + 0.3 * g
    assert loss(c * x0 - d * b * guided) > plain
    assert loss(c * (x + b**2 * guided) / a - d * b * guided) < plain
    assert b**2 * (c / a - d / b) > 0


def test_likelihood_gradients_of_score_sde_and_ilvr() -> None:
    """grad log N(y; A x, s^2) is +A^T (y - A x)/s^2 (section 8.4.2 has -), and the pseudo-inverse of a wide A
    is A^T (A A^T)^-1, where A^T A is singular."""
    rng = np.random.default_rng(0)
    a, y, x = rng.normal(size=(2, 4)), rng.normal(size=2), rng.normal(size=4)
    state = torch.tensor(x, requires_grad=True)
    (-((torch.tensor(y) - torch.tensor(a) @ state) ** 2).sum() / 2).backward()
    assert state.grad is not None
    np.testing.assert_allclose(state.grad.numpy(), a.T @ (y - a @ x), rtol=1e-12)
    np.testing.assert_allclose(np.linalg.pinv(a), a.T @ np.linalg.inv(a @ a.T), rtol=1e-10)
    assert np.linalg.matrix_rank(a.T @ a) == 2


def test_integration_by_parts_c_1_4() -> None:
    """int phi'' p = +int phi p'', not minus; and int phi [d_t p + (f p)' - g^2/2 p''] is 0, not E[d
    phi]/dt."""
    x = np.linspace(-12, 12, 4001)
    p, h = np.exp(-(x**2) / 2) / sqrt(2 * pi), x[1] - x[0]
    second = (x**2 - 1) * p
    late, early = (np.exp(-(x**2) / (2 * t)) / sqrt(2 * pi * t) for t in (1 + 1e-4, 1 - 1e-4))
    dp = (late - early) / 2e-4  # d_t p of Brownian motion at t = 1
    assert (2 * p).sum() * h == pytest.approx((x**2 * second).sum() * h, rel=1e-10)  # phi = x^2
    assert (2 * p).sum() * h / 2 == pytest.approx(1, rel=1e-10)  # E[d phi]/dt for f = 0, g = 1
    assert abs((x**2 * (dp - second / 2)).sum() * h) < 1e-7


@pytest.mark.parametrize("x", [-1.0, 0.3, 2.0])
def test_noise_in_girsanovs_ratio_c_2(x: float) -> None:
    """The exponent int delta/g dw - int |delta/g|^2/2 is the log ratio if w is noise of the model f~, not of
    f."""
    f, other, g, end = 0.7, 0.2, 1.3, 2.0
    truth = log(normal(x, f * end, g**2 * end) / normal(x, other * end, g**2 * end))
    delta = (f - other) / g
    under_other, under_f = (delta * (x - drift * end) / g - delta**2 * end / 2 for drift in (other, f))
    assert under_other == pytest.approx(truth, rel=1e-12)
    assert abs(under_f - truth) > 0.1


def test_likelihood_by_reweighting_c_2_2() -> None:
    """p_phi(x0) = E over p(x_T | x0) of p_phi(x0, x_T)/p(x_T | x0); (C.2.2), with p_T and all of p, is a
    constant."""
    a, noise = 0.6, 0.64  # x_T given x0 is N(a x0, noise), data N(0, 1); the model N(0.1 + 0.5 x_T, 0.9)
    for x0 in (-0.5, 1.2):
        marginal = normal(x0, 0.1, 0.9 + 0.25)

        def weighted(u: float, x0: float = x0) -> float:
            forward = normal(u, a * x0, noise)
            return forward * (normal(u, 0, 1) * normal(x0, 0.1 + 0.5 * u, 0.9) / forward)

        printed = quad(lambda u: normal(u, 0, 1) * normal(u, 0, 1), -9, 9)[0]  # int int p_T p_phi dx0 dx_T
        assert quad(weighted, -6, 6)[0] == pytest.approx(marginal, rel=1e-6)
        assert abs(printed - marginal) > 0.02
