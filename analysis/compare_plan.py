"""What `compare` runs: programs of solvers on grids, from both starts, within budgets."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from ..solvers.catalogue.auto import Auto
from ..solvers.catalogue.catalogue import Solver, solver_names
from ..solvers.catalogue.catalogue import solver as find_solver
from ..solvers.catalogue.planning import Layout
from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.grids.grids import KINDS
from ..solvers.grids.grids import grid as make_grid
from ..solvers.names import grid_hint
from ..solvers.planners.multistep import check_startup
from ..solvers.programs.call import integer
from ..solvers.programs.checks import check_times
from ..solvers.programs.program import Program
from ..solvers.runs.plans import suited_to
from ..solvers.schedules.base import Schedule
from ..solvers.tuning.universal import Universal

QUICK = ("auto", "universal", "ddim", "heun", "dpmpp-2m", "dpmpp-3m", "unipc-3", "dpm-3m")
ALL = "all"
OWN = "own"  # the grid of what brings its nodes along
TUNED = "tuned"
AnyMethod = TypeVar("AnyMethod", bound=Solver | Program)


class Candidate(NamedTuple):
    """A program, and what it was asked for as."""

    solver: str
    grid: str
    startup: str
    nfe: int
    program: Program

    @property
    def noisy(self) -> bool:
        return bool(self.program.noises)


def candidates(
    den: Denoiser,
    event: tuple[int, ...],
    budgets: list[int],
    solvers: Any,
    grids: Any,
    startups: Any,
    span: Mapping[str, Any],
) -> tuple[list[Candidate], list[str]]:
    """What can be run, by budget, each program once, and notes on what cannot; ValueError for names that do not exist
    and if there is nothing to run. Solvers that choose by the shape of a sample do so for ``event``, as a run does."""
    sch, head = den.schedule, den.prediction
    kinds, begins = _names("grids", grids), _names("startups", startups)
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"grid = {kind!r} is unknown{grid_hint(kind, KINDS)}")
        make_grid(sch, 2, kind, **span)  # a list for other schedules says so
    for startup in begins:
        check_startup(startup)
    methods, found, notes = _methods(solvers), list[Candidate](), list[str]()
    for nfe in budgets:
        for method in methods:
            if isinstance(method, Program):
                check_times(sch, method)
                made = [Candidate(method.name, OWN, "", nfe, method)] * (len(method) == nfe)
                why = f"it takes {len(method)}"
            else:
                if hasattr(method.planner, "suited"):
                    method = suited_to(method, event, den.guidance is not None, den.answers)
                made, why = _laid_out(method, sch, head, nfe, kinds, begins, span)
            found += made
            if not made:
                notes.append(f"no row of {method.name} at {nfe} evaluations: {why}")
    if not found:
        raise ValueError(f"there is nothing to compare: {'; '.join(notes)}")
    return found, notes


def _laid_out(
    method: Solver, sch: Schedule, head: str, nfe: int, kinds: list[str], begins: list[str], span: Mapping[str, Any]
) -> tuple[list[Candidate], str]:
    """The programs of a solver that differ, or why there is none."""
    found: dict[Any, Candidate] = {}
    own, why = brings_grid(method), ""
    for kind in [None] if own else kinds:
        for startup in [None] if own else begins:
            try:
                program = Layout(nfe=nfe, grid=kind, startup=startup, **span).program(method, sch, head)
            except ValueError as error:  # too small a budget
                why = str(error)
                continue
            if not is_fitted(method.planner, program):
                return [], "there is no table for this budget and this range of noise"
            key = tuple(call.key for call in program)  # without the notes
            found.setdefault(key, Candidate(method.name, kind or OWN, startup or "", nfe, program))
    return list(found.values()), why


def brings_grid(method: Solver) -> bool:
    """Whether the solver has a grid of its own for each budget."""
    return isinstance(method.planner, (Auto, Universal))


def is_fitted(planner: Any, program: Program) -> bool:
    """False for the formula that "universal" is where there is no table."""
    return not isinstance(planner, Universal) or bool(program.provenance)


def _methods(solvers: Any) -> list[Solver | Program]:
    """Each once, and of solvers with equal numbers the first."""
    every: list[Solver | Program]
    if isinstance(solvers, str) and solvers == ALL:
        every = [s for s in map(find_solver, ("auto", "universal", *solver_names())) if s.planner]
    else:
        one = isinstance(solvers, (str, Solver, Program)) or hasattr(solvers, "plan")
        every = [s if isinstance(s, Program) else find_solver(s) for s in ([solvers] if one else solvers)]
    if not every:
        raise ValueError("solvers is empty; logsnr.solver_names() lists them")
    for method in every:
        if isinstance(method, Solver) and method.planner is None:
            raise ValueError(f"solver = {method.name!r} chooses its own steps, so it cannot be held to a budget")
    return distinct(every)


def distinct(every: Iterable[AnyMethod]) -> list[AnyMethod]:
    """Each once, and of solvers with equal numbers the first."""
    methods: list[AnyMethod] = []
    for method in every:
        names = {m.name for m in methods if isinstance(m, Solver)}
        if method not in methods and not set(getattr(method, "equals", ())) & names:
            methods.append(method)
    return methods


def _names(what: str, given: Any) -> list[str]:
    names = [given] if isinstance(given, str) else list(given)
    if not names:
        raise ValueError(f"{what} is empty")
    return list(dict.fromkeys(names))


def whole_numbers(name: str, given: Any) -> list[int]:
    """One or several, sorted, each once; ValueError for anything else."""
    numbers = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    if not numbers:
        raise ValueError(f"{name} is empty; give budgets of model evaluations, such as (5, 8, 10)")
    return sorted({integer(name, number, 1, 1_000_000) for number in numbers})
