"""The gauges v and straight: one step against mpmath, finite ends, and Gaussian data on which v is exact."""

import mpmath as mp
import numpy as np
import pytest
from checks import nameless

import logsnr
from logsnr.analysis import Gaussian, sampler_moments
from logsnr.solvers import Adams
from logsnr.solvers.planners.gauges import EPS, STRAIGHT, Gauge, Nodes, V, Variable, as_gauge
from logsnr.solvers.planners.quadrature import powers

SCH = logsnr.VPLinear()


def nodes_at(lam: float) -> Nodes:
    """alpha = 1, sigma = e^-lam, as times of EDM."""
    value = np.array([lam])
    return Nodes(np.exp(-value), np.ones(1), np.exp(-value), value)


def clock(gauge: Gauge, lam: mp.mpf) -> mp.mpf:
    return mp.atan(mp.exp(-lam)) if gauge is V else 1 / (1 + mp.exp(lam))


@pytest.mark.parametrize("gauge", [V, STRAIGHT], ids=nameless)
@pytest.mark.parametrize("h", [1e-8, 1e-4, 0.03, 0.7, 4.0])
@pytest.mark.parametrize("var", ["clock", "lam", "rho", "t"])
def test_moments(gauge: Gauge, h: float, var: Variable) -> None:
    """mu int theta^k dE in every interpolation variable is its integral in 40 digits."""
    s, t = nodes_at(-0.8), nodes_at(-0.8 + h)
    lam_s, lam_t = mp.mpf(float(s.lam[0])), mp.mpf(float(t.lam[0]))
    with mp.workdps(40):
        scale = mp.sqrt(1 + mp.exp(-2 * lam_t)) if gauge is V else 1 + mp.exp(-lam_t)
        whole = scale * (clock(gauge, lam_t) - clock(gauge, lam_s))
        assert float(abs(gauge.total(s, t)[0] / whole - 1)) < 5e-15

        def at(lam: mp.mpf) -> mp.mpf:
            return {"clock": clock(gauge, lam), "lam": lam}.get(var, mp.exp(-lam))  # t = rho on EDM

        def rate(lam: mp.mpf) -> mp.mpf:
            square = mp.cosh(lam) if gauge is V else 1 + mp.cosh(lam)
            return -scale / (2 * square)

        length = gauge.variable(var, t) - gauge.variable(var, s)
        found = gauge.integrate(var, logsnr.EDM(), s, t, powers(length, 2))[0]
        for k in range(3):
            u = at(lam_s), at(lam_t)
            want = mp.quad(lambda lam, k=k, u=u: rate(lam) * ((at(lam) - u[0]) / (u[1] - u[0])) ** k, [lam_s, lam_t])
            assert float(abs(found[k] / want - 1)) < max(1e-13, 1e-15 / h), k


@pytest.mark.parametrize("gauge", [V, STRAIGHT], ids=nameless)
def test_clocks_and_lam_are_inverse(gauge: Gauge) -> None:
    at = Nodes.at(SCH, np.linspace(0.01, 0.99, 9))
    np.testing.assert_allclose(gauge.lam(gauge.path(at)), at.lam, rtol=1e-12, atol=1e-13)  # type: ignore[attr-defined]
    np.testing.assert_allclose(gauge.times(SCH, gauge.path(at)), at.t, rtol=1e-10)


@pytest.mark.parametrize("gauge", ["v", "straight"])
@pytest.mark.parametrize("sch", [logsnr.FlowMatching(), logsnr.Trigonometric()], ids=repr)
def test_both_ends_are_ordinary(gauge: str, sch: logsnr.Schedule) -> None:
    """From alpha = 0 to sigma = 0 every step keeps its history: no DDIM step, and no note of one."""
    program = Adams(gauge, 2, "clock").plan(sch, logsnr.grid(sch, 6, "time", t_end=0.0))
    assert [len(call.reads) for call in program] == [1, 2, 2, 2, 2, 2]
    assert program.notes == ()


def test_straight_is_the_velocity_of_flow_matching() -> None:
    """There sigma/(alpha + sigma) = t and eps - x0 = dx/dt: the tables are equal."""
    sch = logsnr.FlowMatching()
    grid = logsnr.grid(sch, 5, "time")
    mine, theirs = Adams("straight", 3, "clock").plan(sch, grid), Adams("velocity", 3, "t").plan(sch, grid)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a.matrix, b.matrix, atol=1e-15)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_v_is_exact_on_unit_gaussian_data(order: int) -> None:
    """On N(0, 1) v = 0, so that one step of any length is exact; in eps it is not."""
    grid = np.asarray(SCH.time(np.array([-2.0, 0.3, 1.5])))
    for gauge, exact in ((V, True), (EPS, False)):
        moments = sampler_moments(Adams(gauge, order).plan(SCH, grid), Gaussian(0.0, 1.0), SCH)
        assert (moments.w2 < 1e-14) is exact


def test_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="Gauge is a gauge of the ODE"):
        as_gauge("straight").with_eta(logsnr.solvers.Window(1.0))
