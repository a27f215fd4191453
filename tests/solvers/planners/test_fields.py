"""Planners are frozen dataclasses that refuse wrong fields, by name, when they are made."""

import pickle
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import pytest
from checks import nameless

import logsnr
from logsnr.solvers import Adams, ExponentialRungeKutta, Window
from logsnr.solvers.planners.ancestral import DDPM, AncestralDDIM, AncestralMidpoint
from logsnr.solvers.planners.combined import DPMFast, GradientEstimation
from logsnr.solvers.planners.consistency import TrajectoryConsistency
from logsnr.solvers.planners.gauges import EPS, VELOCITY, X0
from logsnr.solvers.planners.jumps import Churn, Restart
from logsnr.solvers.planners.langevin import AnnealedLangevin, PredictorCorrector, UnadjustedLangevin
from logsnr.solvers.planners.stochasticity import NONE
from logsnr.solvers.planners.tableaux import HO4

NAN, INF = float("nan"), float("inf")
SCH = logsnr.VPLinear()
GRID = logsnr.grid(SCH, 5)
PLANNED = [name for name in logsnr.solver_names() if logsnr.solver(name).planner]

WRONG: list[tuple[type, dict[str, Any], str]] = [
    (Adams, {"gauge": "xo"}, "gauge = 'xo' is unknown; did you mean 'x0'"),
    (Adams, {"gauge": None}, "gauge = None is unknown"),
    (Adams, {"order": 0}, "order = 0 must be an integer from 1 to 8"),
    (Adams, {"order": 9}, "order = 9 must be an integer from 1 to 8"),
    (Adams, {"order": 2.0}, "order = 2.0 must be an integer"),
    (Adams, {"order": True}, "order = True must be an integer"),
    (Adams, {"variable": "lambda"}, "variable must be 'lam', 't', 'rho' or 'clock', not 'lambda'"),
    (Adams, {"variable": None}, "variable must be"),
    (Adams, {"eta": -0.5}, "eta = -0.5 must be a number of at least 0"),
    (Adams, {"eta": NAN}, "eta = nan must be a number"),
    (Adams, {"eta": "1"}, "eta = '1' must be a number"),
    (Adams, {"corrector": 1}, "corrector = 1 must be True or False"),
    (Adams, {"startup": "warm"}, "startup must be 'ramp' or 'single-step', not 'warm'"),
    (
        Adams,
        {"moments": "half"},
        "moments must be 'exact', 'simplified', .* or 'pseudo-corrector', not 'half'",
    ),
    (Adams, {"moments": "simplified", "order": 3}, "moments = 'simplified' is a formula of order 2 without corrector"),
    (Adams, {"moments": "halved", "order": 2}, "moments = 'halved' is a formula of order 3"),
    (Adams, {"moments": "halved", "order": 3, "corrector": True}, "moments = 'halved' .* without corrector"),
    (Adams, {"moments": "bh3"}, "moments must be"),
    (Adams, {"variable": "clock"}, "variable = 'clock' is for the gauges 'v' and 'straight'"),
    (Adams, {"pece": True}, "pece = True evaluates at corrected states: it needs corrector = True"),
    (Adams, {"gauge": "v", "eta": 1.0}, "VGauge is a gauge of the ODE"),
    (Adams, {"gauge": "velocity", "order": 2}, "variable = 'lam' does not go with a gauge along t; take 't'"),
    (Adams, {"gauge": VELOCITY, "corrector": True, "variable": "rho"}, "variable = 'rho' does not go with"),
    (ExponentialRungeKutta, {"tableau": "heun"}, "tableau must be a Tableau, not 'heun'"),
    (ExponentialRungeKutta, {"gauge": 3}, "gauge = 3 is unknown"),
    (ExponentialRungeKutta, {"eta": INF}, "eta = inf must be a number"),
    (ExponentialRungeKutta, {"tableau": HO4, "gauge": "v"}, "this tableau is made of phi functions: it needs gauge"),
    (ExponentialRungeKutta, {"tableau": HO4, "eta": 1.0}, "this tableau is made of phi functions"),
    (GradientEstimation, {"gamma": NAN}, "gamma = nan must be a number; the paper takes 2"),
    (DPMFast, {"tail": (4,)}, r"tail = \(4,\) must be a tuple of the orders 1, 2 or 3"),
    (DPMFast, {"tail": ()}, r"tail = \(\) must be a tuple"),
    (DPMFast, {"eta": 1.01}, r"eta = 1.01 must be a number from 0 \(no noise\) to 1"),
    (TrajectoryConsistency, {"gamma": 1.5}, "gamma = 1.5 must be a number from 0"),
    (DDPM, {"variance": 1.5}, "variance = 1.5 must be 'beta-tilde', 'beta', 'learned' or a number"),
    (DDPM, {"variance": "gamma"}, "variance = 'gamma' must be"),
    (DDPM, {"variance": True}, "variance = True must be"),
    (DDPM, {"data_variance": -1}, "data_variance = -1 must be a number of at least 0"),
    (DDPM, {"data_variance": INF}, "data_variance = inf must be"),
    (AncestralDDIM, {"eta": 1.01}, r"eta = 1.01 must be a number from 0 \(no noise\) to 1 \(DDPM\)"),
    (AncestralDDIM, {"eta": Window(1.0)}, r"eta = Window\(.*\) must be a number from 0"),
    (AncestralMidpoint, {"eta": -0.1}, "eta = -0.1 must be a number from 0"),
    (AncestralMidpoint, {"gauge": "x1"}, "gauge = 'x1' is unknown"),
    (Churn, {"s_churn": -1}, "s_churn = -1 must be a number of at least 0"),
    (Churn, {"s_churn": INF}, "s_churn = inf must be a number of at least 0"),
    (Churn, {"s_tmin": None}, "s_tmin = None must be"),
    (Churn, {"s_tmax": NAN}, "s_tmax = nan must be"),
    (Churn, {"s_noise": "1"}, "s_noise = '1' must be"),
    (Restart, {"intervals": 3}, "intervals = 3 must be a sequence of"),
    (Restart, {"intervals": ((1, 0.1),)}, "intervals = .* must be a sequence of"),
    (Restart, {"intervals": ((0, 0.1, 0.2),)}, "intervals = .* times >= 1"),
    (Restart, {"intervals": ((1, 0.2, 0.1),)}, "intervals = .* 0 < low < high"),
    (Restart, {"intervals": ((1, 0.2, INF),)}, "intervals = .* 0 < low < high"),
    (PredictorCorrector, {"snr": -0.1}, "snr = -0.1 must be a number from 0"),
    (PredictorCorrector, {"corrections": 0}, "corrections = 0 must be an integer of at least 1"),
    (PredictorCorrector, {"corrections": 1.0}, "corrections = 1.0 must be an integer"),
    (AnnealedLangevin, {"step": -1.0}, "step = -1.0 must be a number of at least 0"),
    (AnnealedLangevin, {"per_level": 0}, "per_level = 0 must be an integer of at least 1"),
    (UnadjustedLangevin, {"step": NAN}, "step = nan must be"),
]


@pytest.mark.parametrize(("planner", "options", "message"), WRONG, ids=nameless)
def test_wrong_fields(planner: type, options: dict[str, Any], message: str) -> None:
    """One ValueError, when it is made and when one is replaced, and the field and the value in it."""
    for make in (lambda: planner(**options), lambda: replace(planner(), **options)):
        with pytest.raises(ValueError, match=f"^{message}"):
            make()


@pytest.mark.parametrize("name", PLANNED)
def test_planners_are_values(name: str) -> None:
    """They compare and hash by their fields, cannot be changed, go through pickle, and plan the same again."""
    planner: Any = logsnr.solver(name).planner
    again = pickle.loads(pickle.dumps(planner))
    assert (again, hash(again)) == (planner, hash(planner))
    assert replace(planner) == planner
    assert again.plan(SCH, GRID) == planner.plan(SCH, GRID)
    for field in fields(planner):
        with pytest.raises(FrozenInstanceError):
            setattr(planner, field.name, None)


def test_names_and_numbers_become_what_they_mean() -> None:
    """However a field is written, equal settings make equal planners."""
    assert Adams("eps", 2, eta=0) == Adams(EPS, 2, eta=NONE) == Adams(EPS, np.int64(2), eta=0.0)
    assert Adams(eta=1) == Adams(X0, eta=Window(1.0)) != Adams(eta=Window(1.0, 0.0))
    assert ExponentialRungeKutta(gauge="velocity") == ExponentialRungeKutta(gauge=VELOCITY)
    assert DDPM("beta") == DDPM(1) == DDPM(np.float32(1.0)) != DDPM("beta-tilde")
    assert DDPM(data_variance=0) != DDPM()
    assert Restart([[1, 0.1, 1]]) == Restart(((1, 0.1, 1.0),))  # type: ignore[arg-type]
    assert AncestralMidpoint("x0", eta=1) == AncestralMidpoint(X0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("planner", [AncestralDDIM, AncestralMidpoint, Adams, Churn, DDPM, UnadjustedLangevin])
def test_numbers_of_numpy_are_python_s(planner: Any) -> None:
    """A narrow number of numpy's is checked and used as the float64 that it is, not in its own precision."""
    field = {"eta", "s_churn", "data_variance", "step"}.intersection(f.name for f in fields(planner)).pop()
    narrow = np.float32(0.3)
    mine, theirs = (planner(**{field: value}).plan(SCH, GRID) for value in (narrow, float(narrow)))
    assert mine == theirs
    with pytest.raises(ValueError, match=f"{field} = .*inf.* must be a number"):
        planner(**{field: np.float32(np.inf)})


def test_orders_and_evaluations_follow_the_fields() -> None:
    """What a solver says of itself is its planner's: with noise at most 2, with a corrector one more; of what others
    ship that of the formula; stages of a tableau, Langevin steps of a level."""
    for order in range(1, 9):
        assert Adams(order=order).global_order == order
        assert Adams(order=order, corrector=True).global_order == order + 1
        assert Adams(order=order, eta=0.5).global_order == min(order, 2)
    assert [Adams(order=p, moments=m).global_order for p, m in ((2, "simplified"), (3, "halved"))] == [2, 2]
    assert logsnr.solver("dpmpp-3m", compat=True).order == 2
    assert logsnr.solver("dpmpp-3m", compat=True).program(SCH, GRID).order == 2
    known = ("rk4", 4, 4), ("dopri5", 5, 6), ("seeds-3", 2, 3), ("dpm2-a", 2, 2), ("pc", 0, 2)
    for name, order, evaluations in known:
        solver = logsnr.solver(name)
        assert (solver.order, solver.evaluations, solver.program(SCH, GRID).order) == (order, evaluations, order)
    assert logsnr.solver("pc", corrections=3).evaluations == 4
    assert logsnr.solver("ald", per_level=7).evaluations == 7
    assert logsnr.solver("sde-dpmpp-3m", eta=0).order == 3
