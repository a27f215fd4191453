"""The picture of a work-precision table. Imports matplotlib, so only plots import this."""

from textwrap import fill
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

from ..solvers.arrays import Array
from .estimates import Estimate
from .work_precision_table import WorkPrecision, WorkPrecisionRow

# Okabe and Ito's colours, told apart with any colour vision; markers and dashes say it again.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP*"
DASHES = ("-", "--", "-.", ":")
WIDE, HIGH = 8.4, 4.8  # inches
ROOM = 2.0  # factor between the outermost values and the frame; longer intervals are cut there
MARGIN = 1.12  # the same to the sides
NEAR = 30.0  # a floor this much below all values is only told, as showing it would squeeze them

LABELS = {
    "nfe": "NFE: model evaluations per sample",
    "seconds": "seconds for the whole batch: median, fastest, slowest",
    "median": "median error",
    "rms": "root-mean-square error",
    "p90": "90th-percentile error",
    "w2": "W2 between Gaussian fits",
    "sliced_w2": "sliced W2",
}


def draw(table: WorkPrecision, x: str, metric: str) -> Figure:
    """The figure, one line per solver; a diverged run leaves a gap, told in the legend."""
    title = "\n".join(fill(text, 80) for text in table.head()[:2])
    figure = Figure(figsize=(WIDE, HIGH))
    bottom, top = 0.55 / HIGH, 1 - (0.2 + 0.15 * len(title.splitlines())) / HIGH
    ax = figure.add_axes((0.85 / WIDE, bottom, 5.5 / WIDE, top - bottom))  # fixed: fitting it takes a second
    names = list(dict.fromkeys(row.solver for row in table.rows))
    costs = [end for row in table.rows for end in (row.seconds[1:] if x == "seconds" else (row.nfe_used,))]
    limits = _limits(table, metric)
    _scale(ax, "x", min(costs) / MARGIN, max(costs) * MARGIN)
    _scale(ax, "y", *limits)
    if x == "nfe":
        _mark_budgets(ax, sorted({row.nfe for row in table.rows} | {min(row.nfe_used for row in table.rows)}))
    for i, name in enumerate(names):
        style = {"color": COLOURS[i % 6], "marker": MARKERS[i % 7], "linestyle": DASHES[i // 6 % 4]}
        rows = {row.nfe_used: row for row in table.rows if row.solver == name}  # several budgets may run one program
        _line(ax, name, list(rows.values()), x, metric, limits, style)
    floor = _floor(ax, table, metric, limits[0])
    ax.set_xlabel(LABELS[x])
    ax.set_ylabel(f"{LABELS[metric]}, 95 % intervals")
    ax.grid(color="#dddddd", lw=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title(title, fontsize=9, loc="left")
    lines, labels = ax.get_legend_handles_labels()
    last = labels.index(floor)
    lines, labels = ([*found[:last], *found[last + 1 :], found[last]] for found in (lines, labels))
    place = (6.4 / WIDE, 1 - 0.05 / HIGH)
    figure.legend(lines, labels, fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=place)
    return figure


def _scale(ax: Axes, name: Literal["x", "y"], low: float, high: float) -> None:
    """Logarithmic; where that is too short for powers of ten, with ticks at 1, 2 and 5."""
    ax.set(**{f"{name}scale": "log", f"{name}lim": (low, high)})
    axis = ax.xaxis if name == "x" else ax.yaxis
    if high / low < 100:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())


def _line(
    ax: Axes, name: str, rows: list[WorkPrecisionRow], x: str, metric: str, limits: tuple[float, float],
    style: dict[str, Any],
) -> None:  # fmt: skip
    y = np.array([getattr(row, metric) for row in rows])
    shown = np.isfinite(y[:, 0]) & (y[:, 0] > 0)
    cost = np.array([row.seconds if x == "seconds" else Estimate(*[row.nfe_used] * 3) for row in rows])
    if not shown.all():
        name += f"\n(infinite or 0 at {', '.join(str(r.nfe) for r, s in zip(rows, shown, strict=True) if not s)})"
    y[:, 1:] = np.clip(y[:, 1:], *limits)
    ax.errorbar(
        cost[shown, 0], y[shown, 0], yerr=_sides(y[shown]), xerr=_sides(cost[shown]) if x == "seconds" else None,
        label=name, lw=1.4, ms=4.5, capsize=2.5, elinewidth=0.9, **style,
    )  # fmt: skip


def _sides(estimates: Array) -> Array:
    """Lengths below and above the values: (n, 3) -> (2, n)."""
    return np.abs(estimates[:, 1:] - estimates[:, :1]).T


def _limits(table: WorkPrecision, metric: str) -> tuple[float, float]:
    values = [getattr(row, metric).value for row in table.rows]
    seen = [value for value in values if 0 < value < np.inf] or [1.0]
    floor = floor_of(table, metric)
    low = min(seen) if not min(seen) / NEAR < floor < np.inf else min(*seen, floor)
    return low / ROOM, ROOM * max(seen)


def floor_of(table: WorkPrecision, metric: str) -> float:
    said = table.conditions
    return {"w2": said.w2_noise, "sliced_w2": said.sliced_w2_noise}.get(metric, said.reference_error)


def _floor(ax: Axes, table: WorkPrecision, metric: str, low: float) -> str:
    """A line where the reference, or the number of samples, ends what can be seen; its label."""
    floor = floor_of(table, metric)
    label = f"between sets of {table.conditions.samples}\nexact samples" if "w2" in metric else "error of the reference"
    if floor < low:
        label = f"{label}:\n{floor:.1e}, below the plot"
        ax.plot([], [], " ", label=label)
    else:
        ax.axhline(floor, color="black", ls=(0, (1, 2)), lw=1.2, label=label, zorder=1)
    return label


def _mark_budgets(ax: Axes, budgets: list[int]) -> None:
    """Ticks at the budgets, less those that would run into their neighbour."""
    kept = budgets[:1]
    for nfe in budgets[1:]:
        if nfe > kept[-1] * (budgets[-1] / budgets[0]) ** 0.04:
            kept.append(nfe)
    ax.xaxis.set_major_locator(FixedLocator(kept))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
