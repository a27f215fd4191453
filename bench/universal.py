"""Fit the universal tables: python -m logsnr.bench.universal [--nfe 6] [--nfe 13-40] [--span edm] [--family narrow]

A number of evaluations has a table of its own; a range of them one set of numbers. Minutes each; what is there is kept
unless --fresh is given.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
import typer

from .._version import __version__
from ..analysis.reference import reference_flow
from ..control.shards import write
from ..solvers.tuning.derivatives import Differences
from ..solvers.tuning.family import Shared, some_of
from ..solvers.tuning.fit import Aim, fit, iterates
from ..solvers.tuning.noises import FLOOR, Noises
from ..solvers.tuning.numbers import Numbers
from ..solvers.tuning.stored import ENDS, FILES, MOST_AT_ONCE, RANGES, SPANS, equal, of_range, stored
from .command import run_command
from .family import DIM, SCHEDULE, Family, Kinds

Number = TypeVar("Number", int, float)

ROWS, HELD_OUT = 8, 24
PROBLEMS = {3: 64}  # from this number of evaluations on
MORE_PROBLEMS = {  # of kinds that differ most, where the iterations suffice for so many
    "points": {3: 128},
    "vectors": {3: 128},
    "pictures": {3: 64, 5: 256, 9: 64},
    "guided": {3: 64, 4: 256, 12: 64},
    "eps-points": {3: 128},
    "eps-vectors": {3: 64, 7: 256, 12: 64},
}
FEWER = 24  # problems, where the numbers are few: those of a range
SEED, OTHERS = 1, 1001  # of the problems that are fitted to, and of those that decide
PATIENCE = 10
FEWEST, BETWEEN, MANY = (list(map(str, numbers)) for numbers in (range(3, 7), range(7, 13), (*range(13, 21), 25)))
PARTS = [f"{least}-{most}" for least, most in RANGES]
BUDGETS = {  # those that are in a range of the family go on from its numbers
    "points": [*FEWEST, *PARTS, *BETWEEN],
    "vectors": [*FEWEST, *PARTS, *BETWEEN],
    "pictures": [*FEWEST, PARTS[0], *BETWEEN],
    "narrow": [*FEWEST, *PARTS, *BETWEEN, *MANY],
    "groups": [*FEWEST, *PARTS, *BETWEEN],
    "wide": [*FEWEST, *PARTS],
    "vast": [*FEWEST, *PARTS],
    "guided": [*FEWEST, *BETWEEN, PARTS[1]],
    "eps-points": [*FEWEST, PARTS[0], *BETWEEN],
    "eps-vectors": [*FEWEST, *PARTS, *BETWEEN],
    "eps-pictures": [*FEWEST, PARTS[0], *BETWEEN],
    "eps-guided": [*FEWEST, *BETWEEN, PARTS[1]],
}
SOME, MORE = 4, 6  # budgets of a range; more of a long one with an infinite end, next to which grids differ most
ROUGH = 2.0  # errors in eps, for as many evaluations as a range has that sees finer ones
FLOORS = {3: 1e-4, 13: 1e-6}  # of errors, from this number of evaluations on
# Where it is about the median error, tables of pictures are better for networks, and their tails are less: the errors
# of exact digits, which have few points, are 0.7 to 1.2 times those with a small one.
MORE_FLOORS = {"pictures": FLOORS | {5: 3e-3, 6: 1e-2, 7: 3e-3, 8: 1e-3, 9: FLOORS[3]}}
FEW = "broad", "cloud", "pair", "uneven"
GUIDED = "broad", "pair", "cloud", "pair", "low-rank", "image"
# Pictures are what networks know: their tables are fitted to networks' errors too. The widths of "pictures" are those
# of most of their directions; brightness is twice as wide, and fits to that serve exact answers better and networks,
# which are smoother, worse. Guidance between two classes of one component each bends the flow most: a third of the
# guided problems are such pairs.
KINDS = {
    "points": Kinds((0.4, 3.0), FEW, sizes=(0.5, 4)),
    "vectors": Kinds((0.8, 5.0), ("broad", "cloud", "uneven", "low-rank")),
    "pictures": Kinds((0.4, 1.2), ("uneven",), error=0.02),
    "narrow": Kinds((0.6, 3.0)),
    "groups": Kinds((3.0, 20.0), ("photo", "cloud", "image")),
    "wide": Kinds((3.0, 20.0), ("photo",), error=0.05),
    "vast": Kinds((10.0, 80.0), ("photo",), error=0.05),
    "guided": Kinds((0.6, 3.0), GUIDED, scales=(1.0, 10.0)),
    "eps-points": Kinds((0.4, 3.0), FEW, error=0.015, head="eps", sizes=(0.5, 4)),
    "eps-vectors": Kinds((0.6, 3.0), error=0.015, head="eps"),
    "eps-pictures": Kinds((0.6, 12.0), error=0.05, head="eps"),
    "eps-guided": Kinds((0.6, 3.0), GUIDED, error=0.015, head="eps", scales=(1.0, 10.0)),
}
# What a mismatch of the state costs, see `Aim`, from this number of evaluations on. Networks of pictures want tables
# that are consistent: all but 0 doubles their errors on wide ones. Data with exact answers lose by them, with 3 and 4
# evaluations more than networks gain: twice and up to nine times the error, for 0.6 to 0.8 times. With 5 and from 7 on
# a penalty is better than either for both, but for narrow tables of 6, where networks have 1.2 times the error. With
# errors in eps, vectors need none and are better without.
PENALTY = {
    "points": {3: 0.0, 5: 100.0},
    "vectors": {3: 0.0},
    "pictures": {3: math.inf},
    "narrow": {3: 0.0, 5: 100.0, 6: math.inf, 7: 100.0},
    "groups": {3: 0.0, 5: 100.0},
    "wide": {3: math.inf},
    "vast": {3: math.inf},
    "guided": {3: 0.0},
    "eps-points": {3: 0.0},
    "eps-vectors": {3: 0.0},
    "eps-pictures": {3: math.inf},
    "eps-guided": {3: 0.0},
}
# Kinds of a family that a range has besides: mixtures of two in one to eight dimensions, which lose most at 8 to 12.
BESIDES = {("vp", family, 7): ("pair",) for family in ("narrow", "eps-vectors")}


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
        samples = torch.arange(count * ROWS)
        return cls(family, Noises(u.reshape(-1, DIM), end.reshape(-1, DIM), 1.0, floor, samples, ROWS))

    def aim(self, numbers: Numbers, penalty: float) -> Aim:
        """A table for these problems; one that is consistent has no mismatch."""

        def field(noises: Noises) -> Any:
            assert noises.samples is not None
            first, last = (int(noises.samples[k]) // ROWS for k in (0, -1))
            return self.family.some(slice(first, last + 1)).field(numbers.gauge)

        return Aim(field, numbers, self.noises, penalty=penalty if penalty < math.inf else 0.0)


def start(span: str, kind: str, n: int, shared: bool, penalty: float) -> tuple[Numbers, torch.Tensor | None]:
    """What a fit starts from: the table that the range of n has, or else an exponential Adams method on equal steps, in
    eps, or in x0 where an end is infinite."""
    gauge, lam = "eps" if np.isfinite(ENDS[span]).all() else "x0", equal(span, kind, n)
    if shared:
        return Shared(gauge, 3, lam), None
    order, consistent = 3 if n > (6 if KINDS[kind].scales[1] > 1 else 5) else 2, penalty == math.inf
    if (found := of_range(span, kind, n)) is None:
        return Numbers(gauge, order, lam, consistent=consistent), None
    numbers = Numbers(gauge, order, found[0].lam, consistent=consistent)
    return numbers, numbers.numbers_of(found[0].weights)


def fitted(
    train: Sequence[Aim], test: Sequence[Aim], iterations: int, q: torch.Tensor | None = None
) -> tuple[torch.Tensor, dict[str, Any]]:
    """The numbers with the least loss on the problems that decide, from q on, and what is known of them: errors of each
    table."""
    states = fit(train, derivatives=Differences(), q=q)
    for found, best in iterates(states, test, PATIENCE):
        medians = [float(e.median()) for e in found.errors]
        if found.k == 0:
            began = medians
        if best is found:
            told = {"held-out median": medians, "held-out rms": [float(e.square().mean().sqrt()) for e in found.errors]}
        if found.k == iterations:
            break
    return best.q, told | {"start's median": began, "iterations": best.k}


def fit_tables(
    nfe: Annotated[list[str] | None, typer.Option(help="Budgets or ranges, as 8 or 13-40; all if none.")] = None,
    span: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(ENDS)}; all if none.")] = None,
    family: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(KINDS)}; all if none.")] = None,
    iterations: Annotated[int, typer.Option(min=1)] = 40,
    out: Annotated[Path, typer.Option(help="Where the tables go.")] = Path(str(FILES)),
    fresh: Annotated[bool, typer.Option("--fresh", help="Fit those again that are there.")] = False,
) -> None:
    """Fit universal tables to random problems with exact denoisers."""
    out.mkdir(parents=True, exist_ok=True)
    every = (
        (name, kind, n) for name in span or ENDS for kind in family or KINDS for n in nfe or budgets_of(name, kind)
    )
    for name, kind, wanted in every:
        path = out / f"{name}-{kind}.json"
        from_noise = ENDS[name][0] == -math.inf  # of which eps says nothing
        if (from_noise and KINDS[kind].head == "eps") or (wanted in _read(path) and not fresh):
            continue
        began = time.perf_counter()
        found = fit_table(name, kind, *map(int, wanted.split("-")), iterations=iterations)
        _add(path, wanted, found)
        stored.cache_clear()  # a range's numbers are what the fits of its budgets begin with
        print(f"{name} {kind} {wanted}: {found['provenance']}, {time.perf_counter() - began:.0f} s", flush=True)


def budgets_of(span: str, kind: str) -> list[str]:
    """What is fitted of a family on a span. To no noise at once is for few evaluations, and not for guided models: such
    tables have 100 times the error of a formula on pairs of classes."""
    if span in SPANS:
        return BUDGETS[kind]
    return [] if KINDS[kind].scales[1] > 1 else [n for n in FEWEST if int(n) <= MOST_AT_ONCE]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _add(path: Path, budget: str, table: dict[str, Any]) -> None:
    """To the tables of the file as it is now: another process may have written to it."""
    tables = _read(path) | {budget: table}
    ordered = sorted(tables, key=lambda key: [int(n) for n in key.split("-")])
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(tables[key])}" for key in ordered)
    write(path, f"{{\n{lines}\n}}\n".encode())


def _from(values: dict[int, Number], least: int) -> Number:
    """The value of the largest number of evaluations that is not above this one."""
    return values[max(n for n in values if n <= least)]


def fit_table(span: str, kind: str, least: int, most: int | None = None, *, iterations: int) -> dict[str, Any]:
    """What is stored: of a number of evaluations a table, of a range the numbers that its tables have in common."""
    some = SOME if least < RANGES[-1][0] or np.isfinite(ENDS[span]).all() else MORE
    budgets = [least] if most is None else some_of(list(range(least, most + 1)), some)
    kinds = KINDS[kind]._replace(names=KINDS[kind].names + BESIDES.get((span, kind, least), ()))
    floor, penalty = _from(MORE_FLOORS.get(kind, FLOORS), least), _from(PENALTY[kind], least)
    count = _from(MORE_PROBLEMS.get(kind, PROBLEMS), least) if most is None else FEWER
    if kinds.head == "eps" and least >= RANGES[-1][0]:
        kinds = kinds._replace(rough=ROUGH)
    penalty = penalty if most is None else math.inf  # what budgets have in common is consistent
    train, test = (Part.drawn(n, kinds, ENDS[span], s, floor) for n, s in ((count, SEED), (HELD_OUT, OTHERS)))
    tables, starts = zip(*(start(span, kind, n, most is not None, penalty) for n in budgets), strict=True)
    aims, tests = ([part.aim(table, penalty) for table in tables] for part in (train, test))
    q, told = fitted(aims, tests, iterations, starts[0])
    provenance = {
        "made by": f"python -m logsnr.bench.universal, logsnr {__version__}",
        "family": kinds.told(count, ROWS, SEED) + f"; {HELD_OUT} others decide, seed {OTHERS}",
    }
    data = {"gauge": tables[0].gauge, "order": tables[0].order}
    if most is not None:
        return data | {"budgets": budgets, "numbers": q.tolist(), "provenance": provenance | told}
    table, told = tables[0].fitted(q), {key: value if key == "iterations" else value[0] for key, value in told.items()}
    rows = [row[: i + 2].tolist() for i, row in enumerate(table.weights)]
    return data | {"lam": table.lam.tolist(), "weights": rows, "provenance": provenance | told}


if __name__ == "__main__":
    run_command(fit_tables)
