"""Samplers with the signature of k-diffusion and ComfyUI, carried out by the solvers of this library.

    sample_dpmpp_2m(model, x, sigmas, extra_args=None, callback=None, disable=None, **options)

``model(x, sigma * ones(B), **extra_args)`` is the denoised data, x = x0 + sigma eps; ``sigmas`` (n + 1,) decrease, and
the last may be 0. ``sample_NAME`` exists for every solver here, with ``_`` for ``-``, and for the names of ComfyUI and
k-diffusion, which mean their formulas (`comfy.names`), or else the nearest solver here.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch

from ..solvers.arrays import Array
from ..solvers.catalogue.catalogue import Solver, solver, solver_names
from ..solvers.denoisers.answers import check_state
from ..solvers.planners.combined import DPMFast
from ..solvers.programs.call import NoiseKey
from ..solvers.programs.program import Program
from ..solvers.runs.execution import Stepper
from ..solvers.schedules.base import Schedule
from ..solvers.schedules.straight import EDM, FlowMatching
from .comfy.ends import between, levels_of, sample_dpm_adaptive
from .comfy.names import IN_SIGMA, MEANINGS, NEAREST, both_answers, is_flow, moved, noisy_window

Sampler = Callable[..., torch.Tensor]

PREFIX = "logsnr_"  # of the names in ComfyUI's lists
NOISE, CHURN = ("noise_sampler", "s_noise", "seed"), ("s_churn", "s_tmin", "s_tmax")
ENDS = 1e-4  # relative difference of sigmas that are the same


def sampler(name: str | Solver | Program, *, space: str = "sigma", **fixed: Any) -> Sampler:
    """A function ``sample(model, x, sigmas, extra_args=None, callback=None, disable=None, **options)``.

    name:    a solver's name, here or in ComfyUI, a `Solver`, or a `Program` that was made on EDM's schedule, whose own
             grid is run between the ends of ``sigmas``.
    space:   of flow models, x = (1 - sigma) x0 + sigma eps: "sigma" solves dx/dsigma = (x - x0) / sigma as ComfyUI
             does, "logsnr" in their own half-log-SNR. Solvers that add noise do the latter, as only there it is right.
    options: of the solver (``eta``, ...), ``compat`` as of `logsnr.solver`, solver_type of "dpmpp_2m_sde", and s_noise,
             noise_sampler(sigma, sigma_next) and seed.

    The state is fp32 at least. Noise comes from noise_sampler, else from ``seed``, else from ``extra_args["seed"]``,
    else from torch's own numbers, as with s_noise. callback gets {"x", "i", "sigma", "sigma_hat", "denoised"} once per
    step, before the update. Raises ValueError for unknown names and options, for sigmas that do not decrease, and for
    s_churn other than 0, which "edm-churn" has.
    """
    if space not in ("sigma", "logsnr"):
        raise ValueError(f"space = {space!r} must be 'sigma' or 'logsnr'")
    if isinstance(name, str) and name in OWN_STEPS:
        if space != "sigma":
            raise ValueError(f"space = {space!r}: {name} lays its steps in log sigma; leave space out")
        return between(*OWN_STEPS[name], fixed)
    _method(name, fixed)  # refuses names and options before there is a model

    def sample(
        model: Any,
        x: torch.Tensor,
        sigmas: Any,
        extra_args: dict[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        disable: bool | None = None,
        **options: Any,
    ) -> torch.Tensor:
        del disable  # there is no bar: ComfyUI's callback has its own
        return _sample(name, space, model, x, sigmas, extra_args or {}, callback, {**fixed, **options})

    sample.__name__ = sample.__qualname__ = f"sample_{_attribute(name)}"
    return sample


def _sample(
    name: str | Solver | Program,
    space: str,
    model: Any,
    x: torch.Tensor,
    sigmas: Any,
    extra: dict[str, Any],
    callback: Callable[[dict[str, Any]], Any] | None,
    options: dict[str, Any],
) -> torch.Tensor:
    check_state(x)
    levels = levels_of(sigmas)
    if len(levels) < 2:
        return x
    means = MEANINGS.get(name) if isinstance(name, str) else None
    method, noise = _method(name, options)
    own = isinstance(method, Solver) and (method.stochastic or (means is not None and means.own))
    flow = is_flow(model) and (space == "logsnr" or (own and name not in IN_SIGMA))
    if means is not None:
        levels = moved(levels, means, model, flow)
        method, noise = _method(name, options, flow)
    sch = _schedule(levels, flow)
    if means is not None and means.window and "tau" not in options:
        window = noisy_window(model, sch, levels)
        method = method if window is None else _method(name, {**options, "tau": window})[0]
    program = _program(method, sch, levels)
    stepper = Stepper(program, sch, "x0", x, dtype=x.dtype, x0=False, **_noise(program, noise, extra))
    both = both_answers(model, extra) if means is not None and means.guided else None
    ones, begins, other = x.new_ones(x.shape[0]), True, None
    with torch.no_grad():
        while not stepper.done:
            sigma = stepper.t
            if both is not None and stepper.n % 2:  # the same state again, for the answer without guidance
                denoised = other
            elif both is not None:
                denoised, other = both(stepper.x, ones * sigma)
            else:
                denoised = model(stepper.x, ones * sigma, **extra)
            if begins and callback is not None:
                at = x.new_tensor(sigma)
                told = {"x": stepper.x, "i": stepper.node, "sigma": at, "sigma_hat": at, "denoised": denoised}
                callback(told)
            stepper.step(denoised)
            begins = program.calls[stepper.n - 1].node is not None
    return stepper.x.to(x.dtype)


def _schedule(levels: Array, flow: bool) -> Schedule:
    largest, smallest = float(levels[0]), float(levels[levels > 0][-1])
    if flow:
        if largest > 1:
            raise ValueError(f"sigmas of a flow model are at most 1, not {largest:.6g}")
        return FlowMatching()
    return EDM(min(smallest, largest / 2), largest)


def _program(method: Solver | Program, sch: Schedule, levels: Array) -> Program:
    if isinstance(method, Solver):
        return method.program(sch, levels)
    ends = np.array([method.grid[0], method.grid[-1]])
    if not np.allclose(ends, levels[[0, -1]], rtol=ENDS, atol=ENDS * levels[0] * 1e-3):
        raise ValueError(
            f"{method.name} goes from sigma = {ends[0]:.6g} to {ends[1]:.6g}, but sigmas from {levels[0]:.6g} to "
            f"{levels[-1]:.6g}: give it sigmas with its own ends"
        )
    return method


def _noise(program: Program, given: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """Where the noise of a program comes from, as `Stepper` takes it."""
    if not program.noises:
        return {}
    make, scale, seed = (given.get(name) for name in NOISE)
    scale = 1.0 if scale is None else float(scale)
    if make is None and scale == 1:
        return {"seed": extra.get("seed") if seed is None else seed}
    if make is not None and not callable(make):
        raise TypeError(f"noise_sampler must be a callable noise_sampler(sigma, sigma_next), not {type(make).__name__}")

    def noise(key: NoiseKey, like: torch.Tensor) -> torch.Tensor:
        s, t = (like.new_tensor(v) for v in (key.s, key.t))
        z = torch.randn_like(like) if make is None else make(s, t)
        return scale * z.to(like.dtype)

    return {"noise": noise}


def _method(
    name: str | Solver | Program, options: dict[str, Any], flow: bool = False
) -> tuple[Solver | Program, dict[str, Any]]:
    """What ``name`` means with its options, and those that are left, of noise. ValueError for what does not fit."""
    options = dict(options)
    own = not isinstance(name, str) or name in solver_names()
    means = None if own or options.get("compat", True) is not True else MEANINGS.get(str(name))
    if means is not None:
        options.pop("compat", None)
        means.options(options)
    nearest = name if own else NEAREST.get(str(name)) or str(name).replace("_", "-")
    here: Any = nearest if means is None else (means.flow if flow and means.flow else means.solver)
    found = None if isinstance(here, Program) else solver(here)
    noise = {k: options.pop(k) for k in (*NOISE, *CHURN) if k in options and (not found or k not in found.options)}
    if noise.get("s_churn"):
        raise ValueError(f"s_churn = {noise['s_churn']!r}: solver 'edm-churn' puts noise back, with Heun's steps")
    if found is None:
        if options:
            raise ValueError(f"{', '.join(options)}: a program has no options, they are in its numbers")
        return here, noise
    return solver(here, **options), noise


def _attribute(name: Any) -> str:
    text = name if isinstance(name, str) else name.name
    return "".join(c if c.isalnum() else "_" for c in text)


def sample_dpm_fast(
    model: Any,
    x: torch.Tensor,
    sigma_min: float,
    sigma_max: float,
    n: int,
    extra_args: dict[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None,
    disable: bool | None = None,
    eta: float = 0.0,
    s_noise: float = 1.0,
    noise_sampler: Callable[[Any, Any], torch.Tensor] | None = None,
) -> torch.Tensor:
    """DPM-Solver-fast: n evaluations from sigma_max to sigma_min, in equal steps of log sigma. ``eta``, from 0 to 1,
    adds the noise of ancestral steps, as `sampler` has it."""
    planner, steps = DPMFast(eta=eta).within(n)
    run = sampler(Solver("dpm-fast", planner=planner), s_noise=s_noise, noise_sampler=noise_sampler)
    return run(model, x, np.geomspace(sigma_max, sigma_min, steps + 1), extra_args, callback, disable)


OWN_STEPS: dict[str, tuple[Callable[..., Any], bool]] = {
    "dpm_fast": (sample_dpm_fast, True),
    "dpm_adaptive": (sample_dpm_adaptive, False),
}


def sample_function_names() -> list[str]:
    """All names for which ``sample_NAME`` exists, of solvers that take a list of sigmas."""
    own = [_attribute(name) for name in solver_names() if solver(name).planner is not None]
    return sorted({*own, *NEAREST, *MEANINGS, *OWN_STEPS})


def register_comfyui() -> list[str]:
    """Add every solver to ComfyUI's lists of samplers, as ``logsnr_NAME``; returns the names that are new.

    Raises ImportError where ComfyUI cannot be imported, and RuntimeError where it has no such lists.
    """
    samplers, sampling = comfy_module("comfy.samplers"), comfy_module("comfy.k_diffusion.sampling")
    names = getattr(getattr(samplers, "KSampler", None), "SAMPLERS", None)
    if not isinstance(names, list):
        raise RuntimeError("this ComfyUI has no list comfy.samplers.KSampler.SAMPLERS: it is older than 0.3; update it")
    new = [PREFIX + name for name in sample_function_names() if PREFIX + name not in names]
    for name in new:
        setattr(sampling, f"sample_{name}", sampler(name.removeprefix(PREFIX)))
        names.append(name)
    return new


def comfy_module(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} cannot be imported ({error}): run this within ComfyUI, or put it on the path"
        ) from error


def __getattr__(attribute: str) -> Sampler:
    """``sample_NAME``."""
    name = attribute.removeprefix("sample_")
    if attribute != name and name in sample_function_names():
        own = {_attribute(known): known for known in solver_names()}
        return sampler(own.get(name, name) if name not in NEAREST else name)
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
