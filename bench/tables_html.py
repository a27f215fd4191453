"""The tables of the page."""

from collections.abc import Callable, Sequence

import numpy as np

from .results import Row
from .tables import Board, Line, line_of, short


def error_table(board: Board) -> str:
    """One row per line, one column per NFE, each on its best grid; nothing if all solvers are adaptive."""
    good = board.good()

    def cell(line: Line, nfe: int) -> str:
        row = board.best.get((line, nfe))
        if row is None:
            return "<td>-</td>"
        best = ' class="best"' if (line, nfe) in good else ""
        spent = f' title="{row.nfe_used} evaluations"' if row.nfe_used != nfe else ""
        return f"<td{best}{spent}>{short(board.error(row))} <small>{row.case.grid[0]}</small></td>"

    return _table(board, cell)


def overhead(rows: Sequence[Row], board: Board) -> str:
    """Time outside the model per evaluation: the median over a solver's runs."""
    spent: dict[Line, list[float]] = {}
    for row in rows:
        if row.case.nfe is not None:
            spent.setdefault(line_of(row), []).append(row.overhead_us_per_step)
    cells = "".join(f"<tr><td>{line}</td><td>{np.median(spent[line]):.0f}</td></tr>" for line in board.lines)
    return (
        "<details><summary>Time outside the model</summary><p>Microseconds per evaluation for the whole "
        "batch, the median over the solver's runs, on the machine that made this page.</p>"
        f'<div class="wide"><table><tr><th>solver</th><th>us</th></tr>{cells}</table></div></details>'
    )


def _table(board: Board, cell: Callable[[Line, int], str]) -> str:
    if not board.nfes:
        return ""
    head = "".join(f"<th>{nfe}</th>" for nfe in board.nfes)
    rows = "".join(f"<tr><td>{line}</td>{''.join(cell(line, nfe) for nfe in board.nfes)}</tr>" for line in board.lines)
    return f'<div class="wide"><table><tr><th>NFE</th>{head}</tr>{rows}</table></div>'
