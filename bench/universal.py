"""Fit the universal tables: python -m logsnr.bench.universal [--nfe 6] [--nfe 13-40] [--span edm] [--family narrow]

A number of evaluations has a table of its own; a range of them one set of numbers. Minutes each; what is there is kept
unless --fresh is given.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from .._version import __version__
from ..analysis.reference import reference_flow
from ..solvers.planners.universal import FOLDER, GUIDED, NARROW, RANGES, SPANS, WIDTHS, equal
from ..solvers.tune_family import Shared, some_of
from ..solvers.tune_fit import FLOOR, Aim, Noises, fit, loss_of
from ..solvers.tune_numbers import Numbers
from .command import run_command
from .family import DIM, SCHEDULE, Family, Kinds

PROBLEMS, ROWS, HELD_OUT = 64, 8, 24
FEWER = 24  # problems, where the numbers are few: those of a range
SEED, OTHERS = 1, 1001  # of the problems that are fitted to, and of those that decide
PATIENCE = 10
BUDGETS = "3", "4", "5", "6", *(f"{least}-{most}" for least, most in RANGES)
SOME, MORE = 4, 6  # budgets of a range; more of a long one with an infinite end, next to which grids differ most
FLOORS = {3: 1e-4, 13: 1e-6}  # of errors, from this number of evaluations on
# Wide data are images, which networks know: their tables are fitted to networks' errors too, and are consistent.
# Guidance between two classes of one component each bends the flow most: a third of the guided problems are such pairs.
KINDS = {
    "narrow": Kinds(WIDTHS["narrow"]),
    "wide": Kinds(WIDTHS["wide"], ("photo",), error=0.05, consistent=True),
    "guided": Kinds(WIDTHS["narrow"], ("broad", "pair", "cloud", "pair", "low-rank", "image"), scales=(1.0, 10.0)),
}
# Networks want consistent tables. With fewer evaluations than this, data with exact answers lose more by them than
# networks gain: twice and up to nine times the error, for 0.6 to 0.8 times.
CONSISTENT = 5
# Kinds of a family that a range has besides: mixtures of two in one to eight dimensions, which lose most at 8 to 12. In
# the other spans the tables gain nothing by them, and lose in many dimensions.
BESIDES = {("vp", "narrow", 7): ("pair",)}


@dataclass(frozen=True)
class Part:
    """A family, and its starts and ends."""

    family: Family
    noises: Noises

    @classmethod
    def drawn(cls, count: int, kinds: Kinds, span: tuple[float, float], seed: int, floor: float = FLOOR) -> "Part":
        family = Family(count, kinds, seed)
        times = [float(SCHEDULE.time(lam)) for lam in span]
        u = family.starts(ROWS, seed + 1)  # pure noise has the spread 1 on the unit circle at any level
        u = u * math.sin(times[0])
        end = reference_flow(family, u, SCHEDULE, times[0], times[1], tol=min(1e-7, floor / 100)).x
        return cls(family, Noises(u.reshape(-1, DIM), end.reshape(-1, DIM), 1.0, floor))

    def aim(self, numbers: Numbers) -> Aim:
        """A table for these problems."""
        field: Any = self.family.field(numbers.gauge)
        return Aim(lambda _: field, numbers, self.noises)


def start(span: str, kind: str, n: int, shared: bool) -> Numbers:
    """What a fit starts from: an exponential Adams method on equal steps, in eps, or in x0 where an end is infinite."""
    gauge, lam = "eps" if np.isfinite(SPANS[span]).all() else "x0", equal(span, kind, n)
    if shared:
        return Shared(gauge, 3, lam)
    order = 3 if n > (6 if kind == GUIDED else 5) else 2
    consistent = KINDS[kind].consistent or (kind == NARROW and n >= CONSISTENT)
    return Numbers(gauge, order, lam, consistent=consistent)


def fitted(train: Sequence[Aim], test: Sequence[Aim], iterations: int) -> tuple[torch.Tensor, dict[str, Any]]:
    """The numbers with the least mean log error on the problems that decide, and what is known of them: errors of each
    table."""
    best = math.inf, 0, torch.zeros(0)
    for k, state in enumerate(fit(train, forward=True, dtype=torch.float64)):
        errors = [aim.errors(state.q) for aim in test]
        medians = [float(e.median()) for e in errors]
        if k == 0:
            began = medians
        if (found := loss_of(test, errors)) < best[0]:
            best = found, k, state.q
            told = {"held-out median": medians, "held-out rms": [float(e.square().mean().sqrt()) for e in errors]}
        if k == iterations or k - best[1] >= PATIENCE:
            break
    return best[2], told | {"start's median": began, "iterations": best[1]}


def fit_tables(
    nfe: Annotated[list[str] | None, typer.Option(help=f"Budgets or ranges; {', '.join(BUDGETS)} if none.")] = None,
    span: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(SPANS)}; all if none.")] = None,
    family: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(KINDS)}; all if none.")] = None,
    iterations: Annotated[int, typer.Option(min=1)] = 40,
    out: Annotated[Path, typer.Option(help="Where the tables go.")] = FOLDER,
    fresh: Annotated[bool, typer.Option("--fresh", help="Fit those again that are there.")] = False,
) -> None:
    """Fit universal tables to random problems with exact denoisers."""
    out.mkdir(parents=True, exist_ok=True)
    for name, kind, wanted in product(span or SPANS, family or KINDS, nfe or BUDGETS):
        path = out / f"{name}-{kind}-{wanted}.json"
        if path.exists() and not fresh:
            continue
        began = time.perf_counter()
        data = fit_table(name, kind, *map(int, wanted.split("-")), iterations=iterations)
        path.write_text(json.dumps(data) + "\n")
        print(f"{name} {kind} {wanted}: {data['provenance']}, {time.perf_counter() - began:.0f} s", flush=True)


def fit_table(span: str, kind: str, least: int, most: int | None = None, *, iterations: int) -> dict[str, Any]:
    """What a file holds: of a number of evaluations a table, of a range the numbers that its tables have in common."""
    some = SOME if least < RANGES[-1][0] or np.isfinite(SPANS[span]).all() else MORE
    budgets = [least] if most is None else some_of(list(range(least, most + 1)), some)
    count, kinds = PROBLEMS if most is None else FEWER, KINDS[kind]
    kinds = kinds._replace(names=kinds.names + BESIDES.get((span, kind, least), ()))
    floor = FLOORS[max(n for n in FLOORS if n <= least)]
    train, test = (Part.drawn(n, kinds, SPANS[span], s, floor) for n, s in ((count, SEED), (HELD_OUT, OTHERS)))
    tables = [start(span, kind, n, most is not None) for n in budgets]
    q, told = fitted([train.aim(t) for t in tables], [test.aim(t) for t in tables], iterations)
    provenance = {
        "made by": f"python -m logsnr.bench.universal, logsnr {__version__}",
        "family": kinds.told(count, ROWS, SEED) + f"; {HELD_OUT} others decide, seed {OTHERS}",
    }
    data = {"version": 1, "span": span, "width": kind, "gauge": tables[0].gauge, "order": tables[0].order}
    if most is not None:
        return data | {"budgets": budgets, "numbers": q.tolist(), "provenance": provenance | told}
    table, told = tables[0].fitted(q), {key: value if key == "iterations" else value[0] for key, value in told.items()}
    rows = [row[: i + 2].tolist() for i, row in enumerate(table.weights)]
    return data | {"lam": table.lam.tolist(), "weights": rows, "provenance": provenance | told}


if __name__ == "__main__":
    run_command(fit_tables)
