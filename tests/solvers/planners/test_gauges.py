"""One step of the reverse SDE in every gauge, against mpmath, for steps from 1e-8 to 50 and several eta."""

import mpmath as mp
import numpy as np
import pytest
from checks import nameless

import logsnr
from logsnr.solvers.planners.gauges import EPS, GAUGES, VELOCITY, VELOCITY_LAM, X0, Gauge, Nodes
from logsnr.solvers.planners.quadrature import powers
from logsnr.solvers.planners.stochasticity import Smooth, Stochasticity, Window, er_sde

STEPS = [1e-8, 1e-5, 1e-3, 0.03, 0.4, 2.7, 9.0, 50.0]


def nodes_at(lam: float) -> Nodes:
    """alpha = 1, sigma = exp(-lam): lam is free to take any value."""
    value = np.array([lam])
    return Nodes(np.exp(-value), np.ones(1), np.exp(-value), value)


@pytest.mark.parametrize("h", STEPS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("name", ["x0", "eps"])
def test_exponential_steps(name: str, eta: float, h: float) -> None:
    """Factor, moments of the kernel and variance are their integrals in 60 digits, to 3e-14, where nothing is 0."""
    gauge, s, t = GAUGES[name].with_eta(Window(eta)), nodes_at(-0.3), nodes_at(-0.3 + h)
    e2, step = mp.mpf(eta) ** 2, mp.mpf(float(t.lam[0])) - mp.mpf(float(s.lam[0]))
    sigma = mp.mpf(float(t.sigma[0]))
    if name == "x0":
        ratio, front, rate = mp.exp(-step * (1 + e2)), 1 + e2, -(1 + e2)
        variance = sigma**2 * -mp.expm1(-2 * e2 * step)
    else:
        ratio, front, rate = mp.mpf(1), -sigma * (1 + e2), mp.mpf(1)
        variance = sigma**2 * e2 * mp.expm1(2 * step)
    assert abs(float(gauge.ratio(s, t)[0]) / ratio - 1) < 1e-13 * max(1, h)
    moments = gauge.integrate("lam", logsnr.EDM(), s, t, powers(t.lam - s.lam, 2))[0]
    for k in range(3):  # int_0^step (u / step)^k front e^(rate (step - u)) du
        z = rate * step
        phi = (mp.exp(z) - mp.fsum(z**j / mp.factorial(j) for j in range(k + 1))) / z ** (k + 1)
        want = front * step * mp.factorial(k) * phi
        assert abs(moments[k] / want - 1) < 5e-14, k
        if k == 0:
            assert abs(float(gauge.total(s, t)[0]) / want - 1) < 1e-14
    std = gauge.std(logsnr.EDM(), s, t)[0]
    assert std == pytest.approx(float(mp.sqrt(variance)), rel=1e-14, abs=0)


@pytest.mark.parametrize("gauge", [X0, EPS], ids=nameless)
@pytest.mark.parametrize("eta", [Window(1.3), Window(2.0, -0.2, 0.4), Smooth(er_sde)], ids=nameless)
def test_two_steps_are_one(gauge: Gauge, eta: Stochasticity) -> None:
    """Factors multiply, and weights and variances of a step are those of its parts, carried to its end."""
    gauge = gauge.with_eta(eta)
    r, s, t = nodes_at(-0.5), nodes_at(0.1), nodes_at(0.9)
    carry = gauge.ratio(s, t)
    np.testing.assert_allclose(gauge.ratio(r, t), gauge.ratio(r, s) * carry, rtol=1e-13)
    np.testing.assert_allclose(gauge.total(r, t), gauge.total(r, s) * carry + gauge.total(s, t), rtol=1e-13)
    parts = np.hypot(gauge.std(logsnr.EDM(), r, s) * carry, gauge.std(logsnr.EDM(), s, t))
    np.testing.assert_allclose(gauge.std(logsnr.EDM(), r, t), parts, rtol=1e-13)


@pytest.mark.parametrize("sch", [logsnr.VPLinear(), logsnr.FlowMatching(), logsnr.EDM()], ids=repr)
def test_velocities_are_the_drift_of_the_sde(sch: logsnr.Schedule) -> None:
    """Both velocity gauges have f x - (1 + eta^2) g^2 score / 2 and the noise eta g sqrt(dt) of the SDE in t."""
    eta, t = 0.8, np.array([0.3, 0.6])
    s, u, score = Nodes.at(sch, t), Nodes.at(sch, t - 0.01), -0.7
    x0, eps = 0.4, -score * s.sigma
    x = s.alpha * x0 + s.sigma * eps
    drift = sch.drift(t) * x - (1 + eta**2) * sch.diffusion2(t) * score / 2
    slope = (sch.half_logsnr(t + 1e-6) - sch.half_logsnr(t - 1e-6)) / 2e-6
    for gauge, unit in ((VELOCITY, 1.0), (VELOCITY_LAM, slope)):
        noisy = gauge.with_eta(Window(eta))
        found = noisy.columns(sch, t) @ np.array([x0, 0.0]) + noisy.columns(sch, t)[:, 1] * eps
        np.testing.assert_allclose(found, drift / unit, rtol=1e-7)
        dt = np.abs(gauge.path(u) - gauge.path(s)) / np.abs(unit)
        want = eta * np.sqrt(sch.diffusion2(t) * dt)
        np.testing.assert_allclose(noisy.std(sch, s, u), want, rtol=1e-7)
