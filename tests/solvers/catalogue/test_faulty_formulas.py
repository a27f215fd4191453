"""Three faults of published samplers, put in on purpose: what this library measures with must find each of them."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

import logsnr
from logsnr.analysis import (
    Gaussian,
    convergence_order,
    local_order,
    sampler_moments,
    two_gaussians,
    warped_grid,
    weak_order,
)
from logsnr.solvers.programs.program import STATE

SCH = logsnr.VPLinear()


@pytest.mark.parametrize(("compat", "order"), [(False, 3), (True, 2)])
def test_half_a_second_difference_is_found(compat: bool, order: int) -> None:
    """DPM-Solver++(3M) with half the weight on its second difference measures order 2, not 3, and one step 3, not 4."""
    claimed = replace(logsnr.solver("dpmpp-3m", compat=compat), order=3)  # as it is labelled elsewhere
    measured = convergence_order(claimed, two_gaussians(), SCH, max_nfe=500)
    assert measured.order == pytest.approx(order, abs=0.1)
    assert measured.declared == 3
    assert local_order(claimed, two_gaussians(), SCH).order == pytest.approx(order + 1, abs=0.1)


def sde_3m(grid: np.ndarray, *, terms: int, half: float, double: float) -> logsnr.Program:
    """SDE-DPM-Solver++ with up to ``terms`` values of x0, on the reverse SDE with eta = 1.

    x_t = (sigma_t / sigma_s) e^{-h} x_s + alpha_t sum_k M_k (h d/dlam)^k x0 + sigma_t sqrt(1 - e^{-2h}) xi, with
    M_k = int_0^h 2 e^{-2 (h - u)} (u / h)^k / k! du and differences of x0 for the derivatives. ``half`` is the
    1/2 of M_2 = ((1 - e^{-2h}) - 2h) / (2h)^2 + 1/2, ``double`` the 2 by which a divided difference becomes a second
    derivative.
    """
    steps, calls = np.diff(SCH.half_logsnr(grid)), []
    for n, (s, t, h) in enumerate(zip(grid[:-1].tolist(), grid[1:].tolist(), steps, strict=True)):
        past = min(n, terms - 1)
        decay = -np.expm1(-2 * h)
        weights = decay * np.array([1.0, 0.0, 0.0])
        first = [np.array([1.0, -1.0, 0.0]) * h / steps[n - 1], np.array([0.0, 1.0, -1.0]) * h / steps[n - 2]]
        if past == 2:
            second = (first[0] - first[1]) * h / (steps[n - 1] + steps[n - 2])
            first[0] += second * steps[n - 1] / h
            weights += ((decay - 2 * h) / (2 * h) ** 2 + half) * double * second
        if past:
            weights += (1 - decay / (2 * h)) * first[0]
        weights *= SCH.alpha(t)
        kept = SCH.sigma(t) / SCH.sigma(s) * np.exp(-h)
        update = [weights[0], 0.0, kept, *weights[1 : 1 + past], SCH.sigma(t) * np.sqrt(decay)]
        store = [1.0, *[0.0] * (len(update) - 1)]
        reads = (STATE, *(1 + (n - 1 - j) % 2 for j in range(past)))
        rows = np.array([update, store])
        calls.append(logsnr.Call(s, reads, (STATE, 1 + n % 2), rows, noises=((s, t),), node=n + 1))
    return logsnr.Program(f"SDE-DPM-Solver++({terms}M)", terms, tuple(grid.tolist()), tuple(calls))


@dataclass(frozen=True)
class Sde3M:
    """`sde_3m` as a planner."""

    half: float
    double: float
    stochastic = True

    def plan(self, schedule: logsnr.Schedule, grid: np.ndarray) -> logsnr.Program:
        return sde_3m(grid, terms=3, half=self.half, double=self.double)


def weak_orders(**formula: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the standard deviation of what is generated from Gaussian data, without samples, and their slopes."""
    data, errors = Gaussian(0.7, 0.25), []
    for steps in (32, 64, 128, 256):
        program = sde_3m(warped_grid(SCH, steps), **formula)  # type: ignore[arg-type]
        moments = sampler_moments(program, data, SCH)
        mean, cov = data.marginal(SCH, program.grid[-1])
        assert float(moments.mean) == pytest.approx(float(mean), rel=1e-12)  # exact for all: no fault shows here
        errors.append(abs(float(moments.cov / cov) ** 0.5 - 1))
    return np.array(errors), np.log2(np.divide(errors[:-1], errors[1:]))


def test_sign_in_an_sde_solver_is_found() -> None:
    """SDE-DPM-Solver++ is of weak order 1, 2 and 2 for 1, 2 and 3 values of x0, and half a second difference shows in
    the error only; with - 1/2 in M_2 as well the third is of order 1, and worse than the second for any steps."""
    formulas = {"1M": (1, 0.5, 2, 1), "2M": (2, 0.5, 2, 2), "3M": (3, 0.5, 2, 2), "half": (3, 0.5, 1, 2)}
    formulas["sign"] = (3, -0.5, 1, 1)
    errors = {}
    for name, (terms, half, double, order) in formulas.items():
        errors[name], slopes = weak_orders(terms=terms, half=half, double=double)
        assert slopes[-1] == pytest.approx(order, abs=0.15)
    assert (errors["3M"] < 0.9 * errors["half"]).all()
    assert (errors["half"] < 0.6 * errors["2M"]).all()
    assert (errors["sign"] > 4 * errors["2M"]).all()


def test_the_named_3m_has_the_right_sign() -> None:
    """sde-dpmpp-3m is the right 3M of the above, entry by entry, and the formula with - 1/2 instead of + 1/2 is told by
    `weak_order` to be of first order, not of the second that it would declare."""
    named = logsnr.solver("sde-dpmpp-3m")
    grid = warped_grid(SCH, 8)
    right = sde_3m(grid, terms=3, half=0.5, double=2)
    for mine, theirs in zip(named.program(SCH, grid), right, strict=True):
        np.testing.assert_allclose(mine.matrix[0], theirs.matrix[0], rtol=1e-11)

    faulty = replace(named, planner=Sde3M(half=-0.5, double=1))
    assert weak_order(named, None, SCH, max_nfe=600).order == pytest.approx(2, abs=0.15)
    assert weak_order(faulty, None, SCH, max_nfe=600).order == pytest.approx(1, abs=0.15)


def rotated(sch: logsnr.Schedule, grid: np.ndarray, *, order: int, faulty: bool) -> logsnr.Program:
    """Exponential Adams in the gauge that is exact where sigma^2 / (alpha^2 + sigma^2) of x is noise, the data being
    of unit variance (the linear part that DPM-Solver-v3 would estimate for it).

    With R^2 = alpha^2 + sigma^2, v = alpha eps - sigma x0 and phi = atan(sigma / alpha) the PF-ODE reads
    d(x / R) = (v / R) dphi, and v / R is interpolated in lam. The fault takes R_t before the integral for
    sqrt(alpha_t^2 + sigma_s^2). It starts with a ramp.
    """
    alpha, sigma, lam = (np.asarray(f(grid)) for f in (sch.alpha, sch.sigma, sch.half_logsnr))
    x, w = np.polynomial.legendre.leggauss(20)
    radius, calls = np.hypot(alpha, sigma), []
    for n in range(len(grid) - 1):
        past = min(n, order - 1)
        nodes = lam[n - np.arange(past + 1)]
        u = lam[n] + (lam[n + 1] - lam[n]) * (x + 1) / 2
        clock = -w * (lam[n + 1] - lam[n]) / 2 / (2 * np.cosh(u))  # dphi = -dlam / (2 cosh lam)
        basis = [np.prod([(u - b) / (a - b) for b in nodes if b != a], axis=0) * np.ones_like(u) for a in nodes]
        front = np.hypot(alpha[n + 1], sigma[n]) if faulty else radius[n + 1]
        weights = front * np.array([(clock * values).sum() for values in basis])
        pair = np.array([-sigma[n], alpha[n]]) / radius[n]
        update = [*weights[0] * pair, radius[n + 1] / radius[n], *weights[1:]]
        depth = max(1, order - 1)
        reads = (STATE, *(1 + (n - 1 - j) % depth for j in range(past)))
        rows = np.array([update, [*pair, *[0.0] * len(reads)]])
        calls.append(logsnr.Call(float(grid[n]), reads, (STATE, 1 + n % depth), rows, node=n + 1))
    return logsnr.Program("rotated", order, tuple(grid.tolist()), tuple(calls))


@dataclass(frozen=True)
class Rotated:
    """`rotated` as a planner."""

    global_order: int
    faulty: bool

    def plan(self, schedule: logsnr.Schedule, grid: np.ndarray) -> logsnr.Program:
        return rotated(schedule, grid, order=self.global_order, faulty=self.faulty)


@pytest.mark.parametrize(
    ("order", "sch"),
    [pytest.param(1, logsnr.FlowMatching(), marks=pytest.mark.slow), (2, SCH), (3, logsnr.EDM())],
    ids=str,
)
def test_radius_of_the_wrong_time_is_found(order: int, sch: logsnr.Schedule) -> None:
    """Adams in the rotated gauge gains an order with every value; with sigma_s for sigma_t in one place one step is of
    order 2, and the whole of order 1, whatever is declared."""

    problem = two_gaussians()
    for faulty, expected in ((False, order + 1), (True, 2)):
        slopes = local_order(Rotated(order, faulty), problem, sch).slopes  # the last ones are rounding
        assert np.median(slopes[-5:-1]) == pytest.approx(expected, abs=0.1)
    right, wrong = Rotated(order, False), Rotated(order, True)
    found = [convergence_order(method, problem, sch, startup="ramp", max_nfe=300) for method in (right, wrong)]
    assert found[0].order > min(order, 2) - 0.1  # a ramp caps it, after many steps
    assert found[1].order == pytest.approx(1, abs=0.1)
    assert order == 1 or found[1].errors[-1] > 20 * found[0].errors[-1]


def test_unit_gaussian_data_would_not_find_it() -> None:
    """For N(0, 1), where v = 0, the right and the faulty formula are exact in one step of any length."""
    for sch in (SCH, logsnr.EDM(), logsnr.FlowMatching()):
        grid = np.asarray(sch.time(np.array([-2.0, 1.5])))
        for faulty in (False, True):
            program = rotated(sch, grid, order=1, faulty=faulty)
            assert sampler_moments(program, Gaussian(0.0, 1.0), sch).w2 < 1e-14
