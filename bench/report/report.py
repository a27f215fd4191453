"""The page: `index.html`, with everything it shows inside."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from ...solvers.catalogue.catalogue import solver, solver_names
from ..problems import BenchProblem
from ..results import LAW, PATH, Compared, Row, versions
from . import explorer
from .conclusion import conclusion
from .plots import error_plot
from .sheets import Pictures, gallery
from .tables import FIRST, WORDS, Board, Line, adaptive_lines, error_table, exact_line, short

MARK = b"<title>logsnr: NFE against error</title>"  # in every page
BY: dict[Compared, str] = {"path": "sample by sample", "law": "in law"}


@dataclass(frozen=True)
class Section:
    """All that the page says about one problem compared in one way; pictures only where the samples are images."""

    problem: BenchProblem
    rows: Sequence[Row]
    pictures: Pictures | None = None

    @property
    def compared(self) -> Compared:
        return self.rows[0].case.compared

    @property
    def title(self) -> str:
        return escape(self.problem.name) + ", in law" * (self.compared == "law")


def check_page(path: Path) -> None:
    """Raise ValueError if there is a page at ``path`` that this bench has not written."""
    if path.exists() and MARK not in path.read_bytes():
        raise ValueError(f"{path} is not a page of logsnr bench; move it away, or give another folder")


def write_report(path: Path, sections: Sequence[Section], command: Sequence[str], csv: str) -> None:
    """Write the page; it loads nothing from anywhere."""
    template = Template(resources.files(__package__).joinpath("templates", "report.html").read_text("utf-8"))
    frames = range(1, max((len(Board.of(s.rows, FIRST[s.compared]).nfes) for s in sections), default=0) + 1)
    curves = _explorers(sections)
    page = template.substitute(
        command=escape(shlex.join(command)),
        versions=escape(versions()),
        csv=escape(csv),
        equal=", ".join(f"<code>{name}</code>" for name in solver("ddim").equals),
        least=_least(),
        answers="\n".join(f"<div>{told}</div>" for s in sections if (told := conclusion(s.problem.name, s.rows))),
        frames=", ".join(f"input:nth-of-type({k}):checked ~ .frame:nth-of-type({k})" for k in frames) or "none",
        explorers=curves,
        script=f"<script>{explorer.script()}</script>\n<script>{explorer.START}</script>" if curves else "",
        links="".join(f'<a href="#part-{k}">{section.title}</a>' for k, section in enumerate(sections)),
        problems="\n".join(_section(k, section) for k, section in enumerate(sections)),
    )
    path.write_text(page, encoding="utf-8")


def _explorers(sections: Sequence[Section]) -> str:
    """The charts to explore: of all problems compared path by path, and of those compared in law."""
    parts = []
    for compared in BY if explorer.available() else ():
        groups = [(s.problem.name, s.rows) for s in sections if s.compared == compared]
        if any(row.case.nfe is not None for _, rows in groups for row in rows):
            parts.append(
                f'<div class="explorer"><h2 id="explore-{compared}">Explore: {BY[compared]}</h2>'
                f'<div class="chart"></div><script type="application/json">'
                f"{explorer.specification(groups, compared)}</script></div>"
            )
    if parts:
        parts.append(
            "<noscript><style>.explorer { display: none; }</style><p>The curves to explore need JavaScript. The plots "
            "and tables below need none.</p></noscript>"
        )
    return "\n".join(parts)


def _least() -> str:
    """Which solvers need more than one evaluation at least."""
    several = [s for s in map(solver, solver_names()) if s.planner and s.evaluations > 1 and not s.stochastic]
    told = ", ".join(f"<code>{s.name}</code> {s.evaluations}" for s in several)
    return f"The least possible, where it is more than 1: {told}."


def _section(number: int, section: Section) -> str:
    parts = _laws(section) if section.compared == "law" else _paths(section)
    if section.pictures:
        board = Board.of(section.rows, FIRST[section.compared])
        parts += _pictures(section, board, number)
    return "\n".join([f'<h2 id="part-{number}">{section.title}</h2>', *parts])


def _paths(section: Section) -> list[str]:
    rows, board = section.rows, Board.of(section.rows)
    return [
        f"<p>{escape(section.problem.summary)}. {_conditions(section)} "
        f"The reference is off by {short(rows[0].statistics['reference_error'])}.</p>",
        f'<div class="panels">{error_plot(board)}</div>',
        '<p class="note">Coloured: the best of each family; grey: all solvers.</p>' * bool(board.nfes),
        "<h3>Median error</h3>",
        error_table(board),
        _adaptive(board),
        *(_folded(Board.of(rows, name)) for name in PATH[1:]),
    ]


def _adaptive(board: Board) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in adaptive_lines(board))
    head = "Adaptive steps: error at the evaluations that they took"
    return f"<details><summary>{head}</summary><ul>{lines}</ul></details>" * bool(lines)


def _laws(section: Section) -> list[str]:
    problem, law = section.problem, section.problem.law
    boards = [Board.of(section.rows, name) for name in LAW]
    return [
        f"<p>{escape(problem.summary)}. {_conditions(section)} They are compared with {escape(law.target_told)}.</p>",
        f"<p>{_nearest(boards[0])}.</p>",
        f'<div class="panels">{"".join(map(error_plot, boards))}</div>',
        f'<p class="note">Green: the sampling error, what as many samples of a perfect sampler have ({law.draw_told}), '
        "median and 90 % in the middle. Coloured: the nearest; grey: all others.</p>",
        f"<h3>{_capital(WORDS[LAW[0]])}</h3>",
        error_table(boards[0]),
        *_exact(boards[0]),
        *(_folded(board, *_exact(board)) for board in boards[1:]),
    ]


def _conditions(section: Section) -> str:
    row = section.rows[0]
    shape = " x ".join(map(str, section.problem.event_shape))
    dtype = str(section.problem.dtype).removeprefix("torch.")
    return (
        f"{escape(str(section.problem.denoiser.schedule))}; {row.case.samples} samples of {shape}, {dtype}; "
        f"seed {row.case.seed}."
    )


def _nearest(board: Board) -> str:
    """Which solvers are as near as exact samples with the fewest evaluations."""
    least: dict[Line, int] = {}
    for line, nfe in sorted(board.good(), key=lambda at: at[1]):
        least.setdefault(line, nfe)
    if not least:
        return "No solver comes as near as exact samples"
    fewest = min(least.values())
    first = [f"<code>{line}</code>" for line in board.lines if least.get(line) == fewest]
    told = ", ".join(first[:4]) + (f" and {len(first) - 4} more" if len(first) > 4 else "")
    return f"As near as exact samples with {fewest} evaluations: {told}"


def _exact(board: Board) -> list[str]:
    return [f'<p class="note">Marked: as near as {exact_line(board.exact)}.</p>'] if board.exact else []


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _folded(board: Board, *more: str) -> str:
    head = f"The same by {WORDS[board.statistic]}"
    return f"<details><summary>{head}</summary>{''.join(more)}{error_table(board)}</details>"


def _pictures(section: Section, board: Board, number: int) -> list[str]:
    assert section.pictures
    return [
        "<h3>Pictures</h3>",
        f'<p class="note">The same noise to start from in every cell, each solver on its best grid, with its '
        f"{WORDS[board.statistic]}, the least first. Choose the number of evaluations.</p>",
        gallery(section.pictures, board, f"nfe-{number}"),
    ]
