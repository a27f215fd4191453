"""The Principles of Diffusion Models, sections 9.1, 9.2 and 9.3.3: exponential integration and DDIM."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import logsnr

A = logsnr.analysis
DATA = A.Gaussian(0.7, 0.1225)
MIXTURE = A.GaussianMixture([-1.0, 0.8], [0.09, 0.2], [0.35, 0.65])
SCHEDULES = [
    logsnr.VPLinear(), logsnr.VPCosine(), logsnr.SubVP(), logsnr.VE(), logsnr.EDM(),
    logsnr.FlowMatching(), logsnr.Trigonometric(),
]  # fmt: skip
AFFINE = (logsnr.FlowMatching, logsnr.EDM)  # alpha and sigma affine in t
by_schedule = pytest.mark.parametrize("sch", SCHEDULES, ids=lambda s: type(s).__name__)
X = torch.linspace(-2, 2, 7, dtype=torch.float64)


def net(x: torch.Tensor, t: float) -> torch.Tensor:
    """Some smooth function of x and t: identities between solvers hold for any model."""
    return torch.sin(2 * x + t) + 0.3 * x


def levels(sch: logsnr.Schedule, t: float) -> tuple[float, float, float]:
    return float(sch.alpha(t)), float(sch.sigma(t)), float(sch.half_logsnr(t))


def times(sch: logsnr.Schedule, *lams: float) -> list[float]:
    return [float(sch.time(lam)) for lam in lams]


def step(sch: logsnr.Schedule, solver: str, s: float, t: float, prediction: str = "eps") -> torch.Tensor:
    """One step of a named solver from X, with `net` as the given head."""
    den = logsnr.Denoiser(lambda x, u: net(x, float(u[0])), sch, prediction, dtype=torch.float64)
    return logsnr.sample(den, X, solver=solver, grid=[s, t])


def integral(f: Callable[[float], torch.Tensor], a: float, b: float) -> torch.Tensor:
    nodes, weights = np.polynomial.legendre.leggauss(40)
    values = torch.stack([f(a + (b - a) * (z + 1) / 2) for z in nodes])
    return torch.tensor(weights * (b - a) / 2) @ values


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


@by_schedule
def test_exact_solution_9_1_6(sch: logsnr.Schedule) -> None:
    """The flow is E(s->t) x plus half the integral of g^2/sigma E(tau->t) eps (9.1.6), and in lam (9.4.4) and
    its data form (9.5.2), along exact trajectories."""
    s, t = times(sch, -1.0, 0.5)
    (a, b, lam_s), (c, d, lam_t) = levels(sch, s), levels(sch, t)

    def heads(u: float) -> tuple[torch.Tensor, torch.Tensor]:
        return DATA.posterior(DATA.flow(X, sch, s, u), sch.alpha(u), sch.sigma(u))

    def in_t(u: float) -> torch.Tensor:
        return sch.diffusion2(u) / (2 * sch.sigma(u)) * c / sch.alpha(u) * heads(u)[1]

    exact = DATA.flow(X, sch, s, t)
    eps_form = c / a * X - c * integral(lambda v: np.exp(-v) * heads(sch.time(v))[1], lam_s, lam_t)
    data_form = d / b * X + d * integral(lambda v: np.exp(v) * heads(sch.time(v))[0], lam_s, lam_t)
    assert gap(c / a * X + integral(in_t, s, t), exact) < 1e-10
    assert gap(eps_form, exact) < 1e-11
    assert gap(data_form, exact) < 1e-11


@by_schedule
@pytest.mark.parametrize("head", ["eps", "x0", "score", "velocity", "v"])
def test_ddim_four_forms_9_2_3(sch: logsnr.Schedule, head: str) -> None:
    """A ddim step is each of the four forms of Corollary 9.2.1 (9.2.2, 9.2.3), whatever the network's
    head."""
    s, t = times(sch, -1.0, 0.5)
    (a, b, _), (c, d, _) = levels(sch, s), levels(sch, t)
    den = logsnr.Denoiser(lambda x, u: net(x, float(u[0])), sch, head, dtype=torch.float64)
    x0, eps, score = den.x0(X, s), den.eps(X, s), den.score(X, s)
    got = logsnr.sample(den, X, solver="ddim", grid=[s, t])
    forms = [
        c / a * X - c * (b / a - d / c) * eps,
        d / b * X + a * (c / a - d / b) * x0,
        c / a * X + b**2 * (c / a - d / b) * score,
        c * x0 + d * eps,
    ]
    assert max(gap(got, form) for form in forms) < 1e-12 * max(1, float(got.abs().max()))


@by_schedule
def test_ddim_is_ab_deis_0_is_dpm_solver_1(sch: logsnr.Schedule) -> None:
    """DDIM = AB-DEIS-0 (Prop. 9.3.1) = DPM-Solver-1 (9.4.8, Prop. 9.4.2) for any eps-network."""
    s, t = times(sch, -1.0, 0.5)
    (a, _, lam_s), (c, d, lam_t) = levels(sch, s), levels(sch, t)
    c_i0 = quad(lambda u: sch.diffusion2(u) / (2 * sch.sigma(u)) * c / sch.alpha(u), s, t, epsrel=1e-12)[0]
    ddim = step(sch, "ddim", s, t)
    assert gap(step(sch, "deis-1", s, t), ddim) < 1e-12
    assert gap(step(sch, "dpm-1", s, t), ddim) < 1e-12
    assert gap(c / a * X + c_i0 * net(X, s), ddim) < 1e-10
    assert gap(c / a * X - d * np.expm1(lam_t - lam_s) * net(X, s), ddim) < 1e-12


def test_ddim_contracts_by_t_over_s_9_2_4() -> None:
    """At alpha = 1, sigma = t a ddim step is t/s x + (1 - t/s) x0, so x - x0 shrinks by t/s (9.2.4)."""
    sch, s, t = logsnr.EDM(), 3.0, 0.4
    x0 = net(X, s)
    got = step(sch, "ddim", s, t, "x0")
    assert gap(got, t / s * X + (1 - t / s) * x0) < 1e-14
    assert gap(got - x0, t / s * (X - x0)) < 1e-14


@by_schedule
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_ddim_family_keeps_the_marginals_9_2_8(sch: logsnr.Schedule, share: float) -> None:
    """For every 0 <= c <= sigma_t the kernel (9.2.9) takes p_s(x | x0) to p_t(x | x0) (9.2.5, Lemma
    9.2.2)."""
    (a, b, _), (c, d, _) = (levels(sch, u) for u in times(sch, -1.0, 0.5))
    noise = share * d
    kept = np.sqrt(d**2 - noise**2) / b
    assert (c - a * kept) + kept * a == pytest.approx(c, rel=1e-14)
    assert kept**2 * b**2 + noise**2 == pytest.approx(d**2, rel=1e-14)


@by_schedule
def test_ddpm_noise_in_the_ddim_family_9_2_10(sch: logsnr.Schedule) -> None:
    """DDPM is c = (sigma_t/sigma_s) sigma_{s|t}; the printed sigma_{t|s}^2 of (9.2.10) is negative."""
    (a, b, _), (c, d, _) = (levels(sch, u) for u in times(sch, -1.0, 0.5))
    assert d**2 - (c / a) ** 2 * b**2 < 0  # printed: sigma_t^2 - alpha_{t|s}^2 sigma_s^2
    forward = b**2 - (a / c) ** 2 * d**2
    posterior = d**2 - (a / c * d**2) ** 2 / b**2  # var(x_t | x_s, x0): conditioning of a bivariate normal
    assert (d / b) ** 2 * forward == pytest.approx(posterior, rel=1e-12)
    printed = (b / d) ** 2 * (c / a) ** 2 * forward  # the printed ratio, even with the sign repaired
    assert abs(printed - posterior) > 0.05 * posterior


def test_ddim_at_eta_1_is_the_ddpm_step_2_2_14() -> None:
    """With c = (sigma_t/sigma_s) sigma_{s|t} and alpha^2 + sigma^2 = 1 the eps weight is DDPM's (2.2.14)."""
    sch = logsnr.VPCosine()
    (a, b, _), (c, d, _) = levels(sch, 0.6), levels(sch, 0.5)
    ratio = a / c
    noise2 = (d / b) ** 2 * (b**2 - ratio**2 * d**2)
    weight = np.sqrt(d**2 - noise2) - c / a * b
    assert weight == pytest.approx(-(1 - ratio**2) / (ratio * b), rel=1e-12)


def test_markov_property_is_of_the_forward_direction() -> None:
    """Given x_t the noisier x_s does not depend on x0; given x_s the cleaner x_t does (9.2.3, footnote 2)."""
    (a, b, _), (c, d, _) = (levels(logsnr.VPLinear(), u) for u in (0.6, 0.3))
    var = 0.1225
    r2_s, r2_t = a**2 * var + b**2, c**2 * var + d**2
    cov = a / c * r2_t
    forward = np.linalg.solve([[r2_t, c * var], [c * var, var]], [cov, a * var])  # x_s on (x_t, x0)
    backward = np.linalg.solve([[r2_s, a * var], [a * var, var]], [cov, c * var])  # x_t on (x_s, x0)
    assert abs(forward[1]) < 1e-12
    assert abs(backward[1]) > 0.1


@by_schedule
def test_euler_on_v_is_ddim_only_for_affine_schedules(sch: logsnr.Schedule) -> None:
    """Euler on the velocity is DDIM exactly where alpha and sigma are affine in t, not always (Obs.
    9.2.1)."""
    s, t = times(sch, -0.5, 0.5)
    difference = gap(step(sch, "euler", s, t), step(sch, "ddim", s, t))
    assert difference < 1e-13 if isinstance(sch, AFFINE) else difference > 1e-2


@by_schedule
@pytest.mark.parametrize("head", ["eps", "x0", "score"])
def test_plain_euler_does_not_depend_on_the_head(sch: logsnr.Schedule, head: str) -> None:
    """Euler on the eps, x0 or score form (6.3.2) is Euler on v, so it too is DDIM for affine schedules, which
    Obs. 9.2.1 denies."""
    s, t = times(sch, -0.5, 0.5)
    (a, b, _), f = levels(sch, s), sch.drift(s)
    pull = f - sch.dsigma(s) / b
    den = logsnr.Denoiser(lambda x, u: net(x, float(u[0])), sch, head, dtype=torch.float64)
    slope = {
        "eps": f * X - b * pull * den.eps(X, s),
        "x0": sch.dsigma(s) / b * X + a * pull * den.x0(X, s),
        "score": f * X + b**2 * pull * den.score(X, s),
    }[head]
    euler = X + (t - s) * slope
    assert gap(euler, logsnr.sample(den, X, solver="euler", grid=[s, t])) < 1e-12
    difference = gap(euler, logsnr.sample(den, X, solver="ddim", grid=[s, t]))
    assert difference < 1e-12 if isinstance(sch, AFFINE) else difference > 1e-2


@pytest.mark.parametrize("sch", [logsnr.VPLinear(), logsnr.SubVP()], ids=lambda s: type(s).__name__)
def test_ddim_is_not_the_exponential_euler_of_9_1_7(sch: logsnr.Schedule) -> None:
    """DDIM freezes eps alone in (9.1.6); (9.1.7), which freezes f and g^2/sigma too, differs by O(h^2)."""
    s, differences = 0.6, []
    f, n = sch.drift(s), sch.diffusion2(s) / (2 * sch.sigma(s)) * net(X, s)
    for h in (0.02, 0.01, 0.005):
        exp_euler = np.exp(-f * h) * X + np.expm1(-f * h) / f * n
        differences.append(gap(exp_euler, step(sch, "ddim", s, s - h)))
    assert differences[0] > 1e-4
    assert np.diff(np.log2(differences)) == pytest.approx([-2, -2], abs=0.1)


def test_linear_distortion_of_euler_is_a_squared_over_two() -> None:
    """Euler's 1 + a is off from e^a by a relative a^2/2 (9.1.8), not by the a/2 of the text."""
    for a in (-0.1, -0.01):
        error = (np.exp(a) - (1 + a)) / np.exp(a)
        assert error == pytest.approx(a**2 / 2, rel=abs(a))
        assert error < 0.2 * abs(a / 2)


@by_schedule
def test_ddim_output_is_not_distributed_as_p_t(sch: logsnr.Schedule) -> None:
    """From x_s ~ p_s an exact denoiser's DDIM step is too narrow for p_t, where the flow is not (9.2.3)."""
    s, t = times(sch, -1.0, 0.5)
    std_s, std_t = (float(DATA.marginal(sch, u)[1]) ** 0.5 for u in (s, t))
    ends = logsnr.sample(DATA.denoiser(sch), torch.tensor([0.0, 1.0], dtype=torch.float64), solver="ddim", grid=[s, t])
    assert float(ends[1] - ends[0]) * std_s < 0.97 * std_t
    flow = DATA.flow(torch.tensor([0.0, 1.0], dtype=torch.float64), sch, s, t)
    assert float(flow[1] - flow[0]) * std_s == pytest.approx(std_t, rel=1e-12)


def test_velocity_is_plus_eps_at_alpha_1_sigma_t() -> None:
    """At alpha = 1, sigma = t the velocity is +eps; the -eps of section 9.2.2 is a sign error."""
    den = MIXTURE.denoiser(logsnr.EDM())
    assert gap(den.velocity(X, 2.0), den.eps(X, 2.0)) < 1e-14
    assert gap(den.velocity(X, 2.0), -den.eps(X, 2.0)) > 1


@by_schedule
def test_ddim_conditional_map_is_the_conditional_flow(sch: logsnr.Schedule) -> None:
    """The conditional map sigma_t/sigma_s x + (alpha_t - alpha_s sigma_t/sigma_s) x0 has the CFM velocity
    alpha' x0 + sigma' eps (Obs. 9.2.2)."""
    t, x, x0, h = times(sch, 0.3)[0], 1.3, 0.4, 1e-5
    a, b, _ = levels(sch, t)
    ends = [x * levels(sch, u)[1] / b + (levels(sch, u)[0] - a * levels(sch, u)[1] / b) * x0 for u in (t - h, t + h)]
    velocity = sch.dalpha(t) * x0 + sch.dsigma(t) * (x - a * x0) / b
    assert (ends[1] - ends[0]) / (2 * h) == pytest.approx(velocity, rel=1e-7)
