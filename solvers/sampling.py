"""`sample` and `solve`: check everything, plan (once per setting), run."""

from collections.abc import Hashable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from inspect import signature
from typing import Any

import numpy as np
import torch

from .adaptive import adaptive_solve
from .catalogue import Solver
from .catalogue import solver as find_solver
from .denoiser import Denoiser, check_state, time_map, told_as
from .grids import check_grid, end_time
from .grids import grid as make_grid
from .lower import Lowered, lower
from .noise import NoiseFunction, Seed, noise_source
from .parallel.common import Certificate, Outcome
from .parallel.picard import picard
from .parallel.settings import Picard
from .planners.multistep import Startup, check_startup
from .planning import grid_key, plan_program
from .program import Program
from .run import run
from .schedules.base import Schedule
from .watching import Bar, Callback, Observer


@dataclass(frozen=True, eq=False)
class Solution:
    """What `solve` returns.

    x: the end state, shape and dtype of the start. nfe: model evaluations per sample, counted. rounds: how
    many sequential batched model calls they took. times: float64, the grid (or the accepted steps' span);
    read-only.
    trajectory: (steps + 1, B, ...), the state at every time, if it was asked for. program: the table, if any.
    certificate: of a parallel run, how far it is from the sequential one; nfe is then of the sample that took most.
    """

    x: torch.Tensor
    nfe: int
    rounds: int
    times: np.ndarray
    trajectory: torch.Tensor | None = None
    program: Program | None = None
    certificate: Certificate | None = None


def sample(den: Denoiser, x: torch.Tensor, **options: Any) -> torch.Tensor:
    """The end of the trajectory from ``x``: ``solve(den, x, **options).x``."""
    return solve(den, x, **options).x


def solve(
    den: Denoiser,
    x: torch.Tensor,
    *,
    solver: str | Solver = "dpmpp-2m",
    steps: int | None = None,
    nfe: int | None = None,
    grid: str | Any = "logsnr",
    t_start: float | None = None,
    t_end: float | None = None,
    startup: Startup = "ramp",
    rtol: float | None = None,
    atol: float | None = None,
    seed: Seed | None = None,
    sample_ids: Iterable[int] | None = None,
    generator: torch.Generator | None = None,
    brownian: bool = False,
    noise: NoiseFunction | None = None,
    parallel: Picard | None = None,
    progress: bool = False,
    callback: Callback | None = None,
    trajectory: bool = False,
    **options: Any,
) -> Solution:
    """Solve the PF-ODE, or a reverse SDE, from ``x`` at t_start to t_end.

    den:      a `Denoiser`.
    x:        (B, ...), floating; the state x_s at the start of the span: sigma(t_start) times standard normals
              for pure noise, or alpha x0 + sigma noise for image-to-image with a ``t_start`` inside.
    solver:   a name (`solver_names`) or a `Solver`.
    steps:    number of grid steps, or  nfe: a budget of model evaluations, of which the largest program that
              fits is run. One of the two, unless ``grid`` is an array or the solver adaptive.
    grid:     "logsnr", "karras" or "time" (see `logsnr.grid`), or a 1-D array of times, strictly monotone.
    startup:  how multistep solvers start: "ramp" (no extra evaluations, global order at most 2) or
              "single-step" (extra evaluations, full order).
    rtol, atol: tolerances of adaptive solvers (defaults 1e-5); they choose their own steps. A solver that has both, as
              "dopri5" has, is adaptive if either is given, or if there is neither a number of steps nor a budget.
    seed:     for stochastic solvers: one number, or one per sample. Noise is addressed by (seed, sample id,
              interval, element), so a sample has the same bits alone as in any batch, on any device and with any
              number of threads. By default a seed is drawn from ``generator``, or else from torch's own numbers.
    sample_ids: what tells apart samples of one seed; 0, 1, ... by default, and 0 where each has its own seed.
    brownian: noise is the increment of one Brownian path per sample, the same at any number of steps, on the clock
              of the solver's eta (of the reverse SDE for solvers that have none).
    noise:    in place of a seed, noise(key, like): independent standard normals like ``like`` for every
              key (s, t, stream), an interval of time; asked once for each. Deterministic solvers accept and
              ignore all of these.
    parallel: a `Picard`: evaluate windows of calls at once, until they agree.
    options:  of the solver, as for `logsnr.solver`: ``eta=0.5``.
    progress: show a bar. callback(node, t, state) after every grid step; clone the state to keep it.

    The state is fp32, or fp64 if x or the model is. Gradients are recorded if x requires them,
    otherwise the model runs without. Raises ValueError or TypeError for arguments that do not fit, before the
    first model call, and NonFiniteError if the model returns an infinity or a NaN; inside torch.compile and vmap
    nobody can look at what it returns.
    """
    method = _configured(solver, options) if options else find_solver(solver)
    if not isinstance(den, Denoiser):
        raise TypeError(f"den must be a logsnr.Denoiser, not {type(den).__name__}")
    check_state(x)
    _check_device(den, x)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a callable callback(node, t, state), not {type(callback).__name__}")
    if parallel is not None and not isinstance(parallel, Picard):
        raise TypeError(f"parallel must be a logsnr.Picard, not {type(parallel).__name__}")
    t_start, t_end = end_time("t_start", t_start), end_time("t_end", t_end)
    check_startup(startup)
    unplanned = steps is None and nfe is None and isinstance(grid, str)
    if method.adaptive and (unplanned or rtol is not None or atol is not None or method.planner is None):
        _refuse(method, steps=steps, nfe=nfe, parallel=parallel)
        ends = _span(den.schedule, grid, t_start, t_end)
        with _recording(x):
            return _adaptive(den, x, method, ends, rtol, atol, trajectory, progress, callback)
    if rtol is not None or atol is not None:
        raise ValueError(f"rtol and atol are for adaptive solvers; {method.name} takes fixed steps")
    state, model = den.state_dtype(x), den.dtype(x)
    lowered = _plan(
        method, den.schedule, steps, nfe, grid_key(grid), t_start, t_end, startup, den.prediction, state,
        model, den.time if isinstance(den.time, str) else None,
    )  # fmt: skip
    program, watched = lowered.program, bool(trajectory or progress or callback)
    source = None
    if lowered.stochastic:
        source = noise_source(
            program, den.schedule, x, seed=seed, sample_ids=sample_ids, generator=generator, brownian=brownian,
            eta=method.eta, noise=noise,
        )  # fmt: skip
    if parallel is None and not watched:
        with _recording(x):
            end, count = run(lowered, den, x, noise=source)
        return Solution(end if end.dtype is x.dtype else end.to(x.dtype), count, count, lowered.grid, program=program)
    with _recording(x), Bar(progress, program.name, program.steps) as bar:
        observer = Observer(x.to(state) if trajectory else None, bar, callback)
        if parallel is None:
            end, count = run(lowered, den, x, noise=source, observe=observer.node)
            return Solution(end.to(x.dtype), count, count, lowered.grid, observer.stacked(x.dtype), program)
        found: Outcome = picard(lowered, den, x, parallel, noise=source, keep=watched)
        if watched:
            found.replay(observer.node)
        end, states = found.x.to(x.dtype), observer.stacked(x.dtype)
        return Solution(end, found.nfe, found.rounds, lowered.grid, states, program, found.certificate)


def _configured(solver: str | Solver, options: dict[str, Any]) -> Solver:
    """With its options; a keyword that is none may be an argument of `solve` misspelt."""
    method = find_solver(solver, compat=options.pop("compat", False))
    try:
        return find_solver(method, **options)
    except ValueError as error:
        unknown = options.keys() - {option.name for option in method.options}
        arguments = [name for name, p in signature(solve).parameters.items() if p.kind is p.KEYWORD_ONLY]
        close = [near for name in unknown for near in get_close_matches(name, arguments, n=1, cutoff=0.7)]
        raise ValueError(f"{error}; did you mean {' and '.join(close)}?" if close else str(error)) from None


def _recording(x: torch.Tensor) -> Any:
    """Gradients only where ``x`` asks for them. Half the time of no_grad, which counts: it is a third of a step."""
    return nullcontext() if x.requires_grad else torch.set_grad_enabled(False)


def _plan(*setting: Any) -> Lowered:
    try:
        return _planned(*setting)
    except TypeError:
        for name, value in zip(("steps", "nfe"), setting[2:4], strict=True):
            if not isinstance(value, Hashable):  # a list, an array
                raise ValueError(f"{name} must be an integer, not {value!r}") from None
        raise


_plan._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch.compiler.assume_constant_result, imported cheaply


@lru_cache(maxsize=256, typed=True)  # 10.0 steps are an error even after 10 have been planned
def _planned(
    method: Solver,
    sch: Schedule,
    steps: int | None,
    nfe: int | None,
    grid: str | tuple[float, ...],
    t_start: float | None,
    t_end: float | None,
    startup: Startup,
    prediction: str,
    state: torch.dtype,
    model: torch.dtype,
    time: str | None,
) -> Lowered:
    """Everything that can be known before the first model call."""
    program = plan_program(method, sch, steps=steps, nfe=nfe, grid=grid, t_start=t_start, t_end=t_end, startup=startup)
    lowered = lower(program, sch, prediction, state=state, model=model)
    if time is None:  # a callable of the user's: asked at every run
        return lowered
    with torch.inference_mode(False):  # for runs outside it too
        told = told_as(time_map(time, sch)(torch.tensor(lowered.times, dtype=torch.float64)), model)
        return replace(lowered, told=told.unsqueeze(1))


def _span(sch: Schedule, grid: Any, t_start: float | None, t_end: float | None) -> np.ndarray:
    if isinstance(grid, str):
        return make_grid(sch, 1, grid, t_start=t_start, t_end=t_end)
    if t_start is not None or t_end is not None:
        raise ValueError("an array of times is the whole grid; leave out t_start and t_end")
    return check_grid(sch, grid)


def _refuse(method: Solver, **given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name} = {value} does not go with an adaptive run of {method.name}; give rtol and atol")


def _check_device(den: Denoiser, x: torch.Tensor) -> None:
    if isinstance(den.model, torch.nn.Module):
        for p in den.model.parameters():
            if p.device != x.device:
                raise ValueError(f"x is on {x.device}, but the model's parameters are on {p.device}")
            break


def _adaptive(
    den: Denoiser, x: torch.Tensor, method: Solver, times: np.ndarray, rtol: float | None, atol: float | None,
    trajectory: bool, progress: bool, callback: Callback | None,
) -> Solution:  # fmt: skip
    rtol, atol = (1e-5 if tol is None else tol for tol in (rtol, atol))
    times.setflags(write=False)
    with Bar(progress, f"{method.name}, evaluations", None) as bar:
        states, nfe = adaptive_solve(den, x, str(method.adaptive), times, rtol=rtol, atol=atol, count=bar.show)
    if callback:
        for node in range(1, len(times)):
            callback(node, float(times[node]), states[node])
    return Solution(states[-1].to(x.dtype), nfe, nfe, times, states.to(x.dtype) if trajectory else None)
