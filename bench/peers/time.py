"""Time outside the model of whole loops, beside diffusers, k-diffusion and azula with the same scheme.

    python -m logsnr.bench.peers time
    python -m logsnr.bench.peers time --device cuda

The model is free (it returns the same tensor), so what a loop takes is what its library takes. All loops go from
sigma = 14.6 to 0.03 on one grid, geometric in sigma, in fp32, with the library's own loop if it has one. Libraries that
are not installed are left out, with a line that says so.
"""

import importlib
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track

from ...solvers.catalogue.catalogue import Solver, solver
from ...solvers.denoisers.denoiser import Denoiser
from ...solvers.sampling import sample
from ...solvers.schedules.formulas import EDM
from ..clock import LARGE, SMALL, best_of
from ..command import show_table
from ..results import OURS
from .samplers import k_diffusion_sampling, missing

SIGMA_MAX, SIGMA_MIN = 14.6, 0.03
REPEATS: dict[tuple[int, ...], int] = {SMALL: 30, LARGE: 3}

Loop = Callable[[torch.Tensor], torch.Tensor]
Make = Callable[[torch.Tensor, int], Loop]  # of what the model answers, and a number of steps


def grid(steps: int, where: torch.device | str = "cpu") -> torch.Tensor:
    """The sigmas of all loops, fp32 (steps + 1,)."""
    return torch.from_numpy(np.geomspace(SIGMA_MAX, SIGMA_MIN, steps + 1)).float().to(where)


def _ours(method: Solver, answer: torch.Tensor, steps: int) -> Loop:
    den = Denoiser(lambda x, t: answer, EDM(), "x0")
    return partial(sample, den, solver=method, steps=steps, t_start=SIGMA_MAX, t_end=SIGMA_MIN)


def _diffusers(name: str, options: dict[str, Any], answer: torch.Tensor, steps: int) -> Loop:
    """The loop of its pipelines. Schedulers make their own grid, so it is replaced after ``set_timesteps``."""
    kind = getattr(importlib.import_module("diffusers"), name)
    scheduler = kind(prediction_type="sample", final_sigmas_type="sigma_min", **options)
    sigmas = grid(steps)

    @torch.no_grad()
    def loop(x: torch.Tensor) -> torch.Tensor:
        scheduler.set_timesteps(steps)
        scheduler.sigmas = sigmas
        scheduler.set_begin_index(0)  # else it looks for its place among its own times
        for t in scheduler.timesteps:
            scheduler.scale_model_input(x, t)
            x = scheduler.step(answer, t, x, return_dict=False)[0]
        return x

    return loop


def _k_diffusion(name: str, answer: torch.Tensor, steps: int) -> Loop:
    sampler, sigmas = getattr(k_diffusion_sampling(), name), grid(steps, answer.device)
    return lambda x: sampler(lambda x, sigma: answer, x, sigmas, disable=True)


def _azula(name: str, options: dict[str, Any], answer: torch.Tensor, steps: int) -> Loop:
    azula = importlib.import_module("azula")

    class Model(azula.denoise.Denoiser):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.schedule = azula.noise.VESchedule(SIGMA_MIN, SIGMA_MAX)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> Any:
            return azula.denoise.DiracPosterior(mean=answer)

    loop: Loop = getattr(azula.sample, name)(Model(), steps=steps, silent=True, **options)
    return loop


MULTISTEP = {"algorithm_type": "dpmsolver++", "solver_order": 2, "lower_order_final": False}
SCHEMES: dict[str, dict[str, Make]] = {
    "dpmpp-2m (compat)": {  # with the simplified weights of the paper; dpmpp-2m itself integrates exactly
        OURS: partial(_ours, solver("dpmpp-2m", compat=True)),
        "diffusers": partial(_diffusers, "DPMSolverMultistepScheduler", MULTISTEP),
        "k-diffusion": partial(_k_diffusion, "sample_dpmpp_2m"),
    },
    "dpmpp-2m": {OURS: partial(_ours, solver("dpmpp-2m")), "azula": partial(_azula, "xEABSampler", {"order": 2})},
    "ddim": {
        OURS: partial(_ours, solver("ddim")),
        "diffusers": partial(_diffusers, "EulerDiscreteScheduler", {}),
        "k-diffusion": partial(_k_diffusion, "sample_euler"),
        "azula": partial(_azula, "DDIMSampler", {}),
    },
    "heun": {
        OURS: partial(_ours, solver("heun")),
        "k-diffusion": partial(_k_diffusion, "sample_heun"),
        "azula": partial(_azula, "HeunSampler", {}),
    },
}


def per_step(make: Make, shape: tuple[int, ...], steps: int, where: str = "cpu") -> float:
    """Microseconds of a loop with a free model, divided by its steps; a GPU's, until it has done all of them."""
    x, answer = (torch.randn(shape, device=where) for _ in range(2))
    loop = make(answer, steps)

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
    """Microseconds a step with a free model, and as ratios to this library's."""
    try:
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:  # unknown, or not there
        raise ValueError(f"device = {where!r}: {str(error).splitlines()[0]}") from None
    reasons = {package: missing(package) for package in dict.fromkeys(p for loops in SCHEMES.values() for p in loops)}
    for package, reason in reasons.items():
        if reason:
            Console().print(f"{package} is left out: {reason}")
    found = [(scheme, p, make) for scheme, loops in SCHEMES.items() for p, make in loops.items() if not reasons[p]]
    # A machine that others use is slow for seconds on end: passes far apart find each row a quiet moment.
    passes = [
        [[per_step(make, shape, steps, where) for shape in REPEATS] for *_, make in found] for _ in track(range(rounds))
    ]
    best = np.array(passes).min(0)
    base = {scheme: times for (scheme, package, _), times in zip(found, best, strict=True) if package == OURS}
    rows = [
        (scheme, f"{package} {version(package)}", *(f"{x:.1f}" for t, b in zip(times, base[scheme], strict=True)
         for x in (t, t / b)))
        for (scheme, package, _), times in zip(found, best, strict=True)
    ]  # fmt: skip
    device = torch.cuda.get_device_name() if where != "cpu" else f"{torch.get_num_threads()} threads"
    show_table(
        ("scheme", "library", "small us", "ratio", "large us", "ratio"), rows,
        f"{device}, {steps} steps, microseconds a step for 1x4x64x64 and 8x16x128x128, fastest of {rounds} passes",
        left=2,
    )  # fmt: skip
