"""Fit the universal tables: python -m logsnr.bench.universal [--nfe 8] [--span edm] [--family narrow]

Minutes a table; those that are there are kept unless --fresh is given.
"""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from .._version import __version__
from ..analysis.reference import reference_flow
from ..solvers.planners.universal import FOLDER, SPANS, WIDTHS, file_name
from ..solvers.tune_fit import Noises, fit, loss
from ..solvers.tune_numbers import Numbers
from ..solvers.tune_run import end_of
from .command import run_command
from .family import DIM, SCHEDULE, Family, Kinds

PROBLEMS, ROWS, HELD_OUT = 64, 8, 24
SEED, OTHERS = 1, 1001  # of the problems that are fitted to, and of those that decide
PATIENCE = 10
TOL = 1e-7
# Wide data are images, which networks know: their tables are fitted to networks' errors too, and are consistent.
# Guidance between two classes of one component each bends the flow most: a third of the guided problems are such pairs.
KINDS = {
    "narrow": Kinds(WIDTHS["narrow"]),
    "wide": Kinds(WIDTHS["wide"], ("photo",), error=0.15, consistent=True),
    "guided": Kinds(WIDTHS["narrow"], ("broad", "pair", "cloud", "pair", "low-rank", "image"), scales=(1.0, 10.0)),
}


@dataclass(frozen=True)
class Part:
    """A family, and its starts and ends."""

    family: Family
    noises: Noises

    @classmethod
    def drawn(cls, count: int, kinds: Kinds, span: tuple[float, float], seed: int) -> "Part":
        family = Family(count, kinds, seed)
        times = [float(SCHEDULE.time(lam)) for lam in span]
        u = family.starts(ROWS, seed + 1)  # pure noise has the spread 1 on the unit circle at any level
        u = u * math.sin(times[0])
        end = reference_flow(family, u, SCHEDULE, times[0], times[1], tol=TOL).x
        return cls(family, Noises(u.reshape(-1, DIM), end.reshape(-1, DIM), 1.0))


def start(span: tuple[float, float], kinds: Kinds, n: int) -> Numbers:
    """What a fit starts from: an exponential Adams method in eps on equal steps; in x0 where an end is infinite, and
    steps then begin where data of the widest direction still are noise."""
    finite = bool(np.isfinite(span).all())
    low, high = span if finite else np.clip(span, -1.5 - math.log(kinds.width[1]), 4.0).tolist()
    lam = np.linspace(low, high, n + 1)
    lam[[0, -1]] = span
    order = 3 if n > (6 if kinds.scales[1] > 1 else 5) else 2
    return Numbers("eps" if finite else "x0", order, lam, consistent=kinds.consistent)


def fitted(train: Part, test: Part, numbers: Numbers, iterations: int) -> tuple[torch.Tensor, dict[str, float]]:
    """The numbers with the least mean log error on the problems that decide, and what is known of them."""
    best, f = (math.inf, 0, torch.zeros(0)), train.family.field(numbers.gauge)
    other = test.family.field(numbers.gauge)
    start = 0.0
    for k, state in enumerate(fit(f, [numbers], train.noises, forward=True, dtype=torch.float64)):  # type: ignore[arg-type]
        errors = test.noises.errors(end_of(other, test.noises.u, numbers(state.q)))  # type: ignore[arg-type]
        start = float(errors.median()) if k == 0 else start
        if loss(errors) < best[0]:
            best = loss(errors), k, state.q
            found = {"held-out median": float(errors.median()), "held-out rms": float(errors.square().mean().sqrt())}
        if k == iterations or k - best[1] >= PATIENCE:
            break
    return best[2], found | {"start's median": start, "iterations": best[1]}


def fit_tables(
    nfe: Annotated[list[int] | None, typer.Option(help="Budgets; 5, 6, 8 and 10 if none.")] = None,
    span: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(SPANS)}; all if none.")] = None,
    family: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(KINDS)}; all if none.")] = None,
    iterations: Annotated[int, typer.Option(min=1)] = 40,
    out: Annotated[Path, typer.Option(help="Where the tables go.")] = FOLDER,
    fresh: Annotated[bool, typer.Option("--fresh", help="Fit those again that are there.")] = False,
) -> None:
    """Fit universal tables to random problems with exact denoisers."""
    out.mkdir(parents=True, exist_ok=True)
    for name in span or SPANS:
        for kind in family or KINDS:
            wanted = [n for n in nfe or (5, 6, 8, 10) if fresh or not (out / file_name(name, kind, n)).exists()]
            if not wanted:
                continue
            train, test = (
                Part.drawn(n, KINDS[kind], SPANS[name], s) for n, s in ((PROBLEMS, SEED), (HELD_OUT, OTHERS))
            )
            for n in wanted:
                began = time.perf_counter()
                numbers = start(SPANS[name], KINDS[kind], n)
                q, told = fitted(train, test, numbers, iterations)
                table = numbers.fitted(q)
                data = {
                    "version": 1, "span": name, "width": kind, "gauge": table.gauge,
                    "order": numbers.order, "lam": table.lam.tolist(),
                    "weights": [row[: i + 2].tolist() for i, row in enumerate(table.weights)],
                    "provenance": {
                        "made by": f"python -m logsnr.bench.universal, logsnr {__version__}",
                        "family": KINDS[kind].told(PROBLEMS, ROWS, SEED) + f"; {HELD_OUT} others decide, seed {OTHERS}",
                    } | told,
                }  # fmt: skip
                (out / file_name(name, kind, n)).write_text(json.dumps(data) + "\n")
                print(f"{name} {kind} {n}: {told}, {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    run_command(fit_tables)
