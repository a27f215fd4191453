"""Embedded pairs: their weights are phi functions to the last digits, and both results have their order."""

from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch

import logsnr
from logsnr.solvers.planners.gauge import Nodes
from logsnr.solvers.planners.pairs import LONGEST, AdamsPair, Pair, RungeKuttaPair
from logsnr.solvers.planners.tableaux import DPM_2, DPM_3, DPM_12, DPM_23, Tableau, two_stage

SCH = logsnr.VPLinear()
PAIRS = [
    *(RungeKuttaPair(gauge, tableau) for gauge in ("eps", "x0") for tableau in (DPM_12, DPM_23)),
    *(AdamsPair(gauge, order) for gauge in ("x0", "eps") for order in (2, 3, 4)),
]
named = pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{type(p).__name__}-{p.gauge}-{p.global_order}")


def nodes(lam: np.ndarray) -> Nodes:
    """Levels of a path with alpha^2 + sigma^2 = 1: what a pair is told needs no schedule."""
    return Nodes(-lam, 1 / np.sqrt(1 + np.exp(-2 * lam)), 1 / np.sqrt(1 + np.exp(2 * lam)), lam)


def phi(k: int, z: float) -> mpmath.mpf:
    return mpmath.hyp1f1(1, k + 1, z) / mpmath.factorial(k)


@pytest.mark.parametrize("h", [1e-8, 1e-4, 0.1, 1.0, LONGEST])
@pytest.mark.parametrize("gauge", ["x0", "eps"])
def test_weights_are_phi_functions(h: float, gauge: str) -> None:
    """DPM-Solver-3 and the corrector of order 2, against mpmath: no digit is lost for steps of any length."""
    s, t = nodes(np.array([-0.3])), nodes(np.array([-0.3 + h]))
    with mpmath.workdps(40):
        long = mpmath.mpf(t.lam[0]) - mpmath.mpf(s.lam[0])
        scale = t.alpha[0] * long if gauge == "x0" else -t.sigma[0] * long
        first, second = (scale * phi(k, -long if gauge == "x0" else long) for k in (1, 2))
        third = [first - 3 * second / 2, 0, 3 * second / 2]
        wanted = [[float(w) for w in row] for row in (third, [first - second, second])]
    got = RungeKuttaPair(gauge, DPM_23).result(s, t, s.lam[:, None])[0].weights[0]
    np.testing.assert_allclose(got, wanted[0], rtol=4e-15, atol=4e-16 * abs(wanted[0][0]))
    got = AdamsPair(gauge, 2).result(s, t, s.lam[:, None])[0].weights[0]
    np.testing.assert_allclose(got, wanted[1], rtol=2e-15)


def errors(pair: Pair, h: float, count: int = 9) -> tuple[float, float]:
    """Of one step of length h from exact values on the mixture of two Gaussians: the error of the better result, and
    what the pair says of the worse one."""
    problem, sch = logsnr.analysis.two_gaussians(), SCH
    x0 = torch.linspace(-2.0, 2.0, count, dtype=torch.float64)
    lams = 0.1 + h * np.array([-2.0, -1.3, -0.6, 0.0])  # of the past, and the start
    lams = lams[1 - pair.order :] if isinstance(pair, AdamsPair) else lams[-1:]

    def at(lam: float) -> Nodes:
        return Nodes.at(sch, np.full(count, float(sch.time(lam))))

    def value(x: torch.Tensor, where: Nodes) -> np.ndarray:
        both = problem.posterior(x, float(where.alpha[0]), float(where.sigma[0]))
        return np.asarray(both[0] if pair.gauge == "x0" else both[1])

    begin = float(sch.time(0.1 - 2 * h))
    path = {lam: problem.reference(x0, sch, begin, float(sch.time(lam))) for lam in (*lams, 0.1 + h)}
    s, t, start = at(0.1), at(0.1 + h), path[lams[-1]].numpy()
    past = np.stack([pair.variable(at(lam)) for lam in lams[::-1]], axis=1)
    slots = np.zeros((count, pair.slots))
    for j, lam in enumerate(lams[::-1]):
        slots[:, j] = value(path[lam], at(lam))
    for i in range(1, pair.stages):
        where = pair.between(sch, s, t, pair.node(i))
        row = pair.stage(i, s, where, past)
        state = torch.from_numpy(row.ratio * start + (row.weights * slots).sum(1))
        slots[:, pair.slot(i)] = value(state, where)
    row, weights = pair.result(s, t, past)
    end = row.ratio * start + (row.weights * slots).sum(1)
    return float(np.abs(end - path[0.1 + h].numpy()).max()), float(np.abs((weights * slots).sum(1)).max())


def orders(pair: Pair, h: float = 0.01) -> tuple[float, float]:
    """The powers of h with which the two fall."""
    better, estimate = np.log2(errors(pair, 2 * h)) - np.log2(errors(pair, h))
    return float(better), float(estimate)


@pytest.mark.parametrize("schedule", [None, SCH], ids=["lam", "time"])
@named
def test_both_results_have_their_order(pair: Pair, schedule: logsnr.Schedule | None) -> None:
    """The error of one step falls with h^(p + 1), that of the worse result, which is the estimate, with h^p; in lam and
    in the schedule's time."""
    pair = replace(pair, schedule=schedule)
    better, estimate = orders(pair)
    assert better == pytest.approx(pair.global_order + 1, abs=0.15)
    assert estimate == pytest.approx(pair.global_order, abs=0.15)
    assert (pair.exponent(np.zeros((3, pair.slots - 1))) == pair.global_order).all()


def test_mutants_fail() -> None:
    """A result that is off by a thousandth in one coefficient has not its order, an embedded one neither."""
    *inner, (start, middle, last) = DPM_23.rows
    off = 1.001
    changed = replace(DPM_23, rows=(*inner, ((1, -1.5 * off), middle, (0, 1.5 * off))))
    assert orders(RungeKuttaPair("eps", changed), 1e-3)[0] < 3.5
    first, second, third = DPM_23.embedded
    changed = replace(DPM_23, embedded=((float(first[0]) - 0.001,), (float(second[0]) + 0.001,), third))
    assert orders(RungeKuttaPair("eps", changed), 1e-3)[1] < 2.8
    assert orders(RungeKuttaPair("eps", DPM_23), 1e-3) == pytest.approx((4, 3), abs=0.1)
    assert (start, last) == ((1, -1.5), (0, 1.5))


def test_tableaux_are_the_published_ones() -> None:
    """The better results are those of dpm-2 and dpm-3, the worse ones DPM-Solver-1, and 2 with r1 = 1/3."""
    assert (DPM_12.rows, DPM_23.rows) == (DPM_2.rows, DPM_3.rows)
    assert DPM_23.embedded[:2] == two_stage(DPM_23.nodes[0]).rows[-1]
    s, t = nodes(np.array([0.2])), nodes(np.array([0.9]))
    for pair in (RungeKuttaPair("x0", DPM_12), RungeKuttaPair("eps", DPM_23)):
        row, error = pair.result(s, t, np.empty((1, 0)))
        assert error.sum() == pytest.approx(0, abs=1e-15)
        assert row.weights.shape == error.shape == (1, pair.slots)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RungeKuttaPair("v", DPM_12), "gauge must be 'x0' or 'eps', not 'v'"),
        (lambda: RungeKuttaPair("eps", DPM_2), "tableau must be a Tableau with an embedded row"),
        (lambda: RungeKuttaPair("eps", "DPM_12"), "tableau must be a Tableau with an embedded row"),  # type: ignore
        (lambda: AdamsPair("x0", 1), "order = 1 must be an integer from 2 to 6"),
        (lambda: AdamsPair("x0", 7), "order = 7 must be an integer from 1 to 6"),
        (lambda: Tableau(2, DPM_2.nodes, DPM_2.rows, embedded=((1,),)), "embedded must have 2 entries, not 1"),
        (
            lambda: Tableau(2, DPM_2.nodes, DPM_2.rows, embedded=((1,), (1,))),
            "the entries of moment 0 must sum to 1, not 2",
        ),
        (lambda: logsnr.solver("dpm-23", gauge="velocity"), "gauge must be 'x0' or 'eps', not 'velocity'"),
        (lambda: logsnr.solver("dpm-23", order=3), "order = 3 is not an option of dpm-23: it has gauge"),
    ],
)
def test_bad_input(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
