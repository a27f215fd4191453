"""DPM-Solver-v3's gauge: its integrals, its special cases, its Gaussian, its orders, its pseudo-order."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from mutants import altered
from sampled import sampled
from scipy.integrate import quad

import logsnr
from logsnr import analysis
from logsnr.bench.orders import PROBLEM, nodes
from logsnr.solvers import Adams, ExponentialRungeKutta
from logsnr.solvers.denoisers.recognise import levels
from logsnr.solvers.planners import curves, gauge
from logsnr.solvers.planners.curves import Curve, chebyshev_nodes, integrals, polynomials
from logsnr.solvers.planners.gauges import Nodes
from logsnr.solvers.planners.quadrature import powers
from logsnr.solvers.planners.tableaux import DPM_3
from logsnr.solvers.programs.call import Call
from logsnr.solvers.statistics.statistics import span_of

SCH = logsnr.VPLinear()
SCHEDULES = [logsnr.VPLinear(), logsnr.EDM(), logsnr.FlowMatching()]
MIXTURE = analysis.GaussianMixture(means=[[-1.0, 0.5], [0.8, 0.2]], covs=[0.2, 0.3], weights=[0.4, 0.6])
MEAN, VARIANCE = np.linspace(-1, 2, 12).reshape(3, 4), np.geomspace(0.01, 9, 12).reshape(3, 4)
GAUSSIAN = analysis.Gaussian(MEAN, VARIANCE)
METHODS: dict[str, Callable[[Any], Any]] = {
    "1": lambda gauge: Adams(gauge, 1),
    "2": lambda gauge: Adams(gauge, 2),
    "3, corrector": lambda gauge: Adams(gauge, 3, corrector=True),
    "3, single-step": lambda gauge: Adams(gauge, 3, startup="single-step"),
    "2, in rho": lambda gauge: Adams(gauge, 2, "rho"),
    "Runge-Kutta": lambda gauge: ExponentialRungeKutta(DPM_3, gauge),
}


def smooth(sch: logsnr.Schedule, count: int = 48) -> logsnr.Statistics:
    """Statistics that are nobody's: any make a consistent method."""
    span = span_of(sch)
    lam = chebyshev_nodes(span, count)
    tables = 1 / (1 + np.exp(1.5 * lam)), -0.5 + 0.2 * np.sin(lam), 0.3 * np.cos(0.7 * lam)
    return logsnr.Statistics(str(sch), levels(sch), span, *tables)


def test_steps_are_their_integrals() -> None:
    """Factor, moments of the kernel and constant, by quadrature of the formulas of l, s and f."""
    gauge, a, b = smooth(SCH, 120), -0.7, 0.6
    s, t = (Nodes.at(SCH, np.array([float(SCH.time(lam))])) for lam in (a, b))

    def l(lam: float) -> float:  # noqa: E743
        return 1 / (1 + np.exp(1.5 * lam))

    def left(lam: float) -> float:
        return float(np.exp(-quad(l, lam, b, epsabs=1e-13)[0]))

    def scale(lam: float) -> float:
        return float(np.exp(-0.5 * lam + 0.2 * (1 - np.cos(lam))))

    end = float(t.alpha[0])
    assert gauge.ratio(s, t)[0] == pytest.approx(end / s.alpha[0] * left(a), rel=1e-12)
    moments = gauge.integrate("lam", SCH, s, t, powers(np.array([b - a]), 2))[0]
    for k in range(3):
        want = quad(lambda u, k=k: -end * left(u) * scale(u) * ((u - a) / (b - a)) ** k, a, b, epsabs=1e-13)[0]
        assert moments[k] == pytest.approx(want, rel=1e-11)
    assert gauge.total(s, t)[0] == moments[0]
    want = quad(lambda u: -end * left(u) * 0.3 * np.cos(0.7 * u), a, b, epsabs=1e-13)[0]
    assert gauge.offset(s, t)[0] == pytest.approx(want, rel=1e-11)
    slope = -0.21 * np.sin(0.7 * gauge.nodes) - gauge.s * gauge.f
    np.testing.assert_allclose(gauge.b, slope, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("sch", "plain", "method", "shape"), sampled(SCHEDULES, ["eps", "x0"], METHODS, [(), (2,)], every=2)
)
def test_special_cases(sch: logsnr.Schedule, plain: str, method: str, shape: tuple[int, ...]) -> None:
    """(l, s, b) = (0, -1, 0) and (1, 0, 0) are the solvers of eps and x0, to round-off, to sigma = 0 too."""
    parts = (np.full(shape, part) for part in ((0, -1, 0) if plain == "eps" else (1, 0, 0)))
    gauge = logsnr.Statistics.constant_in_lam(sch, *parts)
    x = MIXTURE.sample_at(sch, sch.t_start, 6, generator=torch.Generator().manual_seed(0))
    for end in {sch.t_end, sch.domain[0] if sch.sigma(sch.domain[0]) == 0 and sch != SCH else sch.t_end}:
        ours, theirs = (
            logsnr.sample(MIXTURE.denoiser(sch, "v"), x, solver=METHODS[method](g), steps=5, t_end=end)
            for g in (gauge, plain)
        )
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sch", [logsnr.VPLinear(), logsnr.EDM()], ids=repr)
def test_its_gaussian_is_exact_in_one_step(sch: logsnr.Schedule) -> None:
    """l = sigma deps/dx and f = -l m of a Gaussian, as tables."""
    span = span_of(sch)
    lam = chebyshev_nodes(span, int(12 * (span[1] - span[0])))[:, None, None]
    l = 1 / (1 + np.exp(2 * lam) * VARIANCE)  # noqa: E741
    gauge = logsnr.Statistics(str(sch), levels(sch), span, l, 0 * l, -l * MEAN)
    x = GAUSSIAN.sample_at(sch, sch.t_start, 5, generator=torch.Generator().manual_seed(0))
    exact = GAUSSIAN.flow(x, sch, sch.t_start, sch.t_end)
    for make in METHODS.values():
        for steps in (1, 4):
            found = logsnr.sample(GAUSSIAN.denoiser(sch, "v"), x, solver=make(gauge), steps=steps)
            torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)


def mutant(call: Call) -> np.ndarray:
    """The factor of eps, or of the oldest value, off by 2 %."""
    matrix = call.matrix.copy()
    matrix[0, 1 if len(call.reads) < 3 else -1] *= 1.02
    return matrix


@pytest.mark.parametrize(
    ("order", "corrector", "moments", "wanted"),
    [
        (1, False, "exact", 1), (2, False, "exact", 2), (3, False, "exact", 3), (1, True, "exact", 2),
        (2, True, "exact", 3), (3, False, "pseudo", 2), (3, True, "pseudo", 2), (2, True, "pseudo-corrector", 2),
    ],
)  # fmt: skip
def test_orders(order: int, corrector: bool, moments: str, wanted: int) -> None:
    method = logsnr.solver(f"dpm-v3-{order}", statistics=smooth(SCH), corrector=corrector, moments=moments)
    assert method.order == wanted
    method = replace(method, planner=replace(method.planner, startup="single-step"))  # type: ignore[type-var]
    found, wrong = (
        analysis.convergence_order(m, PROBLEM, SCH, grids=partial(nodes, SCH), max_nfe=most)
        for m, most in ((method, 150), (altered(method, mutant), 80))
    )
    assert found.order == pytest.approx(wanted, abs=0.1)
    assert wrong.order != pytest.approx(wanted, abs=0.1)


def test_pseudo_order_is_a_taylor_polynomial_of_divided_differences() -> None:
    """x0 in lam, on three nodes and a non-uniform grid, written out."""
    grid = np.asarray(SCH.time(np.array([-0.9, -0.2, 0.1, 0.8])))
    lam, call = SCH.half_logsnr(grid), Adams("x0", 3, moments="pseudo").plan(SCH, grid).calls[2]
    s, h = lam[2], lam[3] - lam[2]
    values = np.array([0.7, -0.4, 1.1])  # newest first
    first = (values[0] - values[1]) / (lam[2] - lam[1])
    second = (first - (values[1] - values[2]) / (lam[1] - lam[0])) / (lam[2] - lam[0])

    def kernel(u: float) -> float:
        return float(SCH.alpha(grid[3])) * np.exp(u - lam[3])

    want = quad(lambda u: kernel(u) * (values[0] + first * (u - s) + second * (u - s) ** 2), s, s + h)[0]
    row = call.matrix[0]
    assert float(np.dot([row[0], *row[3:]], values)) == pytest.approx(want, rel=1e-12)
    assert Adams("x0", 2, moments="pseudo").plan(SCH, grid).calls[2] is not None
    np.testing.assert_allclose(
        Adams("x0", 2, moments="pseudo").plan(SCH, grid).calls[2].matrix,
        Adams("x0", 2).plan(SCH, grid).calls[2].matrix, rtol=1e-12,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(), (3,), (3, 4, 5)])
def test_to_no_noise(shape: tuple[int, ...]) -> None:
    """The last step is DDIM's, of statistics by element too: here N is eps."""
    sch = logsnr.EDM()
    den = logsnr.Denoiser(lambda x, t: 0.5 * x, sch, "x0")
    x = logsnr.start(sch, (2, *(shape or (3,))), seed=0)
    method = logsnr.solver("dpm-v3-2", statistics=logsnr.Statistics.constant_in_lam(sch, np.zeros(shape), -1.0, 0.0))
    torch.testing.assert_close(*(logsnr.sample(den, x, solver=m, steps=5, t_end=0) for m in (method, "dpm-2m")))


def test_curves() -> None:
    """Interpolation, integral and slope of an analytic function; constants to the last bit; constant outside."""
    span = (-5.0, 4.0)
    curve = Curve(span, np.sin(chebyshev_nodes(span, 40)))
    lam = np.linspace(*span, 101)
    np.testing.assert_allclose(curve.at(lam), np.sin(lam), atol=1e-13)
    np.testing.assert_allclose(curve.integral(lam), 1 - np.cos(lam), atol=1e-13)
    np.testing.assert_allclose(curve.slope(lam), np.cos(lam), atol=1e-11)
    np.testing.assert_allclose(curve.at(chebyshev_nodes(span, 40)), curve.values, rtol=0, atol=1e-15)
    assert (Curve(span, np.full(9, 0.1)).at(lam) == 0.1).all()
    assert curve.at(9.0) == curve.at(span[1])
    x = np.linspace(-1, 1, 24).reshape(2, 3, 4)
    np.testing.assert_array_equal(polynomials(x, 30), np.polynomial.chebyshev.chebvander(x, 29))
    np.testing.assert_array_equal(polynomials(x, 1), np.ones((2, 3, 4, 1)))
    both = integrals([curve, Curve(span, 2 * curve.values)], lam)
    np.testing.assert_allclose(both, [curve.integral(lam), 2 * curve.integral(lam)], atol=1e-14)


def test_plans_are_made_of_few_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The polynomials of all steps together, not step by step: planning has no more calls for more steps. Groups of
    fewer steps, as samples of many elements need, give the same table."""
    called, statistics = [0], logsnr.Statistics.constant_in_lam(SCH, np.full(3, 0.4), -0.5, 0.1)
    method = logsnr.solver("dpm-v3-3", statistics=statistics)
    assert statistics.with_eta(statistics.eta) is statistics

    def counted(x: np.ndarray, count: int) -> np.ndarray:
        called[0] += 1
        return polynomials(x, count)

    monkeypatch.setattr(curves, "polynomials", counted)
    counts, tables = [], []
    for steps in (10, 20):
        called[0] = 0
        tables.append(method.program(SCH, logsnr.grid(SCH, steps)))
        counts.append(called[0])
    assert counts[0] == counts[1] <= 12
    monkeypatch.setattr(gauge, "AT_ONCE", 100)
    for one, other in zip(method.program(SCH, logsnr.grid(SCH, 20)), tables[1], strict=True):
        np.testing.assert_allclose(one.matrix, other.matrix, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: logsnr.solver("dpm-v3-2", statistics=logsnr.Wiener()), "statistics must be a logsnr.Statistics"),
        (lambda: plan(logsnr.solver("dpm-v3-2")), r"needs statistics=logsnr.calibrate\(den, x0\)"),
        (
            lambda: plan(logsnr.solver("dpm-v3-2", statistics=smooth(logsnr.VPCosine()))),
            "measured on VPCosine.* not on",
        ),
        (lambda: plan(logsnr.solver("dpm-v3-2", statistics=smooth(SCH)), 1e-4), "reach from lam = .* but a step is at"),
        (lambda: plan(Adams(smooth(SCH), eta=0.5)), "eta must be 0"),
        (lambda: logsnr.Statistics.constant_in_lam(SCH, np.zeros(2), np.zeros(3), 0), "broadcast"),
        (lambda: replace(smooth(SCH), l=np.zeros(1), s=0, f=0), "at least 2 nodes"),
        (lambda: replace(smooth(SCH), l=np.full(48, np.nan)), "must be finite"),
        (lambda: replace(smooth(SCH), span=(1.0, -1.0)), "span must go from a lower lam"),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def plan(method: Any, end: float = 1e-3) -> logsnr.Program:
    return logsnr.solver(method).program(SCH, logsnr.grid(SCH, 3, t_end=end))
