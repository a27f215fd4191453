"""The catalogue in few lines: series of solvers that differ in a number are one row."""

import re
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from .catalogue import Solver


class Row(NamedTuple):
    """One solver or a series, as deis-{1..4}: what differs within it is joined."""

    name: str
    order: str
    evaluations: str
    summary: str


def rows(solvers: Iterable[Solver]) -> list[Row]:
    """By series, in order. A series has names and summaries that are the same but for digits."""
    groups = groupby(solvers, key=lambda found: [re.sub(r"\d", "#", text) for text in (found.name, found.summary)])
    return [_row(list(group)) for _, group in groups]


def _row(series: list[Solver]) -> Row:
    words = zip(*(found.summary.split() for found in series), strict=True)
    return Row(
        _braces([found.name for found in series]),
        _span([found.order for found in series]),
        _span([found.evaluations for found in series]),
        " ".join(map(_braces, words)),
    )


def _braces(words: Sequence[str]) -> str:
    """Several words as a shell has them: dpm-{2..4}m."""
    parts = [re.split(r"(\d+)", word) for word in words]
    if len({len(part) for part in parts}) > 1:
        return "/".join(dict.fromkeys(words))
    columns = (list(dict.fromkeys(column)) for column in zip(*parts, strict=True))
    return "".join(column[0] if len(column) == 1 else f"{{{_listed(column)}}}" for column in columns)


def _listed(column: list[str]) -> str:
    run = all(b.isdigit() and a.isdigit() and int(b) == int(a) + 1 for a, b in pairwise(column))
    return f"{column[0]}..{column[-1]}" if run and len(column) > 2 else ",".join(column)


def _span(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}-{high}" if low < high else str(low)
