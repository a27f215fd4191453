"""What a work-precision table holds, and how it is written: CSV, text, plot."""

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import wrap

import numpy as np

from ..solvers.names import nearest
from .estimates import Estimate

WIDTH = 80
WIDTHS = ("<13.12", ">7", ">14", ">14", ">8", ">8", ">10", ">6")
METRICS = ("median", "rms", "p90", "w2", "sliced_w2")
COSTS = ("nfe", "seconds")


@dataclass(frozen=True)
class WorkPrecisionRow:
    """One solver at one budget. Every `Estimate` is a value and the ends of its interval, see `work_precision`.

    nfe, nfe_used: model evaluations per sample, asked for and spent. median, rms, p90: over the samples, of each
    sample's root-mean-square error. w2, sliced_w2: distances of the end states' distribution. seconds, outside:
    of the whole batch, and what of it was not the model.
    """

    solver: str
    nfe: int
    nfe_used: int
    median: Estimate
    rms: Estimate
    p90: Estimate
    w2: Estimate
    sliced_w2: Estimate
    seconds: Estimate
    outside: Estimate


@dataclass(frozen=True)
class Conditions:
    """What all rows of a table share; w2_noise and sliced_w2_noise are what exact samples of this size show."""

    problem: str
    schedule: str
    t_start: float
    t_end: float
    grid: str
    startup: str
    start: str
    samples: int
    seed: int
    dtype: str
    repeats: int
    reference: str
    reference_error: float
    w2_noise: float
    sliced_w2_noise: float
    versions: str


@dataclass(frozen=True)
class WorkPrecision:
    """What `work_precision` returns: rows by solver and then budget; notes tell which were impossible."""

    conditions: Conditions
    rows: tuple[WorkPrecisionRow, ...]
    notes: tuple[str, ...] = ()

    def to_csv(self, path: str | Path) -> None:
        """Write one line per row with all its conditions, so that none is a number without its problem and seed.

        Floats have all their digits. The estimate ``rms`` fills the columns rms, rms_low and rms_high.
        """
        records = [{**asdict(self.conditions), **_flat(row)} for row in self.rows]
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)

    def plot(self, path: str | Path, *, x: str = "nfe", metric: str = "median") -> None:
        """Save a log-log plot with the rows' intervals, in the format of the path's suffix.

        x: "nfe" or "seconds". metric: "median", "rms", "p90", "w2" or "sliced_w2". A dotted line shows below
        what no number means anything: the reference's own error, or for the distances what exact samples of the
        same size show. Raises ValueError for other names.
        """
        for name, value, known in (("x", x, COSTS), ("metric", metric, METRICS)):
            if value not in known:
                raise ValueError(f"{name} = {value!r} is unknown{nearest(value, known)}")
        from .work_precision_plot import draw

        draw(self, x, metric).savefig(path, dpi=150)

    def __str__(self) -> str:
        """A table of 80 columns; the percentages are the intervals' larger sides, - above 999 %.

        NFE 18/20: spent 18 of a budget of 20. ms: the median of the whole batch.
        """
        columns = ("median", "rms", "90 %", "W2", "sliced W2", "ms")
        lines = [line for text in self.head() for line in wrap(text, WIDTH, subsequent_indent="  ")]
        lines.append(_line("solver", "NFE", *columns))
        for row in self.rows:
            plain = (f"{estimate.value:.1e}" for estimate in (row.p90, row.w2, row.sliced_w2))
            time = f"{1e3 * row.seconds.value:.{2 if row.seconds.value < 0.1 else 0}f}"
            lines.append(_line(row.solver, _spent(row), _percent(row.median), _percent(row.rms), *plain, time))
        noise = (f"{level:.1e}" for level in (self.conditions.w2_noise, self.conditions.sliced_w2_noise))
        lines.append(_line("exact draws", "", "", "", "", *noise, ""))
        return "\n".join(lines + [line for note in self.notes for line in wrap(note, WIDTH)])

    def head(self) -> tuple[str, str, str]:
        """What was measured, under which conditions, and against what."""
        said = self.conditions
        span = f"t = {said.t_start:.6g} to {said.t_end:.6g}, {said.grid} grid, {said.startup} start-up"
        return (
            f"{said.problem}, {said.schedule}",
            f"{span}; {said.samples} samples ({said.start}), seed {said.seed}, {said.dtype}",
            f"reference: {said.reference}, error about {said.reference_error:.1e}",
        )


def _flat(row: WorkPrecisionRow) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name in row.__dataclass_fields__:
        value = getattr(row, name)
        if isinstance(value, Estimate):
            flat.update({name: value.value, f"{name}_low": value.low, f"{name}_high": value.high})
        else:
            flat[name] = value
    return flat


def _spent(row: WorkPrecisionRow) -> str:
    return str(row.nfe) if row.nfe_used == row.nfe else f"{row.nfe_used}/{row.nfe}"


def _percent(estimate: Estimate) -> str:
    """Three digits and the larger side of the interval: 1.23e-02   5%."""
    with np.errstate(invalid="ignore"):
        sides = np.array([estimate.high - estimate.value, estimate.value - estimate.low])
        larger = float(sides.max() / estimate.value) if estimate.value else 0.0
    return f"{estimate.value:.2e}" + (f" {100 * larger:3.0f}%" if larger < 9.99 else "    -")


def _line(*cells: object) -> str:
    return "".join(f"{cell!s:{w}}" for cell, w in zip(cells, WIDTHS, strict=True)).rstrip()
