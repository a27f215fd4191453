"""The named solvers of the PF-ODE, by family."""

from typing import Any

from ..planners.combined import DPMFast, GradientEstimation
from ..planners.gauges import EPS, STRAIGHT, VELOCITY, X0, Needed
from ..planners.multistep import Adams
from ..planners.pairs import AdamsPair, Pair, RungeKuttaPair
from ..planners.singlestep import ExponentialRungeKutta
from ..planners.tableaux import (
    DOPRI5,
    DPM_2,
    DPM_3,
    DPM_12,
    DPM_23,
    ETDRK4,
    EULER,
    EXP_HEUN,
    HEUN,
    HO4,
    KROGSTAD,
    PRK,
    RES_2,
    RES_3,
    RK4,
    Tableau,
    two_stage,
)  # fmt: skip
from .solver import Solver

FIRST = (  # exponential Euler
    "ddim", "deis-1", "deis-rho-1", "lms-1", "ipndm-1", "dpm-1", "dpmpp-1",
)  # fmt: skip
CORRECTOR, GAUGE = ("corrector", "pece"), ("gauge",)
RHO = tuple((f"deis-rho-{p}", f"lms-{p}") for p in (2, 3, 4))
SAME = (FIRST, *RHO, ("dpm-3m", "adams"))  # names of the same numbers
PNDM = Adams(EPS, 4, moments="equal", startup="single-step", starter=PRK)
ORDERS = (1, 2, 3, 4)
GAUSSIAN = Needed(option="gaussian", example="logsnr.Wiener.from_data(x0)")
STATISTICS = Needed(option="statistics", example="logsnr.calibrate(den, x0)")


def _others(name: str) -> tuple[str, ...]:
    return tuple(other for names in SAME if name in names for other in names if other != name)


def _adams(name: str, summary: str, *fields: Any, options: tuple[str, ...] = CORRECTOR, **named: Any) -> Solver:
    return Solver(name, summary, Adams(*fields, **named), equals=_others(name), options=options)


def _classical(name: str, summary: str, tableau: Tableau, adaptive: str | None = None) -> Solver:
    return Solver(name, summary, ExponentialRungeKutta(tableau, VELOCITY), adaptive)


def _exponential(name: str, summary: str, gauge: Any, tableau: Tableau) -> Solver:
    return Solver(name, summary, ExponentialRungeKutta(tableau, gauge), options=GAUGE)


def _pair(name: str, summary: str, pair: Pair) -> Solver:
    return Solver(name, summary, adaptive=pair, options=GAUGE)


CLASSICAL = [
    _classical("euler", "Euler on dx/dt; DDIM where alpha and sigma are affine in t", EULER),
    _classical("heun", "Heun on dx/dt; EDM's sampler on the EDM schedule", HEUN),
    _classical("rk4", "the classical Runge-Kutta method on dx/dt", RK4),
    _classical("dopri5", "Dormand-Prince on dx/dt; adaptive with rtol, atol", DOPRI5, "dopri5"),
    Solver("bosh3", "Bogacki-Shampine on dx/dt, adaptive", adaptive="bosh3", order=3, evaluations=3),
    Solver("dopri8", "Dormand-Prince 8(7) on dx/dt, adaptive", adaptive="dopri8", order=8, evaluations=13),
    Solver(
        "adaptive-heun", "Heun with an embedded Euler on dx/dt, adaptive", adaptive="adaptive_heun",
        order=2, evaluations=2,
    ),
]  # fmt: skip

MULTISTEP = [
    _adams("ddim", "DDIM: exponential Euler, x0 or eps held constant", X0),
    *(
        _adams(f"deis-{p}", f"DEIS tAB{p - 1}: exponential Adams, eps as a polynomial in t", EPS, p, "t")
        for p in ORDERS
    ),
    *(
        _adams(f"deis-rho-{p}", f"DEIS rhoAB{p - 1} = LMS: eps as a polynomial in sigma/alpha", EPS, p, "rho")
        for p in ORDERS
    ),
    *(_adams(f"lms-{p}", "LMS: eps as a polynomial in sigma/alpha", EPS, p, "rho") for p in ORDERS),
    _adams("dpm-1", "DPM-Solver-1", EPS),
    *(_adams(f"dpm-{p}m", f"DPM-Solver {p}M: exponential Adams, eps in lam", EPS, p) for p in (2, 3, 4)),
    *(
        _adams(f"flow-{p}m", "Adams on the straight path: eps - x0 in sigma/(alpha + sigma)", STRAIGHT, p, "clock")
        for p in (2, 3, 4)
    ),
    _adams("dpmpp-1", "DPM-Solver++(1)", X0),
    _adams("dpmpp-2m", "DPM-Solver++(2M): exponential Adams-Bashforth 2, x0 in lam", X0, 2),
    _adams("dpmpp-3m", "DPM-Solver++(3M), truly third order: exponential AB3, x0 in lam", X0, 3),
    *(
        _adams(
            f"unipc-{p}", f"UniPC-{p}: exponential Adams, x0 in lam, predictor of {p}, corrector of {p + 1} values",
            X0, p, corrector=True, options=("pece",),
        )
        for p in ORDERS
    ),
    *(
        _adams(f"ipndm-{p}", "iPNDM: eps with Adams' weights of equal steps, on any grid", EPS, p, moments="equal")
        for p in ORDERS
    ),
    Solver("pndm", "PNDM: three pseudo Runge-Kutta steps, then ipndm-4", PNDM),
    Solver(
        "gradient-estimation", "DDIM with gamma eps + (1 - gamma) the eps before", GradientEstimation(),
        options=("gamma",),
    ),
    _adams(
        "adams", "any exponential Adams method by its options", EPS, 3,
        options=("gauge", "variable", "order", *CORRECTOR, "eta"),
    ),
]  # fmt: skip

INFORMED = [
    *(
        _adams(
            f"wiener-{p}", f"exponential Adams of order {p}, eps less that of a Gaussian, in lam; gaussian=",
            GAUSSIAN, p, options=("gaussian", "corrector"),
        )
        for p in (1, 2, 3)
    ),
    *(
        _adams(
            f"dpm-v3-{p}", f"DPM-Solver-v3 of order {p}: exponential Adams on measured statistics; statistics=",
            STATISTICS, p, options=("statistics", "corrector", "moments"),
        )
        for p in (1, 2, 3)
    ),
]  # fmt: skip

SINGLE_STEP = [
    _exponential("heun-rho", "Heun in x/alpha and sigma/alpha, on every schedule", EPS, two_stage(1)),
    _exponential("dpm-2", "DPM-Solver-2: exponential midpoint rule, eps", EPS, DPM_2),
    _exponential("dpm-3", "DPM-Solver-3, r1 = 1/3, r2 = 2/3, eps", EPS, DPM_3),
    Solver("dpm-fast", "DPM-Solver of orders 3, and 2 or 1 at the end, to fill a budget of nfe", DPMFast()),
    _exponential("dpmpp-2s", "DPM-Solver++(2S): exponential midpoint rule, x0", X0, DPM_2),
    _exponential("dpmpp-3s", "DPM-Solver++(3S), r1 = 1/3, r2 = 2/3, x0", X0, DPM_3),
    _exponential("exp-heun", "exponential Heun, x0, weights phi_2", X0, EXP_HEUN),
    _exponential("res-2s", "RES: stage at 1/2, weights phi_2, x0", X0, RES_2),
    _exponential("res-3s", "RES: stages at 1/2 and 1, x0", X0, RES_3),
    _exponential("etdrk4", "ETD-RK4 of Cox and Matthews, x0", X0, ETDRK4),
    _exponential("krogstad", "ETD-RK4 of Krogstad, x0", X0, KROGSTAD),
    _exponential("ho4", "Hochbruck and Ostermann's method of stiff order 4, x0", X0, HO4),
]

PAIRS = [
    _pair("dpm-12", "DPM-Solver-12: eps, steps chosen by sample", RungeKuttaPair("eps", DPM_12)),
    _pair("dpm-23", "DPM-Solver-23: eps, steps chosen by sample", RungeKuttaPair("eps", DPM_23)),
    *(
        _pair(
            f"adams-{p - 1}{p}",
            f"exponential Adams of {p - 1} and {p}: x0 in lam, steps chosen by sample",
            AdamsPair("x0", p),
        )
        for p in (2, 3, 4)
    ),
]

FAMILIES = {
    "Adams methods: one evaluation a step": MULTISTEP,
    "Adams methods that know the data": INFORMED,
    "Exponential Runge-Kutta methods": SINGLE_STEP,
    "Adaptive pairs": PAIRS,
    "Methods on dx/dt": CLASSICAL,
}
