"""Universal tables: fitted once, to many random problems with exact answers, for denoisers that they have not seen.

A table lives in coordinates in which every schedule is the same, lam and data of the spread 1/2 to 1 an element, so
that it serves a schedule whose ends are near those that it was made for.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..arrays import Array
from ..planners.multistep import Adams
from ..programs.program import Program
from ..programs.provenance import WIDEST
from ..schedules.base import Schedule
from .ends import followed, moved
from .serving import DataHints
from .stored import AT_ONCE, ENDS, FITTED_TO, MOST_AT_ONCE, SPANS, load, of_range
from .table import Fitted

MOVED = 1.4, 1.6  # in lam, how far the ends of a table may move
LESS = 0.6  # of a distance counts that ends before that of the table
LATER = 1.0  # how far the start of a table may move that goes to no noise at once
LITTLE = 0.2  # a start that moves farther takes the numbers of a range, which bear it better than a table of its own
SEEN = 0.07  # times n^2 and the data's width over sigma/alpha: how far in lam two starts of n steps are apart at most


class Found(NamedTuple):
    """A `Table`. width: up to which it serves; end: the time at which it ends. If that is not the last time, one
    evaluation is left for the rest. in_noise: whether another start than its own counts as one that differs in noise
    alone, see `moved`: a later one does, as its first step is shorter, whatever else it is."""

    table: Fitted
    order: int
    told: dict[str, Any]
    width: float
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
class Universal(DataHints):
    """The universal table for as many evaluations as the grid has steps; of the grid it takes the ends alone.

    Which table it is goes by the data, see `DataHints`. Where there is none for this number of evaluations or this
    span, the program is the exponential Adams method that the fits start from, on the grid as it is, and says so in a
    note.
    """

    evaluations: ClassVar[int] = 1
    global_order: ClassVar[int] = 0

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        """The table on ``schedule``, between the ends of ``grid``, float64 times."""
        ends, n = (float(grid[0]), float(grid[-1])), len(grid) - 1
        found = find_table(self, schedule, *ends, n)
        if isinstance(found, str):
            finite = np.isfinite(np.asarray(schedule.half_logsnr(np.array(ends)))).all()
            gauge = "eps" if finite else "x0"
            return Adams(gauge, 2).plan(schedule, grid).renamed(f"adams-{gauge}-2", f"no universal table: {found}")
        shift = math.log(self.data_std)
        low, high = (float(schedule.half_logsnr(t)) + shift for t in (ends[0], found.end))
        table = moved(found.table, found.order, low, high, found.in_noise)
        shifted = replace(table, lam=table.lam - shift)
        told = {**found.told, WIDEST: min(self.data_std * found.width, 1e6)}
        program = shifted.program(schedule, "universal", ends=(ends[0], found.end), provenance=told)
        return program if found.end == ends[1] else followed(program, schedule, ends[1])


def find_table(data: DataHints, schedule: Schedule, first: float, last: float, n: int) -> Found | str:
    """The table for n evaluations from the time ``first`` to ``last``; or why there is none."""
    shift, cleanest = math.log(data.data_std), schedule.last_before(first, last)
    low, high = (float(schedule.half_logsnr(t)) + shift for t in (first, last))
    if data.eps and low == -math.inf:  # of pure noise, eps says nothing
        data = replace(data, eps=False)
    clean = high if cleanest is None else float(schedule.half_logsnr(cleanest)) + shift
    told = f"from {math.exp(-low):.3g} to {math.exp(-high):.3g}"
    wide = data.usual_width
    of = "for guided models, " * data.guided + "for models that say eps, " * data.eps
    if data.served_by(1) is None:
        most = max(entry.width for entry in data.families)
        return f"{of}a widest direction of {wide:.3g} is beyond {most:g}"
    seen = SEEN * n**2 * wide
    if n <= MOST_AT_ONCE and high == math.inf and (found := _at_once(data, low, clean, last, n, seen)) is not None:
        return found
    near = [at for name in SPANS if (at := _near(name, low, clean, seen))]
    if not near:
        known = ", ".join(f"{math.exp(-a):.3g} to {math.exp(-b):.3g}" for a, b in SPANS.values())
        return f"sigma/alpha {told} is far from {known}"
    _, span, short, in_noise, begins = min(near)
    end = last if cleanest is None else cleanest
    if short:
        end = float(schedule.time(SPANS[span][1] - shift))
    left, far = n - (end != last), begins > LITTLE and not in_noise
    table, entry = None, data.served_by(left)
    if entry is not None:
        table = (far and of_range(span, entry.family, left)) or load(span, entry.family, left)
    if entry is None or table is None:
        return f"{of}none was made for {n} evaluations {told}, and a width of {wide:.3g}"
    return Found(*table, entry.width, end, in_noise or low > SPANS[span][0])


def _at_once(data: DataHints, low: float, clean: float, last: float, n: int, seen: float) -> Found | None:
    """The table for n evaluations from ``low`` to no noise at all, at the time ``last``, whose calls are at levels
    before ``clean``, the last one that the network knows. seen: see `_near`."""
    entry = data.served_by(n)
    near = [at for name in AT_ONCE if (at := _near(name, low, math.inf, seen)) and at.begins <= LATER]
    for at in sorted(near):
        table = entry and load(at.span, entry.family, n)
        if entry and table and table[0].lam[-2] <= clean:
            return Found(*table, entry.width, last, at.in_noise or low > ENDS[at.span][0])
    return None


def _near(span: str, low: float, clean: float, seen: float) -> Near | None:
    """How far a run in lam from ``low`` to ``clean`` is from a span, if its tables can be moved there. seen: times
    e^lam at the start, how far in lam another start may be and the model still says the same."""
    a, b = ENDS[span]
    short = clean == math.inf > b > low
    begins, ends = _apart(low, a), 0.0 if short else _apart(clean, b)
    seen = seen * math.exp(max(low, a)) if math.isfinite(a) else math.inf
    in_noise, begins = seen < begins, min(seen, begins)
    if begins > MOVED[0] or ends > MOVED[1]:
        return None
    ends *= LESS if clean < b else 1.0
    return Near(ends + begins / 2 + short, span, short, in_noise, begins)


def _apart(a: float, b: float) -> float:
    return 0.0 if a == b else abs(a - b)
