"""What the scheduler of another library does itself, on the exact problem: its formula alone, and as it is configured.

Deterministic schedulers of diffusers: the error against exact ends of the same paths. Those that add noise: how far the
standard deviation of what they generate from N(0.7, 0.25) is off, by many samples.
"""

import importlib
import io
import math
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import torch

from ..analysis.gaussian import Gaussian
from ..analysis.orders import refine, two_gaussians
from ..analysis.problem import Problem
from ..integrations.diffusers_grids import level_at
from ..integrations.diffusers_tables import levels_of, table_of
from ..integrations.doctor import LOST, Finding
from ..integrations.doctor_orders import SAMPLES
from ..integrations.doctor_subjects import Subject
from ..solvers.arrays import Array
from ..solvers.schedules.base import Schedule
from ..solvers.schedules.straight import EDM
from .peer_samplers import missing

DRAWS, RUNS = 100_000, (10, 20, 40, 80, 160)
LEVELS = 14.6, 0.03  # of the formula alone
FINEST = 256
ALONE = EDM(0.01, 20.0)

MULTISTEP = ("DPMSolverMultistep", "DEISMultistep", "UniPCMultistep")

Made = tuple[Any, Schedule, Array]  # a scheduler, and times on a schedule from its first level to its last
Make = Callable[[int], Made]


def check_foreign(subject: Subject) -> None:
    """ValueError where the library's own scheduler cannot be run."""
    if subject.library != "diffusers":
        raise ValueError("measure is for schedulers of diffusers, as a config of theirs; leave out --measure")
    if subject.config.get("sigma_data") is not None:
        raise ValueError("measure is for models with a table of betas and for flow models; leave out --measure")
    if why := missing("diffusers"):
        raise ValueError(f"measure needs diffusers ({why}): pip install 'logsnr[diffusers]', or leave it out")


def foreign(subject: Subject) -> list[Finding]:
    """Orders and errors of the scheduler itself, as findings."""
    noisy = subject.shipped.stochastic
    measure = _of_law if noisy else _of_paths
    found = [measure(subject, _configured(subject), "as it is configured")]
    if not noisy and subject.name.startswith(MULTISTEP) and not subject.flow:
        for dtype in (torch.float64, torch.float32):
            name = str(dtype).removeprefix("torch.")
            found.append(_of_paths(subject, _alone(subject, dtype), f"its formula alone, smooth grid, {name} sigmas"))
    return found


def _made(subject: Subject, **options: Any) -> Any:
    """The scheduler, without what it says of its own future."""
    kind = getattr(importlib.import_module("diffusers"), str(subject.config["_class_name"]))
    known = {key: value for key, value in subject.config.items() if not key.startswith("_") and key != "frame"}
    known = {key: value for key, value in known.items() if value is not None and key not in ("clip_sample",)}
    given = {**known, **options}
    if "DDIM" in kind.__name__ or "DDPM" in kind.__name__:
        given["clip_sample"] = False  # the data here is not bounded by 1
    takes = signature(kind.__init__).parameters
    return kind(**{key: value for key, value in given.items() if key in takes})


def _configured(subject: Subject) -> Make:
    def make(steps: int) -> Made:
        scheduler = _made(subject)
        given = {"mu": subject.config["max_shift"]} if subject.config.get("use_dynamic_shifting") else {}
        scheduler.set_timesteps(steps, **given)
        return scheduler, *subject.nodes(steps)

    return make


def _alone(subject: Subject, dtype: torch.dtype) -> Make:
    """Its own grid replaced by a uniform one in log sigma, in this dtype, and no lower orders at the end."""

    def make(steps: int) -> Made:
        scheduler = _made(subject, final_sigmas_type="sigma_min", lower_order_final=False, prediction_type="sample")
        scheduler.set_timesteps(min(steps, 500))
        levels = np.geomspace(*LEVELS, steps + 1)
        scheduler.sigmas = torch.from_numpy(levels).to(dtype)
        scheduler.timesteps = torch.arange(steps)
        scheduler.num_inference_steps = steps
        scheduler.model_outputs = [None] * len(getattr(scheduler, "model_outputs", ()))
        scheduler.set_begin_index(0)
        return scheduler, ALONE, levels

    return make


def _run(subject: Subject, problem: Problem, made: Made, x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """From x on the schedule to the end there, and how many calls that takes."""
    scheduler, sch, times = made
    unit = subject.config.get("frame") == "vp" and not subject.flow  # its states have alpha^2 + sigma^2 = 1
    first, last = (float(np.hypot(sch.alpha(t), sch.sigma(t))) if unit else 1.0 for t in (times[0], times[-1]))
    state, calls = x.reshape(-1, 1, 1, 1) / first, 0  # some count axes
    noise = {"generator": torch.Generator().manual_seed(0)} if subject.shipped.stochastic else {}
    for n, t in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(state, t) if hasattr(scheduler, "scale_model_input") else state
        answer = (
            _answer(problem, seen, *_scales(float(times[n])), "x0")
            if sch is ALONE
            else _answer(problem, seen, *_understood(subject, float(t)), subject.head)
        )
        state = scheduler.step(answer, t, state, return_dict=False, **noise)[0]
        calls += 1
    return state.double().flatten() * last, calls


def _understood(subject: Subject, told: float) -> tuple[float, float]:
    """alpha and sigma that a model understands by a timestep."""
    if subject.flow:
        sigma = told / float(subject.config["num_train_timesteps"])
        return 1 - sigma, sigma
    return _scales(float(level_at(levels_of(table_of(subject.config)), np.array([told]))[0]))


def _scales(level: float) -> tuple[float, float]:
    angle = math.atan(level)
    return math.cos(angle), math.sin(angle)


def _answer(problem: Problem, seen: torch.Tensor, alpha: float, sigma: float, head: str) -> torch.Tensor:
    x0, eps = problem.posterior(seen.double(), alpha, sigma)
    return {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0, "velocity": eps - x0}[head]


def _quiet(run: Callable[[], tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, int]:
    with redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run()


def _of_paths(subject: Subject, make: Make, told: str) -> Finding:
    problem, exact = two_gaussians(), dict[tuple[float, float], Any]()

    def run(steps: int) -> tuple[int, float]:
        made = make(steps)
        ends = float(made[2][0]), float(made[2][-1])
        if ends not in exact:
            x = problem.sample_at(made[1], ends[0], SAMPLES, generator=torch.Generator().manual_seed(0))
            exact[ends] = x, problem.reference(x, made[1], *ends)
        x, end = exact[ends]
        found, calls = _quiet(lambda: _run(subject, problem, made, x))
        return calls, float((found - end).square().mean().sqrt())

    try:
        found = refine(run, subject.name, subject.right.order, "its own", FINEST)
    except (ValueError, RuntimeError, IndexError) as error:
        return Finding("measured", "danger", f"{told}: it stops with an error: {error!s:.200}")
    errors = [f"{error:.1e}" for error in found.errors]
    broken = not np.isfinite(found.errors).all()
    grows = found.errors[-1] > 2 * min(found.errors)
    short = not found.order > subject.right.order - LOST
    order = "NaN" if broken else f"order {found.order:.2f}"
    return Finding(
        "measured", "danger" if broken or grows else "warning" if short else "good",
        f"{told}: {order}; error {', '.join(errors)} at {found.steps[0]}, {found.steps[1]}, ... {found.steps[-1]} "
        f"steps{' (it grows)' * grows}.",
    )  # fmt: skip


def _of_law(subject: Subject, make: Make, told: str) -> Finding:
    data = Gaussian(0.7, 0.25)
    errors = []
    for steps in RUNS:
        made = make(steps)
        first, last = float(made[2][0]), float(made[2][-1])
        x = data.sample_at(made[1], first, DRAWS, generator=torch.Generator().manual_seed(1))
        end, _ = _quiet(partial(_run, subject, data, made, x))
        exact = float(np.hypot(0.5 * float(made[1].alpha(last)), made[1].sigma(last)))
        errors.append(float(end.std()) / exact - 1)
    slope = float(np.log2(abs(errors[1] / errors[3])) / 2)
    short = slope < subject.right.order - LOST
    return Finding(
        "measured", "warning" if short else "good", f"{told}: weak order {slope:.2f}, from 20 to 80 steps; standard "
        f"deviation off by {', '.join(f'{e:+.1%}' for e in errors)} at {', '.join(map(str, RUNS))} steps, "
        f"{100 / (2 * DRAWS) ** 0.5:.1g}% of that by chance.",
    )  # fmt: skip
