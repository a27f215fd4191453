"""Time outside the model: microseconds of a run and of a step of every solver, and the ratio to a plain triad.

    python -m logsnr.bench.overhead

The model is free (it returns the same tensor), so what a `sample` call takes is what the library costs, planning
cached, checks included. For a small state, what a run costs and what each of its steps (evaluations) costs are told
apart, by the slope between two numbers of steps. Large states are compared with the fastest thing that moves the same
bytes: a numba triad ``a = b + s c``, on as many threads, in the same run.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, NamedTuple

import numba
import numpy as np
import torch
import typer
from rich.progress import track

from ..kernels import Updates
from ..solvers.catalogue.catalogue import solver, solver_names
from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.grids.grids import grid
from ..solvers.programs.lower import lower
from ..solvers.sampling import sample
from ..solvers.schedules.formulas import VPLinear
from .clock import LARGE, SMALL, best_of
from .command import run_command, show_table

MORE = 6  # times as many steps, for the slope


class Times(NamedTuple):
    """Microseconds: of `sample` calls of 1x4x64x64 with few steps and with more, of one of 8x16x128x128, and of a triad
    over the bytes of a step of the latter. The fastest of each, and only then their differences, as all have noise."""

    few: float
    many: float
    large: float
    triad: float


def run_microseconds(name: str, head: str, shape: tuple[int, ...], steps: int, repeats: int) -> float:
    """Of a `sample` call with a free model, fp32."""
    answer = torch.randn(shape)
    den = Denoiser(lambda x, t: answer, VPLinear(), head)
    x = torch.randn(shape)
    run = lambda: sample(den, x, solver=name, steps=steps)  # noqa: E731
    run()
    return best_of(repeats, run) * 1e6


def calls_of(name: str, steps: int) -> int:
    return len(solver(name).program(VPLinear(), grid(VPLinear(), steps)))


def run_and_step(name: str, times: Times, steps: int) -> tuple[float, float]:
    """Microseconds that a run of a small state takes besides its evaluations, and of an evaluation."""
    calls, more = calls_of(name, steps), calls_of(name, MORE * steps)
    each = (times.many - times.few) / (more - calls)
    return times.few - calls * each, each


def bytes_per_step(name: str, head: str, shape: tuple[int, ...], steps: int) -> float:
    """Operands read and results written by one step, on average, fp32."""
    sch = VPLinear()
    program = solver(name).program(sch, grid(sch, steps))
    updates: Updates = lower(program, sch, head, state=torch.float32, model=torch.float32).updates
    operands = [sum(call.table.shape) for call in updates.calls]
    return float(np.mean(operands)) * 4 * float(np.prod(shape))


def _triad(a, b, c, s):  # type: ignore[no-untyped-def]
    for i in numba.prange(a.size):
        a[i] = b[i] + s * c[i]


TRIADS = [numba.njit(parallel=parallel)(_triad) for parallel in (False, True)]


def triad_microseconds(moved: float, calls: int, repeats: int) -> float:
    """The time of one plain triad that moves ``moved`` bytes in all, two arrays read and one written: the
    faster of numba's serial and its parallel loop, in bursts as long as the run it is compared with."""
    n = int(moved / 12)
    a, b, c = (np.ones(n, dtype=np.float32) for _ in range(3))

    def burst(triad: Callable[..., None]) -> None:
        for _ in range(calls):
            triad(a, b, c, np.float32(0.5))

    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    for triad in TRIADS:
        burst(triad)
    torch.set_num_threads(threads)  # which numba's parallel loop sets when it first runs
    return min(best_of(repeats, partial(burst, triad)) for triad in TRIADS) / calls * 1e6


def measure(name: str, head: str, steps: int) -> Times:
    moved = bytes_per_step(name, head, LARGE, steps)
    return Times(
        run_microseconds(name, head, SMALL, steps, repeats=300),
        run_microseconds(name, head, SMALL, MORE * steps, repeats=150),
        run_microseconds(name, head, LARGE, steps, repeats=4),
        triad_microseconds(moved, steps, repeats=4),
    )


def main(
    solvers: Annotated[list[str] | None, typer.Argument(help="Names; every fixed-step solver if none.")] = None,
    steps: Annotated[int, typer.Option(min=1, help=f"And {MORE} times as many, for the slope.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Passes over all rows; the fastest of each counts.")] = 4,
) -> None:
    """Time outside the model per run and evaluation, for a network that predicts x0 and one that predicts eps."""
    names = solvers or [n for n in solver_names() if solver(n).planner]
    for name in names:
        calls_of(name, steps)  # a ValueError before any work
    rows = [(name, head) for name in names for head in ("x0", "eps")]
    # A machine that others use is slow for seconds on end: passes far apart find each row a quiet moment.
    passes = [[measure(*row, steps) for row in rows] for _ in track(range(rounds), "passes")]
    columns = "1x4x64x64: us a run", "+ us a step", "8x16x128x128: us a step", "ratio to triad"
    cells = []
    for (name, head), found in zip(rows, zip(*passes, strict=True), strict=True):
        best = Times(*(min(times) for times in zip(*found, strict=True)))
        (run, step), large = run_and_step(name, best, steps), best.large / calls_of(name, steps)
        cells.append((name, head, f"{run:.0f}", f"{step:.1f}", f"{large:.0f}", f"{large / best.triad:.2f}"))
    told = f"{torch.get_num_threads()} threads, {steps} steps, fastest of {rounds} passes"
    show_table(("solver", "head", *columns), cells, told, left=2)


if __name__ == "__main__":
    run_command(main)
