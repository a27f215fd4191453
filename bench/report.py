"""The page: `index.html`, with everything it shows inside."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np

from ..solvers.catalogue import solver, solver_names
from .plots import error_plot, law_plot
from .problems import BenchProblem
from .results import LAW, PATH, Compared, Row, versions
from .sheets import Pictures, contact_sheet
from .tables import WORDS, Board, Line, adaptive_lines, exact_line, line_of, short

MARK = b"<title>logsnr: NFE against error</title>"  # in every page


@dataclass(frozen=True)
class Section:
    """All that the page says about one problem compared in one way; pictures only where the samples are images."""

    problem: BenchProblem
    rows: Sequence[Row]
    pictures: Pictures | None = None

    @property
    def compared(self) -> Compared:
        return self.rows[0].case.compared


def check_page(path: Path) -> None:
    """Raise ValueError if there is a page at ``path`` that this bench has not written."""
    if path.exists() and MARK not in path.read_bytes():
        raise ValueError(f"{path} is not a page of logsnr bench; move it away, or give another folder")


def write_report(path: Path, sections: Sequence[Section], command: Sequence[str], csv: str) -> None:
    """Write the page; it loads nothing from anywhere."""
    template = Template(resources.files(__package__).joinpath("templates", "report.html").read_text("utf-8"))
    page = template.substitute(
        command=escape(shlex.join(command)),
        versions=escape(versions()),
        csv=escape(csv),
        equal=", ".join(f"<code>{name}</code>" for name in solver("ddim").equals),
        least=_least(),
        problems="\n".join(map(_section, sections)),
    )
    path.write_text(page, encoding="utf-8")


def _least() -> str:
    """Which solvers need more than one evaluation at least."""
    several = [s for s in map(solver, solver_names()) if s.planner and s.evaluations > 1 and not s.stochastic]
    told = ", ".join(f"<code>{s.name}</code> {s.evaluations}" for s in several)
    return f"The least possible, where it is more than 1: {told}."


def _section(section: Section) -> str:
    parts = _laws(section) if section.compared == "law" else _paths(section)
    return "\n".join([f'<h2 id="{section.problem.name}-{section.compared}">{parts[0]}</h2>', *parts[1:]])


def _paths(section: Section) -> list[str]:
    problem, rows = section.problem, section.rows
    board = Board.of(rows)
    parts = [
        problem.name,
        f"<p>{escape(problem.summary)}. {_conditions(section)} "
        f"The reference is off by {short(rows[0].statistics['reference_error'])}.</p>",
        _figure(board, problem.name),
        '<p class="note">Grey: all solvers. The adaptive ones have axes of their own. '
        "A name at the top edge without a curve: beyond the axes.</p>",
        "<h3>Median error</h3>",
        _error_table(board),
        *(f'<p class="note">Adaptive steps, {escape(line)} evaluations.</p>' for line in adaptive_lines(board)),
        *(_folded(Board.of(rows, name), _figure(Board.of(rows, name), problem.name)) for name in PATH[1:]),
        _overhead(rows, board),
    ]
    if section.pictures:
        parts += _gallery(section.pictures, board)
    return parts


def _laws(section: Section) -> list[str]:
    problem, rows, law = section.problem, section.rows, section.problem.law
    boards = [Board.of(rows, name) for name in LAW]
    parts = [
        f"{problem.name}, in law",
        f"<p>{escape(problem.summary)}. {_conditions(section)} They are compared with {escape(law.target_told)}.</p>",
        f'<img src="{law_plot(boards, _nearest(boards[0], problem.name))}" '
        f'alt="distance between laws against NFE on {problem.name}">',
        f'<p class="note">Green: the sampling error, what as many samples of a perfect sampler have ({law.draw_told}), '
        "median and 90 % in the middle. Black: deterministic solvers; grey: all others.</p>",
        f"<h3>{_capital(WORDS[LAW[0]])}</h3>",
        _error_table(boards[0]),
        *_exact(boards[0]),
        *(_folded(board, *_exact(board)) for board in boards[1:]),
    ]
    if section.pictures:
        parts += _gallery(section.pictures, boards[0])
    return parts


def _conditions(section: Section) -> str:
    row = section.rows[0]
    shape = " x ".join(map(str, section.problem.event_shape))
    dtype = str(section.problem.dtype).removeprefix("torch.")
    return (
        f"{escape(str(section.problem.denoiser.schedule))}; {row.case.samples} samples of {shape}, {dtype}; "
        f"seed {row.case.seed}."
    )


def _nearest(board: Board, name: str) -> str:
    """The title of a figure of laws: which solvers are as near as exact samples with the fewest evaluations."""
    least: dict[Line, int] = {}
    for line, nfe in sorted(board.good(), key=lambda at: at[1]):
        least.setdefault(line, nfe)
    if not least:
        return f"{name}: no solver comes as near as exact samples"
    fewest = min(least.values())
    first = [str(line) for line in board.lines if least.get(line) == fewest]
    told = ", ".join(first[:4]) + (f" and {len(first) - 4} others" if len(first) > 4 else "")
    return f"{name}: as near as exact samples with {fewest} evaluations: {told}"


def _exact(board: Board) -> list[str]:
    return [f'<p class="note">Marked: as near as {exact_line(board.exact)}.</p>'] if board.exact else []


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _figure(board: Board, name: str) -> str:
    alt = f"{WORDS[board.statistic]} against NFE on {name}"
    title = alt
    if board.nfes:
        best = board.winner(min(board.nfes, key=lambda nfe: abs(nfe - 10)))
        title = f"{name}: at {best.case.nfe} evaluations {line_of(best)} is closest, {short(board.error(best))}"
    return f'<img src="{error_plot(board, title)}" alt="{escape(alt)}">'


def _folded(board: Board, *more: str) -> str:
    head = f"The same by {WORDS[board.statistic]}"
    return f"<details><summary>{head}</summary>{''.join(more)}{_error_table(board)}</details>"


def _error_table(board: Board) -> str:
    good, names = board.good(), LAW if board.compared == "law" else PATH

    def cell(line: Line, nfe: int) -> str:
        row = board.best.get((line, nfe))
        if row is None:
            return "<td>-</td>"
        told = f"{row.case.grid} grid, {row.nfe_used} evaluations; " + ", ".join(
            f"{WORDS[name]} {short(row.statistics[name])}" for name in names
        )
        best = ' class="best"' if (line, nfe) in good else ""
        return f'<td{best} title="{told}">{short(board.error(row))} <small>{row.case.grid[0]}</small></td>'

    return _table(board, cell)


def _overhead(rows: Sequence[Row], board: Board) -> str:
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


def _gallery(pictures: Pictures, board: Board) -> list[str]:
    sheet, width = contact_sheet(pictures, board)
    right = "real ones" if board.compared == "law" else "the exact answer"
    return [
        "<h3>The digits</h3>",
        f"<p>The same noise to start from in every cell, each solver on its best grid; {right} at the right.</p>",
        f'<img src="{sheet}" width="{width}" alt="generated digits per solver and NFE">',
    ]


def _table(board: Board, cell: Callable[[Line, int], str]) -> str:
    """One row per line, one column per NFE; nothing if all solvers are adaptive."""
    if not board.nfes:
        return ""
    head = "".join(f"<th>{nfe}</th>" for nfe in board.nfes)
    rows = "".join(f"<tr><td>{line}</td>{''.join(cell(line, nfe) for nfe in board.nfes)}</tr>" for line in board.lines)
    return f'<div class="wide"><table><tr><th>NFE</th>{head}</tr>{rows}</table></div>'
