"""Sample from diffusion and flow models by solving their differential equations.

A solver is a table of float64 numbers: the same table is run, printed, measured and proved.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .solvers.catalogue.catalogue import Solver, solver, solver_names
from .solvers.denoisers.denoiser import Denoiser
from .solvers.denoisers.guidance import Guidance
from .solvers.grids.grids import grid, grid_names
from .solvers.grids.levels import Shift
from .solvers.parallel.settings import Picard, Rounds
from .solvers.programs.program import Call, Program
from .solvers.runs.execution import Stepper
from .solvers.runs.normals import randn, start
from .solvers.runs.run import NonFiniteError
from .solvers.runs.solution import Solution
from .solvers.runs.watching import StopSampling
from .solvers.sampling import sample, solve
from .solvers.schedules.base import Schedule
from .solvers.schedules.custom import Custom
from .solvers.schedules.formulas import EDM, VE, FlowMatching, SubVP, Trigonometric, VPCosine, VPLinear
from .solvers.schedules.tabulated import Discrete
from .solvers.statistics.calibrate import calibrate
from .solvers.statistics.known import known_error
from .solvers.statistics.statistics import Statistics
from .solvers.statistics.width import data_width
from .solvers.statistics.wiener import Wiener
from .solvers.tuning.tune import tune

if TYPE_CHECKING:
    from .analysis import log_likelihood, log_prob
    from .integrations import check, wrap

LAZY = {"check": "integrations", "wrap": "integrations", "log_likelihood": "analysis", "log_prob": "analysis"}


def __getattr__(name: str) -> Any:
    """Load the analysis, the kernels and the bench when they are first used: import stays quick."""
    if found := LAZY.get(name):
        return getattr(import_module(f"{__name__}.{found}"), name)
    if name in {"analysis", "bench", "control", "integrations", "kernels", "solvers"}:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{_elsewhere(name)}")


def _elsewhere(name: str) -> str:
    """The end of a sentence about a name that a subpackage has."""
    packages = () if name.startswith("_") else ("control", "analysis", "integrations", "solvers")
    found = [package for package in packages if name in import_module(f"{__name__}.{package}").__all__]
    return f"; that is {__name__}.{found[0]}.{name}" if found else ""


__all__ = [
    "EDM",
    "VE",
    "Call",
    "Custom",
    "Denoiser",
    "Discrete",
    "FlowMatching",
    "Guidance",
    "NonFiniteError",
    "Picard",
    "Program",
    "Rounds",
    "Schedule",
    "Shift",
    "Solution",
    "Solver",
    "Statistics",
    "Stepper",
    "StopSampling",
    "SubVP",
    "Trigonometric",
    "VPCosine",
    "VPLinear",
    "Wiener",
    "__version__",
    "calibrate",
    "check",
    "data_width",
    "grid",
    "grid_names",
    "known_error",
    "log_likelihood",
    "log_prob",
    "randn",
    "sample",
    "solve",
    "solver",
    "solver_names",
    "start",
    "tune",
    "wrap",
]
