"""The Principles of Diffusion Models, chapter 6: heads, PF-ODEs, schedules and losses are one."""

from math import exp

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq

import logsnr

A = logsnr.analysis
MIXTURE = A.GaussianMixture([-1.0, 0.8], [0.09, 0.2], [0.35, 0.65])
SCHEDULES = [
    logsnr.VPLinear(), logsnr.VPCosine(), logsnr.SubVP(), logsnr.VE(), logsnr.EDM(),
    logsnr.FlowMatching(), logsnr.Trigonometric(),
]  # fmt: skip
by_schedule = pytest.mark.parametrize("sch", SCHEDULES, ids=lambda s: type(s).__name__)
X = torch.linspace(-2, 2, 7, dtype=torch.float64)


def close(a: torch.Tensor, b: torch.Tensor, tol: float = 1e-11) -> None:
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


def derivatives(sch: logsnr.Schedule, t: float) -> tuple[float, float, float, float]:
    return tuple(float(f(t)) for f in (sch.alpha, sch.sigma, sch.dalpha, sch.dsigma))  # type: ignore[return-value]


@by_schedule
def test_heads_prop_6_3_1(sch: logsnr.Schedule) -> None:
    """eps = -sigma s, x0 = (x + sigma^2 s)/alpha, v = alpha' x0 + sigma' eps = f x - g^2/2 s (6.3.1), and
    back (6.4.3)."""
    t = float(sch.time(0.2))
    a, b, da, db = derivatives(sch, t)
    den = MIXTURE.denoiser(sch)
    s, v = den.score(X, t), den.velocity(X, t)
    close(den.eps(X, t), -b * s)
    close(den.x0(X, t), (X + b**2 * s) / a)
    close(v, da * den.x0(X, t) + db * den.eps(X, t))
    close(v, sch.drift(t) * X - sch.diffusion2(t) / 2 * s)
    close(s, (a * v - da * X) / (b * (da * b - a * db)))


@by_schedule
def test_oracle_heads_are_conditional_means_6_2_1(sch: logsnr.Schedule) -> None:
    """The heads of an exact denoiser are E[eps | x] and E[x0 | x] by quadrature over x0 (6.2.1, 6.2.2)."""
    t, x = float(sch.time(0.2)), 0.3
    a, b, _, _ = derivatives(sch, t)
    u = np.linspace(-6, 6, 4001)
    prior = sum(
        float(w) * np.exp(-((u - float(m)) ** 2) / (2 * float(c))) / np.sqrt(float(c))
        for w, m, c in zip(MIXTURE.weights, MIXTURE.means, MIXTURE.covs, strict=True)
    )
    joint = prior * np.exp(-((x - a * u) ** 2) / (2 * b**2))
    x0 = float((joint * u).sum() / joint.sum())
    den, state = MIXTURE.denoiser(sch), torch.tensor([x], dtype=torch.float64)
    assert den.x0(state, t).item() == pytest.approx(x0, rel=1e-9)
    assert den.eps(state, t).item() == pytest.approx((x - a * x0) / b, rel=1e-9)


@by_schedule
def test_five_forms_of_the_pf_ode_prop_6_3_2(sch: logsnr.Schedule) -> None:
    """The eps, x0, score, pair and velocity forms of the PF-ODE (6.3.2) are one vector field."""
    t = float(sch.time(0.2))
    a, b, da, db = derivatives(sch, t)
    den, pull = MIXTURE.denoiser(sch), da / a - db / b
    v = den.velocity(X, t)
    close(v, da / a * X - b * pull * den.eps(X, t))
    close(v, db / b * X + a * pull * den.x0(X, t))
    close(v, da / a * X + b**2 * pull * den.score(X, t))
    close(v, da * den.x0(X, t) + db * den.eps(X, t))


@by_schedule
@pytest.mark.parametrize("target", [logsnr.FlowMatching(), logsnr.Trigonometric()], ids=["6.3.3", "6.3.5"])
def test_affine_flows_are_equivalent(sch: logsnr.Schedule, target: logsnr.Schedule) -> None:
    """x_t = c x^FM_tau with c = alpha + sigma, tau = sigma/c, or R x^Trig with R^2 = alpha^2 + sigma^2:
    velocities c' x + c tau' v (Prop. 6.3.3), and solver and exact flow alike."""
    s, t, h = float(sch.time(-1.0)), float(sch.time(0.5)), 1e-6

    def scale(u: float) -> float:
        a, b, _, _ = derivatives(sch, u)
        return a + b if isinstance(target, logsnr.FlowMatching) else float(np.hypot(a, b))

    def tau(u: float) -> float:
        return float(target.time(sch.half_logsnr(u)))

    assert sch.alpha(t) == pytest.approx(scale(t) * target.alpha(tau(t)), rel=1e-12)
    assert sch.sigma(t) == pytest.approx(scale(t) * target.sigma(tau(t)), rel=1e-12)
    dc, dtau = ((f(t + h) - f(t - h)) / (2 * h) for f in (scale, tau))
    one, other = MIXTURE.denoiser(sch), MIXTURE.denoiser(target)
    close(one.velocity(X, t), dc * X / scale(t) + scale(t) * dtau * other.velocity(X / scale(t), tau(t)), 1e-6)
    close(
        MIXTURE.reference(X, sch, s, t),
        scale(t) * MIXTURE.reference(X / scale(s), target, tau(s), tau(t)),
        1e-10,
    )
    grid = np.asarray(sch.time(np.array([-1.0, -0.4, 0.3, 0.5])))
    got = logsnr.sample(one, X, solver="dpmpp-2m", grid=grid)
    moved = logsnr.sample(other, X / scale(grid[0]), solver="dpmpp-2m", grid=[tau(u) for u in grid])
    close(got, scale(grid[-1]) * moved, 1e-10)


@by_schedule
def test_loss_weights_6_3_6(sch: logsnr.Schedule) -> None:
    """Errors of one network's heads differ by 1/sigma, alpha/sigma^2 and alpha/(sigma (alpha' sigma - alpha
    sigma'))."""
    t = float(sch.time(0.2))
    a, b, da, db = derivatives(sch, t)
    one, other = MIXTURE.denoiser(sch), A.Gaussian(0.7, 0.1225).denoiser(sch)
    score, eps, x0, v = (
        (getattr(one, head)(X, t) - getattr(other, head)(X, t)).square() for head in ("score", "eps", "x0", "velocity")
    )
    close(score, eps / b**2, 1e-9)
    close(score, a**2 / b**4 * x0, 1e-9)
    close(score, (a / (b * (da * b - a * db))) ** 2 * v, 1e-9)


def test_target_size_of_the_linear_schedule_6_3_7() -> None:
    """E|v|^2 = alpha'^2 E|x0|^2 + sigma'^2 does not depend on t for (1 - t, t) (6.3.7), as it does for VP."""
    second = 0.1225 + 0.7**2
    for sch, constant in ((logsnr.FlowMatching(), True), (logsnr.VPLinear(), False)):
        sizes = np.array([da**2 * second + db**2 for _, _, da, db in (derivatives(sch, t) for t in (0.2, 0.5, 0.8))])
        assert (np.ptp(sizes) < 1e-14) == constant


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, 2.0])
@by_schedule
def test_reverse_sde_family_prop_6_4_1(sch: logsnr.Schedule, share: float) -> None:
    """dx = (v - gamma^2/2 s) dt + gamma dw, run down in t, keeps the variance at that of p_t for any gamma
    (6.4.2)."""
    data, t, h = A.Gaussian(0.0, 0.3), float(sch.time(0.2)), 1e-5
    den, pair = data.denoiser(sch), torch.tensor([0.0, 1.0], dtype=torch.float64)
    early, now, late = (float(data.marginal(sch, u)[1]) for u in (t - h, t, t + h))
    gamma2 = share**2 * sch.diffusion2(t)
    rate = float(torch.diff(den.velocity(pair, t) - gamma2 / 2 * den.score(pair, t)))
    assert 2 * rate * now - gamma2 == pytest.approx((late - early) / (2 * h), rel=1e-5)  # - as dt < 0


def test_fokker_planck_in_the_proof_of_prop_6_4_1() -> None:
    """In clock t it is d_t p = -div([v - gamma^2/2 s] p) - gamma^2/2 Lap p; the + of the proof is wrong in t
    and in T - t."""
    x, var, dvar, gamma2 = 0.2, 0.5, 0.3, 1.1
    p = exp(-(x**2) / (2 * var))
    laplacian = (x**2 / var**2 - 1 / var) * p
    div_vp = dvar / (2 * var) * (1 - x**2 / var) * p  # v = var'/(2 var) x
    truth = dvar / 2 * laplacian  # d_t N(0, var)
    drift = -(div_vp - gamma2 / 2 * laplacian)
    assert drift - gamma2 / 2 * laplacian == pytest.approx(truth, rel=1e-12)
    printed = drift + gamma2 / 2 * laplacian
    assert abs(printed - truth) > 0.1
    assert abs(printed + truth) > 0.1


@by_schedule
def test_conditional_score_target_of_table_6_1(sch: logsnr.Schedule) -> None:
    """The conditional score is -eps/sigma, so B_t = -1/sigma_t in Table 6.1, not -1/sigma_t^2."""
    t, x0, eps = float(sch.time(0.2)), 0.4, -0.8
    a, b, _, _ = derivatives(sch, t)
    x = torch.tensor(a * x0 + b * eps, dtype=torch.float64, requires_grad=True)
    mean, std = torch.tensor([a * x0, b], dtype=torch.float64)
    torch.distributions.Normal(mean, std).log_prob(x).backward()
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(-eps / b, rel=1e-12)
    assert abs(x.grad.item() - -eps / b**2) > 1e-2


@by_schedule
def test_velocity_of_figure_6_1(sch: logsnr.Schedule) -> None:
    """v is alpha' x0 + sigma' eps; the alpha x0 + sigma eps in the caption of Figure 6.1 is x itself."""
    t = float(sch.time(0.2))
    a, b, _, _ = derivatives(sch, t)
    den = MIXTURE.denoiser(sch)
    close(a * den.x0(X, t) + b * den.eps(X, t), X)
    assert float((den.velocity(X, t) - X).abs().max()) > 0.1


def test_marginally_optimal_schedule_of_6_3_4() -> None:
    """The least energy int rho'^2 kappa(rho) has rho' proportional to kappa^(-1/2): (int sqrt kappa)^2; the
    1/kappa of the book gives int kappa, the energy of the linear schedule."""
    m, var = 2.0, 0.25

    def kappa(r: float) -> float:  # E|E[eps - x0 | x]|^2 for x0 ~ N(m, var) on x = (1 - r) x0 + r eps
        return (r - (1 - r) * var) ** 2 / (r**2 + (1 - r) ** 2 * var) + m**2

    def energy(power: float) -> float:
        total = quad(lambda r: kappa(r) ** power, 0, 1)[0]  # rho' = total kappa^-power
        return quad(lambda r: kappa(r) * total * kappa(r) ** -power, 0, 1)[0]

    linear, right, printed = energy(0.0), energy(0.5), energy(1.0)
    assert printed == pytest.approx(linear, rel=1e-9)
    assert right == pytest.approx(quad(lambda r: kappa(r) ** 0.5, 0, 1)[0] ** 2, rel=1e-9)
    assert right < linear - 1e-3
    assert right < min(energy(p) for p in (0.4, 0.6))
    half = brentq(
        lambda r: quad(lambda q: kappa(q) ** 0.5, 0, r)[0] - quad(lambda q: kappa(q) ** 0.5, 0, 1)[0] / 2,
        0,
        1,
    )
    assert half != pytest.approx(0.5, abs=1e-3)  # so the optimum is not the linear schedule
