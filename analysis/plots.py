"""The pictures of what is measured. Imports matplotlib, so only plots import this."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

if TYPE_CHECKING:
    from .comparison import Comparison
    from .comparison_rows import PathRow
    from .orders import Convergence
    from .stability import Stability
    from .transfer import Transfer

# Okabe and Ito's colours, told apart with any colour vision; markers say it again.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP*"
NAMED = 12  # lines whose names fit beside the axes


def axes(**labels: Any) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, on which ``labels`` are set."""
    figure = Figure(figsize=(7.0, 4.4), layout="constrained")
    ax = figure.subplots()
    ax.grid(color="#dddddd", lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set(**labels)
    return figure, ax


def style(i: int) -> dict[str, Any]:
    """Of the i-th line."""
    return {"color": COLOURS[i % 6], "marker": MARKERS[i % 7], "linestyle": ("-", "--", "-.", ":")[i // 6 % 4]}


def mark_budgets(ax: Axes, budgets: Any) -> None:
    """Ticks at these numbers of evaluations, on a logarithmic axis."""
    ax.xaxis.set_major_locator(FixedLocator(list(budgets)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))


def saved(figure: Figure, path: str | Path | None) -> Figure:
    """The figure, written if there is a path, in the format of its suffix."""
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def comparison(found: "Comparison") -> Figure:
    """Each solver on its best grid and start at each budget, the best of the largest budget first, and where the
    reference ends what can be seen. Of many solvers the others are grey; one budget is a list."""
    budgets = sorted({row.nfe for row in found.rows})
    best = {(row.nfe, row.solver): row for n in budgets for row in reversed(found.ranked(n))}
    names = list(dict.fromkeys(row.solver for n in reversed(budgets) for row in found.ranked(n)))
    least = min((row.median for row in found.rows if row.median > 0), default=1.0)
    floor = found.resolution if found.resolution > least / 30 else None
    if len(budgets) == 1:
        return _list(found, [best[budgets[0], name] for name in names], floor)
    figure, ax = axes(xlabel="NFE: model evaluations per sample", ylabel="median error, best grid and start")
    for i, name in reversed([*enumerate(names)]):
        rows = [best[n, name] for n in budgets if (n, name) in best]
        shown = [(row.nfe_used, row.median) for row in rows if 0 < row.median < np.inf]
        how = style(i) | {"label": name} if i < NAMED else {"color": "#cccccc", "lw": 0.8}
        ax.loglog(*np.array(shown).reshape(-1, 2).T, **how)
    if floor:
        ax.axhline(floor, color="black", ls=":", label="resolution of the reference")
    mark_budgets(ax, budgets)
    ax.set_title(found.conditions.denoiser, fontsize=9, loc="left")
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), reverse=True)
    return figure


def _list(found: "Comparison", rows: Sequence["PathRow"], floor: float | None) -> Figure:
    """The errors at one budget, a line for each solver with its grid, the best on top."""
    figure, ax = axes(xlabel=f"median error with {rows[0].nfe} evaluations, best grid and start", xscale="log")
    figure.set_figheight(1.4 + 0.25 * len(rows))
    errors = [row.median if 0 < row.median < np.inf else np.nan for row in rows]
    ax.plot(errors, range(len(rows)), "o", color=COLOURS[0])
    ax.set_yticks(range(len(rows)), [f"{row.solver}, {row.grid}" for row in rows], fontsize=9)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    if floor:
        ax.axvline(floor, color="black", ls=":", label="resolution of the reference")
        ax.legend(fontsize=8, frameon=False)
    ax.set_title(found.conditions.denoiser, fontsize=9, loc="left")
    return figure


def convergence(found: "Convergence") -> Figure:
    """Errors, those of the window marked, the line of the declared order through its finest, and the floor."""
    figure, ax = axes(xlabel="NFE: model evaluations", ylabel="error")
    nfe, errors = np.array(found.nfe, float), np.array(found.errors)
    seen = (errors > 0) & np.isfinite(errors)
    ax.loglog(nfe[seen], errors[seen], "o-", color=COLOURS[0], mfc="white", label=found.solver)
    if found.window:
        first, last = found.window
        inside = slice(first, last + 2)
        told = f"where the order is read: {found.order:.2f}"
        ax.loglog(nfe[inside], errors[inside], "o", color=COLOURS[0], label=told)
        if found.declared:
            line = errors[last + 1] * (nfe / nfe[last + 1]) ** -float(found.declared)
            ax.loglog(nfe, line, ":", color="black", label=f"order {found.declared}, declared", zorder=1)
    if found.floor:
        ax.axhline(found.floor, color="grey", lw=0.8, ls="--", label="round-off")
    if seen.any():
        ax.set_ylim(errors[seen].min() / 3, errors[seen].max() * 3)
    mark_budgets(ax, found.nfe)
    ax.set_title(found.verdict, fontsize=9, loc="left")
    ax.legend(fontsize=8, frameon=False)
    return figure


def transfer(found: "Transfer") -> Figure:
    """The relative error at each standard deviation."""
    figure, ax = axes(xlabel="standard deviation of the data", ylabel="relative error")
    ax.loglog(found.stds, np.where(found.error > 0, found.error, np.nan))
    precision = "" if found.dtype is None else f", {str(found.dtype).removeprefix('torch.')}"
    ax.set_title(f"{found.program.name}, {len(found.program)} model evaluations{precision}")
    return figure


def stability(found: "Stability") -> Figure:
    """A map of growth by exact growth, with the border of stability."""
    figure, ax = axes(xlabel="mode: lam + log(standard deviation)", ylabel="step in lam")
    growth_bar(figure, growth_map(ax, found), ax)
    ax.set_title(f"{found.solver}: growth per step (line: border of stability)")
    return figure


def growth_map(ax: Axes, found: "Stability") -> Any:
    """The map alone."""
    ratio = np.log10(np.maximum(found.growth / found.exact, 1e-3))
    image = ax.contourf(found.modes, found.steps, ratio, np.arange(-2.0625, 2.1, 0.125), cmap="RdBu_r", extend="both")
    if found.growth.max() > 1 + 1e-6:
        ax.contour(found.modes, found.steps, found.growth, levels=[1.0 + 1e-6], colors="black", linewidths=1.2)
    return image


def growth_bar(figure: Figure, image: Any, ax: Any) -> None:
    """Its colours."""
    bar = figure.colorbar(image, ax=ax, label="growth of a mode in a step, times the exact growth", shrink=0.8)
    bar.set_ticks(ticks=[-2, -1, 0, 1, 2], labels=["0.01", "0.1", "1", "10", "100"])
