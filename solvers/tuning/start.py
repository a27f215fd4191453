"""Where a fit starts: the best of a few exponential Adams methods and universal tables, on the noises that are fitted
to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch

from ..arrays import Array
from ..catalogue.catalogue import solver as find_solver
from ..grids.grids import grid
from ..planners.checks import choice
from ..planners.multistep import Adams
from ..schedules.base import Schedule
from .ends import moved
from .fit import Aim, loss
from .groups import Grouped
from .numbers import Numbers
from .serving import SERVES, DataHints
from .stored import FAMILY
from .table import GAUGES
from .universal import find_table

GRIDS = ("logsnr", "karras")
ORDERS = (2, 3)
OF_ROUNDS = (1,)  # of several calls a round: higher orders start nearer and end farther
PLACES = (0.3, 0.5, 0.7)  # of the last call of a round, on the way to the next round


@dataclass(frozen=True)
class Start:
    """An exponential Adams method in lam, on a grid: lam (n + 1,). together: how many calls a round has. level: of
    `Numbers`. weights: of a universal table (n, n + 1), in place of the method's."""

    gauge: str
    order: int
    spacing: str
    lam: Array
    together: int = 1
    level: float = math.inf
    weights: Array | None = None

    def begin(self, numbers: Numbers | Grouped) -> torch.Tensor:
        """What q is at the start."""
        if self.weights is None:
            return torch.zeros(numbers.size, dtype=torch.float64, device="cpu")
        return numbers.numbers_of(self.weights)

    @property
    def kind(self) -> tuple[str, int, str]:
        """What is the same for all budgets."""
        return self.gauge, self.order, self.spacing

    def __str__(self) -> str:
        if self.weights is not None:
            return f"{self.spacing}, in {self.gauge} over lam"
        rounds = f", {self.together} calls a round" if self.together > 1 else ""
        return f"exponential Adams of order {self.order} in {self.gauge} over lam, grid {self.spacing}{rounds}"


def starts(
    sch: Schedule, n: int, solver: Any, gauge: Any, t_start: float, t_end: float, together: int = 1
) -> list[Start]:
    """The candidates. solver, gauge: as for `tune`; together: of `Start`. Raises ValueError for solvers that are not of
    this kind."""
    if gauge is not None:
        choice("gauge", gauge, tuple(GAUGES))
    lams = {kind: np.asarray(sch.half_logsnr(grid(sch, n, kind, t_start=t_start, t_end=t_end))) for kind in GRIDS}
    finite = bool(np.isfinite([lam[[0, -1]] for lam in lams.values()]).all())
    if together > 1:
        lams = {f"{kind}, {p:g} of it": _placed(lam, together, p) for kind, lam in lams.items() for p in PLACES}
    methods = list(product(GAUGES, ORDERS if together == 1 else OF_ROUNDS)) if solver is None else [_method(solver)]
    if not finite and (gauge == "eps" or (methods[0][0] == "eps" and len(methods) == 1)):
        raise ValueError(
            "the eps gauge needs a finite log-SNR at both ends; take gauge='x0', or t_start and t_end inside"
        )
    wanted = [(name, order) for name, order in methods if gauge in (None, name) and (finite or name == "x0")]
    if not wanted:
        raise ValueError(f"gauge = {gauge!r} is not that of the solver, {methods[0][0]!r}; leave one of them out")
    last = sch.last_before(t_start, t_end)
    level = math.inf if last is None else float(sch.half_logsnr(last))
    return [Start(name, order, kind, lam, together, level) for name, order in wanted for kind, lam in lams.items()]


def table_starts(sch: Schedule, n: int, gauge: Any, guided: bool, t_start: float, t_end: float) -> list[Start]:
    """Universal tables of n evaluations for this span, as more candidates. Where a run goes on beyond a table's end, as
    beyond the last level that the network knows, there is none."""
    low, high = (float(sch.half_logsnr(t)) for t in (t_start, t_end))
    made = dict[str, Start]()
    for entry in (entry for entry in SERVES if entry.guided == guided and n <= entry.most):
        hints = DataHints(entry.width, 1.0, guided, int(entry.dimensions[0]), entry.eps)
        found = find_table(hints, sch, t_start, t_end, n)
        if not isinstance(found, str) and found.end == t_end and gauge in (None, found.table.gauge):
            table = moved(found.table, found.order, low, high, found.in_noise)
            if table.lam[0] == low:
                name = f"the universal table of the family {found.told[FAMILY]}"
                made[name] = Start(table.gauge, found.order, name, table.lam, weights=table.weights)
    return list(made.values())


def _placed(lam: Array, together: int, place: float) -> Array:
    """Nodes whose rounds begin as they do on the grid ``lam``, and the last of each round at this place on the way to
    the next; next to an infinite end they are the grid's."""
    placed, firsts = lam.copy(), lam[::together]
    with np.errstate(invalid="ignore"):
        for k in range(1, together):
            inner = firsts[:-1] + place * k / (together - 1) * np.diff(firsts)
            placed[k::together] = np.where(np.isfinite(inner), inner, lam[k::together])
    return placed


def _method(solver: Any) -> tuple[str, int]:
    """Gauge and order of a solver that a fit can start from."""
    planner = find_solver(solver).planner
    if isinstance(planner, Adams):
        name = next((name for name, known in GAUGES.items() if known == planner.gauge), "")
        plain = not planner.corrector and not planner.stochastic and planner.moments == "exact"
        if name in GAUGES and plain and (planner.variable == "lam" or planner.order == 1):
            return name, planner.order
    raise ValueError(
        f"solver = {solver!r:.60} cannot be tuned: a fit starts from an exponential Adams method in x0 or eps over "
        "lam, as ddim, dpmpp-2m, dpmpp-3m or logsnr.solvers.Adams('eps', 3)"
    )


def best_of(cases: Sequence[Any], candidates: list[tuple[Start, ...]]) -> list[tuple[Start, ...]]:
    """Of each gauge the candidate with the least mean log error over the cases of a fit. A candidate has a start for
    every budget."""

    def score(start: Start) -> float:
        numbers = Numbers(start.gauge, start.order, start.lam, level=start.level, together=start.together)
        aims = [Aim(case.field(start.gauge), numbers, case.train) for case in cases]
        return loss(aims, start.begin(numbers))

    scored = [(sum(map(score, starts)), starts) for starts in candidates]
    gauges = dict.fromkeys(starts[0].gauge for starts in candidates)
    return [min((s for s in scored if s[1][0].gauge == name), key=lambda s: s[0])[1] for name in gauges]
