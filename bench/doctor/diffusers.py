"""Schedulers of diffusers as the doctor runs them: as they are configured, and their formula alone.

Beside that, what is not an order: the state in half precision, the time of a step, and what torch.compile makes of it.
"""

import importlib
import logging
import math
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import torch

from ...analysis.orders import two_gaussians
from ...analysis.problem import Problem
from ...integrations.doctor import Finding
from ...integrations.doctor.orders import SAMPLES
from ...integrations.doctor.types import Subject
from ...integrations.schedulers.grids import level_at
from ...integrations.schedulers.tables import levels_of, table_of
from ...solvers.arrays import Array
from ...solvers.denoisers.denoiser import Denoiser
from ...solvers.sampling import sample
from ...solvers.schedules.base import Schedule
from ..clock import SMALL, best_of
from .ways import ALONE, Made, Make, Way, answer, quiet, smooth

MULTISTEP = ("DPMSolverMultistep", "DEISMultistep", "UniPCMultistep", "SASolver")
HALVES, REPEATS, STEPS = (20, 50, 200), 5, 20


def of_diffusers(subject: Subject) -> list[Way]:
    """As it is configured; and its formula alone, in float64 and in the float32 that it has. SA-Solver is run without
    noise, too, as only then there is an order to lose. Order 4 takes many steps to become NaN."""
    noisy, order, told = subject.shipped.stochastic, subject.right.order, "its formula alone, smooth grid"
    ways = [Way("as it is configured", _configured(subject), order, noisy)]
    if not subject.name.startswith(MULTISTEP) or subject.flow:
        return ways
    calm = subject.name.startswith("SASolver")  # its noise is between whole timesteps, which the grid here has not
    if noisy and not calm:
        ways.append(Way(told, _alone(subject, torch.float64), order, noisy))
    if not noisy or calm:
        told, tau = (f"{told}, tau = 0", {"tau_func": lambda t: 0}) if calm else (told, {})
        ways += [
            Way(f"{told}, {name} sigmas", _alone(subject, getattr(torch, name), **tau), order, finest=finest)
            for name, finest in (("float64", 256), ("float32", 2048 if order > 3 else 256))
        ]
    return ways


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


def _set(subject: Subject, steps: int) -> Any:
    scheduler = _made(subject)
    given = {"mu": subject.config["max_shift"]} if subject.config.get("use_dynamic_shifting") else {}
    scheduler.set_timesteps(steps, **given)
    return scheduler


def _configured(subject: Subject) -> Make:
    def make(steps: int) -> Made:
        sch, times = subject.nodes(steps)
        return partial(_run, subject, _set(subject, steps), sch, times), sch, times

    return make


def _alone(subject: Subject, dtype: torch.dtype, **options: Any) -> Make:
    """Its own grid replaced by a uniform one in log sigma, in this dtype, and no lower orders at the end."""
    given: dict[str, Any] = {"final_sigmas_type": "sigma_min", "lower_order_final": False, "prediction_type": "sample"}

    def make(steps: int) -> Made:
        scheduler, levels = _made(subject, **given, **options), smooth(steps)
        scheduler.set_timesteps(min(steps, 500))
        scheduler.sigmas = torch.from_numpy(levels).to(dtype)
        scheduler.timesteps = torch.arange(steps)
        scheduler.num_inference_steps = steps
        scheduler.model_outputs = [None] * len(getattr(scheduler, "model_outputs", ()))
        scheduler.set_begin_index(0)
        return partial(_run, subject, scheduler, ALONE, levels), ALONE, levels

    return make


def _run(
    subject: Subject, scheduler: Any, sch: Schedule, times: Array, problem: Problem, x: torch.Tensor,
    dtype: torch.dtype | None = None, keep: bool = False,
) -> tuple[torch.Tensor, int]:  # fmt: skip
    """From x on the schedule to the end there, and how many calls that takes. dtype: of a model that answers in it,
    with the state in it, too, or with ``keep`` in float32."""
    unit = subject.config.get("frame") == "vp" and not subject.flow  # its states have alpha^2 + sigma^2 = 1
    first, last = (float(np.hypot(sch.alpha(t), sch.sigma(t))) if unit else 1.0 for t in (times[0], times[-1]))
    state, calls = x.reshape(-1, 1, 1, 1) / first, 0  # some count axes
    state = state if dtype is None else state.to(torch.float32 if keep else dtype)
    noise = {"generator": torch.Generator().manual_seed(0)} if subject.shipped.stochastic else {}
    for n, t in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(state, t) if hasattr(scheduler, "scale_model_input") else state
        at = (*_scales(float(times[n])), "x0") if sch is ALONE else (*_understood(subject, float(t)), subject.head)
        said = answer(problem, seen if dtype is None else seen.to(dtype), *at)
        if dtype is not None:
            said = said.to(dtype).to(state.dtype)
        state = scheduler.step(said, t, state, return_dict=False, **noise)[0]
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


def extra(subject: Subject) -> list[Finding]:
    """What is no order."""
    found = [] if subject.shipped.stochastic else _half(subject)
    return [*found, _time(subject), _compiled(subject)]


def _half(subject: Subject) -> list[Finding]:
    """A model in bfloat16: what is added where the state is cast to it after every step, and where it is kept."""
    problem, make = two_gaussians(), _configured(subject)

    def end(steps: int, **how: Any) -> torch.Tensor:
        go, sch, times = make(steps)
        x = problem.sample_at(sch, float(times[0]), SAMPLES, generator=torch.Generator().manual_seed(0))
        return go(problem, x, **how)[0]

    def added(keep: bool) -> list[float]:
        ends = [(end(n, dtype=torch.bfloat16, keep=keep), end(n)) for n in HALVES]
        return [float((found - exact).square().mean().sqrt()) for found, exact in ends]

    errors = {keep: quiet(partial(added, keep)) for keep in (False, True)}
    if not np.isfinite([*errors.values()]).all():
        return []
    cast, kept = (", ".join(f"{error:.1e}" for error in found) for found in errors.values())
    told = f"the state cast to it after every step: it adds {cast} at {', '.join(map(str, HALVES))} steps"
    severity = "warning" if errors[False][-1] > 2 * errors[True][-1] else "good"
    return [Finding("measured", severity, f"with a model in bfloat16, {told}. With the state kept in float32: {kept}.")]


def _time(subject: Subject) -> Finding:
    """Of a step outside the model, on a free one."""
    x = torch.zeros(SMALL)
    sch, times = subject.nodes(STEPS)
    program, den = subject.shipped.program(sch, times), Denoiser(lambda x, t: x, sch, "x0")

    def theirs() -> None:
        scheduler = _set(subject, STEPS)
        for t in scheduler.timesteps:
            scheduler.step(x, t, x, return_dict=False)

    def ours() -> None:
        sample(den, x, solver=program, seed=0)

    took, here = (quiet(partial(best_of, REPEATS, run)) / STEPS * 1e6 for run in (theirs, ours))
    return Finding(
        "measured", "note", f"a step takes {took:,.0f} us outside of the model (1x4x64x64, fp32, this CPU); here the "
        f"same program {here:,.0f} us.",
    )  # fmt: skip


def _compiled(subject: Subject) -> Finding:
    """How often torch.compile has to compile its step."""
    graphs, x = 0, torch.zeros(SMALL)

    def backend(module: Any, inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return module.forward

    def run() -> None:
        scheduler, step = _set(subject, STEPS), None
        step = torch.compile(scheduler.step, backend=backend)
        for t in scheduler.timesteps:
            step(x, t, x, return_dict=False)

    torch.compiler.reset()
    logging.disable(logging.WARNING)
    try:
        quiet(run)
    except Exception as error:  # of any kind, from within the compiler
        return Finding("measured", "warning", f"torch.compile of its step fails: {type(error).__name__}.")
    finally:
        logging.disable(logging.NOTSET)
        torch.compiler.reset()
    few = graphs <= 2
    return Finding(
        "measured", "good" if few else "warning", f"torch.compile makes {graphs} graphs of its step in {STEPS} steps"
        f"{'.' if few else ', as its place is a number on itself: it is compiled again, or not at all.'}",
    )  # fmt: skip
