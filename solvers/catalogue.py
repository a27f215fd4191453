"""The named solvers: every entry is data, a planner with its arguments."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from .catalogue_sde import STOCHASTIC
from .names import solver_hint
from .planners.gauges import EPS, VELOCITY, X0
from .planners.multistep import Adams
from .planners.singlestep import ExponentialRungeKutta
from .planners.stochasticity import Smooth, Window
from .planners.tableaux import DOPRI5, DPM_2, DPM_3, EULER, HEUN, RK4
from .planners.universal import Universal
from .solver import Planner, Solver

__all__ = ["Solver", "solver", "solver_names"]

FIRST = ("ddim", "deis-1", "deis-rho-1", "dpm-1", "dpmpp-1")  # exponential Euler
COMPAT = {"dpmpp-2m": "simplified", "dpmpp-3m": "halved"}
FIELDS = {"tau": "eta"}  # options that have another name than the planner's field


def _others(name: str) -> tuple[str, ...]:
    return tuple(other for other in FIRST if other != name) if name in FIRST else ()


def _adams(name: str, summary: str, planner: Adams) -> Solver:
    return Solver(name, summary, planner, equals=_others(name))


def _runge_kutta(name: str, summary: str, gauge: Any, tableau: Any, adaptive: str | None = None) -> Solver:
    return Solver(name, summary, ExponentialRungeKutta(tableau, gauge), adaptive)


_ALL = [
    _runge_kutta("euler", "Euler on dx/dt; DDIM where alpha and sigma are affine in t", VELOCITY, EULER),
    _runge_kutta("heun", "Heun on dx/dt; EDM's sampler on the EDM schedule", VELOCITY, HEUN),
    _runge_kutta("rk4", "the classical Runge-Kutta method on dx/dt", VELOCITY, RK4),
    _runge_kutta("dopri5", "Dormand-Prince on dx/dt; adaptive with rtol, atol", VELOCITY, DOPRI5, "dopri5"),
    Solver("bosh3", "Bogacki-Shampine on dx/dt, adaptive", adaptive="bosh3", order=3, evaluations=3),
    Solver("dopri8", "Dormand-Prince 8(7) on dx/dt, adaptive", adaptive="dopri8", order=8, evaluations=13),
    Solver(
        "adaptive-heun", "Heun with an embedded Euler on dx/dt, adaptive", adaptive="adaptive_heun",
        order=2, evaluations=2,
    ),
    _adams("ddim", "DDIM: exponential Euler, x0 or eps held constant", Adams(X0)),
    *(
        _adams(f"deis-{p}", f"DEIS tAB{p - 1}: exponential Adams, eps as a polynomial in t", Adams(EPS, p, "t"))
        for p in (1, 2, 3, 4)
    ),
    *(
        _adams(f"deis-rho-{p}", f"DEIS rhoAB{p - 1} = LMS: eps as a polynomial in sigma/alpha", Adams(EPS, p, "rho"))
        for p in (1, 2, 3, 4)
    ),
    _adams("dpm-1", "DPM-Solver-1", Adams(EPS)),
    _runge_kutta("dpm-2", "DPM-Solver-2: exponential midpoint rule, eps", EPS, DPM_2),
    _runge_kutta("dpm-3", "DPM-Solver-3, r1 = 1/3, r2 = 2/3, eps", EPS, DPM_3),
    _adams("dpmpp-1", "DPM-Solver++(1)", Adams(X0)),
    _runge_kutta("dpmpp-2s", "DPM-Solver++(2S): exponential midpoint rule, x0", X0, DPM_2),
    _runge_kutta("dpmpp-3s", "DPM-Solver++(3S), r1 = 1/3, r2 = 2/3, x0", X0, DPM_3),
    _adams("dpmpp-2m", "DPM-Solver++(2M): exponential Adams-Bashforth 2, x0 in lam", Adams(X0, 2)),
    _adams("dpmpp-3m", "DPM-Solver++(3M), truly third order: exponential AB3, x0 in lam", Adams(X0, 3)),
    *STOCHASTIC,
]  # fmt: skip

_SOLVERS = {entry.name: entry for entry in _ALL}
# Tables fitted for a few evaluations: no methods that converge as steps shrink, so `solver_names` leaves them out.
_TABLES = {
    "universal": Solver(
        "universal",
        "fitted to random problems; the best there is at 5 to 10 evaluations",
        Universal(),
        options=("data_std", "width"),
    )
}


def solver(name: str | Solver | Planner, *, compat: bool = False, **options: Any) -> Solver:
    """The solver called ``name``; ValueError with the nearest names if there is none.

    name:    a name, a `Solver`, or a planner of one's own, which is called by the name of its class.
    compat:  the formula that other libraries ship under the same name, with its true order. It exists for
             "dpmpp-2m" (the published simplification of the weights, order 2) and "dpmpp-3m" (whose second difference
             is off by a factor 2 everywhere, order 2 instead of 3).
    options: settings that the solver has, `Solver.options`, such as ``eta`` of the solvers of SDEs: a number >= 0, a
             function of lam (float64 arrays in, arrays out), or a `logsnr.solvers.Window`. Raises ValueError for
             options that it does not have and values that they cannot take.
    """
    found = _named(name)
    if compat:
        found = _compat(name, found)
    if not options:
        return found
    for given, value in options.items():
        if given not in found.options:
            has = f"it has {', '.join(found.options)}" if found.options else "it has no options"
            raise ValueError(f"{given} = {value!r} is not an option of {found.name}: {has}")
    fields = {FIELDS.get(option, option): options[option] for option in options}
    try:
        planner: Any = replace(found.planner, **fields)  # type: ignore[type-var]
    except ValueError as error:
        alias = next((f"{option}: " for option in options if option in FIELDS), "")
        raise ValueError(f"{alias}{error}") from None
    settings = ", ".join(
        f"{option}={_label(getattr(planner, FIELDS.get(option, option)))}" for option in sorted(options)
    )
    return _made(Solver(f"{found.name} ({settings})", found.summary, planner, options=found.options))


@lru_cache(maxsize=256)  # the same settings give the same object, which is found again faster than an equal one
def _made(found: Solver) -> Solver:
    return found


def _named(name: Any) -> Solver:
    if isinstance(name, Solver):
        return name
    if isinstance(name, str) and name in (known := _SOLVERS | _TABLES):
        return known[name]
    if isinstance(name, Planner) and not isinstance(name, type):
        return _made(Solver(type(name).__name__, planner=name))
    raise ValueError(f"solver = {name!r:.60} is unknown{solver_hint(name, _SOLVERS)}")


def _label(value: Any) -> str:
    if isinstance(value, Window) and value == Window(value.eta):
        value = value.eta
    return getattr(value.function, "__name__", "...") if isinstance(value, Smooth) else f"{value!r}"


def _compat(name: Any, found: Solver) -> Solver:
    if not isinstance(name, str):
        raise ValueError(f"compat goes with a solver's name, and {found.name} is a Solver already")
    if name not in COMPAT:
        raise ValueError(f"compat is for {' and '.join(COMPAT)}; {name!r} is the same everywhere")
    planner: Any = replace(found.planner, moments=COMPAT[name])  # type: ignore[type-var]
    return _made(Solver(f"{name} (compat)", f"{name} as other libraries ship it", planner))


def solver_names() -> list[str]:
    """Every name that ``solver=`` takes, but for "universal", which is a set of tables and no method."""
    return list(_SOLVERS)
