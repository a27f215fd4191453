"""The Principles of Diffusion Models, sections 9.4 to 9.6: DPM-Solver, DPM-Solver++ and Table 9.1."""

from math import exp, expm1, factorial, log

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import logsnr
from logsnr.solvers.planners.gauges import EPS, X0, Gauge
from logsnr.solvers.planners.quadrature import phi
from logsnr.solvers.planners.singlestep import ExponentialRungeKutta
from logsnr.solvers.planners.tableaux import Tableau, two_stage

A = logsnr.analysis
MIXTURE = A.GaussianMixture([-1.0, 0.8], [0.09, 0.2], [0.35, 0.65])
SCHEDULES = [
    logsnr.VPLinear(), logsnr.VPCosine(), logsnr.SubVP(), logsnr.VE(), logsnr.EDM(),
    logsnr.FlowMatching(), logsnr.Trigonometric(),
]  # fmt: skip
by_schedule = pytest.mark.parametrize("sch", SCHEDULES, ids=lambda s: type(s).__name__)
X = torch.linspace(-2, 2, 7, dtype=torch.float64)


def net(x: torch.Tensor, t: float) -> torch.Tensor:
    """Some smooth function of x and t: identities between solvers hold for any model."""
    return torch.sin(2 * x + t) + 0.3 * x


def phi2(gamma: float) -> Tableau:
    """The two-stage tableau of (9.4.11): the difference quotient of N times the exact phi_2 moment."""
    return Tableau(2, (gamma, 1), (((1,),), ((1, -1 / gamma), (0, 1 / gamma))))


def run(sch: logsnr.Schedule, solver: object, grid: object, head: str = "eps") -> torch.Tensor:
    den = logsnr.Denoiser(lambda x, u: net(x, float(u[0])), sch, head, dtype=torch.float64)
    return logsnr.sample(den, X, solver=solver, grid=grid)


def step(sch: logsnr.Schedule, tableau: Tableau, gauge: Gauge, s: float, t: float) -> torch.Tensor:
    return run(sch, ExponentialRungeKutta(tableau, gauge), [s, t], "eps" if gauge is EPS else "x0")


def levels(sch: logsnr.Schedule, t: float) -> tuple[float, float, float]:
    return float(sch.alpha(t)), float(sch.sigma(t)), float(sch.half_logsnr(t))


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def two(e: float) -> tuple[float, float]:
    """c_1 and c_2 of (9.4.14)."""
    return (expm1(e) / e, (expm1(e) - e) / e**2) if e else (1.0, 0.5)


def exp_heun(sch: logsnr.Schedule, head: str, s: float, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(9.4.14) as printed, prediction and correction, with L and N of the eps or x0 form of the PF-ODE in
    lam."""
    (a, b, lam_s), (c, d, lam_t) = levels(sch, s), levels(sch, t)
    h, e = lam_t - lam_s, log(c / a) if head == "eps" else log(d / b)
    start, end = (-b, -d) if head == "eps" else (a, c)
    c1, c2 = two(e)
    n = start * net(X, s)
    predicted = exp(e) * X + h * c1 * n
    return predicted, predicted + h * c2 * (end * net(predicted, t) - n)


@pytest.mark.parametrize("h", [0.05, 0.7, 2.5])
@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_phi_expansion_9_4_9(k: int, h: float) -> None:
    """alpha_t int e^-lam (lam - lam_s)^k / k! is sigma_t h^(k+1) phi_(k+1)(h), with the closed forms
    (9.4.9)."""
    c_k = quad(lambda u: exp(h - u) * u**k / factorial(k), 0, h, epsabs=1e-15)[0]  # times sigma_t
    assert c_k == pytest.approx(h ** (k + 1) * float(phi(k + 1, h)), rel=1e-12)
    closed = [expm1(h) / h, (exp(h) - h - 1) / h**2, (exp(h) - h**2 / 2 - h - 1) / h**3]
    if k < 3:
        assert float(phi(k + 1, h)) == pytest.approx(closed[k], rel=1e-10)


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_data_prediction_moments_need_phi_of_minus_h(k: int) -> None:
    """int e^lam (lam - lam_s)^k / k! is e^lam_t h^(k+1) phi_(k+1)(-h) (9.5.4, footnote 6); the e^lam_s
    h^(k+1) phi_(k+1)(h) of section 9.5.3 is that only for k = 0."""
    lam, h = -0.3, 0.7
    moment = quad(lambda u: exp(lam + u) * u**k / factorial(k), 0, h, epsabs=1e-15)[0]
    assert moment == pytest.approx(exp(lam + h) * h ** (k + 1) * float(phi(k + 1, -h)), rel=1e-12)
    printed = exp(lam) * h ** (k + 1) * float(phi(k + 1, h))
    assert abs(printed / moment - 1) < 1e-12 if k == 0 else abs(printed / moment - 1) > 0.2


def test_dpm_solver_3_with_exact_derivatives_9_4_10() -> None:
    """With exact derivatives of eps in lam the local error of (9.4.10) is O(h^4)."""
    sch, var, errors = logsnr.VPLinear(), 0.1225, []
    data, lam_s = A.Gaussian(0.0, var), 0.2
    s = float(sch.time(lam_s))
    a, b, _ = levels(sch, s)
    u = X / np.sqrt(a**2 * var + b**2)  # constant along a trajectory, on which eps = u (1 + q)^(-1/2)
    q = var * exp(2 * lam_s)
    eps = u * (1 + q) ** -0.5
    eps1 = -u * q * (1 + q) ** -1.5
    eps2 = u * (3 * q**2 * (1 + q) ** -2.5 - 2 * q * (1 + q) ** -1.5)
    for h in (0.1, 0.05):
        t = float(sch.time(lam_s + h))
        c, d, _ = levels(sch, t)
        taylor = expm1(h) * eps + (expm1(h) - h) * eps1 + (expm1(h) - h - h**2 / 2) * eps2
        errors.append(gap(c / a * X - d * taylor, data.flow(X, sch, s, t)))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.2)


@by_schedule
def test_algorithm_5_is_not_9_4_11(sch: logsnr.Schedule) -> None:
    """dpm-2 is Algorithm 5, whose weight is (e^h - 1)/(2 gamma) at gamma = 1/2; (9.4.11) is another
    second-order method, O(h^3) away."""
    lam_s, differences = 0.1, []
    for h in (0.4, 0.2, 0.1):
        s, t = (float(sch.time(v)) for v in (lam_s, lam_s + h))
        (a, _, _), (c, d, _) = levels(sch, s), levels(sch, t)
        mid = float(sch.time(lam_s + h / 2))
        e, f, _ = levels(sch, mid)
        u = e / a * X - f * expm1(h / 2) * net(X, s)
        algorithm_5 = c / a * X - d * expm1(h) * net(u, mid)
        printed = c / a * X - d * expm1(h) * net(X, s) - 2 * d / h * (expm1(h) - h) * (net(u, mid) - net(X, s))
        assert gap(run(sch, "dpm-2", [s, t]), algorithm_5) < 1e-12
        assert gap(step(sch, two_stage(0.5), EPS, s, t), algorithm_5) < 1e-12
        assert gap(step(sch, phi2(0.5), EPS, s, t), printed) < 1e-12
        differences.append(gap(printed, algorithm_5))
    assert differences[0] > 1e-4
    assert np.diff(np.log2(differences)) == pytest.approx([-3, -3], abs=0.5)


@pytest.mark.parametrize("sch", [logsnr.VPLinear(), logsnr.FlowMatching()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(("head", "solver"), [("eps", "dpm-2"), ("x0", "dpmpp-2s")])
def test_exponential_heun_is_not_dpm_solver_2(sch: logsnr.Schedule, head: str, solver: str) -> None:
    """(9.4.14) is O(h^3) away from DPM-Solver-2 and 2S in one step, and its prediction from DDIM (Obs.
    9.4.1)."""
    differences = []
    for h in (0.2, 0.1, 0.05):
        s, t = (float(sch.time(v)) for v in (0.1, 0.1 + h))
        predicted, corrected = exp_heun(sch, head, s, t)
        assert gap(predicted, run(sch, "ddim", [s, t], head)) > 1e-2 * h**2
        differences.append(gap(corrected, run(sch, solver, [s, t], head)))
    assert differences[0] > 1e-4
    assert np.diff(np.log2(differences)) == pytest.approx([-3, -3], abs=0.5)


@by_schedule
@pytest.mark.parametrize("gauge", [EPS, X0], ids=["eps", "x0"])
def test_exponential_heun_in_the_rescaled_variable(sch: logsnr.Schedule, gauge: Gauge) -> None:
    """(9.4.14) on x/sigma (L = 1, N = -eps) or x/alpha (L = -1, N = x0) is the phi_2 form with gamma = 1."""
    s, t = (float(sch.time(v)) for v in (0.1, 0.6))
    (a, b, lam_s), (c, d, lam_t) = levels(sch, s), levels(sch, t)
    h = lam_t - lam_s
    sign, start, end = (1, b, d) if gauge is EPS else (-1, a, c)
    c1, c2 = two(sign * h)
    z, n = X / start, -sign * net(X, s)
    predicted = exp(sign * h) * z + h * c1 * n
    corrected = predicted + h * c2 * (-sign * net(end * predicted, t) - n)
    assert gap(end * corrected, step(sch, phi2(1.0), gauge, s, t)) < 1e-12


@by_schedule
def test_heun_on_v_in_lam_is_not_dpm_solver_2(sch: logsnr.Schedule) -> None:
    """Heun on dx/dlam (9.4.13) is not DPM-Solver-2; Heun on x/alpha in sigma/alpha is its gamma = 1 (Obs.
    9.4.1)."""
    s, t = (float(sch.time(v)) for v in (0.1, 0.6))
    (a, b, lam_s), (c, d, lam_t) = levels(sch, s), levels(sch, t)

    def slope(x: torch.Tensor, u: float) -> torch.Tensor:
        dlam = -sch.diffusion2(u) / (2 * sch.sigma(u) ** 2)
        return sch.drift(u) / dlam * x - sch.sigma(u) * net(x, u)

    k = slope(X, s)
    heun = X + (lam_t - lam_s) / 2 * (k + slope(X + (lam_t - lam_s) * k, t))
    assert gap(heun, run(sch, "dpm-2", [s, t])) > 1e-3
    assert gap(heun, step(sch, two_stage(1), EPS, s, t)) > 1e-3
    z, h = X / a, d / c - b / a
    k = net(X, s)
    heun = c * (z + h / 2 * (k + net(c * (z + h * k), t)))
    assert gap(heun, step(sch, two_stage(1), EPS, s, t)) < 1e-12


@pytest.mark.parametrize(
    ("name", "order"),
    [("ddim", 1), ("deis-1", 1), ("deis-2", 2), ("deis-3", 3), ("dpm-2", 2), ("dpm-3", 3), ("dpmpp-2s", 2)],
)
def test_table_9_1_orders(name: str, order: int) -> None:
    """The orders of Table 9.1, AB-DEIS-n (deis-(n+1)) being of order n + 1, not n, and DDIM AB-DEIS-0."""
    measured = A.convergence_order(name, MIXTURE, logsnr.VPLinear(), max_nfe=400)
    assert measured.order == pytest.approx(order, abs=0.2)
    assert logsnr.solver(name).order == order


def test_algorithms_6_and_7_evaluate_once_too_often() -> None:
    """Algorithms 6 and 7 give dpmpp-2s and the published dpmpp-2m, and their last evaluation is never
    used."""
    sch, calls = logsnr.VPLinear(), []
    grid = np.asarray(sch.time(np.array([-1.5, -0.9, 0.0, 0.4, 1.5])))
    at = [levels(sch, t) for t in grid]

    def model(x: torch.Tensor, t: float) -> torch.Tensor:
        calls.append(t)
        return net(x, t)

    x, cached = X, model(X, grid[0])
    for (_, b, lam_s), (c, d, lam_t), t in zip(at, at[1:], grid[1:], strict=False):
        h, mid = lam_t - lam_s, float(sch.time((lam_s + lam_t) / 2))
        u = sch.sigma(mid) / b * x + sch.alpha(mid) * (1 - exp(-h / 2)) * cached
        x = d / b * x - c * expm1(-h) * model(u, mid)
        cached = model(x, t)
    program = logsnr.solver("dpmpp-2s").program(sch, grid)
    assert gap(x, run(sch, "dpmpp-2s", grid, "x0")) < 1e-12
    assert len(calls) == len(program) + 1 == 9

    calls.clear()
    x, data, last = X, [model(X, grid[0])], 0.0
    for (_, b, lam_s), (c, d, lam_t), t in zip(at, at[1:], grid[1:], strict=False):
        h = lam_t - lam_s
        r = h / last if last else 0.0
        x = d / b * x + c * -expm1(-h) * ((1 + r / 2) * data[-1] - (r / 2 * data[-2] if r else 0.0))
        data, last = [*data, model(x, t)], h
    solver = logsnr.solver("dpmpp-2m", compat=True)
    assert gap(x, run(sch, solver, grid, "x0")) < 1e-12
    assert len(calls) == len(solver.program(sch, grid)) + 1 == 5


def test_lambda_of_t_examples_9_4_1() -> None:
    """lam' is -1/(t (1 - t)) for (1 - t, t) and -1/t for (1, t), where a uniform lam grid is geometric in
    t."""
    fm, edm = logsnr.FlowMatching(), logsnr.EDM()
    for t in (0.1, 0.5, 0.9):
        assert fm.diffusion2(t) / (-2 * t**2) == pytest.approx(-1 / (t * (1 - t)), rel=1e-14)
        assert edm.diffusion2(t) / (-2 * t**2) == pytest.approx(-1 / t, rel=1e-14)
    ratios = np.diff(np.log(logsnr.grid(edm, 9)))
    assert ratios == pytest.approx(np.full(9, ratios[0]), rel=1e-12)
