"""Time outside the model of whole loops, beside diffusers, k-diffusion and azula with the same scheme.

    python -m logsnr.bench.peers time
    python -m logsnr.bench.peers time --device cuda

The model is free (it returns the same tensor), so what a loop takes is what its library takes. All loops go from
sigma = 14.6 to 0.03 on one grid, geometric in sigma, in fp32, with the library's own loop if it has one. That they
solve with the same scheme is checked with a real model, the exact one of Gaussian data: their ends must agree.
Libraries that are not installed are left out, with a line that says so.
"""

import importlib
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ..solvers.catalogue import Solver, solver
from ..solvers.denoiser import Denoiser
from ..solvers.sampling import sample
from ..solvers.schedules.formulas import EDM
from .clock import LARGE, SMALL, best_of
from .peer_samplers import k_diffusion_sampling

SIGMA_MAX, SIGMA_MIN = 14.6, 0.03
MEAN, VARIANCE = 0.7, 0.25  # of the Gaussian data
REPEATS: dict[tuple[int, ...], int] = {SMALL: 30, LARGE: 3}
PUBLISHED = "dpmpp-2m (compat)"  # with the simplified weights of the paper; dpmpp-2m itself integrates exactly

Loop = Callable[[torch.Tensor], torch.Tensor]
Make = Callable[[torch.Tensor | None, int], Loop]


class Library(NamedTuple):
    """A package and its schemes. A scheme makes a loop of a number of steps and of what a free model answers, or of
    the exact model if that is None; a loop starts from x0 + sigma eps."""

    package: str
    schemes: dict[str, Make]


def grid(steps: int, answer: torch.Tensor | None = None) -> torch.Tensor:
    """The sigmas of all loops, fp32 (steps + 1,), on the device of what a free model answers."""
    return torch.from_numpy(np.geomspace(SIGMA_MAX, SIGMA_MIN, steps + 1)).float().to(device(answer))


def device(answer: torch.Tensor | None) -> torch.device:
    return torch.device("cpu") if answer is None else answer.device


def gaussian(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[x0 | x] of Gaussian data for x = x0 + sigma eps; sigma is () or (B,)."""
    level = sigma.square().reshape(-1, *[1] * (x.dim() - 1))
    return (VARIANCE * x + level * MEAN) / (VARIANCE + level)


def _ours(method: Solver, answer: torch.Tensor | None, steps: int) -> Loop:
    den = Denoiser(gaussian if answer is None else lambda x, t: answer, EDM(), "x0")
    return partial(sample, den, solver=method, steps=steps, t_start=SIGMA_MAX, t_end=SIGMA_MIN)


def _diffusers(name: str, options: dict[str, Any], answer: torch.Tensor | None, steps: int) -> Loop:
    """The loop of its pipelines, whose networks see y = x / sqrt(1 + sigma^2). Schedulers make their own grid, so it
    is replaced after ``set_timesteps``."""
    kind = getattr(importlib.import_module("diffusers"), name)
    scheduler = kind(prediction_type="sample", final_sigmas_type="sigma_min", **options)
    sigmas = grid(steps)

    def model(y: torch.Tensor, n: int) -> torch.Tensor:
        return gaussian(y * (1 + sigmas[n] ** 2).sqrt(), sigmas[n]) if answer is None else answer

    @torch.no_grad()
    def loop(x: torch.Tensor) -> torch.Tensor:
        scheduler.set_timesteps(steps)
        scheduler.sigmas = sigmas
        scheduler.set_begin_index(0)  # else it looks for its place among its own times
        for n, t in enumerate(scheduler.timesteps):
            x = scheduler.step(model(scheduler.scale_model_input(x, t), n), t, x, return_dict=False)[0]
        return x

    return loop


def _diffusers_dpmpp(answer: torch.Tensor | None, steps: int) -> Loop:
    """Its DPM-Solver++ keeps y as the state, too; timed without the conversion of the two ends."""
    options = {"algorithm_type": "dpmsolver++", "solver_order": 2, "lower_order_final": False}
    loop = _diffusers("DPMSolverMultistepScheduler", options, answer, steps)
    first, last = (1 + grid(steps, answer)[[0, -1]] ** 2).sqrt()
    return loop if answer is not None else lambda x: loop(x / first) * last


def _k_diffusion(name: str, answer: torch.Tensor | None, steps: int) -> Loop:
    sampler, sigmas = getattr(k_diffusion_sampling(), name), grid(steps, answer)
    model = gaussian if answer is None else lambda x, sigma: answer
    return lambda x: sampler(model, x, sigmas, disable=True)


def _azula(name: str, options: dict[str, Any], answer: torch.Tensor | None, steps: int) -> Loop:
    azula = importlib.import_module("azula")
    schedule = azula.noise.VESchedule(SIGMA_MIN, SIGMA_MAX)

    class Model(azula.denoise.Denoiser):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.schedule = schedule

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> Any:
            mean = gaussian(x, schedule.sigma(t)) if answer is None else answer
            return azula.denoise.DiracPosterior(mean=mean)

    loop: Loop = getattr(azula.sample, name)(Model(), steps=steps, silent=True, **options)
    return loop


LIBRARIES = (
    Library(
        "logsnr",
        {
            PUBLISHED: partial(_ours, solver("dpmpp-2m", compat=True)),
            **{name: partial(_ours, solver(name)) for name in ("dpmpp-2m", "ddim", "heun")},
        },
    ),
    Library("diffusers", {PUBLISHED: _diffusers_dpmpp, "ddim": partial(_diffusers, "EulerDiscreteScheduler", {})}),
    Library(
        "k-diffusion",
        {
            PUBLISHED: partial(_k_diffusion, "sample_dpmpp_2m"),
            "ddim": partial(_k_diffusion, "sample_euler"),
            "heun": partial(_k_diffusion, "sample_heun"),
        },
    ),
    Library(
        "azula",
        {
            "dpmpp-2m": partial(_azula, "xEABSampler", {"order": 2}),
            "ddim": partial(_azula, "DDIMSampler", {}),
            "heun": partial(_azula, "HeunSampler", {}),
        },
    ),
)
OURS = LIBRARIES[0]


def installed(library: Library) -> str | None:
    """Why the library cannot be used, or None if it can."""
    try:
        for make in library.schemes.values():
            make(None, 2)
    except (ImportError, AttributeError) as error:
        return str(error)
    return None


def distance(library: Library, scheme: str, steps: int) -> float:
    """How far its end is from this library's with the exact model, in standard deviations of the data."""
    x = SIGMA_MAX * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ends = [found.schemes[scheme](None, steps)(x) for found in (library, OURS)]
    return float((ends[0] - ends[1]).abs().max() / VARIANCE**0.5)


def per_step(library: Library, scheme: str, shape: tuple[int, ...], steps: int, where: str = "cpu") -> float:
    """Microseconds of a loop with a free model, divided by its steps; a GPU's, until it has done all of them."""
    x, answer = (torch.randn(shape, device=where) for _ in range(2))
    loop = library.schemes[scheme](answer, steps)

    def run() -> None:
        loop(x)
        if x.is_cuda:
            torch.cuda.synchronize()

    run()
    return best_of(REPEATS[shape], run) / steps * 1e6


def time(
    steps: Annotated[int, typer.Option(min=2)] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Passes over all rows; the fastest of each counts.")] = 4,
    where: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
) -> None:
    """Microseconds a step with a free model, as ratios to this library's, and how far the ends are apart."""
    try:
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:  # unknown, or not there
        raise ValueError(f"device = {where!r}: {str(error).splitlines()[0]}") from None
    console, there = Console(), []
    for library in LIBRARIES:
        if (reason := installed(library)) is None:
            there.append(library)
        else:
            console.print(f"{library.package} is left out: {reason}")
    rows = [(library, scheme) for scheme in OURS.schemes for library in there if scheme in library.schemes]
    # A machine that others use is slow for seconds on end: passes far apart find each row a quiet moment.
    passes = [
        [[per_step(*row, shape, steps, where) for shape in REPEATS] for row in rows] for _ in track(range(rounds))
    ]
    best = [[min(times) for times in zip(*found, strict=True)] for found in zip(*passes, strict=True)]
    base = {scheme: times for (library, scheme), times in zip(rows, best, strict=True) if library is OURS}
    table = Table("scheme", "library", "small us", "ratio", "large us", "ratio", "ends differ", box=None)
    for column in table.columns[2:]:
        column.justify = "right"
    for (library, scheme), times in zip(rows, best, strict=True):
        cells = [f"{x:.1f}" for t, b in zip(times, base[scheme], strict=True) for x in (t, t / b)]
        apart = f"{distance(library, scheme, steps):.0e}" if library is not OURS else ""
        table.add_row(scheme, f"{library.package} {version(library.package)}", *cells, apart)
    console.print(table)
    console.print(
        f"{_described(where)}, {steps} steps, microseconds a step for 1x4x64x64 and 8x16x128x128, "
        f"fastest of {rounds} passes; the ends with the exact model of Gaussian data, in its standard deviations"
    )


def _described(where: str) -> str:
    return torch.cuda.get_device_name() if where != "cpu" else f"{torch.get_num_threads()} threads"
