"""What the terminal and the page both show: every solver on its best grid, at every budget."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rich.table import Table
from rich.text import Text

from ..solvers.grids import GRIDS
from ..solvers.multistep import Startup
from .results import Row

Statistic = Literal["median", "rms", "p90"]
WORDS: dict[Statistic, str] = {"median": "median", "rms": "root-mean-square", "p90": "90th-percentile"}


class Line(NamedTuple):
    """What one line of a table or plot shows: a solver with a start-up."""

    solver: str
    startup: Startup = "ramp"

    def __str__(self) -> str:
        return self.solver + "*" * (self.startup == "single-step")


@dataclass(frozen=True)
class Board:
    """The rows of one problem, arranged by one statistic of the error.

    best: line and NFE -> the row of the grid with the least error; what is impossible is missing.
    adaptive: the rows of solvers that choose their own steps, by solver.
    """

    statistic: Statistic
    nfes: tuple[int, ...]
    lines: tuple[Line, ...]
    best: dict[tuple[Line, int], Row]
    adaptive: dict[str, list[Row]]

    @classmethod
    def of(cls, rows: Iterable[Row], statistic: Statistic = "median") -> "Board":
        best: dict[tuple[Line, int], Row] = {}
        adaptive: dict[str, list[Row]] = {}
        for row in rows:
            case = row.case
            if case.nfe is None:
                adaptive.setdefault(case.solver, []).append(row)
                continue
            at = Line(case.solver, case.startup), case.nfe
            if at not in best or getattr(row, statistic) < getattr(best[at], statistic):
                best[at] = row
        nfes = tuple(sorted({nfe for _, nfe in best}))
        return cls(statistic, nfes, tuple(dict.fromkeys(line for line, _ in best)), best, adaptive)

    def error(self, row: Row) -> float:
        return float(getattr(row, self.statistic))

    def winner(self, nfe: int) -> Row:
        """The row with the least error at this budget."""
        return min((row for (_, n), row in self.best.items() if n == nfe), key=self.error)

    def lines_with_gaps(self) -> list[Line]:
        """The lines that cannot meet every budget."""
        return [line for line in self.lines if any((line, nfe) not in self.best for nfe in self.nfes)]


def line_of(row: Row) -> Line:
    return Line(row.case.solver, row.case.startup)


def short(value: float) -> str:
    """Two digits in little space: 3.2e-3."""
    mantissa, mark, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if mark else mantissa


def terminal_table(board: Board, title: str) -> Table:
    """Errors, one line per solver and one column per NFE, with the initial of the best grid."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 0, 0, 1))
    table.add_column("NFE", no_wrap=True)
    for nfe in board.nfes:
        table.add_column(f"{nfe}  ", justify="right", no_wrap=True)
    winners = {nfe: board.winner(nfe) for nfe in board.nfes}
    for line in board.lines:
        table.add_row(str(line), *(_cell(board, board.best.get((line, n)), winners[n]) for n in board.nfes))
    return table


def _cell(board: Board, row: Row | None, winner: Row) -> Text:
    if row is None:
        return Text("-  ", style="dim")
    number = (short(board.error(row)), "bold green" if row is winner else "")
    return Text.assemble(number, (f" {row.case.grid[0]}", "dim"))


def legend() -> str:
    """What the letters and marks of the table mean, in 80 columns."""
    letters = ", ".join(f"{kind[0]} {kind}" for kind in GRIDS)
    return f"best grid: {letters}; bold: best solver; *: single-step start"


def adaptive_lines(board: Board) -> list[str]:
    """One line per adaptive solver: its errors, each with the NFE it took."""
    return [
        f"{name}: " + ", ".join(f"{short(board.error(r))} at {r.nfe_used}" for r in rows)
        for name, rows in board.adaptive.items()
    ]
