"""Named solvers against their published loops, written out here by hand."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from loops import by_schedule, inside, levels
from scipy.integrate import quad

import logsnr
from logsnr.analysis.explain import affine_map
from logsnr.solvers import Adams, ExponentialRungeKutta
from logsnr.solvers.planners.gauges import EPS, VELOCITY, X0
from logsnr.solvers.planners.tableaux import two_stage

X = torch.linspace(-2, 2, 7, dtype=torch.float64)


def net(x: torch.Tensor, t: float) -> torch.Tensor:
    """Some smooth function: the equalities must hold for any model."""
    return torch.sin(2 * x + t) + 0.3 * x


def run(sch: logsnr.Schedule, solver: object, grid: np.ndarray, prediction: str, **options: object) -> torch.Tensor:
    den = logsnr.Denoiser(lambda x, t: net(x, float(t[0])), sch, prediction, dtype=torch.float64)
    return logsnr.sample(den, X, solver=solver, grid=grid, **options)


def close(a: torch.Tensor, b: torch.Tensor, tol: float = 1e-12) -> None:
    assert float((a - b).abs().max()) < tol * float(b.abs().max())


@by_schedule
def test_first_order_solvers_are_ddim(sch: logsnr.Schedule) -> None:
    """ddim = dpm-1 = dpmpp-1 = deis-1 = deis-rho-1 = alpha_t x0 + sigma_t eps (book 9.2.3, Prop. 9.4.2)."""
    grid = inside(sch)
    x = X
    for s, t in pairwise(grid):
        (a, b, _), (c, d, _) = levels(sch, s), levels(sch, t)
        eps = net(x, s)
        x = c * (x - b * eps) / a + d * eps
    for name in ("ddim", "dpm-1", "dpmpp-1", "deis-1", "deis-rho-1"):
        close(run(sch, name, grid, "eps"), x)


@by_schedule
def test_2m_is_exponential_adams_bashforth_2(sch: logsnr.Schedule) -> None:
    """dpmpp-2m is the book's D = a_0 + beta(h) a_1 (9.5.4) after a DDIM step."""
    grid = inside(sch)
    x, previous = X, None
    for n, (s, t) in enumerate(pairwise(grid)):
        (_, b, lam_s), (c, d, lam_t) = levels(sch, s), levels(sch, t)
        h, x0 = lam_t - lam_s, net(x, s)
        beta = (h - 1 + np.exp(-h)) / (1 - np.exp(-h))
        slope = 0.0 if previous is None else (x0 - previous) / (lam_s - levels(sch, grid[n - 1])[2])
        x = d / b * x + c * (1 - np.exp(-h)) * (x0 + beta * slope)
        previous = x0
    close(run(sch, "dpmpp-2m", grid, "x0"), x)


@by_schedule
@pytest.mark.parametrize("order", [2, 3, 4])
def test_deis_weights_are_the_book_integrals(sch: logsnr.Schedule, order: int) -> None:
    """deis-p has C_ij = 1/2 int g^2/sigma E(tau -> t) l_j dtau (book 9.3.2), by adaptive quadrature."""
    grid = inside(sch)
    program = logsnr.solver(f"deis-{order}").program(sch, grid)
    n = order + 1
    t = grid[n + 1]
    nodes = [grid[n - j] for j in range(order)]
    got = np.array([program.calls[n].matrix[0, 1], *program.calls[n].matrix[0, 3:]])
    for j in range(order):

        def integrand(tau: float, j: int = j) -> float:
            basis = np.prod([(tau - m) / (nodes[j] - m) for i, m in enumerate(nodes) if i != j])
            return float(sch.diffusion2(tau) / sch.sigma(tau) / 2 * sch.alpha(t) / sch.alpha(tau) * basis)

        want = quad(integrand, grid[n], t, epsabs=1e-13, epsrel=1e-12)[0]
        assert got[j] == pytest.approx(want, rel=2e-10, abs=1e-13)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms_is_deis_rho(order: int) -> None:
    """k-diffusion's LMS (integrals of Lagrange polynomials in sigma) is deis-rho on alpha = 1."""
    sch = logsnr.EDM()
    grid = inside(sch, 7)
    x, slopes = X, []
    for n in range(len(grid) - 1):
        slopes = [net(x, grid[n]), *slopes][:order]
        nodes = grid[n::-1][: len(slopes)]
        for j, d in enumerate(slopes):
            others = np.delete(nodes, j)
            basis = np.poly1d(others, r=True) / np.prod(nodes[j] - others)
            primitive = basis.integ()
            x = x + (primitive(grid[n + 1]) - primitive(grid[n])) * d
    close(run(sch, f"deis-rho-{order}", grid, "eps"), x, 1e-11)


@by_schedule
def test_dpm_solver_2_and_2s(sch: logsnr.Schedule) -> None:
    """dpm-2 is the book's Algorithm 5 and dpmpp-2s its Algorithm 6."""
    grid = inside(sch)
    x, y = X, X
    for s, t in pairwise(grid):
        (a, b, lam_s), (c, d, lam_t) = levels(sch, s), levels(sch, t)
        h = lam_t - lam_s
        mid = float(sch.time(lam_s + h / 2))
        e, f, _ = levels(sch, mid)
        u = e / a * x - f * (np.exp(h / 2) - 1) * net(x, s)
        x = c / a * x - d * (np.exp(h) - 1) * net(u, mid)
        u = f / b * y + e * (1 - np.exp(-h / 2)) * net(y, s)
        y = d / b * y - c * (np.exp(-h) - 1) * net(u, mid)
    close(run(sch, "dpm-2", grid, "eps"), x)
    close(run(sch, "dpmpp-2s", grid, "x0"), y)


@by_schedule
def test_dpm_solver_3(sch: logsnr.Schedule) -> None:
    """dpm-3 is Lu et al. 2022, Algorithm 2 with r1 = 1/3, r2 = 2/3."""
    grid, r1, r2 = inside(sch), 1 / 3, 2 / 3
    x = X
    for s, t in pairwise(grid):
        (a, _, lam_s), (c, d, lam_t) = levels(sch, s), levels(sch, t)
        h = lam_t - lam_s
        s1, s2 = float(sch.time(lam_s + r1 * h)), float(sch.time(lam_s + r2 * h))
        (a1, b1, _), (a2, b2, _) = levels(sch, s1), levels(sch, s2)
        eps = net(x, s)
        u1 = a1 / a * x - b1 * (np.exp(r1 * h) - 1) * eps
        d1 = net(u1, s1) - eps
        u2 = a2 / a * x - b2 * (np.exp(r2 * h) - 1) * eps - b2 * r2 / r1 * ((np.exp(r2 * h) - 1) / (r2 * h) - 1) * d1
        d2 = net(u2, s2) - eps
        x = c / a * x - d * (np.exp(h) - 1) * eps - d / r2 * ((np.exp(h) - 1) / h - 1) * d2
    close(run(sch, "dpm-3", grid, "eps"), x, 1e-11)


@by_schedule
def test_edm_heun_is_dpm_solver_2_with_gamma_1(sch: logsnr.Schedule) -> None:
    """Heun on d(x/alpha)/d(sigma/alpha) = eps (EDM Algorithm 1) is the two-stage family at gamma = 1."""
    grid = inside(sch)
    x = X
    for s, t in pairwise(grid):
        (a, b, _), (c, d, _) = levels(sch, s), levels(sch, t)
        z, step = x / a, d / c - b / a
        slope = net(x, s)
        slope = (slope + net((z + step * slope) * c, t)) / 2
        x = (z + step * slope) * c
    close(run(sch, ExponentialRungeKutta(two_stage(1), EPS), grid, "eps"), x)
    if isinstance(sch, logsnr.EDM):
        close(run(sch, "heun", grid, "eps"), x)


@by_schedule
@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("euler", lambda f, x, s, h: x + h * f(x, s)),
        ("heun", lambda f, x, s, h: x + h / 2 * (f(x, s) + f(x + h * f(x, s), s + h))),
        ("rk4", lambda f, x, s, h: rk4(f, x, s, h)),
    ],
)
def test_classical_solvers_step_dx_dt(sch: logsnr.Schedule, name: str, step: Callable) -> None:
    """euler, heun and rk4 are the textbook methods on dx/dt = velocity(x, t)."""
    grid = inside(sch)
    x = X
    for s, t in pairwise(grid):
        x = step(net, x, s, t - s)
    close(run(sch, name, grid, "velocity"), x)


def rk4(f: Callable, x: torch.Tensor, s: float, h: float) -> torch.Tensor:
    k1 = f(x, s)
    k2 = f(x + h / 2 * k1, s + h / 2)
    k3 = f(x + h / 2 * k2, s + h / 2)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + f(x + h * k3, s + h))


def test_any_gauge_and_variable_gives_a_method() -> None:
    """Adams-Bashforth 2 on dx/dt, a planner setting without a name, has the textbook weights 3/2 and -1/2."""
    sch = logsnr.FlowMatching()
    grid = np.linspace(0.9, 0.1, 5)
    program = Adams(VELOCITY, 2, "t").plan(sch, grid)
    newest, older = program.calls[2].matrix[0, :2], program.calls[2].matrix[0, 3]
    np.testing.assert_allclose(newest, -0.2 * 1.5 * np.array([-1, 1]), rtol=1e-13)
    assert older == pytest.approx(0.2 * 0.5, rel=1e-13)
    rho = Adams(X0, 3, "rho").plan(sch, grid)
    assert np.isfinite(rho.calls[-1].matrix).all()


@by_schedule
def test_solvers_say_what_they_equal(sch: logsnr.Schedule) -> None:
    """Every name in ``equals`` makes the same of any answers of a model, and of any noises, at the same times."""
    grid = inside(sch)
    for name in logsnr.solver_names():
        for other in logsnr.solver(name).equals:
            mine, theirs = (affine_map(logsnr.solver(n).program(sch, grid), sch) for n in (name, other))
            np.testing.assert_array_equal(mine[0], theirs[0])
            np.testing.assert_allclose(mine[1], theirs[1], rtol=1e-12, atol=1e-12 * np.abs(mine[1]).max())


@by_schedule
def test_compat_2m_is_the_published_loop(sch: logsnr.Schedule) -> None:
    """solver("dpmpp-2m", compat=True) is the book's Algorithm 7, as diffusers and k-diffusion run it."""
    grid = inside(sch)
    x, previous, h_last = X, None, 0.0
    for s, t in pairwise(grid):
        (_, b, lam_s), (c, d, lam_t) = levels(sch, s), levels(sch, t)
        h, x0 = lam_t - lam_s, net(x, s)
        r = 0.0 if previous is None else h / h_last
        data = x0 if previous is None else (1 + r / 2) * x0 - r / 2 * previous
        x = d / b * x - c * (np.exp(-h) - 1) * data
        previous, h_last = x0, h
    close(run(sch, logsnr.solver("dpmpp-2m", compat=True), grid, "x0"), x)


@by_schedule
@pytest.mark.parametrize("form", [True, "taylor"])
def test_compat_3m_is_the_shipped_loop(sch: logsnr.Schedule, form: bool | str) -> None:
    """solver("dpmpp-3m", compat=True) is the third-order multistep update of DPM-Solver++'s repository, and of
    diffusers."""
    grid = inside(sch)
    x, values, lams = X, [], []
    for n, (s, t) in enumerate(pairwise(grid)):
        (_, b, lam_s), (c, d, lam_t) = levels(sch, s), levels(sch, t)
        values, lams, h = [net(x, s), *values][:3], [lam_s, *lams][:3], lam_t - lam_s
        phi1, x_next = np.expm1(-h), d / b * x
        x_next = x_next - c * phi1 * values[0]
        if n == 1:  # their second step is 2M, with exact moments for "taylor"
            weight = phi1 / h + 1 if form == "taylor" else -phi1 / 2
            x_next = x_next + c * weight * (values[0] - values[1]) * h / (lams[0] - lams[1])
        if n > 1:
            r0, r1 = (lams[0] - lams[1]) / h, (lams[1] - lams[2]) / h
            d10, d11 = (values[0] - values[1]) / r0, (values[1] - values[2]) / r1
            d1, d2 = d10 + r0 / (r0 + r1) * (d10 - d11), (d10 - d11) / (r0 + r1)
            x_next = x_next + c * (phi1 / h + 1) * d1 - c * ((phi1 + h) / h**2 - 0.5) * d2
        x = x_next
    close(run(sch, logsnr.solver("dpmpp-3m", compat=form), grid, "x0"), x)


def test_compat_is_refused_where_there_is_none() -> None:
    """compat names the solvers that have one."""
    with pytest.raises(ValueError, match="compat is for dpmpp-2m, dpmpp-3m, "):
        logsnr.solver("ddim", compat=True)
    with pytest.raises(ValueError, match="dpmpp-2m is a Solver already"):
        logsnr.solver(logsnr.solver("dpmpp-2m"), compat=True)


def test_compat_is_an_option_of_a_run() -> None:
    """sample(..., compat=True) runs the compat solver, and refuses it where there is none."""
    sch = logsnr.VPLinear()
    den, x = logsnr.Denoiser(lambda x, t: torch.tanh(x), sch, "x0"), torch.linspace(-1, 1, 6).reshape(2, 3)
    shipped = logsnr.sample(den, x, solver="dpmpp-3m", steps=6, compat=True)
    assert torch.equal(shipped, logsnr.sample(den, x, solver=logsnr.solver("dpmpp-3m", compat=True), steps=6))
    assert not torch.equal(shipped, logsnr.sample(den, x, solver="dpmpp-3m", steps=6))
    with pytest.raises(ValueError, match="compat is for dpmpp-2m, dpmpp-3m, "):
        logsnr.sample(den, x, solver="ddim", steps=6, compat=True)
