"""What the terminal and the page both show: every solver on its best grid, at every budget."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from ...analysis.compare_plan import OWN
from ...analysis.estimates import Estimate
from ...solvers.grids.grids import KINDS
from ...solvers.planners.multistep import Startup
from ..results import LAW, Compared, Row

WORDS = {
    "median": "median error",
    "rms": "root-mean-square error",
    "p90": "90th-percentile error",
    "sliced_w2": "sliced W2",
    "energy_distance": "energy distance",
    "mmd": "MMD",
}
FIRST: dict[Compared, str] = {"path": "median", "law": "sliced_w2"}  # what is shown first


class Line(NamedTuple):
    """What one line of a table or plot shows: a solver with a start-up."""

    solver: str
    startup: Startup = "ramp"

    def __str__(self) -> str:
        return self.solver + "*" * (self.startup == "single-step")


@dataclass(frozen=True)
class Board:
    """The rows of one problem that have one statistic, arranged by it.

    best: line and NFE -> the row of the grid with the least error; what is impossible is missing.
    adaptive: the rows of solvers that choose their own steps, by solver.
    exact: of laws, what samples of a perfect sampler have of the statistic.
    """

    statistic: str
    nfes: tuple[int, ...]
    lines: tuple[Line, ...]
    best: dict[tuple[Line, int], Row]
    adaptive: dict[str, list[Row]]
    exact: Estimate | None = None

    @classmethod
    def of(cls, rows: Iterable[Row], statistic: str = "median") -> "Board":
        best: dict[tuple[Line, int], Row] = {}
        adaptive: dict[str, list[Row]] = {}
        exact = None
        for row in rows:
            case = row.case
            if statistic not in row.statistics:
                continue
            if case.compared == "law":
                exact = Estimate(*(row.statistics[f"{statistic}_{end}"] for end in ("exact", "low", "high")))
            if case.nfe is None:
                adaptive.setdefault(case.solver, []).append(row)
                continue
            at = Line(case.solver, case.startup), case.nfe
            if at not in best or row.statistics[statistic] < best[at].statistics[statistic]:
                best[at] = row
        nfes = tuple(sorted({nfe for _, nfe in best}))
        return cls(statistic, nfes, tuple(dict.fromkeys(line for line, _ in best)), best, adaptive, exact)

    @property
    def compared(self) -> Compared:
        return "law" if self.statistic in LAW else "path"

    def error(self, row: Row) -> float:
        return row.statistics[self.statistic]

    @property
    def grids(self) -> tuple[str, ...]:
        """The grids of the rows shown."""
        return tuple(kind for kind in (*KINDS, OWN) if any(row.case.grid == kind for row in self.best.values()))

    def winner(self, nfe: int) -> Row:
        """The row with the least error at this budget."""
        return min((row for (_, n), row in self.best.items() if n == nfe), key=self.error)

    def good(self) -> set[tuple[Line, int]]:
        """The cells to mark: the winners of every budget; of laws, all that are no farther than exact samples are."""
        if self.exact is None:
            return {(line_of(row), nfe) for nfe in self.nfes for row in [self.winner(nfe)]}
        return {at for at, row in self.best.items() if self.error(row) <= self.exact.high}


def line_of(row: Row) -> Line:
    return Line(row.case.solver, row.case.startup)


def short(value: float) -> str:
    """Two digits in little space: 3.2e-3."""
    mantissa, mark, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if mark else mantissa


def terminal_table(board: Board) -> Table:
    """Errors, one line per solver and one column per NFE, with the initial of the best grid if there are several."""
    room = "  " * (len(board.grids) > 1)
    table = Table(box=None, padding=(0, 0, 0, 1))
    table.add_column("NFE", no_wrap=True, max_width=16)
    for nfe in board.nfes:
        table.add_column(f"{nfe}{room}", justify="right", no_wrap=True)
    good = board.good()
    for line in board.lines:
        cells = ((board.best.get((line, nfe)), (line, nfe) in good) for nfe in board.nfes)
        table.add_row(str(line), *(_cell(board, row, marked) for row, marked in cells))
    return table


def _cell(board: Board, row: Row | None, marked: bool) -> Text:
    if row is None:
        return Text("-" + "  " * (len(board.grids) > 1), style="dim")
    number = (short(board.error(row)), "bold green" if marked else "")
    return Text.assemble(number, (f" {row.case.grid[0]}" * (len(board.grids) > 1), "dim"))


def error_table(board: Board) -> str:
    """The same in HTML; nothing if all solvers are adaptive."""
    good, head = board.good(), "".join(f"<th>{nfe}</th>" for nfe in board.nfes)

    def cell(line: Line, nfe: int) -> str:
        if (row := board.best.get((line, nfe))) is None:
            return "<td>-</td>"
        best = ' class="best"' if (line, nfe) in good else ""
        spent = f' title="{row.nfe_used} evaluations"' if row.nfe_used != nfe else ""
        return f"<td{best}{spent}>{short(board.error(row))} <small>{row.case.grid[0]}</small></td>"

    rows = "".join(f"<tr><td>{line}</td>{''.join(cell(line, nfe) for nfe in board.nfes)}</tr>" for line in board.lines)
    return f'<div class="wide"><table><tr><th>NFE</th>{head}</tr>{rows}</table></div>' * bool(board.nfes)


def legend(board: Board) -> str:
    """What the letters and marks of the table mean, in lines of 80 columns."""
    several = "grid: " + ", ".join(f"{kind[0]} {kind}" for kind in board.grids)
    grids = several if len(board.grids) > 1 else f"grid: {board.grids[0]}"
    if board.exact is None:
        return f"{grids}; bold: best; *: single-step start"
    return f"{grids}; bold: as near as exact samples\n{exact_line(board.exact)}"


def exact_line(exact: Estimate) -> str:
    value, low, high = map(short, exact)
    return f"exact samples: {value}, 90 % from {low} to {high}"


def adaptive_lines(board: Board) -> list[str]:
    """One line per adaptive solver: its errors, each with the NFE it took."""
    return [
        f"{name}: " + ", ".join(f"{short(board.error(r))} at {r.nfe_used}" for r in rows)
        for name, rows in board.adaptive.items()
    ]
