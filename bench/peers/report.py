"""The command that compares errors with peers, and its table and page."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ..problems import FOR_PEERS, PROBLEMS, load_problem
from ..references import FAR, load_reference
from ..results import OURS, Results, Row
from ..work_precision import NFES
from .accuracy import PEER_GRIDS, cases, measure, samples_of, version_of
from .samplers import PACKAGES, missing

AUTO = "auto"
MARK = "<!-- what follows is written by `python -m logsnr.bench.peers accuracy --page` -->"
Best = dict[int | None, Row]  # by budget


def accuracy(
    problem: Annotated[list[str] | None, typer.Option(help=f"By default all, and {', '.join(FOR_PEERS)}.")] = None,
    nfe: Annotated[list[int] | None, typer.Option(min=1, help=f"By default {', '.join(map(str, NFES))}.")] = None,
    package: Annotated[list[str] | None, typer.Option(help="By default all that are installed.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Solvers, by the beginning of their names.")] = None,
    grid: Annotated[list[str] | None, typer.Option(help="Of peers; by default all.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the CSV and the exact ends.")] = Path("report/peers"),
    page: Annotated[Path | None, typer.Option(help="A Markdown page whose tables are to be replaced.")] = None,
    known: Annotated[bool, typer.Option("--known", help="Measure nothing, and tell what the CSV has.")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Errors at equal numbers of evaluations: every solver on every grid, each side's best."""
    console, nfes, rows = Console(), tuple(nfe or NFES), Results(out / "peers.csv", version=version_of)
    problems = [load_problem(name) for name in problem or (*PROBLEMS, *FOR_PEERS)]
    packages = []
    for name in package or (OURS, *PACKAGES):
        if name != OURS and (reason := missing(name)):
            console.print(f"{name} is left out: {reason}")
        else:
            packages.append(name)
    found: dict[str, list[Row]] = {}
    for this in problems:
        reference = load_reference(this, "path", samples_of(this), seed, out / "ends")
        planned = [entry for name in packages for entry in cases(this, name, nfes, grid or PEER_GRIDS, seed)]
        wanted = "" if not only else tuple(only)
        chosen = [entry for entry in planned if not known and entry[0].solver.startswith(wanted)]
        for case, method in track(chosen, description=this.name, console=console):
            if rows.get(case) is None and (row := measure(this, case, reference, method)):
                rows.add(row)
        kept = [row for case, _ in planned if (row := rows.get(case))]
        found[this.name] = kept
        console.print(_table(this.name, kept, nfes))
    console.print(f"{rows.path} has every row")
    if page:
        write_page(page, found, nfes)


def median(row: Row) -> float:
    return row.statistics["median"]


def best_of(rows: Iterable[Row], *, package: str | None = None, auto: bool = False) -> Best:
    """The rows of the least median at each budget: of a package, or of all others than this library; of what ``auto``
    chooses, or of what is named."""
    best: Best = {}
    for row in rows:
        mine = row.case.package == OURS
        if (row.case.package == package if package else not mine) and (row.case.solver == AUTO) == auto:
            other = best.get(row.case.nfe)
            if other is None or median(row) < median(other):
                best[row.case.nfe] = row
    return best


def lines(rows: Sequence[Row]) -> Iterator[tuple[str, Best]]:
    """auto, and the best of each library."""
    for label, package, auto in (("auto", OURS, True), *((p, p, False) for p in (OURS, *PACKAGES))):
        if best := best_of(rows, package=package, auto=auto):
            yield label, best


def ratios(rows: Sequence[Row]) -> Iterator[tuple[str, dict[int | None, float]]]:
    """The medians of auto and of the best named solver, by that of the best peer."""
    peers = best_of(rows)
    for label, auto in ((AUTO, True), ("best named", False)):
        ours = best_of(rows, package=OURS, auto=auto)
        if common := {nfe: median(row) / median(peers[nfe]) for nfe, row in ours.items() if nfe in peers}:
            yield label, common


def _table(name: str, rows: Sequence[Row], nfes: Sequence[int]) -> Table:
    table = Table(name, *map(str, nfes), title="median error; solver and grid", box=None)
    for label, best in lines(rows):
        table.add_row(label, *(f"{median(best[n]):.2e}" if n in best else "" for n in nfes))
        table.add_row(
            "", *(f"{best[n].case.solver}, {best[n].case.grid}" if n in best else "" for n in nfes), style="dim"
        )
    for label, found in ratios(rows):
        table.add_row(f"{label} / best peer", *(f"{found[n]:.2f}" if n in found else "" for n in nfes), style="bold")
    return table


def write_page(path: Path, found: dict[str, list[Row]], nfes: Sequence[int]) -> None:
    """Replace what follows `MARK` in the page."""
    head = path.read_text(encoding="utf-8").split(MARK)[0] if path.exists() else ""
    path.write_text(f"{head}{MARK}\n\n" + "\n".join(_sections(found, nfes)), encoding="utf-8")


def _sections(found: dict[str, list[Row]], nfes: Sequence[int]) -> Iterator[str]:
    found = {name: rows for name, rows in found.items() if rows}
    versions = sorted({f"{row.case.package} {row.versions}" for rows in found.values() for row in rows})
    yield f"Versions: {', '.join(versions)} (of logsnr, a fingerprint of the code).\n"
    yield "## Ratios: median error by that of the best peer\n"
    yield _markdown_head(("problem", "ours"), nfes)
    for name, rows in found.items():
        for label, ratio in ratios(rows):
            yield _markdown_row((name, label), [f"{ratio[n]:.2f}" if n in ratio else "" for n in nfes])
    for label in (AUTO, "best named"):
        known = [dict(ratios(rows)).get(label, {}) for rows in found.values()]
        means = [[np.log(ratio[n]) for ratio in known if n in ratio] for n in nfes]
        yield _markdown_row(("geometric mean", label), [f"{np.exp(np.mean(x)):.2f}" if x else "" for x in means])
    for name, rows in found.items():
        row = rows[0]
        yield f"\n## {name}\n\n{row.case.samples} noises, seed {row.case.seed}; "
        yield f"error of the exact ends {row.statistics['reference_error']:.0e}."
        yield f"In each cell: median, RMS, share of errors above {FAR} of the data's spread; solver, grid.\n"
        yield _markdown_head(("",), nfes)
        for label, best in lines(rows):
            yield _markdown_row((label,), [_cell(best[n]) if n in best else "" for n in nfes])
        yield "\n<details><summary>Medians of every solver, on its best grid at each budget</summary>\n"
        yield _markdown_head(("library", "solver"), nfes)
        for key in dict.fromkeys((row.case.package, row.case.solver) for row in rows):
            own = [row for row in rows if (row.case.package, row.case.solver) == key]
            medians = [min((median(row) for row in own if row.case.nfe == n), default=np.nan) for n in nfes]
            yield _markdown_row(key, ["" if np.isnan(x) else f"{x:.2e}" for x in medians])
        yield "\n</details>"


def _cell(row: Row) -> str:
    said = row.statistics
    return f"{said['median']:.2e}, {said['rms']:.1e}, {100 * said['far']:.0f} %<br>{row.case.solver}, {row.case.grid}"


def _markdown_head(labels: Sequence[str], nfes: Sequence[int]) -> str:
    return _markdown_row(labels, list(map(str, nfes))) + "\n" + "|" + "---|" * (len(labels) + len(nfes))


def _markdown_row(labels: Sequence[str], cells: Sequence[str]) -> str:
    return "| " + " | ".join((*labels, *cells)) + " |"
