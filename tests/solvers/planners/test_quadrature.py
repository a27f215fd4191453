"""Coefficients against mpmath, over steps from 1e-8 to 50."""

import mpmath as mp
import numpy as np
import pytest

import logsnr
from logsnr.solvers.planners.gauges import EPS, X0, Gauge, Nodes, Variable
from logsnr.solvers.planners.quadrature import lagrange, phi, powers
from logsnr.solvers.planners.stochasticity import Window

STEPS = [1e-8, 1e-5, 1e-3, 0.03, 0.4, 1.0, 2.7, 9.0, 50.0]


def exact_phi(k: int, z: float) -> mp.mpf:
    """The definition, in enough digits that the cancellation does not matter."""
    z = mp.mpf(z)
    return (mp.exp(z) - mp.fsum(z**j / mp.factorial(j) for j in range(k))) / z**k


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("sign", [-1, 1])
def test_phi_is_accurate_for_all_steps(k: int, sign: int) -> None:
    """phi_k agrees with its 60-digit definition to 2e-14, where the recursion would lose all digits."""
    for h in STEPS:
        want = exact_phi(k, sign * h)
        assert abs(mp.mpf(float(phi(k, sign * h))) / want - 1) < 2e-14, (k, sign * h)


def nodes_at(lam: list[float]) -> Nodes:
    """alpha = 1, sigma = exp(-lam): lam is free to take any value."""
    lam_ = np.array(lam)
    return Nodes(np.exp(-lam_), np.ones_like(lam_), np.exp(-lam_), lam_)


@pytest.mark.parametrize("h", STEPS)
def test_moments_are_phi_functions(h: float) -> None:
    """In both exponential gauges ``mu int theta^k dE`` is ``k! phi_{k+1}(-+h)`` times its prefactor."""
    s, t = nodes_at([0.3]), nodes_at([0.3 + h])
    for gauge, sign, front in ((X0, -1, t.alpha[0]), (EPS, 1, -t.sigma[0])):
        got = gauge.integrate("lam", logsnr.EDM(), s, t, powers(t.lam - s.lam, 3))[0]
        step = mp.mpf(float(t.lam[0] - s.lam[0]))
        for k in range(4):
            want = front * step * mp.factorial(k) * exact_phi(k + 1, sign * step)
            assert abs(mp.mpf(got[k]) / want - 1) < 3e-14, (gauge, k)
        assert abs(mp.mpf(float(gauge.total(s, t)[0])) / (front * step * exact_phi(1, sign * step)) - 1) < 1e-15


@pytest.mark.parametrize("gauge", [X0, EPS], ids=["x0", "eps"])
@pytest.mark.parametrize("var", ["lam", "t", "rho"])
def test_weights_of_lagrange_polynomials(gauge: Gauge, var: Variable) -> None:
    """Every (gauge, variable) weight equals mpmath's quadrature of kernel times Lagrange polynomial."""
    sch = logsnr.VPLinear()
    lam = np.array([-1.9, -1.2, -0.8, 0.5])
    at = Nodes.at(sch, sch.time(lam))
    s, t = at[2:3], at[3:4]

    def u(lam: mp.mpf) -> mp.mpf:
        if var == "lam":
            return lam
        if var == "rho":
            return mp.exp(-lam)
        B = mp.log1p(mp.exp(-2 * lam))  # VPLinear: t solves 0.1 t + 19.9 t^2 / 2 = B
        return 2 * B / (mp.mpf("0.1") + mp.sqrt(mp.mpf("0.01") + 2 * mp.mpf("19.9") * B))

    past = [mp.mpf(float(a)) for a in at.lam[2::-1]]
    grid = np.array([[float(u(p) - u(past[0])) for p in past]])
    got = gauge.integrate(var, sch, s, t, lambda x: lagrange(grid, x))[0]
    sign, front = (1, t.sigma[0]) if gauge is X0 else (-1, -t.alpha[0])
    for j in range(3):
        others = [u(p) for i, p in enumerate(past) if i != j]
        mine = u(past[j])

        def integrand(lam: mp.mpf, others: list = others, mine: mp.mpf = mine) -> mp.mpf:
            return mp.exp(sign * lam) * mp.fprod((u(lam) - o) / (mine - o) for o in others)

        want = front * mp.quad(integrand, [mp.mpf(float(s.lam[0])), mp.mpf(float(t.lam[0]))])
        assert abs(got[j] - want) < 1e-12 * abs(want), (j, got[j], want)


def test_a_window_of_eta_is_exact_at_its_edges() -> None:
    """Steps that begin, end or do both in the window have the weights of mpmath's quadrature in parts."""
    low, high, grid = -1, mp.mpf("1.3"), [-4.0, -1.7, 0.4, 2.1, 4.0]
    sch = logsnr.VPLinear()
    for lam in (grid, [-4.0, -2.0, 3.0]):
        times = sch.time(np.array(lam))
        program = logsnr.solver("sde-dpmpp-2m", eta=Window(1.0, float(low), 1.3)).program(sch, times)
        for n in range(1, len(lam) - 1):
            before, s, t = (mp.mpf(x) for x in lam[n - 1 : n + 2])

            def kernel(x: mp.mpf, t: mp.mpf = t) -> mp.mpf:
                inside = low <= x <= high
                left = max(min(t, high) - max(x, low), 0)
                return mp.exp(x - left) * (1 + inside)

            parts = sorted({s, t, *(edge for edge in (low, high) if s < edge < t)})
            sigma = sch.sigma(times[n + 1])
            old = sigma * mp.quad(lambda x, s=s, b=before: kernel(x) * (x - s) / (b - s), parts)
            whole = sigma * mp.quad(kernel, parts)
            call = program.calls[n]
            row = call.matrix[call.writes.index(0)]
            assert float(row[0]) == pytest.approx(float(whole - old), rel=1e-12)
            past = row[2 + next(k for k, slot in enumerate(call.reads) if slot != 0)]
            assert float(past) == pytest.approx(float(old), rel=1e-12)
