"""The Principles of Diffusion Models, section 9.7: DPM-Solver-v3's formulas, printed and corrected."""

from collections.abc import Callable
from functools import partial
from math import exp, factorial, log

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import logsnr

SCH = logsnr.VPLinear()
MEAN, VAR = 0.7, 0.1225
DATA = logsnr.analysis.Gaussian(MEAN, VAR)
LAM_S, LAM_T, X_S = -0.3, 0.4, 0.9
S, T = float(SCH.time(LAM_S)), float(SCH.time(LAM_T))


def alpha(lam: float) -> float:
    return float(SCH.alpha(SCH.time(lam)))


def sigma(lam: float) -> float:
    return float(SCH.sigma(SCH.time(lam)))


def trajectory(lam: float) -> tuple[float, float, float]:
    """x, eps and x0 at lam on the exact trajectory through X_S."""
    x = DATA.flow(torch.tensor([X_S], dtype=torch.float64), SCH, S, float(SCH.time(lam)))
    x0, eps = DATA.posterior(x, alpha(lam), sigma(lam))
    return x.item(), eps.item(), x0.item()


def remainder(lam: float, ell: float) -> float:
    """N of (9.7.2): sigma eps - ell x."""
    x, eps, _ = trajectory(lam)
    return sigma(lam) * eps - ell * x


def growth(lam_a: float, lam_b: float, ell: float) -> float:
    """exp of the integral of L = alpha'/alpha - ell from lam_a to lam_b."""
    return alpha(lam_b) / alpha(lam_a) * exp(-ell * (lam_b - lam_a))


def integral(f: Callable[[float], float], a: float, b: float) -> float:
    nodes, weights = np.polynomial.legendre.leggauss(20)
    return float(sum(w * (b - a) / 2 * f(a + (b - a) * (z + 1) / 2) for z, w in zip(nodes, weights, strict=True)))


@pytest.mark.parametrize("ell", [0.0, 0.4, 1.0])
def test_sign_of_the_nonlinear_part_9_7_4(ell: float) -> None:
    """With N of (9.7.2) the PF-ODE is dx/dlam = L x - N; (9.7.4) has + N."""
    h = 1e-4
    slope = (trajectory(LAM_S + h)[0] - trajectory(LAM_S - h)[0]) / (2 * h)
    linear = log(growth(LAM_S - h, LAM_S + h, ell)) / (2 * h) * X_S
    assert slope == pytest.approx(linear - remainder(LAM_S, ell), abs=1e-7)
    assert abs(slope - (linear + remainder(LAM_S, ell))) > 0.1


@pytest.mark.parametrize("ell", [0.0, 0.4, 1.0])
def test_variation_of_constants_9_7_5(ell: float) -> None:
    """x_t = E(s->t) x_s - int E(lam->t) N dlam with E = e^{+int L}; (9.7.5) has e^{-int L}, E(lam->s) and +
    N."""
    exact = trajectory(LAM_T)[0]
    right = growth(LAM_S, LAM_T, ell) * X_S
    right -= integral(lambda v: growth(v, LAM_T, ell) * remainder(v, ell), LAM_S, LAM_T)
    assert right == pytest.approx(exact, rel=1e-11)
    for sign in (1, -1):  # as printed, and with the sign of N repaired
        printed = X_S / growth(LAM_S, LAM_T, ell)
        printed += sign * integral(lambda v: remainder(v, ell) / growth(v, LAM_S, ell), LAM_S, LAM_T)
        assert abs(printed - exact) > 5e-3


def test_first_order_step_9_7_6() -> None:
    """Freezing N at lam_s has the local error O(h^2); integrating N(lam_s) - N(lam), as (9.7.6) says,
    O(h)."""
    ell, right, printed = 0.4, [], []
    for h in (0.02, 0.01):
        end, exact = LAM_S + h, trajectory(LAM_S + h)[0]
        linear, n = growth(LAM_S, end, ell) * X_S, remainder(LAM_S, ell)
        frozen = integral(partial(growth, lam_b=end, ell=ell), LAM_S, end)
        moving = linear - exact  # the integral of E N, by (9.7.5) corrected
        right.append(abs(linear - n * frozen - exact))
        printed.append(abs(linear - (n * frozen - moving) - exact))
    assert np.log2(right[0] / right[1]) == pytest.approx(2, abs=0.1)
    assert np.log2(printed[0] / printed[1]) == pytest.approx(1, abs=0.1)


def test_derivative_and_rewriting_of_n_new_9_7_10() -> None:
    """N_new of (9.7.9) has the derivative (9.7.10), and N = e^{int a} (N_new + int e^{-int a} b): the first
    line of the book's rewriting lacks that factor on the second term."""
    a, b, n, dn = 0.7, 0.3, lambda g: 1.9 + g + g**2, lambda g: 1 + 2 * g

    def tail(g: float) -> float:
        return b * (1 - exp(-a * g)) / a

    def n_new(g: float) -> float:
        return exp(-a * g) * n(g) - tail(g)

    g, d = 0.5, 1e-5
    slope = (n_new(g + d) - n_new(g - d)) / (2 * d)
    assert slope == pytest.approx(exp(-a * g) * (dn(g) - (a * n(g) + b)), rel=1e-8)
    assert exp(a * g) * (n_new(g) + tail(g)) == pytest.approx(n(g), rel=1e-14)
    assert abs(exp(a * g) * n_new(g) + tail(g) - n(g)) > 0.01


@pytest.mark.parametrize(("ell", "a"), [(0.0, -1.0), (1.0, 0.0)], ids=["eps", "x0"])
def test_special_cases_9_7_6(ell: float, a: float) -> None:
    """(0, -1, 0) and (1, 0, 0) make N_new proportional to eps and x0 for N = (sigma eps - ell x)/alpha; with
    the N of (9.7.2) a must be dlog sigma/dlam and dlog alpha/dlam, unless alpha is constant."""
    lams = np.linspace(LAM_S, LAM_T, 7)
    target = np.array([trajectory(v)[1 if ell == 0 else 2] for v in lams])
    n = np.array([remainder(v, ell) for v in lams])
    scale = np.array([alpha(v) for v in lams])
    rate = np.exp(-a * (lams - LAM_S))
    wanted = np.array([sigma(v) if ell == 0 else alpha(v) for v in lams])
    assert np.ptp(rate * n / scale / target) < 1e-13
    assert np.ptp(n / wanted / target) < 1e-13
    assert np.ptp(rate * n / target) > 0.1


@pytest.mark.parametrize(("ell", "a"), [(0.0, -1.0), (1.0, 0.0)], ids=["eps", "x0"])
def test_special_cases_are_ddim(ell: float, a: float) -> None:
    """With N = (sigma eps - ell x)/alpha the first-order v3 step is DDIM for (0, -1, 0) and for (1, 0, 0)."""
    frozen = remainder(LAM_S, ell) / alpha(LAM_S)
    kernel = integral(lambda v: exp(-ell * (LAM_T - v) + a * (v - LAM_S)), LAM_S, LAM_T)
    got = growth(LAM_S, LAM_T, ell) * X_S - alpha(LAM_T) * kernel * frozen
    x = torch.tensor([X_S], dtype=torch.float64)
    ddim = logsnr.sample(DATA.denoiser(SCH), x, solver="ddim", grid=[S, T])
    assert got == pytest.approx(ddim.item(), rel=1e-12)


def test_gaussian_data_are_exact_in_one_step_of_v3() -> None:
    """With ell* = E[sigma deps/dx] (9.7.3) and b* = N' (9.7.8) one corrected step is exact for Gaussian
    data."""

    def ell(lam: float) -> float:
        return sigma(lam) ** 2 / (alpha(lam) ** 2 * VAR + sigma(lam) ** 2)

    x = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)
    eps = DATA.posterior(x, alpha(0.2), sigma(0.2))[1]
    n = sigma(0.2) * eps - ell(0.2) * x
    assert float((n + ell(0.2) * alpha(0.2) * MEAN).abs().max()) < 1e-14  # N does not depend on x

    def grow(lam: float) -> float:
        return alpha(LAM_T) / alpha(lam) * exp(-quad(ell, lam, LAM_T)[0])

    got = grow(LAM_S) * X_S - integral(lambda v: grow(v) * -ell(v) * alpha(v) * MEAN, LAM_S, LAM_T)
    assert got == pytest.approx(trajectory(LAM_T)[0], rel=1e-11)


def smooth(u: float) -> float:
    return exp(u) + 0.3 * np.sin(3 * u)


NODES = np.array([-0.1, -0.2])
VANDERMONDE = np.array([NODES, NODES**2]).T
RISES = np.array([smooth(d) - smooth(0) for d in NODES])


def test_swapped_right_hand_side_of_the_example() -> None:
    """R_2^{-1} of the differences at lam_i1, lam_i2, in this order (9.7.14), estimates N'; the vector b of
    the example has them swapped."""
    truth = 1 + 0.9
    assert np.linalg.solve(VANDERMONDE, RISES)[0] == pytest.approx(truth, abs=0.25)
    assert abs(np.linalg.solve(VANDERMONDE, RISES[::-1])[0] - truth) > 2


def test_error_formula_prop_9_7_1() -> None:
    """The error of (9.7.15) is - int (int N') E plus the R_n^{-1} terms without 1/k!: R_n^{-1} gives
    N^(k)/k!."""
    h = 0.3
    derivatives = np.linalg.solve(VANDERMONDE, RISES) * [1, 2]
    approximate = smooth(0) * h + sum(derivatives[k - 1] * h ** (k + 1) / factorial(k + 1) for k in (1, 2))
    error = approximate - quad(smooth, 0, h)[0]
    first = quad(lambda v: smooth(v) - smooth(0), 0, h)[0]
    inner = np.linalg.solve(VANDERMONDE, RISES)
    right = -first + sum(inner[k - 1] * h ** (k + 1) / (k + 1) for k in (1, 2))
    printed = first + sum(inner[k - 1] * h ** (k + 1) / (k + 1) / factorial(k) for k in (1, 2))
    assert right == pytest.approx(error, rel=1e-9)
    assert abs(printed - error) > 10 * abs(error)
