"""Measurements in a CSV that grows line by line, so that an interrupted bench goes on where it stopped."""

import csv
import hashlib
import os
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from itertools import chain, count
from pathlib import Path
from typing import Literal, cast

from ..solvers.planners.multistep import Startup

Compared = Literal["path", "law"]  # each sample with the exact end of its path, or all with samples of the exact law
PATH = ("median", "rms", "p90")
LAW = ("sliced_w2", "energy_distance", "mmd")
STATISTICS: dict[Compared, tuple[str, ...]] = {
    "path": (*PATH, "reference_error"),
    "law": tuple(f"{name}{end}" for name in LAW for end in ("", "_exact", "_low", "_high")),
}


@dataclass(frozen=True)
class Case:
    """One thing to measure: a solver on a problem, at a budget `nfe` or, if adaptive, at a tolerance `rtol`, and what
    its samples are compared with."""

    problem: str
    solver: str
    startup: Startup
    grid: str
    nfe: int | None
    rtol: float | None
    samples: int
    seed: int
    compared: Compared = "path"


@dataclass(frozen=True)
class Row:
    """One measurement.

    nfe_used: model evaluations per sample; an adaptive solver's are those of its one batch.
    statistics: by name, those that `STATISTICS` has for what was compared. Of paths:
      median, rms, p90: over the samples, of each sample's root-mean-square error against the reference.
      reference_error: how far off the reference itself is, the largest over the samples.
    Of laws:
      sliced_w2, energy_distance, mmd: from the generated samples to the problem's target.
      the same with _exact, _low, _high: of as many samples of a perfect sampler, the median and 90 % in the middle.
    overhead_us_per_step: time outside the model per model call, microseconds; seconds: the whole solve.
    """

    case: Case
    nfe_used: int
    statistics: dict[str, float]
    overhead_us_per_step: float
    seconds: float
    versions: str

    def record(self) -> dict[str, object]:
        """The row as one flat CSV record; None becomes the empty cell."""
        flat = asdict(self)
        return {**flat.pop("case"), **flat.pop("statistics"), **flat}

    @classmethod
    def parse(cls, record: dict[str, str]) -> "Row":
        """The inverse of `record`. Raises KeyError, TypeError or ValueError on a torn or foreign record."""
        case = Case(
            problem=record["problem"],
            solver=record["solver"],
            startup=cast(Startup, record["startup"]),
            grid=record["grid"],
            nfe=int(record["nfe"]) if record["nfe"] else None,
            rtol=float(record["rtol"]) if record["rtol"] else None,
            samples=int(record["samples"]),
            seed=int(record["seed"]),
            compared=cast(Compared, record["compared"]),
        )
        if not record["versions"]:
            raise ValueError("the record is torn")
        return cls(
            case=case,
            nfe_used=int(record["nfe_used"]),
            statistics={name: float(record[name]) for name in STATISTICS[case.compared]},
            overhead_us_per_step=float(record["overhead_us_per_step"]),
            seconds=float(record["seconds"]),
            versions=record["versions"],
        )


COLUMNS = (
    "problem", "solver", "startup", "grid", "nfe", "rtol", "compared", "nfe_used",
    *STATISTICS["path"], *STATISTICS["law"], "overhead_us_per_step", "seconds", "samples", "seed", "versions",
)  # fmt: skip


class Results:
    """The CSV at `path`. Its rows of these versions of the code and of torch are used, but for the cases ``drop``,
    which opening takes out; rows of other versions stay in it.

    notes: what was found that a user should know. Lines that are no rows are left out, and the file as it was is kept
    beside it. Raises ValueError for a file without a single line that this bench could have written.
    """

    def __init__(self, path: Path, *, drop: Collection[Case] = ()) -> None:
        self.path, self.versions, self.notes = path, versions(), list[str]()
        rows, damaged = _load(path) if path.exists() else ([], [])
        if damaged:
            aside = _unused(path.with_suffix(".damaged.csv"))
            shutil.copyfile(path, aside)
            told = ", ".join(map(str, damaged[:5])) + " ..." * (len(damaged) > 5)
            self.notes.append(f"{path}: no row in line {told}, which is left out; {aside.name} is the file as it was")
        others = [row for row in rows if row.versions != self.versions]
        if others:
            told = ", ".join(sorted({_changed(row.versions, self.versions) for row in others}))
            self.notes.append(f"{path}: {len(others)} rows of other versions ({told}) stay in it and are not used")
        self._rows = {row.case: row for row in rows if row.versions == self.versions and row.case not in drop}
        path.parent.mkdir(parents=True, exist_ok=True)
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


def _unused(path: Path) -> Path:
    """The path, or where that is taken the same with a number."""
    numbered = (path.with_stem(f"{path.stem}-{n}") for n in count(2))
    return next(p for p in chain([path], numbered) if not p.exists())


def _changed(theirs: str, mine: str) -> str:
    """The parts of a line of `versions` that differ: torch 2.9.0."""
    words = theirs.replace("(", "").replace(")", "").split()
    parts = [f"{name} {number}" for name, number in zip(words[::2], words[1::2], strict=False)]
    return " ".join(part for part in parts if part not in mine.replace("(", "").replace(")", "")) or theirs


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
        if item.is_dir() and item.name == "data":
            found += _files(item, path)
        elif item.name.endswith((".py", ".npz", ".safetensors")):
            found.append((path, item.read_bytes()))
    return found


@cache
def versions() -> str:
    """The library with a fingerprint of its code and data, and the packages that its numbers rest on."""
    code = fingerprint("logsnr.solvers", "logsnr.kernels", "logsnr.analysis", "logsnr.bench")
    others = " ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "scipy", "numba"))
    return f"logsnr {metadata.version('logsnr')} (code {code}) {others}"
