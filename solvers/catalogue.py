"""The named solvers: every entry is data, arguments of a planner."""

from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from .catalogue_sde import STOCHASTIC
from .names import nearest
from .options import Option
from .planners.gauges import EPS, VELOCITY, X0
from .planners.multistep import COMPAT, multistep
from .planners.quadrature import Variable
from .planners.singlestep import single_step
from .planners.stochasticity import Smooth, Window
from .planners.tableaux import DOPRI5, DPM_2, DPM_3, EULER, HEUN, RK4
from .solver import Solver

__all__ = ["Solver", "solver", "solver_names"]


def solver(name: str | Solver, *, compat: bool = False, **options: Any) -> Solver:
    """The solver called ``name``; ValueError with the nearest names if there is none.

    compat: the formula that other libraries ship under the same name, with its true order. It exists for
    "dpmpp-2m" (the published simplification of the weights, order 2) and "dpmpp-3m" (whose second difference
    is off by a factor 2 everywhere, order 2 instead of 3).
    options: settings that the solver has, `Solver.options`, such as ``eta`` of the solvers of SDEs: a number >= 0, a
    function of lam (float64 arrays in, arrays out), or a `logsnr.solvers.planners.stochasticity.Window`. Raises ValueError for
    options that it does not have and values that they cannot take.
    """
    if isinstance(name, Solver):
        if compat:
            raise ValueError(f"compat goes with a solver's name, and {name.name} is a Solver already")
    else:
        if not isinstance(name, str) or name not in _SOLVERS:
            raise ValueError(f"solver = {name!r} is unknown{nearest(name, _SOLVERS)}")
        name = _compat(name) if compat else _SOLVERS[name]
    if not options:
        return name
    known = {option.name: option for option in name.options}
    for given, value in options.items():
        if given not in known:
            has = f"it has {', '.join(known)}" if known else "it has no options"
            raise ValueError(f"{given} = {value!r} is not an option of {name.name}: {has}")
    return _configured(name, tuple((known[key], known[key].check(key, options[key])) for key in sorted(options)))


@lru_cache(maxsize=256)  # the same settings give the same object, for which plans are kept
def _configured(found: Solver, settings: tuple[tuple[Option, Any], ...]) -> Solver:
    told = ", ".join(f"{option.name}={_told(value)}" for option, value in settings)
    label = f"{found.name} ({told})"
    arguments = {option.argument: value for option, value in settings}
    planner = partial(found.planner, name=label, **arguments)  # type: ignore[arg-type, misc]
    found = replace(found, name=label, planner=planner, equals=())
    if not arguments.get("eta", True):
        return replace(found, stochastic=False, order=found.ode_order)
    return found


def _told(value: Any) -> str:
    if isinstance(value, Window) and value == Window(value.eta):
        value = value.eta
    return getattr(value.function, "__name__", "...") if isinstance(value, Smooth) else f"{value!r}"


def _compat(name: str) -> Solver:
    if name not in COMPAT:
        raise ValueError(f"compat is for {' and '.join(COMPAT)}; {name!r} is the same everywhere")
    found, (order, moments) = _SOLVERS[name], COMPAT[name]
    label = f"{name} (compat)"
    planner = partial(found.planner, name=label, compat=moments)  # type: ignore[arg-type, misc]
    return replace(found, name=label, order=order, summary=f"{name} as other libraries ship it", planner=planner)


def solver_names() -> list[str]:
    """Every name that ``solver=`` takes."""
    return list(_SOLVERS)


def _adams(name: str, order: int, summary: str, gauge: Any, var: Variable, **facts: Any) -> Solver:
    plan = partial(multistep, name=name, order=order, gauge=gauge, var=var)
    return Solver(name, order, summary, planner=plan, **facts)


def _runge_kutta(name: str, summary: str, gauge: Any, tableau: Any, **facts: Any) -> Solver:
    plan = partial(single_step, name=name, gauge=gauge, tableau=tableau)
    return Solver(name, tableau.order, summary, tableau.stages, plan, **facts)


_FIRST = ("ddim", "deis-1", "deis-rho-1", "dpm-1", "dpmpp-1")

_ALL = [
    _runge_kutta("euler", "Euler on dx/dt; DDIM where alpha and sigma are affine in t", VELOCITY, EULER),
    _runge_kutta("heun", "Heun on dx/dt; EDM's sampler on the EDM schedule", VELOCITY, HEUN),
    _runge_kutta("rk4", "the classical Runge-Kutta method on dx/dt", VELOCITY, RK4),
    _runge_kutta(
        "dopri5", "Dormand-Prince on dx/dt; adaptive with rtol, atol", VELOCITY, DOPRI5, adaptive="dopri5"
    ),
    Solver("bosh3", 3, "Bogacki-Shampine on dx/dt, adaptive", 3, adaptive="bosh3"),
    Solver("dopri8", 8, "Dormand-Prince 8(7) on dx/dt, adaptive", 13, adaptive="dopri8"),
    Solver("adaptive-heun", 2, "Heun with an embedded Euler on dx/dt, adaptive", 2, adaptive="adaptive_heun"),
    _adams("ddim", 1, "DDIM: exponential Euler, x0 or eps held constant", X0, "lam", equals=_FIRST[1:]),
    *(
        _adams(f"deis-{p}", p, f"DEIS tAB{p - 1}: exponential Adams, eps as a polynomial in t", EPS, "t",
               equals=tuple(n for n in _FIRST if n != "deis-1") if p == 1 else ())
        for p in (1, 2, 3, 4)
    ),
    *(
        _adams(f"deis-rho-{p}", p, f"DEIS rhoAB{p - 1} = LMS: eps as a polynomial in sigma/alpha", EPS, "rho",
               equals=tuple(n for n in _FIRST if n != "deis-rho-1") if p == 1 else ())
        for p in (1, 2, 3, 4)
    ),
    _adams("dpm-1", 1, "DPM-Solver-1", EPS, "lam", equals=tuple(n for n in _FIRST if n != "dpm-1")),
    _runge_kutta("dpm-2", "DPM-Solver-2: exponential midpoint rule, eps", EPS, DPM_2),
    _runge_kutta("dpm-3", "DPM-Solver-3, r1 = 1/3, r2 = 2/3, eps", EPS, DPM_3),
    _adams("dpmpp-1", 1, "DPM-Solver++(1)", X0, "lam", equals=tuple(n for n in _FIRST if n != "dpmpp-1")),
    _runge_kutta("dpmpp-2s", "DPM-Solver++(2S): exponential midpoint rule, x0", X0, DPM_2),
    _runge_kutta("dpmpp-3s", "DPM-Solver++(3S), r1 = 1/3, r2 = 2/3, x0", X0, DPM_3),
    _adams("dpmpp-2m", 2, "DPM-Solver++(2M): exponential Adams-Bashforth 2, x0 in lam", X0, "lam"),
    _adams("dpmpp-3m", 3, "DPM-Solver++(3M), truly third order: exponential AB3, x0 in lam", X0, "lam"),
    *STOCHASTIC,
]  # fmt: skip

_SOLVERS = {entry.name: entry for entry in _ALL}
