"""The main job: measure everything, show the tables, write the page."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, groupby
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .problems import BenchProblem, load_problem
from .ranks import leads, on_first, shared
from .references import load_reference
from .report import explorer
from .report.report import Section, check_page, write_report
from .report.sheets import take_pictures
from .report.tables import FIRST, WORDS, Board, adaptive_lines, legend, terminal_table
from .results import Case, Results, Row
from .work_precision import Plan, cases, check_plan, measure

CSV = "results.csv"
PAGE = "index.html"
CACHE = "cache"


def run_bench(
    problems: Sequence[str | BenchProblem],
    plan: Plan,
    out: Path,
    *,
    fresh: bool,
    command: Sequence[str],
    console: Console,
) -> None:
    """Measure `plan` on each problem, named or made, print a table of each, write results.csv and index.html to `out`.

    Rows that are in the CSV already, from the same code, are not measured again unless `fresh`, and others stay; so an
    interrupted bench goes on where it stopped. The ranks of a process group share the measurements; the first alone
    prints and writes. Raises ValueError for unknown problems, solvers and grids, for numbers that are not positive,
    budgets that allow nothing and files in ``out`` that are not this bench's, before any work, and RuntimeError where
    another rank has failed.
    """
    check_plan(plan)
    chosen = [load_problem(problem) if isinstance(problem, str) else problem for problem in problems]
    planned = [cases(problem, plan) for problem in chosen]
    again = frozenset(chain.from_iterable(wanted for wanted, _ in planned)) if fresh else ()
    results = on_first(lambda: _opened(out, again))
    console = console if leads() else Console(quiet=True)
    for note in results.notes:
        console.print(note, style="yellow", highlight=False, soft_wrap=True)
    sections = []
    with _one_thread(), _progress(console) as progress:
        task = progress.add_task("", total=sum(len(wanted) for wanted, _ in planned))

        def tick(what: str, done: int = 0) -> None:
            progress.update(task, description=what, advance=done)

        for problem, (wanted, notes) in zip(chosen, planned, strict=True):
            for _, group in groupby(wanted, key=lambda case: case.compared):
                sections.append(_measure_all(problem, list(group), results, out / CACHE, tick))
                _show(sections[-1], console)
            for note in notes:
                console.print(f"-: {note}", style="dim", highlight=False, soft_wrap=True)
    if leads():
        write_report(out / PAGE, sections, command, CSV)
    if not explorer.available():
        console.print("pip install 'logsnr[report]' adds curves to explore to the page", markup=False, highlight=False)
    console.print(f"written: {out / PAGE} and {out / CSV}", highlight=False, soft_wrap=True)


def _opened(out: Path, drop: Collection[Case]) -> Results:
    check_page(out / PAGE)
    return Results(out / CSV, drop=drop)


@contextmanager
def _one_thread() -> Iterator[None]:
    """States this small gain little from a second thread, and lose much where other work shares the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _measure_all(
    problem: BenchProblem, wanted: Sequence[Case], results: Results, cache: Path, tick: Callable[..., None]
) -> Section:
    first = wanted[0]
    tick(f"{problem.name}: reference")
    reference = on_first(lambda: load_reference(problem, first.compared, first.samples, first.seed, cache))
    rows = {case: row for case in wanted if (row := results.get(case))}
    tick(f"{problem.name}: reference", len(rows))

    def measured(case: Case) -> tuple[Row, torch.Tensor]:
        tick(f"{problem.name}: {case.solver}")
        return measure(problem, case, reference)

    ends = {}
    for row, end in shared(measured, sorted((case for case in wanted if case not in rows), key=_cost)):
        rows[row.case], ends[row.case] = row, end
        if leads():
            results.add(row)
        tick(f"{problem.name}: {row.case.solver}", 1)
    found, pictures = [rows[case] for case in wanted], None
    if problem.images and leads():
        tick(f"{problem.name}: pictures")
        pictures = take_pictures(problem, Board.of(found, FIRST[first.compared]), reference, ends)
    return Section(problem, found, pictures)


def _cost(case: Case) -> tuple[bool, float]:
    """The key by which cases are sorted. Cases that ranks measure at the same time then take equally long; in the
    planned order, one solver at all budgets, four ranks would wait half the time for the largest."""
    return case.nfe is None, case.nfe or -(case.rtol or 0.0)


def _show(section: Section, console: Console) -> None:
    case = section.rows[0].case
    board = Board.of(section.rows, FIRST[case.compared])
    compared = f" from {section.problem.law.target_told}" if case.compared == "law" else ""
    title = f"{section.problem.name}: {WORDS[board.statistic]} of {case.samples} samples{compared}"
    if board.nfes:
        console.print(title, style="bold", highlight=False)
        console.print(terminal_table(board))
        console.print(legend(board), style="dim", highlight=False)
    if board.adaptive:
        console.print("Adaptive steps, error at the NFE it took:")
    for told in adaptive_lines(board):
        console.print(f" {told}", highlight=False)
    console.print()


def _progress(console: Console) -> Progress:
    description = TextColumn("{task.description}")
    return Progress(
        description, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True
    )
