"""Parallel in time: rounds, evaluations, distance to the sequential answer, and time, against steps and tolerance.

    python -m logsnr.bench.picard

Methods are those of `Picard`: with x0 frozen ("none"), or with secants.
Two clocks. "here" is the wall time of this machine, whose cost grows with the batch. "flat" is
what a device shows on which a batch of 64 costs as much as one node: the model is charged a fixed latency for every 64
nodes that it is given, by default that of Stable Diffusion on an A100 (50 s for 1000 steps: Shih et al. 2023),
and everything else is measured, in processor time.
"""

import math
import time
from itertools import product
from typing import Annotated, Any, Literal, NamedTuple

import torch
import typer
from rich.console import Console
from rich.table import Table

from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.names import nearest
from ..solvers.parallel.settings import Picard
from ..solvers.sampling import Solution, solve
from .command import run_command
from .problems import load_problem

FLAT = 64  # nodes that cost as much as one
REFERENCE = 400  # steps of dpmpp-2m that stand for the exact answer: errors of ddim are 100 times larger


METHODS: dict[str, Literal["secant"] | None] = {"none": None, "secant": "secant"}


class Clock:
    """A model that counts its calls, and the time in it: as it is, and as it would be at a flat latency."""

    def __init__(self, model: Any, latency: float) -> None:
        self.model, self.latency, self.busy, self.flat = model, latency, 0.0, 0.0

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        begin = time.process_time()
        answer: torch.Tensor = self.model(x, t)
        self.busy += time.process_time() - begin
        self.flat += self.latency * math.ceil(len(x) / FLAT)
        return answer


class Run(NamedTuple):
    """A solution; seconds here, seconds at a flat latency, and of the latter those outside the model."""

    solution: Solution
    here: float
    flat: float
    outside: float


def timed(den: Denoiser, x: torch.Tensor, latency: float, **options: Any) -> Run:
    clock = Clock(den.model, latency)
    watched = den.like(clock, x)
    begin, busy = time.perf_counter(), time.process_time()
    solution = solve(watched, x, **options)
    here, outside = time.perf_counter() - begin, time.process_time() - busy - clock.busy
    return Run(solution, here, clock.flat + outside, outside)


def distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(B,): relative to the second."""
    return (x.double() - y.double()).flatten(1).norm(dim=1) / y.double().flatten(1).norm(dim=1)


def main(
    problem: Annotated[str, typer.Option(help="digits-net or digits.")] = "digits-net",
    solver: Annotated[str, typer.Option()] = "ddim",
    steps: Annotated[list[int] | None, typer.Option(help="25, 100 and 1000 if none.")] = None,
    tol: Annotated[list[float] | None, typer.Option(help="1e-2, 1e-3 and 1e-4 if none.")] = None,
    window: Annotated[list[int] | None, typer.Option(help="64 and the whole grid (0) if none.")] = None,
    method: Annotated[list[str] | None, typer.Option(help=f"{', '.join(METHODS)}; secant if none.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Each is run alone; medians are shown.")] = 5,
    latency: Annotated[float, typer.Option(min=0, help="Seconds of the flat clock.")] = 0.05,
) -> None:
    """Parallel runs against sequential ones: medians over samples that run one by one."""
    for name in method or ():
        if name not in METHODS:
            raise typer.BadParameter(f"{name!r} is unknown{nearest(name, METHODS)}", param_hint="--method")
    given = load_problem(problem)
    den, x = given.denoiser, given.start(samples, 0).to(given.dtype)
    torch.set_num_threads(1)
    table = Table(
        "method", "steps", "window", "tol", "rounds", "most", "nfe", "distance", "estimate", "error", "here", "flat",
        "outside", box=None,
    )  # fmt: skip
    exact = solve(den, x, solver="dpmpp-2m", steps=REFERENCE).x
    for count in steps or (25, 100, 1000):
        alone = [timed(den, x[b : b + 1], latency, solver=solver, steps=count, seed=[b]) for b in range(samples)]
        error = torch.cat([distances(run.solution.x, exact[b : b + 1]) for b, run in enumerate(alone)]).median()
        for kind, width, bound in product(method or ("secant",), window or (64, 0), tol or (1e-2, 1e-3, 1e-4)):
            how = Picard(width or None, bound, METHODS[kind])
            runs = [
                timed(den, x[b : b + 1], latency, solver=solver, steps=count, seed=[b], parallel=how)
                for b in range(samples)
            ]
            _add(table, alone, runs, (kind, str(count), str(width or count), f"{bound:g}"), float(error))
    console = Console(width=120)
    console.print(table)
    console.print(
        f"{problem}, {solver}. distance: relative, to the sequential answer; estimate: that of the certificate; error: "
        f"of the sequential answer. here, flat: times as fast as the sequential run, with a latency of {latency} s for "
        f"every {FLAT} nodes. outside: share of the flat time that is not the model's."
    )


def _add(table: Table, alone: list[Run], runs: list[Run], setting: tuple[str, ...], error: float) -> None:
    def median(values: list[Any]) -> float:
        return float(torch.tensor(values, dtype=torch.float64).median())

    rounds, far = [run.solution.rounds for run in runs], list(zip(alone, runs, strict=True))
    estimates = [float(run.solution.certificate.distance[0]) for run in runs if run.solution.certificate]
    table.add_row(
        *setting,
        f"{median(rounds):.0f}",
        f"{max(rounds)}",
        f"{median([run.solution.nfe for run in runs]):.0f}",
        f"{median([distances(run.solution.x, one.solution.x).item() for one, run in far]):.1e}",
        f"{median(estimates):.1e}",
        f"{error:.1e}",
        f"{median([one.here / run.here for one, run in far]):.2f}",
        f"{median([one.flat / run.flat for one, run in far]):.1f}",
        f"{median([run.outside / run.flat for run in runs]):.1%}",
    )


if __name__ == "__main__":
    run_command(main)
