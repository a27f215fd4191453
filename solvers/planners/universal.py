"""Universal tables: fitted once, to many random problems with exact answers, for denoisers that they have not seen.

A table lives in coordinates in which every schedule is the same, lam and data of the spread 1/2 to 1 an element, so
that it serves a schedule whose ends are near those that it was made for.
"""

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ..arrays import Array
from ..program import Program
from ..schedules.base import Schedule
from ..tune_numbers import adams_weights
from ..tune_table import Fitted
from .checks import number
from .multistep import Adams

SPANS = {  # lam at the ends of what people run
    "edm": (-math.log(80.0), -math.log(0.002)),
    "vp": (-math.log(152.0), -math.log(0.0105)),
    "sd": (-math.log(14.6), -math.log(0.03)),
}
WIDTHS = {"narrow": (0.6, 3.0), "wide": (3.0, 20.0)}  # standard deviation of the data's widest direction
MOVED = 0.8, 0.5  # in lam, how far the ends of a table may move
WIDEST = 1.5  # beyond the widest direction of a family, by this factor
FOLDER = Path(__file__).parents[1] / "data" / "universal"


@dataclass(frozen=True)
class Universal:
    """The universal table for as many evaluations as the grid has steps; of the grid it takes the ends alone.

    width: the standard deviation of the data's widest direction, which says how early the flow bends: about 2 for
    digits of 8 x 8 pixels in [-1, 1], and sqrt(pixels and channels) / 4 for photographs, whose brightness varies. The
    default is that of the table that loses less where it does not fit; below 3 there is a better one.
    data_std: the factor by which all data is larger than usual (elements of a spread of 1/2 to 1).

    Where there is no table for this number of evaluations or this span, the program is the exponential Adams method
    that the fits start from, on the grid as it is, and says so in a note. Raises ValueError for a width or data_std
    that is not a positive number.
    """

    width: float = 10.0
    data_std: float = 1.0
    evaluations: ClassVar[int] = 1
    global_order: ClassVar[int] = 0

    def __post_init__(self) -> None:
        for name in ("width", "data_std"):
            value = number(name, getattr(self, name), 1e-6, 1e6, "a positive number")
            object.__setattr__(self, name, value)

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        """The table on ``schedule``, between the ends of ``grid``, float64 times."""
        lam = np.asarray(schedule.half_logsnr(grid))
        found = self._found(lam + math.log(self.data_std), len(grid) - 1)
        if isinstance(found, str):
            gauge = "eps" if np.isfinite(lam[[0, -1]]).all() else "x0"
            return Adams(gauge, 2).plan(schedule, grid).renamed(f"adams-{gauge}-2", f"no universal table: {found}")
        table, told = found
        shifted = replace(table, lam=table.lam - math.log(self.data_std))
        ends = float(grid[0]), float(grid[-1])
        return shifted.program(schedule, "universal", ends=ends, provenance=told)

    def _found(self, lam: Array, n: int) -> "tuple[Fitted, Any] | str":
        """The table for these levels, its ends moved to theirs, and where it comes from; or why there is none."""
        low, high = float(lam[0]), float(lam[-1])
        near = [name for name, (a, b) in SPANS.items() if abs(low - a) <= MOVED[0] and abs(high - b) <= MOVED[1]]
        if not near:
            known = ", ".join(f"{math.exp(-a):.3g} to {math.exp(-b):.3g}" for a, b in SPANS.values())
            return f"sigma/alpha from {math.exp(-low):.3g} to {math.exp(-high):.3g} is far from {known}"
        wide = self.width / self.data_std
        kinds = [kind for kind, (_, most) in WIDTHS.items() if wide <= most * (WIDEST if kind == "wide" else 1)]
        if not kinds:
            return f"a widest direction of {wide:.3g} is beyond {WIDTHS['wide'][1]:g}"
        span = min(near, key=lambda name: abs(high - SPANS[name][1]) + abs(low - SPANS[name][0]) / 2)
        loaded = next(filter(None, (load(span, kind, n) for kind in kinds)), None)
        if loaded is None:
            return f"none was made for {n} evaluations from {math.exp(-low):.3g} to {math.exp(-high):.3g}"
        table, order, told = loaded
        return moved(table, order, low, high), told


def moved(table: Fitted, order: int, low: float, high: float) -> Fitted:
    """The table, in eps, with other ends: the weights of the Adams method between them, with the corrections of the old
    ones, in multiples of the noise that is left after a step."""
    lam = table.lam.copy()
    lam[[0, -1]] = low, high
    before, after = (adams_weights(torch.tensor(nodes), table.gauge, order).numpy() for nodes in (table.lam, lam))
    old, new = np.exp(-table.lam), np.exp(-lam)
    corrections = table.weights - before
    corrections[:, 1:] *= (old / new)[1:, None]
    corrections[0, 1] -= corrections[0, 0] * (new[0] - old[0]) / new[1]  # the first step leaves as much noise as before
    return Fitted(table.gauge, lam, after + corrections)


def file_name(span: str, width: str, nfe: int) -> str:
    return f"{span}-{width}-{nfe}.json"


@cache
def load(span: str, width: str, nfe: int) -> tuple[Fitted, int, dict[str, Any]] | None:
    """A table of the package, the order of the Adams method that it corrects, and its provenance; None if there is
    none."""
    path = resources.files("logsnr.solvers").joinpath("data", "universal", file_name(span, width, nfe))
    if not path.is_file():
        return None
    data = json.loads(path.read_text())
    weights = np.zeros((nfe, nfe + 1))
    for i, row in enumerate(data["weights"]):
        weights[i, : i + 2] = row
    return Fitted(data["gauge"], np.array(data["lam"]), weights), data["order"], data["provenance"]
