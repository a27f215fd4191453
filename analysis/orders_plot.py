"""The picture of a measured order. Imports matplotlib, so only plots import this."""

import numpy as np
from matplotlib.figure import Figure

from .orders import Convergence
from .work_precision_plot import COLOURS


def draw(found: Convergence) -> Figure:
    """Errors, those of the window marked, the line of the declared order through its finest, and the floor."""
    figure = Figure(figsize=(6.0, 4.2), layout="constrained")
    ax = figure.subplots()
    nfe, errors = np.array(found.nfe, float), np.array(found.errors)
    seen = (errors > 0) & np.isfinite(errors)
    ax.loglog(nfe[seen], errors[seen], "o-", color=COLOURS[0], mfc="white", label=found.solver)
    if found.window:
        first, last = found.window
        inside = slice(first, last + 2)
        ax.loglog(
            nfe[inside], errors[inside], "o", color=COLOURS[0], label=f"where the order is read: {found.order:.2f}"
        )
        if found.declared:
            line = errors[last + 1] * (nfe / nfe[last + 1]) ** -float(found.declared)
            ax.loglog(nfe, line, ":", color="black", label=f"order {found.declared}, declared", zorder=1)
    if found.floor:
        ax.axhline(found.floor, color="grey", lw=0.8, ls="--", label="round-off")
    ax.set(xlabel="NFE: model evaluations", ylabel="error")
    ax.set_ylim(errors[seen].min() / 3, errors[seen].max() * 3) if seen.any() else None
    ax.set_title(found.verdict, fontsize=9, loc="left")
    ax.grid(color="#dddddd", lw=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=8, frameon=False)
    return figure
