"""The plots of the report that need no script, as SVG: error against NFE, one panel per family; distances between laws
against NFE, one panel per distance."""

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

from ..analysis.estimates import Estimate
from ..analysis.work_precision_plot import COLOURS
from ..solvers.catalogue import solver
from .families import BASELINE, families
from .results import Row
from .tables import WORDS, Board, Line

STYLES = (":", "-.", "-")  # of deterministic solvers among stochastic ones
WORST = 3.0  # the data has a spread of about 1: larger errors are all the same, and off the plot
FAR = 6.0  # times the distance of exact samples: larger ones are off the plot too
LABEL_GAP = 0.07  # between labels, of the height of a panel
EXACT = "#4d8c72"
WIDE, HIGH = 4.4, 2.95  # of a panel, in inches
GREY = "#8888884d"  # see-through, for light and dark pages


@dataclass(frozen=True)
class Curve:
    name: str
    nfe: list[float]
    error: list[float]
    style: str = "-"
    colour: str = ""


@dataclass(frozen=True)
class Panel:
    title: str
    curves: list[Curve]
    background: list[Curve] = field(default_factory=list)
    ticks: tuple[int, ...] = ()
    own_range: bool = False
    exact: Estimate | None = None


def error_panels(board: Board) -> list[str]:
    """SVGs: the best of each family, each family, the start-ups, the adaptive solvers."""
    return _drawn(_panels(board))


def law_panels(boards: Sequence[Board]) -> list[str]:
    """SVGs: a panel for each distance, with what exact samples have of it.

    Black are the nearest deterministic solvers, coloured the nearest stochastic ones, as many as can be told apart."""
    panels = []
    for board in boards:
        nearest = sorted(board.lines, key=lambda line: board.error(_last(board, line)))
        black = [line for line in nearest if not solver(line.solver).stochastic][: len(STYLES)]
        lines = [line for line in nearest if solver(line.solver).stochastic][: len(COLOURS)]
        curves = [
            _curve(board, line, style, "black")
            for style, line in zip(STYLES, sorted(black, key=board.lines.index), strict=False)
        ]
        curves += _coloured([_curve(board, line) for line in sorted(lines, key=board.lines.index)])
        everything = [_curve(board, line) for line in board.lines]
        title_of = WORDS[board.statistic]
        panels.append(Panel(title_of[:1].upper() + title_of[1:], curves, everything, board.nfes, True, board.exact))
    return _drawn(panels)


def _drawn(panels: list[Panel]) -> list[str]:
    shared = _range(curve for panel in panels if not panel.own_range for curve in panel.curves)
    found = []
    with rc_context({"svg.fonttype": "none"}):  # text stays text: small, and in the colours of the page
        for panel in panels:
            figure = Figure(figsize=(WIDE, HIGH))
            ax = figure.add_axes((0.5 / WIDE, 0.35 / HIGH, 2.85 / WIDE, 2.3 / HIGH))  # fixed: fitting takes seconds
            _draw(ax, panel, _range(panel.curves, panel.exact) if panel.own_range else shared)
            found.append(inline(figure))
    return found


def _panels(board: Board) -> list[Panel]:
    grouped = families(board.lines)
    everything = [_curve(board, line) for line in board.lines]
    baseline = [_curve(board, BASELINE, ":", "black")] if BASELINE in board.lines else []
    panels = []
    if not grouped and baseline:
        panels.append(Panel("DDIM", baseline, [], board.nfes))
    if len(grouped) > 1:
        best = [_best(board, family.title, lines) for family, lines in grouped.items()]
        panels.append(Panel("The best of each family", _coloured(best) + baseline, everything, board.nfes))
    for family, lines in grouped.items():
        title = f"{family.title}: {family.what}"
        curves = _coloured([_curve(board, line) for line in lines])
        panels.append(Panel(title, curves + baseline, everything, board.nfes))
    if twice := [line for line in board.lines if line.startup == "single-step"]:
        ramped = _coloured([_curve(board, Line(line.solver)) for line in twice])
        single = _coloured([_curve(board, line, "--") for line in twice])
        panels.append(Panel("Started by the ramp (solid) or single steps (dashed)", ramped + single, [], board.nfes))
    if board.adaptive:
        curves = [
            Curve(name, [r.nfe_used for r in rows], [board.error(r) for r in rows])
            for name, rows in board.adaptive.items()
        ]
        panels.append(Panel("Adaptive steps", _coloured(curves), everything, (5, 10, 20, 50, 100, 200, 500), True))
    return panels


def _curve(board: Board, line: Line, style: str = "-", colour: str = "") -> Curve:
    rows = [board.best[line, nfe] for nfe in board.nfes if (line, nfe) in board.best]
    name = "" if style == "--" else str(line)
    return Curve(name, [r.case.nfe or 0 for r in rows], [board.error(r) for r in rows], style, colour)


def _last(board: Board, line: Line) -> Row:
    """The row of the line's largest budget."""
    return next(board.best[line, nfe] for nfe in reversed(board.nfes) if (line, nfe) in board.best)


def _best(board: Board, name: str, lines: list[Line]) -> Curve:
    found = {
        nfe: min(board.error(board.best[line, nfe]) for line in lines if (line, nfe) in board.best)
        for nfe in board.nfes
        if any((line, nfe) in board.best for line in lines)
    }
    return Curve(name, list(found), list(found.values()))


def _coloured(curves: list[Curve]) -> list[Curve]:
    """In colours; dashed where those are used up."""
    n = len(COLOURS)
    return [Curve(c.name, c.nfe, c.error, "--" if i >= n else c.style, COLOURS[i % n]) for i, c in enumerate(curves)]


def _range(curves: Iterable[Curve], exact: Estimate | None = None) -> tuple[float, float]:
    """The vertical range for these curves and exact samples, cut at `WORST`, or `FAR` from exact samples."""
    errors = [e for e in chain(*(c.error for c in curves), exact or ()) if np.isfinite(e) and e > 0] or [1.0]
    if exact:
        return min(errors) / 1.2, min(1.2 * max(errors), FAR * exact.high)
    return min(*errors, WORST) / 2, min(2 * max(errors), WORST)


def _draw(ax: Axes, panel: Panel, limits: tuple[float, float]) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(limits)
    budgets = [nfe for curve in panel.curves + panel.background for nfe in curve.nfe]
    ax.set_xlim(0.9 * min(budgets), 1.12 * max(budgets))
    ax.set_title(panel.title, fontsize=10, loc="left")
    points = [np.column_stack([curve.nfe, curve.error]) for curve in panel.background]
    ax.add_collection(LineCollection(points, colors=GREY, linewidths=0.8, zorder=1), autolim=False)
    if panel.exact:
        ax.axhspan(panel.exact.low, panel.exact.high, color=EXACT, alpha=0.2, lw=0, zorder=0)
        ax.axhline(panel.exact.value, color=EXACT, lw=0.8, zorder=0)
    for curve in panel.curves:
        ax.plot(curve.nfe, curve.error, curve.style, color=curve.colour, lw=1.5, marker="o", ms=3, zorder=2)
    ax.xaxis.set_major_locator(FixedLocator(panel.ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    if panel.exact:  # about one decade
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    labels = [(c.name, c.error[-1], c.colour) for c in panel.curves if c.name and c.nfe]
    _label_ends(ax, [*labels, ("exact", panel.exact.value, EXACT)] if panel.exact else labels)


def _label_ends(ax: Axes, labels: list[tuple[str, float, str]]) -> None:
    """Names beside the last points, moved apart where they would overlap: (name, last point, colour)."""
    low, high = np.log(ax.get_ylim())
    heights = [float(np.clip((np.log(last) - low) / (high - low), 0, 1)) for _, last, _ in labels]
    for (name, _, colour), height in zip(labels, spread(heights, LABEL_GAP), strict=True):
        ax.text(1.02, height, name, color=colour, fontsize=8, va="center", transform=ax.transAxes)


def spread(heights: list[float], gap: float) -> list[float]:
    """The heights, in the same order, at least `gap` apart: pushed up from below, then down from 1."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    moved = list(heights)
    for below, i in pairwise(order):
        moved[i] = max(moved[i], moved[below] + gap)
    ceiling = 1.0
    for i in reversed(order):
        moved[i] = min(moved[i], ceiling)
        ceiling = moved[i] - gap
    return moved


def inline(figure: Figure) -> str:
    """The figure as an <svg> to stand in a page: without the header, and the names of its parts, which repeat."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' id="\w+_\d+"', "", text)
    text = re.sub(r' (d|x|y)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), text)  # of a point
    return re.sub(r"\n\s*", "\n", text)
