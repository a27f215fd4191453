"""What one fit for many budgets brings:

    python -m logsnr.bench.budgets [--problem mixture-16] [--least 4] [--most 12]

Median (and root-mean-square) errors on noise that nothing was fitted to, of smooth tables and of `dpm-3m`.
"""

import time
from typing import Annotated

import torch
import typer

from ..solvers.runs.normals import start
from ..solvers.tuning.teacher import ends
from ..solvers.tuning.tune import tune
from .command import run_command
from .unseen import HELD_OUT, PROBLEMS, RANGES, SEED, errors_of

NAMED = "dpm-3m"


def budgets(
    problem: Annotated[str, typer.Option(help=f"Of {', '.join(PROBLEMS)}.")] = "mixture-16",
    span: Annotated[str, typer.Option("--range", help=f"Of {', '.join(RANGES)}; networks have their own.")] = "edm",
    least: Annotated[int, typer.Option(min=2)] = 4,
    most: Annotated[int, typer.Option(min=3)] = 12,
    noises: Annotated[int, typer.Option(help="To fit to.")] = 192,
    iterations: Annotated[int, typer.Option(help="At most.")] = 40,
) -> None:
    """Errors of tables of one fit, by the number of evaluations."""
    make, shape, _ = PROBLEMS[problem]
    den = make(RANGES[span])
    sch = den.schedule
    x, others = (start(sch, (n, *shape), seed=s, dtype=torch.float64) for n, s in ((noises, 1), (HELD_OUT, SEED)))
    wanted, began = ends(den, others, sch.t_start, sch.t_end).end, time.process_time()
    tables = tune(den, x, range(least, most + 1), iterations=iterations)
    print(f"{problem}: fitted to {tables[least].provenance['fitted to evaluations']} evaluations, "
          f"{time.process_time() - began:.0f} s")  # fmt: skip
    for n in range(least, most + 1):
        fitted, named = errors_of(den, others, wanted, tables[n]), errors_of(den, others, wanted, NAMED, nfe=n)
        print(f"{n:3d}  {fitted[0]:.1e} ({fitted[1]:.1e})  {NAMED} {named[0]:.1e} ({named[1]:.1e})", flush=True)


if __name__ == "__main__":
    run_command(budgets)
