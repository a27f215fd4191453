"""What the tests of the bench share: a small plan, its runs, and rows made by hand."""

import csv
from dataclasses import replace
from functools import cache
from io import StringIO
from tempfile import TemporaryDirectory
from unittest.mock import patch

from rich.console import Console

from logsnr.bench import job
from logsnr.bench.results import Case, Row
from logsnr.bench.work_precision import Plan

PLAN = Plan(solvers=("ddim", "dpmpp-2m"), nfes=(4, 8), samples=8)
CASE = Case("gaussian", "ddim", "ramp", "logsnr", 4, None, 8, 0)


@cache
def references():
    """Where all benches of a process keep their references: to make one takes longer than all else of a small bench."""
    return TemporaryDirectory()


def bench(out, plan=PLAN, problems=("gaussian",), fresh=False, page=True, kept=None):
    """What it prints. ``kept``: the folder of the references, if not the one that all share."""
    console, said = Console(file=StringIO(), width=80), ["logsnr", "bench", "--nfe", "4"]
    with patch.multiple(job, CACHE=str(kept or references().name), write_report=job.write_report if page else ignore):
        job.run_bench(problems, plan, out, fresh=fresh, command=said, console=console)
    return console.file.getvalue()


def ignore(*_):
    """In place of the page."""


def rows(out):
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def row(solver="ddim", nfe=4, median=1.0, grid="logsnr", startup="ramp", rms=1.0):
    case = replace(CASE, solver=solver, nfe=nfe, grid=grid, startup=startup)
    return Row(case, nfe, dict(median=median, rms=rms, p90=1.0, far=0.0, reference_error=1e-12), "here")
