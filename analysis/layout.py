"""The options that lay a solver out in time, for annotations."""

from collections.abc import Mapping
from typing import Any, TypedDict

from ..solvers.grids.levels import Shift
from ..solvers.planners.multistep import Startup


class LayoutOptions(TypedDict, total=False):
    """The keywords of `logsnr.solve` that choose a program; functions of the analysis take them as ``layout``."""

    steps: int | None
    nfe: int | None
    grid: str | Any
    t_start: float | None
    t_end: float | None
    startup: Startup
    grid_options: Mapping[str, Any] | None
    sigmas: Any
    lams: Any
    shift: float | Shift | None
