"""Gauges of the user's: one class, and the Adams and Runge-Kutta methods are there."""

from dataclasses import dataclass

import numpy as np
import pytest

import logsnr
from logsnr.solvers import EPS, X0, Adams, ExponentialRungeKutta, Gauge, Nodes
from logsnr.solvers.planners.tableaux import DPM_2
from logsnr.solvers.schedules.base import Schedule

SCH = logsnr.VPLinear()


@dataclass(frozen=True)
class MyEps(Gauge):
    """d(x / alpha) = eps d(sigma / alpha), written out anew."""

    def columns(self, sch: Schedule, t: np.ndarray) -> np.ndarray:
        return np.stack([0 * t, 0 * t + 1], axis=-1)

    def ratio(self, s: Nodes, t: Nodes) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return t.alpha / s.alpha

    def rate(self, left: np.ndarray, t: Nodes) -> np.ndarray:
        kernel = -t.sigma[:, None] * np.exp(left)
        return kernel * (1 + self.eta.squared(t.lam[:, None] - left)) if self.eta else kernel

    def total(self, s: Nodes, t: Nodes) -> np.ndarray:
        whole = np.expm1(t.lam - s.lam)
        return -t.sigma * (whole + self.eta.integral(s.lam, t.lam, 1.0) if self.eta else whole)

    def std(self, sch: Schedule, s: Nodes, t: Nodes) -> np.ndarray:
        return t.sigma * np.sqrt(2 * self.eta.integral(s.lam, t.lam, 2.0))


GRIDS = [(SCH, logsnr.grid(SCH, 6)), (logsnr.FlowMatching(), logsnr.grid(logsnr.FlowMatching(), 5, "karras"))]


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize(("sch", "grid"), GRIDS, ids=["finite", "infinite"])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_gauge_of_one_s_own(sch: Schedule, grid: np.ndarray, eta: float) -> None:
    """A copy of the eps gauge plans the tables of eps bit for bit, infinite ends and noise included."""
    for order in (1, 2, 3):
        for variable, startup in (("lam", "ramp"), ("t", "single-step"), ("rho", "ramp")):
            mine, theirs = (Adams(g, order, variable, eta, startup=startup).plan(sch, grid) for g in (MyEps(), EPS))
            assert mine == theirs
            assert bool(mine.noises) is (eta > 0)
    mine, theirs = (ExponentialRungeKutta(DPM_2, g, eta).plan(sch, grid) for g in (MyEps(), EPS))
    assert mine == theirs
    assert Adams(MyEps(), 2) != Adams(EPS, 2)
    assert mine != ExponentialRungeKutta(DPM_2, X0, eta).plan(sch, grid)


def test_a_gauge_must_say_what_it_is() -> None:
    """One without its formulas cannot be made, and its class is none."""

    class Empty(Gauge):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Empty()  # type: ignore[abstract]
    with pytest.raises(ValueError, match=r"gauge = <class '.*MyEps'> is unknown"):
        Adams(MyEps)  # type: ignore[arg-type]
