"""What the report says first: what to use for each problem, at a few budgets."""

from collections.abc import Sequence
from html import escape

from ..results import Row
from .families import family_of
from .tables import FIRST, WORDS, Board, line_of

ASKED = (5, 10, 20)  # budgets that people have; of those measured, the nearest
FITTED = "fitted"  # the family of tables, and of what chooses by tables


def conclusion(problem: str, rows: Sequence[Row]) -> str:
    """A list of sentences as HTML; nothing where all solvers choose their own steps."""
    board = Board.of(rows, FIRST[rows[0].case.compared])
    if not board.nfes:
        return ""
    budgets = sorted({min(board.nfes, key=lambda nfe: abs(nfe - asked)) for asked in ASKED})
    told = _laws if board.compared == "law" else _paths
    head = f"<h3>{escape(problem)}{', in law' if board.compared == 'law' else ''}</h3>"
    return head + f"<ul>{''.join(f'<li>{told(board, nfe)}</li>' for nfe in budgets)}</ul>"


def _paths(board: Board, nfe: int) -> str:
    """The best, and beside a fitted one the best named solver, or the other way round."""
    rows = sorted((row for (_, n), row in board.best.items() if n == nfe), key=board.error)
    best = rows[0]
    if board.error(best) == float("inf"):
        return f"At {nfe} evaluations every solver diverges."
    text = f"At {nfe} evaluations use {_name(best)}: {WORDS[board.statistic]} {_digits(board.error(best))}."
    fitted = _fitted(best)
    other = next((row for row in rows if _fitted(row) != fitted), None)
    floor = best.statistics.get("reference_error", 0.0)
    if board.error(best) <= 3 * floor:
        return text + f" That is as near as the reference is good ({_digits(floor)}): others may be as near."
    if other is None:
        runner = rows[1] if len(rows) > 1 else None
        return text + (f" Next: {_name(runner)}, {_digits(board.error(runner))}." if runner else "")
    which = "best named solver" if fitted else "best that is fitted"
    return f"{text} The {which} is {_name(other)}: {_digits(board.error(other))}, {_times(board, other, best)}."


def _laws(board: Board, nfe: int) -> str:
    """The nearest, and whether that is as near as exact samples are."""
    rows = sorted((row for (_, n), row in board.best.items() if n == nfe), key=board.error)
    best, exact = rows[0], board.exact
    near = sum(board.error(row) <= exact.high for row in rows) if exact else 0
    text = f"At {nfe} evaluations {_name(best)} is nearest: {WORDS[board.statistic]} {_digits(board.error(best))}."
    if near:
        return f"{text} {near} of {len(rows)} solvers are as near as exact samples, so these numbers do not rank them."
    return f"{text} Exact samples have {_digits(exact.value)}." if exact else text


def _times(board: Board, worse: Row, better: Row) -> str:
    ratio = board.error(worse) / board.error(better) if board.error(better) else float("inf")
    return f"{ratio:.1f} times as much" if ratio < 1000 else "far more"


def _digits(value: float) -> str:
    return f"{value:.2g}"


def _fitted(row: Row) -> bool:
    return family_of(row.case.solver).title == FITTED


def _name(row: Row) -> str:
    case = row.case
    grid = "with its own grid" if case.grid == "own" else f"on the grid <i>{case.grid}</i>"
    return f"<code>{line_of(row)}</code> {grid}"
