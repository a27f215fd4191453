"""The Principles of Diffusion Models, sections 9.3, 9.5.4, 9.6.2: multistep methods, DEIS and 2M."""

from math import exp, expm1, factorial

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import logsnr
from logsnr.solvers.planners.quadrature import phi

A = logsnr.analysis
MIXTURE = A.GaussianMixture([-1.0, 0.8], [0.09, 0.2], [0.35, 0.65])
SCHEDULES = [
    logsnr.VPLinear(), logsnr.VPCosine(), logsnr.SubVP(), logsnr.VE(), logsnr.EDM(),
    logsnr.FlowMatching(), logsnr.Trigonometric(),
]  # fmt: skip
by_schedule = pytest.mark.parametrize("sch", SCHEDULES, ids=lambda s: type(s).__name__)
X = torch.linspace(-2, 2, 7, dtype=torch.float64)


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


@by_schedule
@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_ab_deis_weights_integrate_polynomials(sch: logsnr.Schedule, n: int) -> None:
    """The C_ij of AB-DEIS-n, deis-(n+1), integrate eps exactly where it is t^k, k <= n (9.3.2)."""
    grid = np.asarray(sch.time(np.linspace(-1.0, 0.5, n + 2) ** 3))
    row = logsnr.solver(f"deis-{n + 1}").program(sch, grid).calls[-1].matrix[0]
    weights, s, t = np.array([row[1], *row[3:]]), grid[-2], grid[-1]
    for k in range(n + 1):
        want = quad(
            lambda u, k=k: sch.diffusion2(u) / (2 * sch.sigma(u)) * sch.alpha(t) / sch.alpha(u) * u**k,
            s, t, epsabs=1e-13, epsrel=1e-12,
        )[0]  # fmt: skip
        assert weights @ grid[-2::-1] ** k == pytest.approx(want, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_ab_deis_local_error_is_of_order_n_plus_2(n: int) -> None:
    """From exact history AB-DEIS-n has the local error O(h^(n+2)), one order more than section 9.3.2 says."""
    sch, errors = logsnr.VPLinear(), []
    for h in (0.03, 0.015):
        grid = np.asarray(sch.time(0.3 + h * np.arange(-n, 2)))
        states = [MIXTURE.reference(X, sch, grid[0], u) for u in grid]
        eps = [MIXTURE.posterior(x, sch.alpha(u), sch.sigma(u))[1] for x, u in zip(states, grid, strict=True)]
        row = logsnr.solver(f"deis-{n + 1}").program(sch, grid).calls[-1].matrix[0]
        newest_first = [eps[n - j] for j in range(n + 1)]
        got = row[2] * states[n] + sum(w * e for w, e in zip([row[1], *row[3:]], newest_first, strict=True))
        errors.append(gap(got, states[-1]))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(n + 2, abs=0.35)


def test_warm_start_of_deis_caps_the_global_order() -> None:
    """Started as in section 9.3.2, with one DDIM step, AB-DEIS-3 is of order 2; started by third-order steps,
    of 4."""
    ramp, single = (
        A.convergence_order("deis-4", MIXTURE, logsnr.VPLinear(), startup=startup, max_nfe=300).order
        for startup in ("ramp", "single-step")
    )
    assert ramp == pytest.approx(2, abs=0.2)
    assert single == pytest.approx(4, abs=0.2)


@by_schedule
def test_2m_weights_9_5_4(sch: logsnr.Schedule) -> None:
    """dpmpp-2m weighs a_0 + beta(h) a_1, its simplification 1 + r/2 and -r/2: 3/2 and -1/2 for equal
    steps."""
    grid = np.asarray(sch.time(np.array([-0.5, -0.1, 0.3])))
    h, scale = 0.4, sch.alpha(grid[2]) * -expm1(-0.4)
    beta = (h - 1 + exp(-h)) / (1 - exp(-h))
    exact, published = (
        logsnr.solver("dpmpp-2m", compat=c).program(sch, grid).calls[1].matrix[0] for c in (False, True)
    )
    assert [exact[0] / scale, exact[3] / scale] == pytest.approx([1 + beta / h, -beta / h], rel=1e-10)
    assert [published[0] / scale, published[3] / scale] == pytest.approx([1.5, -0.5], rel=1e-10)


@by_schedule
def test_newton_and_lagrange_are_one_interpolant(sch: logsnr.Schedule) -> None:
    """dpmpp-3m, planned in Lagrange form, is Newton's divided differences with exact moments (9.6.2)."""
    lam = np.array([-0.9, -0.2, 0.1, 0.6])
    grid, f = np.asarray(sch.time(lam)), np.array([0.3, -1.1, 0.7])  # values at the nodes, oldest first
    row = logsnr.solver("dpmpp-3m").program(sch, grid).calls[2].matrix[0]
    lagrange = np.array([row[0], row[3], row[4]]) @ f[::-1]
    h = lam[3] - lam[2]
    first = (f[2] - f[1]) / (lam[2] - lam[1])
    second = (first - (f[1] - f[0]) / (lam[1] - lam[0])) / (lam[2] - lam[0])
    m = [factorial(k) * h ** (k + 1) * float(phi(k + 1, -h)) for k in range(3)]
    newton = m[0] * f[2] + m[1] * first + (m[2] + (lam[2] - lam[1]) * m[1]) * second
    assert lagrange == pytest.approx(sch.alpha(grid[3]) * newton, rel=1e-10)
