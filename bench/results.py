"""Measurements in a CSV that grows line by line, so that an interrupted bench goes on where it stopped."""

import csv
import hashlib
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata, resources
from importlib.resources.abc import Traversable
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
    """What is asked for: a solver on a problem, at a budget `nfe` or, if adaptive, at a tolerance `rtol`, and what its
    samples are compared with."""

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
    """What came out.

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
    """The CSV at `path`. Opening drops the rows of other versions of the code, and those of the cases ``drop``."""

    def __init__(self, path: Path, *, drop: Collection[Case] = ()) -> None:
        self.path = path
        self.versions = versions()
        self._rows: dict[Case, Row] = {}
        if path.exists():
            kept = [row for row in _load(path) if row.versions == self.versions and row.case not in drop]
            self._rows = {row.case: row for row in kept}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.with_suffix(".tmp")  # replaced in one move: a stop in between loses no rows
        with whole.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(row.record() for row in self._rows.values())
        os.replace(whole, path)

    def get(self, case: Case) -> Row | None:
        return self._rows.get(case)

    def add(self, row: Row) -> None:
        self._rows[row.case] = row
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow(row.record())


def _load(path: Path) -> list[Row]:
    rows = []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for record in csv.DictReader(file):
            try:
                rows.append(Row.parse(record))
            except (KeyError, TypeError, ValueError):
                continue  # the line that an interrupt tore, or another format: it is measured again
    return rows


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
