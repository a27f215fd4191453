"""The universal tables of the package, as they are stored: a file for each span and family."""

import json
import math
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import torch

from ..arrays import Array
from .aside import aside
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
# Few evaluations are better spent before: these go to no noise at once, and no call is at a level beyond that one.
AT_ONCE = {"sd-clean": (SPANS["sd"][0], math.inf), "vp-clean": (SPANS["vp"][0], math.inf), "flow": SPANS["flow"]}
MOST_AT_ONCE = 5  # evaluations
ENDS = SPANS | AT_ONCE
RANGES = (7, 12), (13, 40)  # of numbers of evaluations whose tables have their numbers in common
FITTED_TO = "fitted to evaluations"  # in the provenance of a range's tables
FAMILY = "tables for"  # in the provenance of all
Table = tuple[Fitted, int, dict[str, Any]]  # with the order of the Adams method that it corrects, and its provenance
BEGIN = {"groups": 20.0, "wide": 20.0, "vast": 80.0}  # the widths where equal steps begin, if not 3
FILES = resources.files("logsnr.solvers").joinpath("data", "universal")


def equal(span: str, family: str, n: int) -> Array:
    """Equal steps in lam (n + 1,), what a fit begins with. Next to an infinite end they begin where data as wide as
    the family's still are mostly noise, and end where a last step of first order costs little: the more steps, the
    nearer."""
    ends = np.array(ENDS[span])
    noise = -1.5 - math.log(BEGIN.get(family, 3.0))
    clean = 4.0 if n <= RANGES[0][-1] else 8.0 - 32.0 / n
    low, high = ends if np.isfinite(ends).all() else np.clip(ends, noise, clean)
    lam = np.linspace(low, high, n + 1)
    lam[[0, -1]] = ends
    return lam


@cache
def stored(span: str, family: str) -> dict[str, Any]:
    """What a file holds: tables by their number of evaluations, "8", and by a range of them, "7-12", the numbers that
    its tables have in common. Empty if there is no file."""
    file = FILES.joinpath(f"{span}-{family}.json")
    return json.loads(file.read_text()) if file.is_file() else {}


@cache
def load(span: str, family: str, n: int) -> Table | None:
    """The table for n evaluations, or one from the numbers of a range; None if there is neither."""
    if (data := stored(span, family).get(str(n))) is None:
        return of_range(span, family, n)
    weights = np.zeros((n, n + 1))
    for i, row in enumerate(data["weights"]):
        weights[i, : i + 2] = row
    table = Fitted(data["gauge"], np.array(data["lam"]), weights)
    return table, data["order"], data["provenance"] | {FAMILY: family}


@aside
def of_range(span: str, family: str, n: int) -> Table | None:
    """As `load`, from the numbers that a range has in common."""
    found = (stored(span, family).get(f"{a}-{b}") for a, b in RANGES if a <= n <= b)
    if (data := next(found, None)) is None:
        return None
    numbers = Shared(data["gauge"], data["order"], equal(span, family, n))
    table = numbers.fitted(torch.tensor(data["numbers"], dtype=torch.float64))
    at = min(range(len(data["budgets"])), key=lambda k: abs(data["budgets"][k] - n))
    told = {name: value[at] if isinstance(value, list) else value for name, value in data["provenance"].items()}
    told[FITTED_TO] = ", ".join(map(str, data["budgets"]))
    return table, data["order"], told | {FAMILY: family}
