"""The named solvers: every entry is data, a planner with its arguments."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from ..names import solver_hint
from ..planners.gauges import GAUGES, Gauge, Needed
from ..planners.stochasticity import Smooth, Window
from ..statistics.statistics import Statistics
from ..statistics.wiener import Wiener
from ..tuning.universal import Universal
from .auto import AUTO
from .ode import FAMILIES as ODE_FAMILIES
from .sde import STOCHASTIC
from .solver import Planner, Solver

__all__ = ["Solver", "solver", "solver_names"]

FAMILIES = {**ODE_FAMILIES, "Methods with noise": STOCHASTIC}
_SOLVERS = {entry.name: entry for family in FAMILIES.values() for entry in family}
FIELDS = {  # options that have another name than the planner's field
    "tau": "eta", "gaussian": "gauge", "statistics": "gauge",
}  # fmt: skip
KINDS: dict[str, type] = {"gaussian": Wiener, "statistics": Statistics}  # what some of them must be
COMPAT: dict[str, dict[str, str]] = {  # what others ship under these names, as `Adams.moments`; the first is for True
    "dpmpp-2m": {"published": "simplified"},
    "dpmpp-3m": {"published": "both-halved", "taylor": "halved"},
    "sde-dpmpp-2m": {"midpoint": "simplified"},
    "sde-dpmpp-3m": {"published": "halved"},
    **{f"unipc-{p}": {"bh2": "bh2", "bh1": "bh1"} for p in (1, 2, 3, 4)},
    **{f"deis-{p}": {"comfyui": "sum-in-time"} for p in (2, 3, 4)},
    **{f"deis-rho-{p}": {"comfyui": "variable-steps"} for p in (3, 4)},
    **{f"er-sde-{p}": {"comfyui": "sum-in-rho"} for p in (2, 3)},
}


# Tables fitted for a few evaluations, and choices: no methods that converge as steps shrink, so `solver_names` leaves
# them out.
_TABLES = {
    "universal": Solver(
        "universal", "tables fitted to random problems, for 3 to 40 evaluations", Universal(),
        options=("data_std", "width"),
    ),
    AUTO.name: AUTO,
}  # fmt: skip


def solver(name: str | Solver | Planner, *, compat: bool | str = False, **options: Any) -> Solver:
    """The solver called ``name``; ValueError with the nearest names if there is none.

    name:    a name, a `Solver`, or a planner of one's own, which is called by the name of its class. "auto" chooses one
             for the budget, together with the grid (`Auto`).
    compat:  a formula that other libraries ship under the same name, with its true order: for "dpmpp-2m" and
             "sde-dpmpp-2m" the published simplification of the weights, for "dpmpp-3m" and "sde-dpmpp-3m" the second
             difference that is off by a factor 2 everywhere (order 2 instead of 3; "taylor" of the former begins with
             exact weights, as the authors' option of that name does), for "unipc-1" to "unipc-4" "bh2"
             or "bh1"; "comfyui" of "deis-2" to "deis-4" and of "er-sde-2" and "er-sde-3" is the sum that ComfyUI has in
             the place of an integral, of "deis-rho-3" and "deis-rho-4" its ipndm_v. True is the first of several.
    options: settings that the solver has, `Solver.options`, such as ``eta`` of the solvers of SDEs: a number >= 0, a
             function of lam (float64 arrays in, arrays out), or a `logsnr.solvers.Window`. Raises ValueError for
             options that it does not have and values that they cannot take.
    """
    found = _named(name)
    if compat is not False:
        found = _compat(name, found, compat)
    if not options:
        return found
    for given, value in options.items():
        if given not in found.options:
            has = f"it has {', '.join(found.options)}" if found.options else "it has no options"
            raise ValueError(f"{given} = {value!r} is not an option of {found.name}: {has}")
        if not isinstance(value, KINDS.get(given, object)):
            raise ValueError(f"{given} must be a logsnr.{KINDS[given].__name__}, not {value!r:.60}")
    fields = {FIELDS.get(option, option): options[option] for option in options}
    kind = "planner" if found.planner else "adaptive"
    try:
        planner: Any = replace(getattr(found, kind), **fields)
    except ValueError as error:
        alias = next((f"{option}: " for option in options if option in FIELDS), "")
        raise ValueError(f"{alias}{error}") from None
    settings = ", ".join(
        f"{option}={_label(getattr(planner, FIELDS.get(option, option)))}" for option in sorted(options)
    )
    made = Solver(f"{found.name} ({settings})", found.summary, options=found.options, **{kind: planner})
    return _made(made)


@lru_cache(maxsize=256)  # the same settings give the same object, which is found again faster than an equal one
def _made(found: Solver) -> Solver:
    return found


def _named(name: Any) -> Solver:
    if isinstance(name, Solver):
        return name
    if isinstance(name, str) and (known := _SOLVERS.get(name) or _TABLES.get(name)):
        return known
    if isinstance(name, Planner) and not isinstance(name, type):
        return _made(Solver(type(name).__name__, planner=name))
    raise ValueError(f"solver = {name!r:.60} is unknown{solver_hint(name, _SOLVERS)}")


def _label(value: Any) -> str:
    if isinstance(value, Gauge):
        return next((repr(name) for name, gauge in GAUGES.items() if gauge == value), f"{value!r:.60}")
    if isinstance(value, Window) and value == Window(value.eta):
        value = value.eta
    return getattr(value.function, "__name__", "...") if isinstance(value, Smooth) else f"{value!r}"


def _compat(name: Any, found: Solver, form: bool | str) -> Solver:
    if not isinstance(name, str):
        raise ValueError(f"compat goes with a solver's name, and {found.name} is a Solver already")
    if name not in COMPAT:
        raise ValueError(f"compat is for {', '.join(COMPAT)}; {name!r} is the same everywhere")
    forms = COMPAT[name]
    if form is not True and form not in forms:
        raise ValueError(f"compat = {form!r:.60} is not a form of {name}: take {' or '.join(map(repr, forms))}")
    chosen = next(iter(forms)) if form is True else form
    planner: Any = replace(found.planner, moments=forms[str(chosen)])  # type: ignore[type-var]
    label = "compat" if len(forms) == 1 else f"compat={chosen!r}"
    return _made(Solver(f"{name} ({label})", f"{name} as other libraries ship it", planner, options=found.options))


def families() -> dict[str, list[str]]:
    """The names of all solvers, by family."""
    return {title: [entry.name for entry in family] for title, family in FAMILIES.items()}


def solver_names() -> list[str]:
    """Every name that ``solver=`` takes as it is and that converges: not those that need something given, as
    ``wiener-2`` does, and not "auto" and "universal", which choose among
    methods and tables."""
    return [name for name, found in _SOLVERS.items() if not isinstance(getattr(found.planner, "gauge", None), Needed)]
