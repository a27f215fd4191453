"""The picture of a comparison. Imports matplotlib, so only plots import this."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

from .comparison import Comparison, PathRow
from .work_precision_plot import COLOURS, DASHES, MARKERS


def draw(found: Comparison) -> Figure:
    """Error against evaluations, or of one budget every row as a point."""
    budgets = sorted({row.nfe for row in found.rows})
    solvers = list(dict.fromkeys(row.solver for row in found.rows))
    high = 4.4 if len(budgets) > 1 else 1.2 + 0.3 * len(solvers)
    figure = Figure(figsize=(7.0, high), layout="constrained")
    ax = figure.subplots()
    (_curves if len(budgets) > 1 else _points)(ax, found, solvers, budgets)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#dddddd", lw=0.6, which="both", axis="y" if len(budgets) > 1 else "x")
    ax.set_axisbelow(True)
    ax.set_title(found.conditions.denoiser, fontsize=9, loc="left")
    return figure


def _errors_on(axis: Axis, found: Comparison) -> None:
    """Powers of ten; where there are less than two, 1, 2 and 5 too."""
    seen = [row.median for row in found.rows if 0 < row.median < np.inf] or [1.0]
    if max(seen) / min(seen) < 100:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def _curves(ax: Axes, found: Comparison, solvers: list[str], budgets: list[int]) -> None:
    """Each solver on its best grid and start at each budget."""
    for i, name in enumerate(solvers):
        rows = [min(of, key=lambda row: row.median) for n in budgets if (of := _of(found, name, n))]
        shown = [(row.nfe_used, row.median) for row in rows if 0 < row.median < np.inf]
        style: dict[str, Any] = {"color": COLOURS[i % 6], "marker": MARKERS[i % 7], "linestyle": DASHES[i // 6 % 4]}
        ax.plot(*np.array(shown).reshape(-1, 2).T, label=name, lw=1.5, ms=5, **style)
    ax.set(xscale="log", yscale="log", xlabel="NFE: model evaluations per sample")
    ax.set_ylabel("median error, best grid and start")
    ax.xaxis.set_major_locator(FixedLocator(budgets))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    _errors_on(ax.yaxis, found)
    _resolution(ax, found, ax.axhline)
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _points(ax: Axes, found: Comparison, solvers: list[str], budgets: list[int]) -> None:
    """A line for every solver, best at the top; a colour for every grid, hollow for single-step starts."""
    order = list(dict.fromkeys(row.solver for row in found.ranked(budgets[0])))
    grids = list(dict.fromkeys(row.grid for row in found.rows))
    for i, grid in enumerate(grids):
        for startup, face in (("ramp", COLOURS[i % 6]), ("single-step", "white")):
            rows = [r for r in found.rows if r.grid == grid and (r.startup or "ramp") == startup and r.median < np.inf]
            label = grid + ", single-step start" * (startup == "single-step")
            if rows:
                ax.plot([r.median for r in rows], [order.index(r.solver) for r in rows], MARKERS[i % 7], ms=7,
                        mec=COLOURS[i % 6], mfc=face, label=label)  # fmt: skip
    ax.set(xscale="log", xlabel=f"median error at {budgets[0]} evaluations")
    ax.set_yticks(range(len(order)), order)
    ax.set_ylim(len(order) - 0.5, -0.5)
    _errors_on(ax.xaxis, found)
    _resolution(ax, found, ax.axvline)
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _of(found: Comparison, name: str, nfe: int) -> list[PathRow]:
    return [row for row in found.rows if row.solver == name and row.nfe == nfe]


def _resolution(ax: Axes, found: Comparison, line: object) -> None:
    """Where the reference ends what can be seen, if that is near the rows."""
    least = min((row.median for row in found.rows if row.median > 0), default=1.0)
    if callable(line) and found.resolution > least / 30:
        line(found.resolution, color="black", ls=(0, (1, 2)), lw=1.2, label="resolution of the reference")
