"""Measurements in a CSV that grows line by line, so that an interrupted bench goes on where it stopped."""

import csv
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from ..solvers.planners.multistep import Startup

OURS = "logsnr"
Compared = Literal["path", "law"]  # each sample with the exact end of its path, or all with samples of the exact law
PATH = ("median", "rms", "p90")
LAW = ("sliced_w2", "energy_distance", "mmd")
STATISTICS: dict[Compared, tuple[str, ...]] = {
    "path": (*PATH, "far", "reference_error"),
    "law": tuple(f"{name}{end}" for name in LAW for end in ("", "_exact", "_low", "_high")),
}


@dataclass(frozen=True)
class Case:
    """One thing to measure: a solver of a package on a problem, at a budget `nfe` or, if adaptive, at a tolerance
    `rtol`, and what its samples are compared with."""

    problem: str
    solver: str
    startup: Startup
    grid: str
    nfe: int | None
    rtol: float | None
    samples: int
    seed: int
    compared: Compared = "path"
    package: str = OURS


@dataclass(frozen=True)
class Row:
    """One measurement.

    nfe_used: model evaluations per sample; an adaptive solver's are those of its one batch.
    statistics: by name, those that `STATISTICS` has for what was compared. Of paths:
      median, rms, p90: over the samples, of each sample's root-mean-square error against the reference.
      far: the share of samples with an error above a tenth of the data's spread.
      reference_error: how far off the reference itself is, the largest over the samples.
    Of laws:
      sliced_w2, energy_distance, mmd: from the generated samples to the problem's target.
      the same with _exact, _low, _high: of as many samples of a perfect sampler, the median and 90 % in the middle.
    """

    case: Case
    nfe_used: int
    statistics: dict[str, float]
    versions: str

    def record(self) -> dict[str, object]:
        """The row as one flat CSV record; None becomes the empty cell."""
        flat = asdict(self)
        return {**flat.pop("case"), **flat.pop("statistics"), **flat}

    @classmethod
    def parse(cls, record: dict[str, str]) -> "Row":
        """The inverse of `record`. Raises KeyError or ValueError on a torn or foreign record."""
        kinds: dict[str, Any] = {"nfe": int, "rtol": float, "samples": int, "seed": int}
        case: dict[str, Any] = {f.name: record[f.name] or None for f in fields(Case)}
        case |= {name: kind(case[name]) for name, kind in kinds.items() if case[name] is not None}
        statistics = {name: float(record[name]) for name in STATISTICS[case["compared"]]}
        if not record["versions"]:
            raise ValueError("the record is torn")
        return cls(Case(**case), int(record["nfe_used"]), statistics, record["versions"])


COLUMNS = (*(f.name for f in fields(Case)), "nfe_used", *STATISTICS["path"], *STATISTICS["law"], "versions")


class Results:
    """The CSV at `path`. Its rows of the same versions are used, but for the cases ``drop``, which opening takes out;
    rows of other versions stay in it. version: of a package.

    notes: what was found that a user should know. Lines that are no rows are left out, and the file as it was is kept
    beside it. Raises ValueError for a file without a single line that this bench could have written.
    """

    def __init__(self, path: Path, *, drop: Collection[Case] = (), version: Callable[[str], str] | None = None) -> None:
        version = version or (lambda package: versions())
        self.path, self.notes = path, list[str]()
        rows, damaged = _load(path) if path.exists() else ([], [])
        path.parent.mkdir(parents=True, exist_ok=True)
        if damaged:
            aside = tempfile.mkstemp(".csv", f"{path.stem}.damaged-", path.parent)[1]
            shutil.copyfile(path, aside)
            told = ", ".join(map(str, damaged[:5])) + " ..." * (len(damaged) > 5)
            self.notes.append(f"{path}: no row in line {told}, left out; {Path(aside).name} is the file as it was")
        others = [row for row in rows if row.versions != version(row.case.package)]
        if others:
            self.notes.append(f"{path}: {len(others)} rows of other versions stay in it and are not used")
        self._rows = {row.case: row for row in rows if row not in others and row.case not in drop}
        whole = path.with_name(f".{path.name}.tmp")  # replaced in one move: a stop in between loses no rows
        with whole.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(row.record() for row in [*others, *self._rows.values()])
        os.replace(whole, path)

    def get(self, case: Case) -> Row | None:
        return self._rows.get(case)

    def add(self, row: Row) -> None:
        self._rows[row.case] = row
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow(row.record())


def _load(path: Path) -> tuple[list[Row], list[int]]:
    """The rows, and the numbers of the lines that are none. A quote that is left open ends with its line."""
    rows, damaged = list[Row](), list[int]()
    text = path.read_bytes().decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if number == 1 and line == ",".join(COLUMNS):
            continue
        try:
            (cells,) = csv.reader([line])
            rows.append(Row.parse(dict(zip(COLUMNS, cells, strict=True))))
        except (KeyError, TypeError, ValueError, csv.Error):
            damaged.append(number)
    if text and not rows and 1 in damaged:
        raise ValueError(
            f"{path} was not written by this bench: it begins with {text.splitlines()[0][:40]!r}; "
            "move it away, or give another folder"
        )
    return rows, damaged


@cache
def fingerprint(*packages: str) -> str:
    """Twelve hex digits that change with any source file or data file of these packages."""
    digest = hashlib.sha256()
    for package in packages:
        for path, content in sorted(_files(resources.files(package), package)):
            digest.update(path.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()[:12]


def _files(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found = []
    for item in folder.iterdir():
        path = f"{prefix}/{item.name}"
        if item.is_dir():
            found += _files(item, path)
        elif item.name.endswith((".py", ".npz", ".safetensors", ".json")):
            found.append((path, item.read_bytes()))
    return found


@cache
def versions() -> str:
    """The library with a fingerprint of its code and data, and the packages that its numbers rest on."""
    code = fingerprint("logsnr.solvers", "logsnr.kernels", "logsnr.analysis", "logsnr.bench")
    others = " ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "scipy", "numba"))
    return f"logsnr {metadata.version('logsnr')} (code {code}) {others}"
