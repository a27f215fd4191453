"""The named solvers: every entry is data, arguments of a planner."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

from .gauges import EPS, VELOCITY, X0
from .grids import check_grid
from .multistep import COMPAT, Startup, multistep
from .names import nearest
from .program import Program
from .quadrature import Variable
from .schedule import Schedule
from .singlestep import single_step
from .tableaux import DOPRI5, DPM_2, DPM_3, EULER, HEUN, RK4

Planner = Callable[..., Program]


@dataclass(frozen=True)
class Solver:
    """A named solver.

    order: global order of convergence (with startup="single-step" for multistep solvers of order > 2).
    evaluations: model calls per step. planner: None for methods that only exist with adaptive steps.
    adaptive: torchdiffeq's name of the method, if it offers it. equals: other names of the same numbers.
    """

    name: str
    order: int
    summary: str
    evaluations: int = 1
    planner: Planner | None = None
    adaptive: str | None = None
    equals: tuple[str, ...] = ()
    stochastic: bool = False

    def program(self, sch: Schedule, grid: Any, *, startup: Startup = "ramp") -> Program:
        """The table of this solver on ``grid``, a 1-D array of times (see `logsnr.grid`). Raises ValueError
        for grids that are not strictly monotone or leave the schedule, and for adaptive-only methods."""
        if self.planner is None:
            raise ValueError(f"{self.name} chooses its own steps and has no program; give rtol and atol to solve")
        if startup not in get_args(Startup):
            raise ValueError(f"startup must be 'ramp' or 'single-step', not {startup!r}")
        return self.planner(sch, check_grid(sch, grid), startup)


def solver(name: str | Solver, *, compat: bool = False) -> Solver:
    """The solver called ``name``; ValueError with the nearest names if there is none.

    compat: the formula that other libraries ship under the same name, with its true order. It exists for
    "dpmpp-2m" (the published simplification of the weights, order 2) and "dpmpp-3m" (whose second difference
    is off by a factor 2 everywhere, order 2 instead of 3).
    """
    if isinstance(name, Solver):
        return name
    if name not in _SOLVERS:
        raise ValueError(f"solver = {name!r} is unknown{nearest(name, _SOLVERS)}")
    found = _SOLVERS[name]
    if not compat:
        return found
    if name not in COMPAT:
        raise ValueError(f"compat is for {' and '.join(COMPAT)}; {name!r} is the same everywhere")
    order, moments = COMPAT[name]
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
]  # fmt: skip

_SOLVERS = {entry.name: entry for entry in _ALL}
