"""What the comparison with peers measures, in a CSV that grows line by line."""

import csv
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """What is measured: ``solver`` of ``package``, as ``version`` has it, with at most ``nfe`` evaluations a sample."""

    problem: str
    package: str
    version: str
    solver: str
    grid: str
    nfe: int
    samples: int
    seed: int


@dataclass(frozen=True)
class Row:
    """evaluations: a sample's, counted by the model. median, rms: of the samples' root-mean-square errors. far: the
    share of samples that end far from where they should. reference_error: of that, the exact end."""

    case: Case
    evaluations: float
    median: float
    rms: float
    far: float
    reference_error: float


COLUMNS = [f.name for f in (*fields(Case), *fields(Row)[1:])]


class Rows:
    """The CSV at ``path``; lines that are no rows, such as one torn by an interrupt, are passed over."""

    def __init__(self, path: Path) -> None:
        self.path, self._rows = path, dict[Case, Row]()
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                for record in csv.DictReader(file):
                    with suppress(KeyError, TypeError, ValueError):
                        self._keep(_parsed(record))
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._append(dict(zip(COLUMNS, COLUMNS, strict=True)))

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def get(self, case: Case) -> Row | None:
        return self._rows.get(case)

    def add(self, row: Row) -> None:
        flat = asdict(row)
        self._append({**flat.pop("case"), **flat})
        self._keep(row)

    def _keep(self, row: Row) -> None:
        self._rows[row.case] = row

    def _append(self, record: dict[str, Any]) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow(record)


def _parsed(record: dict[str, str]) -> Row:
    kinds: dict[str, Any] = {f.name: f.type for f in (*fields(Case), *fields(Row))}
    values: dict[str, Any] = {name: kinds[name](record[name]) for name in COLUMNS}
    case = Case(**{f.name: values.pop(f.name) for f in fields(Case)})
    return Row(case, **values)
