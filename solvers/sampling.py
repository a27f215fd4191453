"""`sample` and `solve`: check everything, plan (once per setting), run."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from inspect import signature
from typing import Any

import torch

from .adaptive.solve import adaptive_solution
from .arguments import How, check_arguments, check_times_given, check_together
from .catalogue.catalogue import Solver
from .catalogue.catalogue import solver as find_solver
from .catalogue.planning import Layout, layout_key
from .catalogue.solver import Planner
from .denoisers.complex_states import run_of_parts
from .denoisers.denoiser import Denoiser
from .grids.levels import Shift
from .names import argument_hint
from .parallel.picard import picard
from .parallel.rounds import rounds
from .parallel.settings import Picard, Rounds
from .programs.lower import Lowered
from .programs.program import Program
from .programs.provenance import warn_of_another
from .runs.checkpointing import run_in_groups
from .runs.coordinates import in_coordinates, out_of_coordinates
from .runs.noise import NoiseFunction, noise_source, warn_of_spread
from .runs.normals import Seed
from .runs.plans import laid_out, lowered_for
from .runs.run import recording, run
from .runs.solution import Solution, finished
from .runs.starts import Starts, run_each, start_times
from .runs.watching import Bar, Callback, Observer
from .signatures import takes_what

EXECUTORS: dict[type, Any] = {Picard: picard, Rounds: rounds}


def solve(
    den: Denoiser,
    x: torch.Tensor,
    *,
    solver: str | Solver | Planner | Program = "auto",
    steps: int | None = None,
    nfe: int | None = None,
    grid: str | Any | None = None,
    grid_options: Mapping[str, Any] | None = None,
    sigmas: Any = None,
    lams: Any = None,
    shift: float | Shift | None = None,
    t_start: Any = None,
    t_end: float | None = None,
    startup: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    seed: Seed | None = None,
    sample_ids: Iterable[int] | None = None,
    generator: torch.Generator | None = None,
    brownian: bool = False,
    noise: NoiseFunction | None = None,
    parallel: Picard | Rounds | None = None,
    progress: bool = False,
    callback: Callback | None = None,
    trajectory: bool = False,
    grad: bool = False,
    checkpoint: int | None = None,
    on_nan: str = "raise",
    **options: Any,
) -> Solution:
    """Solve the PF-ODE, or a reverse SDE, from ``x`` at t_start to t_end.

    den:      a `Denoiser`.
    x:        (B, ...), floating or complex; the state x_s at the start of the span: sigma(t_start) times standard
              normals for pure noise, or alpha x0 + sigma noise for image-to-image with a ``t_start`` inside.
    solver:   "auto", which chooses a method and, where no grid is given, a grid for the budget (`Solution.program`
              says which); or a name (`solver_names`), a `Solver`, a planner of one's own, or a `Program`, run as it is.
    steps:    number of grid steps, or  nfe: a budget of model evaluations, of which the largest program that
              fits is run. One of the two, unless ``grid`` is an array, the solver adaptive or a `Program`.
    grid:     a name (`grid_names`, docs/grids.md) with its ``grid_options``, a function on [0, 1] (see `logsnr.grid`),
              "logsnr" by default but for "auto"; or a 1-D array of times, strictly monotone.
    sigmas, lams: in place of a grid, its noise levels: sigma/alpha (sigma itself where alpha + sigma = 1), or
              log(alpha/sigma). Levels beyond the schedule are refused, but for roundings.
    shift:    of flow models, with named grids and functions: a positive number, or a `logsnr.Shift`.
    startup:  how multistep solvers start: "ramp" (no extra evaluations, global order at most 2) or
              "single-step" (extra evaluations, full order).
    rtol, atol: tolerances of adaptive solvers, which choose their own steps (by default 1e-3 for the pairs dpm-12,
              dpm-23 and adams-*, 1e-5 for those of torchdiffeq). A solver that has both, as "dopri5" has, is adaptive
              if either is given, or if there is neither a number of steps nor a budget.
    seed:     for stochastic solvers: one number, or one per sample. Noise is addressed by (seed, sample id,
              interval, element), so a sample has the same bits alone as in any batch, on any device and with any
              number of threads. By default a seed is drawn from ``generator``, or else from torch's own numbers.
    sample_ids: what tells apart samples of one seed; 0, 1, ... by default, and 0 where each has its own seed.
    brownian: noise is the increment of one Brownian path per sample, the same at any number of steps, on the clock
              of the program's eta (of the reverse SDE for those that have none).
    noise:    in place of a seed, noise(key, like): independent standard normals like ``like`` for every
              key (s, t, stream), an interval of time; asked once for each. Deterministic solvers accept and
              ignore all of these.
    parallel: a `Picard`: evaluate windows of calls at once, until they agree; or `Rounds`: calls of a program at once
              that do not need each other's answers.
    options:  of the solver, as for `logsnr.solver`: ``eta=0.5``.
    progress: show a bar.
    callback: callback(node, t, state), or callback(node, t, state, x0) with the model's estimate of the clean data at
              the call before (None if that asked no model), after every grid step; clone the state to keep it. It may
              edit the state or return a new one, from which the run goes on; parallel and adaptive runs refuse that,
              and so do solvers that go on from elsewhere (edm-churn, ald). It ends the run where it raises
              `logsnr.StopSampling`.
    grad:     record gradients to the model's weights, conditions and guidance scale, too; those to x are recorded
              where it requires them. None come back to times and levels: those that require them are refused.
    checkpoint: with grad, how many calls are made again at a time when gradients are wanted: the memory is that of so
              many calls, and of one state for each such group. The numbers are the same. For those who watch, groups
              end at nodes.
    on_nan:   "raise", or "keep": samples that stop being finite stay so, a warning and `Solution.failed` name them,
              and the others are returned as they would be alone.

    The state is fp32, or fp64 if x or the model is. The model runs without recording gradients unless x or ``grad``
    asks for them. Raises ValueError or TypeError for arguments that do not fit, before the first model call, and
    NonFiniteError if the model's answer, the state or the result stops being finite; inside torch.compile and vmap
    nobody can look at them.
    """
    method = _method(solver, options)
    flags = {"trajectory": trajectory, "progress": progress, "brownian": brownian, "grad": grad}
    check_arguments(den, x, parallel, callback, on_nan, checkpoint, **flags)
    check_times_given(x, grad, t_start=t_start, t_end=t_end, grid=grid, sigmas=sigmas, lams=lams)
    if parts := x.is_complex():
        den, x, callback, noise = run_of_parts(den, x, callback, noise)
    each, keep = start_times(t_start, x), on_nan == "keep"
    fields = layout_key(
        steps, nfe, grid, each[0] if each else t_start, t_end, startup, grid_options, sigmas, lams, shift
    )
    how = How(parallel, progress, callback, trajectory, grad, checkpoint, keep)
    layout = laid_out(*fields)
    if isinstance(method, Solver) and is_adaptive(method, layout, rtol, atol):
        with recording(x, grad):
            return finished(adaptive_solution(den, x, method, layout, rtol, atol, how, each), x, keep, parts)
    if rtol is not None or atol is not None:
        raise ValueError(f"rtol and atol are for adaptive solvers; {method.name} takes fixed steps")
    found = _with_fixed_steps(method, den, x, fields, each, (seed, sample_ids, generator, brownian, noise), how)
    with recording(x, grad):
        return finished(found, x, keep, parts)


def _with_fixed_steps(
    method: Solver | Program, den: Denoiser, x: torch.Tensor, fields: Any, each: Any, sources: Any, how: How
) -> Solution:
    """Plan and run. fields: of the `Layout`; each: the starts of the samples, if they have their own; sources: of the
    noise, as for `noise_source`."""
    planned = partial(lowered_for, method, den, x, coordinates=True)
    starts = Starts.planned(each, lambda t: planned((*fields[:3], t, *fields[4:]), False)) if each else None
    lowered = starts.plans[0] if starts else planned(fields, how.parallel is None)
    program = lowered.program
    check_together(lowered, how.parallel, starts, how.checkpoint)
    if lowered.pure_noise and not (starts and len(starts.plans) > 1):
        warn_of_spread(x, program, lowered.pure_noise, den.spread)
    if program.provenance:
        warn_of_another(program, den)
    source: Any = starts.noises(den, x, *sources) if starts else noise_source(program, den.schedule, x, *sources)
    with recording(x, how.grad), Bar(how.progress, program.name, program.steps) as bar:
        begun, callback, observer = x, how.callback, None
        if program.basis is not None:
            den, x, callback = in_coordinates(program.basis, den, x, callback)
        if how.trajectory or how.progress or callback:
            start = x if how.trajectory else None
            observer = Observer(program, den.state_dtype(x), start, bar, callback, how.parallel is None)
        found = _carried_out(starts or lowered, den, x, source, observer, how)
        found = observer.seen(found, x.dtype) if observer else found
        return found if program.basis is None else out_of_coordinates(program.basis, found, begun)


def _carried_out(
    plan: Lowered | Starts, den: Denoiser, x: torch.Tensor, source: Any, observer: Observer | None, how: How
) -> Solution:
    """By the executor that is asked for."""
    watched: dict[str, Any] = {"observe": observer, "keep": how.keep}
    if how.parallel:
        return EXECUTORS[type(how.parallel)](plan, den, x, how.parallel, noise=source, **watched)
    if isinstance(plan, Starts):
        end, made = run_each(plan, den, x, source, functional=how.grad, **watched)
        return Solution(end, made, made, plan.grids)
    program = plan.program
    if how.checkpoint and not torch.is_inference_mode_enabled():  # where nothing is recorded
        end, made = run_in_groups(plan, den, x, how.checkpoint, noise=source, **watched)
    else:
        end, made = run(plan, den, x, noise=source, functional=how.grad, **watched)
    rounds = made
    if den.guidance and den.guidance.batched:
        rounds = observer.calls(program) if observer else sum(plan.asks)
    return Solution(end, made, rounds, program.times, program=program)


@takes_what(solve)
def sample(den: Denoiser, x: torch.Tensor, **options: Any) -> torch.Tensor:
    """The end of the trajectory from ``x``: ``solve(den, x, **options).x``. The options are those of `solve`."""
    return solve(den, x, **options).x


def _method(solver: Any, options: dict[str, Any]) -> Solver | Program:
    """The solver with its options; a keyword that is none may be an argument of `solve` misspelt."""
    if isinstance(solver, Program):
        if options:
            raise ValueError(f"a program has no options; leave out {' and '.join(options)}")
        return solver
    if not options:
        return find_solver(solver)
    compat = options.pop("compat", False)
    method = find_solver(solver, compat=compat)
    try:
        return find_solver(method, **options)
    except ValueError as error:
        unknown = options.keys() - set(method.options)
        arguments = [name for name, p in signature(solve).parameters.items() if p.kind is p.KEYWORD_ONLY]
        close = [near for name in unknown for near in get_close_matches(name, arguments, n=1, cutoff=0.7)]
        hint = argument_hint(unknown) or (f"; did you mean {' and '.join(close)}?" if close else "")
        raise ValueError(f"{error}{hint}") from None


def is_adaptive(method: Solver, layout: Layout, rtol: Any, atol: Any) -> bool:
    """Whether a run of the solver chooses its own steps."""
    tolerant = rtol is not None or atol is not None
    return bool(method.adaptive) and (layout.unplanned or tolerant or method.planner is None)
