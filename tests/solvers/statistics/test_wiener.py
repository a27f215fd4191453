"""The Wiener gauge: against mpmath, exact on its own Gaussian in one step, with the order of the planner elsewhere."""

from dataclasses import replace
from functools import partial
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch
from mutants import altered

import logsnr
from logsnr import analysis
from logsnr.bench.orders import PROBLEM, nodes
from logsnr.solvers import Adams, ExponentialRungeKutta
from logsnr.solvers.planners.gauges import Nodes
from logsnr.solvers.planners.quadrature import powers
from logsnr.solvers.planners.tableaux import DPM_3
from logsnr.solvers.programs.call import Call

SHAPE = (3, 4)
VARIANCE = np.geomspace(0.01, 9.0, 12).reshape(SHAPE)
VARIANCE[0, 0] = 0.0
DATA = analysis.Gaussian(np.linspace(-1, 2, 12).reshape(SHAPE), VARIANCE)
GAUGE = logsnr.Wiener(DATA.mean, DATA.variances)
SCHEDULES = [logsnr.VPLinear(), logsnr.EDM(), logsnr.FlowMatching(), logsnr.VPCosine()]
METHODS = {
    "wiener-1": logsnr.solver("wiener-1", gaussian=GAUGE),
    "wiener-2": logsnr.solver("wiener-2", gaussian=GAUGE),
    "wiener-3, corrector": logsnr.solver("wiener-3", gaussian=GAUGE, corrector=True),
    "in rho": Adams(GAUGE, 3, "rho"),
    "Runge-Kutta": ExponentialRungeKutta(DPM_3, GAUGE),
}


def nodes_at(lam: float) -> Nodes:
    value = np.array([lam])
    return Nodes(np.exp(-value), np.ones(1), np.exp(-value), value)


@pytest.mark.parametrize("h", [1e-8, 1e-3, 0.4, 2.7, 30.0])
def test_steps_are_their_integrals(h: float) -> None:
    """Factor, moments of the kernel and constant in 25 digits, for variances from 0 to 1e6."""
    c, m = np.array([0.0, 1e-6, 0.3, 1e6]), np.array([1.0, -2.0, 0.5, 1.0])
    gauge, s, t = logsnr.Wiener(m, c), nodes_at(-0.3), nodes_at(-0.3 + h)
    moments = gauge.integrate("lam", logsnr.EDM(), s, t, powers(t.lam - s.lam, 2))[0]
    factor, total, offset = (part(s, t)[0] for part in (gauge.ratio, gauge.total, gauge.offset))
    with mp.workdps(25):
        start, step = mp.mpf(float(s.lam[0])), mp.mpf(float(t.lam[0])) - mp.mpf(float(s.lam[0]))
        for j in range(len(c)):

            def radius(lam: Any, j: int = j) -> Any:
                return mp.sqrt(mp.mpf(c[j]) + mp.exp(-2 * lam))

            end = radius(start + step)
            ratio = end / radius(start)
            assert abs(factor[j] / ratio - 1) < 1e-13 * max(1, h)
            assert abs(offset[j] / (m[j] * (1 - ratio)) - 1) < 1e-13
            for k in range(3):
                cuts = mp.linspace(0, step, 2 + int(h / 3))
                want = -end * mp.quad(lambda u, k=k: (u / step) ** k * mp.exp(-start - u) / radius(start + u), cuts)
                assert abs(moments[k, j] / want - 1) < 5e-14 * max(1, h), (j, k)
                if k == 0:
                    assert abs(total[j] / want - 1) < 1e-13 * max(1, h)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("sch", SCHEDULES, ids=repr)
def test_its_gaussian_is_exact_in_one_step(sch: logsnr.Schedule, name: str) -> None:
    """And in several, to the default end and to sigma = 0, from alpha = 0 too, where a schedule has them."""
    x = DATA.sample_at(sch, sch.t_start, 5, generator=torch.Generator().manual_seed(0))
    for steps in (1, 4):
        for end in {sch.t_end, sch.domain[0]}:
            found = logsnr.sample(DATA.denoiser(sch), x, solver=METHODS[name], steps=steps, t_end=end)
            torch.testing.assert_close(found, DATA.flow(x, sch, sch.t_start, end), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (4,), (3, 1)])
def test_shapes_broadcast(shape: tuple[int, ...]) -> None:
    """A gauge of fewer numbers than the state is that of the same numbers, repeated."""
    sch, few = logsnr.VPLinear(), logsnr.Wiener(np.full(shape, 0.3), np.full(shape, 0.5))
    many = logsnr.Wiener(np.full(SHAPE, 0.3), np.full(SHAPE, 0.5))
    assert few.event == shape
    x = DATA.sample_at(sch, 1.0, 5, generator=torch.Generator().manual_seed(0))
    one, other = (logsnr.sample(DATA.denoiser(sch), x, solver=Adams(gauge, 3), steps=6) for gauge in (few, many))
    torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)
    assert one.std() > 0.1


def test_no_variance_known_is_eps() -> None:
    """With a variance of 1e300 it is the eps gauge, order by order."""
    sch = logsnr.VPLinear()
    grid = logsnr.grid(sch, 6)
    for order in (1, 2, 3):
        one = Adams(logsnr.Wiener(0.0, 1e300), order, corrector=True).plan(sch, grid)
        other = Adams("eps", order, corrector=True).plan(sch, grid)
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a.matrix, b.matrix, rtol=1e-12, atol=1e-13)


def mutant(call: Call) -> np.ndarray:
    """One weight off by 2 %: of the newest value, or of the oldest one."""
    matrix = call.matrix.copy()
    matrix[0, 1 if len(call.reads) < 3 else -1] *= 1.02
    return matrix


@pytest.mark.parametrize("corrector", [False, True])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_orders(order: int, corrector: bool) -> None:
    """On a mixture, with the Gaussian of its moments."""
    sch = logsnr.VPLinear()
    planner = Adams(logsnr.Wiener(0.26, 1.33), order, corrector=corrector, startup="single-step")
    method = logsnr.Solver(f"wiener-{order}", planner=planner)
    found, wrong = (
        analysis.convergence_order(m, PROBLEM, sch, grids=partial(nodes, sch), max_nfe=most)
        for m, most in ((method, 200), (altered(method, mutant), 100))
    )
    assert found.order == pytest.approx(order + corrector, abs=0.1)
    assert wrong.order != pytest.approx(order + corrector, abs=0.1)


def test_programs_and_gauges_are_values() -> None:
    sch = logsnr.VPLinear()
    same = logsnr.solver("wiener-2", gaussian=logsnr.Wiener(DATA.mean, DATA.variances))
    assert same == METHODS["wiener-2"]
    assert same.name == "wiener-2 (gaussian=Wiener(3, 4))"
    assert replace(GAUGE, mean=DATA.mean + 1) != GAUGE
    program = same.program(sch, logsnr.grid(sch, 3))
    assert logsnr.Program.from_json(program.to_json()) == program
    assert program.event == SHAPE
    assert program.constant
    data = DATA.sample(1000, generator=torch.Generator().manual_seed(1))
    measured = logsnr.Wiener.from_data(data)
    np.testing.assert_allclose(measured.mean, data.mean(0).numpy(), rtol=1e-12)
    np.testing.assert_allclose(measured.variance, data.var(0, correction=0).numpy(), rtol=1e-12, atol=1e-30)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: logsnr.Wiener(np.zeros(3), np.ones(4)), r"mean of shape \(3,\) and variance of shape \(4,\)"),
        (lambda: logsnr.Wiener(0.0, [-1.0]), "variance must not be negative, but holds -1"),
        (lambda: logsnr.Wiener(np.nan, 1.0), "mean must be finite, but holds nan"),
        (lambda: logsnr.Wiener("data", 1.0), "mean must be numbers, not data"),
        (lambda: logsnr.Wiener.from_data(np.zeros((1, 4))), r"at least 2 points, not of shape \(1, 4\)"),
        (lambda: logsnr.Wiener.from_data(np.zeros((9, 4)), basis="haar"), "must be 'pixel', 'dct', 'pca' or"),
        (lambda: logsnr.solver("wiener-2", gaussian=(0, 1)), r"gaussian must be a logsnr.Wiener, not \(0, 1\)"),
        (lambda: plan(logsnr.solver("wiener-2")), r"needs gaussian=logsnr.Wiener.from_data\(x0\)"),
        (lambda: plan(Adams(GAUGE, 2, eta=1.0)), "eta must be 0"),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def plan(method: Any) -> logsnr.Program:
    return logsnr.solver(method).program(logsnr.VPLinear(), logsnr.grid(logsnr.VPLinear(), 3))


def test_states_of_another_shape() -> None:
    sch = logsnr.VPLinear()
    den = logsnr.Denoiser(lambda x, t: x, sch)
    with pytest.raises(ValueError, match=r"samples of shape \(3, 4\), not \(4, 3\)"):
        logsnr.sample(den, torch.zeros(2, 4, 3), solver=METHODS["wiener-2"], steps=3)
