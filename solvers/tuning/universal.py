"""Universal tables: fitted once, to many random problems with exact answers, for denoisers that they have not seen.

A table lives in coordinates in which every schedule is the same, lam and data of the spread 1/2 to 1 an element, so
that it serves a schedule whose ends are near those that it was made for.
"""

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from ..arrays import Array
from ..planners.checks import number
from ..planners.multistep import Adams
from ..programs.program import Program
from ..programs.provenance import WIDEST
from ..schedules.base import Schedule
from .ends import followed, moved
from .family import Shared
from .table import Fitted

SPANS = {  # lam at the ends of what people run
    "edm": (-math.log(80.0), -math.log(0.002)),
    "vp": (-math.log(152.0), -math.log(0.0105)),
    "sd": (-math.log(14.6), -math.log(0.03)),
    "zero": (-math.inf, -math.log(0.03)),
    "flow": (-math.inf, math.inf),
}
# Where a run goes on beyond the clean end, or beyond the last level that a network knows, its last evaluation is there.
# Standard deviations of the widest directions of the data that tables are fitted to, and up to where they serve: a
# table loses most on data that are wider than its own.
WIDTHS = {"narrow": (0.6, 3.0), "wide": (3.0, 20.0), "vast": (10.0, 80.0)}
SERVED = {"narrow": 4.0, "wide": 30.0, "vast": 100.0}
FEW, WIDER = 10, 5.0  # up to so many evaluations narrow tables serve wider data, but vectors
NARROW, WIDE, GUIDED, VECTORS = "narrow", "wide", "guided", "vectors"
LIKE = {GUIDED: NARROW, VECTORS: WIDE}  # the width of the other families: with guidance; of groups, not of brightness
UNKNOWN = 10.0  # the width of data of which nothing is known
PATCH = 14.0  # of patches of photographs, 3 x 16 x 16; larger pictures are whole scenes, which differ less
RANGES = (7, 12), (13, 40)  # of numbers of evaluations whose tables have their numbers in common
MOVED = 1.4, 1.6  # in lam, how far the ends of a table may move
LESS = 0.6  # of a distance counts that ends before that of the table
LITTLE = 0.2  # a start that moves farther takes the numbers of a range, which bear it better than a table of its own
SEEN = 0.07  # times n^2 and the data's width over sigma/alpha: how far in lam two starts of n steps are apart at most
FITTED_TO = "fitted to evaluations"  # in the provenance of a range's tables
Table = tuple[Fitted, int, dict[str, Any]]  # with the order of the Adams method that it corrects, and its provenance
FILES = resources.files("logsnr.solvers").joinpath("data", "universal")


class Found(NamedTuple):
    """A `Table`, and the time at which it ends. If that is not the last time, one evaluation is left for the rest.
    in_noise: whether another start than its own counts as one that differs in noise alone, see `moved`: a later one
    does, as its first step is shorter, whatever else it is."""

    table: Fitted
    order: int
    told: dict[str, Any]
    end: float
    in_noise: bool

    @property
    def of_range(self) -> bool:
        """Whether it has its numbers in common with the tables of other budgets."""
        return FITTED_TO in self.told


class Near(NamedTuple):
    """A span that is near a run. far: how much, all in all; short: whether its tables end before the run does;
    in_noise: whether its start and that of the run differ in noise alone; begins: how far in lam they are apart, as far
    as it matters."""

    far: float
    span: str
    short: bool
    in_noise: bool
    begins: float


@dataclass(frozen=True)
class Universal:
    """The universal table for as many evaluations as the grid has steps; of the grid it takes the ends alone.

    width: the standard deviation of the data's widest direction, which says how early the flow bends. By default it
    goes by the size of the samples, `typical_width`, as for images; where that is not known either, it is 10.
    data_std: the factor by which all data is larger than usual (elements of a spread of 1/2 to 1).
    guided: whether the model is; there are tables for scales of 1 to 10 and narrow data.
    vectors: whether samples are vectors, as those that are wide lie in groups; wide pictures vary in brightness. There
    are no tables for guided ones.

    Where there is no table for this number of evaluations or this span, the program is the exponential Adams method
    that the fits start from, on the grid as it is, and says so in a note. Raises ValueError for a width or data_std
    that is not a positive number.
    """

    width: float | None = None
    data_std: float = 1.0
    guided: bool = False
    vectors: bool = False
    evaluations: ClassVar[int] = 1
    global_order: ClassVar[int] = 0

    def __post_init__(self) -> None:
        for name in ("width", "data_std"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, number(name, given, 1e-6, 1e6, "a positive number"))

    def suited(self, event: tuple[int, ...], guided: bool) -> "Universal":
        """The planner for samples of this shape, and for a model with guidance or without."""
        width = self.width or typical_width(event) * self.data_std or None
        return replace(self, width=width, guided=guided, vectors=len(event) == 1 and not guided)

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        """The table on ``schedule``, between the ends of ``grid``, float64 times."""
        ends, n = (float(grid[0]), float(grid[-1])), len(grid) - 1
        found = self.found(schedule, *ends, n)
        if isinstance(found, str):
            finite = np.isfinite(np.asarray(schedule.half_logsnr(np.array(ends)))).all()
            gauge = "eps" if finite else "x0"
            return Adams(gauge, 2).plan(schedule, grid).renamed(f"adams-{gauge}-2", f"no universal table: {found}")
        shift = math.log(self.data_std)
        low, high = (float(schedule.half_logsnr(t)) + shift for t in (ends[0], found.end))
        table = moved(found.table, found.order, low, high, found.in_noise)
        shifted = replace(table, lam=table.lam - shift)
        served = SERVED[LIKE.get(found.told["width"], found.told["width"])]
        told = {**found.told, WIDEST: min(self.data_std * served, 1e6)}
        program = shifted.program(schedule, "universal", ends=(ends[0], found.end), provenance=told)
        return program if found.end == ends[1] else followed(program, schedule, ends[1])

    @property
    def wide(self) -> float:
        """The width of data of the usual scale."""
        return self.width / self.data_std if self.width else UNKNOWN

    def family(self, n: int) -> str | None:
        """The family of tables for data of this width and n evaluations, by its width, if there is one."""
        if n <= FEW and self.wide <= WIDER and not self.vectors:
            return NARROW
        return next((kind for kind, most in SERVED.items() if self.wide <= most), None)

    def found(self, schedule: Schedule, first: float, last: float, n: int) -> "Found | str":
        """The table for n evaluations from the time ``first`` to ``last``; or why there is none."""
        shift, cleanest = math.log(self.data_std), schedule.last_before(first, last)
        low, high = (float(schedule.half_logsnr(t)) + shift for t in (first, last))
        clean = high if cleanest is None else float(schedule.half_logsnr(cleanest)) + shift
        told = f"from {math.exp(-low):.3g} to {math.exp(-high):.3g}"
        kind, wide = self.family(n), self.wide
        if kind is None:
            return f"a widest direction of {wide:.3g} is beyond {max(SERVED.values()):g}"
        if self.guided and kind != NARROW:
            return f"none was made for guided models of wide data (here {wide:.3g})"
        kind = GUIDED if self.guided else VECTORS if self.vectors and kind == WIDE else kind
        near = [at for name in SPANS if (at := _near(name, low, clean, SEEN * n**2 * wide))]
        if not near:
            known = ", ".join(f"{math.exp(-a):.3g} to {math.exp(-b):.3g}" for a, b in SPANS.values())
            return f"sigma/alpha {told} is far from {known}"
        _, span, short, in_noise, begins = min(near)
        end = last if cleanest is None else cleanest
        if short:
            end = float(schedule.time(SPANS[span][1] - shift))
        left, far = n - (end != last), begins > LITTLE and not in_noise
        if (table := (far and of_range(span, kind, left)) or load(span, kind, left)) is None:
            return f"none was made for {n} evaluations {told}, and a width of {wide:.3g}"
        return Found(*table, end, in_noise or low > SPANS[span][0])


def _near(span: str, low: float, clean: float, seen: float) -> Near | None:
    """How far a run in lam from ``low`` to ``clean`` is from a span, if its tables can be moved there. seen: times
    e^lam at the start, how far in lam another start may be and the model still says the same."""
    a, b = SPANS[span]
    short = clean == math.inf > b > low
    begins, ends = _apart(low, a), 0.0 if short else _apart(clean, b)
    seen = seen * math.exp(max(low, a)) if math.isfinite(a) else math.inf
    in_noise, begins = seen < begins, min(seen, begins)
    if begins > MOVED[0] or ends > MOVED[1]:
        return None
    ends *= LESS if clean < b else 1.0
    return Near(ends + begins / 2 + short, span, short, in_noise, begins)


def typical_width(event: tuple[int, ...]) -> float:
    """The standard deviation along the widest direction, for data with elements of a spread of 1/2 to 1.

    Of images in [-1, 1] it is about their mean brightness, in the norm of the whole image, which varies by some 1/4;
    that of small pictures in colour, as they are patches, by 1/2. Vectors (D,) that fall in some ten groups have
    0.4 sqrt(D).
    """
    norm = math.sqrt(math.prod(event))
    if len(event) == 1:
        return 0.4 * norm
    patch = min(norm / 2, PATCH) if len(event) == 3 and event[0] == 3 else 0.0
    return max(norm / 4, patch)


def _apart(a: float, b: float) -> float:
    return 0.0 if a == b else abs(a - b)


def equal(span: str, kind: str, n: int) -> Array:
    """Equal steps in lam (n + 1,), what a fit begins with. Next to an infinite end they begin where data of the widest
    direction still are noise, and end where a last step of first order costs little: the more steps, the nearer."""
    ends = np.array(SPANS[span])
    noise = -1.5 - math.log(WIDTHS[LIKE.get(kind, kind)][1])
    clean = 4.0 if n <= RANGES[0][-1] else 8.0 - 32.0 / n
    low, high = ends if np.isfinite(ends).all() else np.clip(ends, noise, clean)
    lam = np.linspace(low, high, n + 1)
    lam[[0, -1]] = ends
    return lam


@cache
def load(span: str, kind: str, n: int) -> Table | None:
    """A table of the package, the order of the Adams method that it corrects, and its provenance; None if there is
    none. A file holds the table of one number of evaluations, or the numbers that a range of them has in common."""
    if not (own := FILES.joinpath(f"{span}-{kind}-{n}.json")).is_file():
        return of_range(span, kind, n)
    data = json.loads(own.read_text())
    weights = np.zeros((n, n + 1))
    for i, row in enumerate(data["weights"]):
        weights[i, : i + 2] = row
    return Fitted(data["gauge"], np.array(data["lam"]), weights), data["order"], data["provenance"] | {"width": kind}


def of_range(span: str, kind: str, n: int) -> Table | None:
    """As `load`, from the numbers that a range has in common."""
    shared = (FILES.joinpath(f"{span}-{kind}-{a}-{b}.json") for a, b in RANGES if a <= n <= b)
    if (found := next((file for file in shared if file.is_file()), None)) is None:
        return None
    data = json.loads(found.read_text())
    numbers = Shared(data["gauge"], data["order"], equal(span, kind, n))
    table = numbers.fitted(torch.tensor(data["numbers"], dtype=torch.float64))
    at = min(range(len(data["budgets"])), key=lambda k: abs(data["budgets"][k] - n))
    told = {name: value[at] if isinstance(value, list) else value for name, value in data["provenance"].items()}
    told[FITTED_TO] = ", ".join(map(str, data["budgets"]))
    return table, data["order"], told | {"width": kind}
