"""What a second call in every round brings:

    python -m logsnr.bench.rounds [--problem mixture-16] [--rounds 4]

Median (and root-mean-square) errors on noise that nothing was fitted to, of tables that `tune` fits to so many rounds
of two calls, to so many evaluations one by one, and to twice as many.
"""

import time
from typing import Annotated, Any

import torch
import typer

from ..solvers.parallel.settings import Rounds
from ..solvers.programs.program import Program
from ..solvers.runs.normals import start
from ..solvers.tuning.teacher import ends
from ..solvers.tuning.tune import tune
from .command import run_command
from .unseen import HELD_OUT, PROBLEMS, RANGES, SEED, errors_of


def rounds(
    problem: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(PROBLEMS)}; mixture-16 if none.")] = None,
    rounds: Annotated[list[int] | None, typer.Option(help="3, 4 and 5 if none.")] = None,
    span: Annotated[str, typer.Option("--range", help=f"Of {', '.join(RANGES)}; networks have their own.")] = "edm",
    noises: Annotated[int, typer.Option(help="To fit to.")] = 192,
    iterations: Annotated[int, typer.Option(help="At most, of each fit.")] = 40,
) -> None:
    """Errors of fitted tables, by the number of rounds."""
    for name in problem or ["mixture-16"]:
        make, shape, _ = PROBLEMS[name]
        den = make(RANGES[span])
        sch = den.schedule
        x, others = (start(sch, (n, *shape), seed=s, dtype=torch.float64) for n, s in ((noises, 1), (HELD_OUT, SEED)))
        end, wanted = (ends(den, z, sch.t_start, sch.t_end).end for z in (x, others))
        for r in rounds or (3, 4, 5):
            line = f"{name:10s} {r:2d} rounds"
            budgets: dict[str, dict[str, Any]] = {"pairs": {"rounds": r}, "single": {"nfe": r}, "twice": {"nfe": 2 * r}}
            for label, budget in budgets.items():
                began = time.process_time()
                program: Program = tune(den, x, reference=end, iterations=iterations, **budget)
                took = time.process_time() - began
                median, rms = errors_of(den, others, wanted, program, parallel=Rounds())
                line += f"  {label} {median:.1e} ({rms:.1e}) {took:.0f} s"
            print(line, flush=True)


if __name__ == "__main__":
    run_command(rounds)
