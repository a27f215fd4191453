"""The plots of the report, as data URIs: error against NFE in small multiples, one panel per family; distances between
laws against NFE, one panel per distance."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

from ..analysis.estimates import Estimate
from ..analysis.work_precision_plot import COLOURS
from ..solvers.catalogue import solver
from .results import Row
from .tables import WORDS, Board, Line

BASELINE = Line("ddim")
STYLES = (":", "-.", "-")  # of deterministic solvers among stochastic ones
WORST = 3.0  # the data has a spread of about 1: larger errors are all the same, and off the plot
FAR = 6.0  # times the distance of exact samples: larger ones are off the plot too
LABEL_GAP = 0.06  # between labels, of the height of a panel
EXACT = "#4d8c72"

FAMILIES = {  # start of a name -> family, and what it does; a name that starts otherwise is the first
    "": ("Runge-Kutta", "on dx/dt"),
    "deis-rho": ("DEIS-rho", "polynomials in sigma/alpha"),
    "deis": ("DEIS", "polynomials in t"),
    "dpmpp": ("DPM-Solver++", "predicting x0"),
    "dpm": ("DPM-Solver", "predicting eps"),
}


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


def families(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """Prefix of the family -> its ramp-started lines, less DDIM, which is in every panel."""
    found: dict[str, list[Line]] = {prefix: [] for prefix in FAMILIES}
    for line in lines:
        if line.startup == "ramp" and line != BASELINE:
            found[next((p for p in FAMILIES if p and line.solver.startswith(p)), "")].append(line)
    return {prefix: members for prefix, members in found.items() if members}


def error_plot(board: Board, title: str) -> str:
    """An SVG data URI. Panels: the best of each family, each family, the start-ups, the adaptive solvers."""
    return _figure(_panels(board), title, WORDS[board.statistic])


def law_plot(boards: Sequence[Board], title: str) -> str:
    """An SVG data URI: a panel for each distance, with what exact samples have of it.

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
    return _figure(panels, title, "distance")


def _figure(panels: list[Panel], title: str, what: str) -> str:
    figure, axes = _layout(len(panels))
    shared = _range(curve for panel in panels if not panel.own_range for curve in panel.curves)
    for ax, panel in zip(axes, panels, strict=True):
        _draw(ax, panel, _range(panel.curves, panel.exact) if panel.own_range else shared)
    wide, high = figure.get_size_inches()
    figure.text(0.1 / wide, 1 - 0.1 / high, title, fontsize=13, va="top")
    figure.text(0.5, 0.1 / high, "NFE: model evaluations per sample", fontsize=10, ha="center")
    figure.text(0.1 / wide, 0.5, what, fontsize=10, va="center", rotation=90)
    return data_uri(figure)


def _layout(count: int) -> tuple[Figure, list[Axes]]:
    """Axes in rows of three, with room for labels at their right: fixed, as fitting it takes seconds."""
    columns = min(3, count)
    rows = -(-count // columns)
    left, right, gap, panel = 0.8, 1.0, 1.45, 2.75  # inches
    top, bottom, space, height = 0.75, 0.6, 0.6, 2.4
    wide = max(left + right + columns * panel + (columns - 1) * gap, 7.0)  # room for the title
    high = top + bottom + rows * height + (rows - 1) * space
    figure = Figure(figsize=(wide, high))
    axes = []
    for i in range(count):
        x = left + (i % columns) * (panel + gap)
        y = high - top - height - (i // columns) * (height + space)
        axes.append(figure.add_axes((x / wide, y / high, panel / wide, height / high)))
    return figure, axes


def _panels(board: Board) -> list[Panel]:
    grouped = families(board.lines)
    everything = [_curve(board, line) for line in board.lines]
    baseline = [_curve(board, BASELINE, ":", "black")] if BASELINE in board.lines else []
    panels = []
    if not grouped and baseline:
        panels.append(Panel("DDIM", baseline, [], board.nfes))
    if len(grouped) > 1:
        best = [_best(board, FAMILIES[prefix][0], lines) for prefix, lines in grouped.items()]
        panels.append(Panel("The best of each family", _coloured(best) + baseline, everything, board.nfes))
    for prefix, lines in grouped.items():
        title = ", ".join(FAMILIES[prefix])
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
    return [Curve(c.name, c.nfe, c.error, c.style, COLOURS[i % len(COLOURS)]) for i, c in enumerate(curves)]


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
    ax.add_collection(LineCollection(points, colors="#d8d8d8", linewidths=0.8, zorder=1), autolim=False)
    if panel.exact:
        ax.axhspan(panel.exact.low, panel.exact.high, color="#e3f3ec", zorder=0)
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


def data_uri(figure: Figure, kind: str = "svg") -> str:
    """The figure as a data URI, "svg" for plots or "png" for pictures."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=200)
    mime = "svg+xml" if kind == "svg" else kind
    return f"data:image/{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"
