"""The plots of the report that need no script, as SVG: an error or a distance against NFE."""

import io
import re
from itertools import groupby

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from ...analysis.plots import axes, mark_budgets, style
from .families import family_of
from .tables import WORDS, Board

WORST = 3.0  # the data has a spread of about 1: larger errors are all the same, and off the plot
FAR = 6.0  # times the distance of exact samples: larger ones are off the plot too
NEAREST = 6  # solvers that are told apart in law
GREY, GREEN = "#8888884d", "#4d8c72"  # see-through, for light and dark pages; of exact samples

Curves = dict[str, dict[int, float]]  # by name, error by budget


def error_plot(board: Board) -> str:
    """All solvers in grey. Coloured: of paths the best of each family, of laws the nearest at the largest budget, with
    what exact samples have. Nothing if all choose their own steps."""
    if not board.nfes:
        return ""
    every: Curves = {}
    for (line, nfe), row in sorted(board.best.items(), key=lambda item: item[0][1]):
        every.setdefault(str(line), {})[nfe] = board.error(row)
    with rc_context({"svg.fonttype": "none"}):  # text stays text: small, and in the colours of the page
        figure, ax = axes(xscale="log", yscale="log", title=WORDS[board.statistic])
        figure.set_size_inches(4.8, 4.8)  # as wide as a phone: text that is not made smaller there
        for curve in every.values():
            ax.plot(list(curve), list(curve.values()), color=GREY, lw=0.8)
        for i, (name, curve) in enumerate((_nearest(every) if board.exact else _best(board)).items()):
            ax.plot(list(curve), list(curve.values()), label=name, ms=3, **style(i))
        seen = [e for curve in every.values() for e in curve.values() if 0 < e < np.inf] or [1.0]
        low, high = min(seen), min(max(seen), FAR * board.exact.high if board.exact else WORST)
        if board.exact:
            ax.axhspan(board.exact.low, board.exact.high, color=GREEN, alpha=0.2, lw=0)
            ax.axhline(board.exact.value, color=GREEN, lw=0.8, label="exact samples")
            low = min(low, board.exact.value)
        ax.set_ylim(low / 1.5, max(1.5 * high, 2 * low))
        mark_budgets(ax, board.nfes)
        figure.legend(frameon=False, fontsize=10, loc="outside lower center", ncols=2)
        return inline(figure)


def _best(board: Board) -> Curves:
    """The least error of each family at each budget."""
    found: Curves = {}
    by_family = sorted(board.best.items(), key=lambda item: (family_of(item[0][0].solver).title, item[0][1]))
    for (title, nfe), cells in groupby(by_family, lambda item: (family_of(item[0][0].solver).title, item[0][1])):
        found.setdefault(title, {})[nfe] = min(board.error(row) for _, row in cells)
    return found


def _nearest(every: Curves) -> Curves:
    """Those of the least distances at their largest budgets."""
    return dict(sorted(every.items(), key=lambda item: list(item[1].values())[-1])[:NEAREST])


def inline(figure: Figure) -> str:
    """The figure as an <svg> to stand in a page: without the header, and the names of its parts, which repeat."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' id="\w+_\d+"', "", text)
    text = re.sub(r' (d|x|y)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), text)  # of a point
    return re.sub(r"\n\s*", "\n", text)
