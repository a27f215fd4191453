"""Time outside the model of a step with guidance, as a multiple of the same step without it.

    python -m logsnr.bench.guided

The models are free: they return tensors that are kept. *one call*: both answers in one call of twice the rows. *two
calls*: ``batched=False``. *in torch*: no `Guidance`, but a model that itself does what users write, ``cat``, ``chunk``
and ``u + w (c - u)``. *passes*: the ratio of the reads and writes of one call with guidance to those of a step without.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.progress import track

from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.denoisers.guidance import Guidance
from ..solvers.sampling import sample
from ..solvers.schedules.formulas import VPLinear
from .command import run_command, show_table
from .overhead import bytes_per_step

SHAPE, HEAD, SCALE = (4, 16, 128, 128), "eps", 3.0
SOLVERS = ["ddim", "dpmpp-2m", "dpmpp-3m"]
WAYS = "without", "one call", "two calls", "in torch"


def denoisers(shape: tuple[int, ...], asked: Callable[[], object]) -> dict[str, Denoiser]:
    """Of every way; ``asked`` is called when a run asks its model."""
    sch, one, two = VPLinear(), torch.randn(shape), torch.randn(2 * shape[0], *shape[1:])
    given, none = torch.ones(shape[0]), torch.zeros(shape[0])
    conditions = {"y": given}

    def model(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        asked()
        return one if len(x) == len(one) else two

    def other(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return two[: len(one)]

    def by_hand(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked()
        torch.cat([x, x]), torch.cat([t, t]), torch.cat([none, given])
        u, c = two.chunk(2)
        return u + SCALE * (c - u)

    guidances: list[Any] = [{"uncond": {"y": none}}, {"model": other}]
    guided = [
        Denoiser(model, sch, HEAD, conditions=conditions, guidance=Guidance(SCALE, **given)) for given in guidances
    ]
    ways = Denoiser(model, sch, HEAD, conditions=conditions), *guided, Denoiser(by_hand, sch, HEAD)
    return dict(zip(WAYS, ways, strict=True))


def passes(name: str, steps: int) -> float:
    """A step reads one more answer and writes the second half of what the model sees next."""
    moved = bytes_per_step(name, HEAD, (1,), steps) / 4
    return (moved + 2) / moved


def step_microseconds(name: str, shape: tuple[int, ...], steps: int, rounds: int) -> dict[str, float]:
    """By way, from one call of the model to the next: of each call the fastest of many runs, on average. All ways take
    turns, so that a slow phase of the machine falls on all."""
    x, calls = torch.randn(shape), list[float]()
    ways, found = denoisers(shape, lambda: calls.append(perf_counter())), dict[str, list[np.ndarray]]()
    for _ in track(range(rounds), name):
        for way, den in ways.items():
            calls.clear()
            sample(den, x, solver=name, steps=steps)
            found.setdefault(way, []).append(np.diff(calls))
    return {way: float(np.min(times, axis=0).mean()) * 1e6 for way, times in found.items()}


def main(
    solvers: Annotated[list[str] | None, typer.Argument(help=f"Names; {', '.join(SOLVERS)} if none.")] = None,
    steps: Annotated[int, typer.Option(min=2)] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of every way.")] = 60,
) -> None:
    """Time outside the model of a guided step by that of a step without guidance, at 4x16x128x128 in fp32."""
    rows = []
    for name in solvers or SOLVERS:
        plain, *others = step_microseconds(name, SHAPE, steps, rounds).values()
        ratios = [*(other / plain for other in others), passes(name, steps)]
        rows.append((name, f"{plain:.0f}", *(f"{ratio:.2f}" for ratio in ratios)))
    heads = ("solver", "without, us a step", *WAYS[1:], "passes")
    show_table(heads, rows, f"{torch.get_num_threads()} threads, {steps} steps, {rounds} runs of each")


if __name__ == "__main__":
    run_command(main)
