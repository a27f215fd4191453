"""Solvers by other names against the loops of their papers, written out here by hand; see also test_catalogue.py."""

from itertools import pairwise

import numpy as np
import pytest
from loops import X, by_schedule, eps_of, inside, levels, net, same
from scipy.integrate import quad

import logsnr
from logsnr.solvers import Adams


@by_schedule
@pytest.mark.parametrize("order", [2, 3, 4])
def test_dpm_m_is_eps_as_a_polynomial_in_lam(sch: logsnr.Schedule, order: int) -> None:
    """dpm-pm: x_t / alpha_t = x_s / alpha_s - int e^-lam P(lam) dlam (Zhang and Chen 2023, eq. 14, in log rho), by
    adaptive quadrature."""

    def loop(grid: list[float]) -> np.ndarray:
        lams = [levels(sch, t)[2] for t in grid]
        x, values = X, []
        for n, (s, t) in enumerate(pairwise(grid)):
            values = [eps_of(x, s, sch), *values][:order]
            nodes = lams[n::-1][: len(values)]
            alpha = levels(sch, t)[0]
            x = alpha / levels(sch, s)[0] * x
            for j, value in enumerate(values):

                def integrand(lam: float, j: int = j, nodes: list[float] = nodes) -> float:
                    others = [u for i, u in enumerate(nodes) if i != j]
                    return float(np.exp(-lam) * np.prod([(lam - u) / (nodes[j] - u) for u in others]))

                x = x - alpha * quad(integrand, lams[n], lams[n + 1], epsabs=1e-14, epsrel=1e-13)[0] * value
        return x

    same(f"dpm-{order}m", sch, loop, 1e-10)


AB = {1: [1.0], 2: [1.5, -0.5], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}


def ddim(x: np.ndarray, eps: np.ndarray, s: float, t: float, sch: logsnr.Schedule) -> np.ndarray:
    (a, b, _), (c, d, _) = levels(sch, s), levels(sch, t)
    return c * (x - b * eps) / a + d * eps


@by_schedule
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ipndm(sch: logsnr.Schedule, order: int) -> None:
    """ipndm-p is DDIM with the classical Adams-Bashforth combination of the last eps, whatever the steps."""

    def loop(grid: list[float]) -> np.ndarray:
        x, values = X, []
        for s, t in pairwise(grid):
            values = [eps_of(x, s, sch), *values][:order]
            x = ddim(x, sum(w * e for w, e in zip(AB[len(values)], values, strict=True)), s, t, sch)
        return x

    same(f"ipndm-{order}", sch, loop)


@by_schedule
def test_pndm(sch: logsnr.Schedule) -> None:
    """pndm begins with three pseudo Runge-Kutta steps with midpoints in t (Liu et al. 2022, Algorithm 1)."""

    def loop(grid: list[float]) -> np.ndarray:
        x, values = X, []
        for n, (s, t) in enumerate(pairwise(grid)):
            e1, mid = eps_of(x, s, sch), (s + t) / 2
            values = [e1, *values][:4]
            if n < 3:
                e2 = eps_of(ddim(x, e1, s, mid, sch), mid, sch)
                e3 = eps_of(ddim(x, e2, s, mid, sch), mid, sch)
                e4 = eps_of(ddim(x, e3, s, t, sch), t, sch)
                x = ddim(x, (e1 + 2 * e2 + 2 * e3 + e4) / 6, s, t, sch)
            else:
                x = ddim(x, sum(w * e for w, e in zip(AB[4], values, strict=True)), s, t, sch)
        return x

    same("pndm", sch, loop)


@by_schedule
@pytest.mark.parametrize("gamma", [2.0, 1.4])
def test_gradient_estimation(sch: logsnr.Schedule, gamma: float) -> None:
    """DDIM with gamma eps_n + (1 - gamma) eps_(n-1) (Permenter and Yuan 2024, Algorithm 2)."""

    def loop(grid: list[float]) -> np.ndarray:
        x, last = X, None
        for s, t in pairwise(grid):
            eps = eps_of(x, s, sch)
            x = ddim(x, eps if last is None else gamma * eps + (1 - gamma) * last, s, t, sch)
            last = eps
        return x

    same(logsnr.solver("gradient-estimation", gamma=gamma), sch, loop)


def unipc_update(
    form: str, x: np.ndarray, lams: list[float], values: list[np.ndarray], ends: tuple[float, float, float], new: object
) -> np.ndarray:
    """One update of UniPC (Zhao et al. 2023, Algorithms 5 to 8 and Appendix F), data prediction: UniP, or UniC with the
    value ``new`` at the end of the step. lams, values: of the start and before it, newest first, and of the end.

    r_m = (lam_m - lam_s) / h and D_m = m_m - m_0 give sum_m (a_m / r_m) D_m B(h), where the a_m solve
    sum_m r_m^(k-1) a_m B(h) = k! h^k-moments; a = 1/2 where there is one.
    """
    ratio, alpha, h = ends
    z = -h
    b_h = {"bh1": z, "bh2": np.expm1(z)}[form]
    at = [(lam - lams[0]) / h for lam in lams[1:]] + [1.0] * (new is not None)
    differences = [m - values[0] for m in values[1:]] + ([new - values[0]] if new is not None else [])  # type: ignore[operator]
    phis, phi = [], np.expm1(z) / z
    for k in range(1, len(at) + 1):
        phi = (phi - 1 / np.prod(np.arange(1.0, k + 1))) / z  # phi_(k+1)
        phis.append(phi * np.prod(np.arange(1.0, k + 1)))
    if len(at) < 2:
        weights = np.array([0.5 * b_h] * len(at))
    else:
        powers = np.array(at) ** np.arange(len(at))[:, None]
        weights = np.linalg.solve(powers, z * np.array(phis))
    extra = sum((w * d / r for w, d, r in zip(weights, differences, at, strict=True)), np.zeros_like(x))
    return ratio * x - alpha * np.expm1(z) * values[0] - alpha * extra


@by_schedule
@pytest.mark.parametrize("form", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_as_published(sch: logsnr.Schedule, form: str, order: int) -> None:
    """unipc-p with compat="bh1" and "bh2": the predictor, then the corrector with the model's answer there."""

    def loop(grid: list[float]) -> np.ndarray:
        x, values, lams, predicted, ends = X, [], [], X, (1.0, 1.0, 0.0)
        for n, (s, t) in enumerate(pairwise(grid)):
            answer = net(predicted, s)
            if n:
                x = unipc_update(form, x, lams, values, ends, answer)
            values, lams = [answer, *values][:order], [levels(sch, s)[2], *lams][:order]
            (_, b, _), (c, d, lam) = levels(sch, s), levels(sch, t)
            ends = d / b, c, lam - lams[0]
            predicted = unipc_update(form, x, lams, values, ends, None)
        return predicted

    same(logsnr.solver(f"unipc-{order}", compat=form), sch, loop, 1e-10)


def test_unipc_forms_differ_only_where_two_values_meet() -> None:
    """From order 3 on all but the first steps are the exact integrals, whatever B(h)."""
    sch = logsnr.VPLinear()
    exact, bh1, bh2 = (logsnr.solver("unipc-3", compat=c).program(sch, inside(sch, 8)) for c in (False, "bh1", "bh2"))
    for n in range(8):
        equal = [np.allclose(exact.calls[n].matrix, other.calls[n].matrix, rtol=1e-11) for other in (bh1, bh2)]
        assert equal == [n in (0, 3, 4, 5, 6, 7)] * 2


@by_schedule
@pytest.mark.parametrize("order", [2, 3])
def test_flow_m_is_adams_on_the_straight_path(sch: logsnr.Schedule, order: int) -> None:
    """flow-pm: z = x / (alpha + sigma), dz/du = eps - x0 at u = sigma / (alpha + sigma)."""

    def loop(grid: list[float]) -> np.ndarray:
        sums = [sum(levels(sch, t)[:2]) for t in grid]
        u = np.array([levels(sch, t)[1] / r for t, r in zip(grid, sums, strict=True)])
        z, slopes = X / sums[0], []
        for n in range(len(grid) - 1):
            x = z * sums[n]
            slopes = [eps_of(x, grid[n], sch) - net(x, grid[n]), *slopes][:order]
            nodes = u[n::-1][: len(slopes)]
            for j, slope in enumerate(slopes):
                others = np.delete(nodes, j)
                primitive = (np.poly1d(others, r=True) / np.prod(nodes[j] - others)).integ()
                z = z + (primitive(u[n + 1]) - primitive(u[n])) * slope
        return z * sums[-1]

    same(f"flow-{order}m", sch, loop)


def x0_step(
    sch: logsnr.Schedule, x: np.ndarray, s: float, t: float, nodes: list[float], values: list[np.ndarray]
) -> np.ndarray:
    """The exact step for x0 = the polynomial through ``values`` at the lam ``nodes``, by adaptive quadrature."""
    (_, b, lam_s), (c, d, lam_t) = levels(sch, s), levels(sch, t)
    x = d / b * x
    for j, value in enumerate(values):
        others = nodes[:j] + nodes[j + 1 :]

        def integrand(lam: float, j: int = j, others: list[float] = others) -> float:
            return float(c * np.exp(lam - lam_t) * np.prod([(lam - u) / (nodes[j] - u) for u in others]))

        x = x + quad(integrand, lam_s, lam_t, epsabs=1e-14, epsrel=1e-13)[0] * value
    return x


@by_schedule
@pytest.mark.parametrize("order", [1, 2, 3])
def test_pece(sch: logsnr.Schedule, order: int) -> None:
    """pece=True: predict with the last p values, evaluate, correct with that too, and evaluate again; the corrector's
    weights are those of the predictor with one value more and one step ahead."""

    def loop(grid: list[float]) -> np.ndarray:
        x, values, nodes = X, [], []
        for s, t in pairwise(grid):
            values, nodes = [net(x, s), *values][:order], [levels(sch, s)[2], *nodes][:order]

            new = net(x0_step(sch, x, s, t, nodes, values), t)
            x = x0_step(sch, x, s, t, [levels(sch, t)[2], *nodes], [new, *values])
        return x

    same(Adams("x0", order, corrector=True, pece=True), sch, loop, 1e-10)
    solver = logsnr.solver("adams", gauge="x0", order=order, corrector=True, pece=True)
    assert (solver.evaluations, solver.order) == (2, order + 1)
