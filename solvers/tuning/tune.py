"""`tune`: a table fitted to the denoiser that it will serve."""

import math
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import torch

from ..denoisers.complex_states import of_parts, to_parts
from ..denoisers.denoiser import Denoiser
from ..grids.grids import end_time
from ..programs.call import integer
from ..programs.program import Program
from .checks import LEAST, check, check_each, check_scales, check_smooth
from .family import Tables, powers_of, some_of
from .job import Case, Fit, Job
from .start import Start, starts, table_starts
from .teacher import Teacher, ends, warn_of_missing

Found = TypeVar("Found", bound=dict[Any, Program])

LONGEST = 64
TOGETHER = 2  # calls of a round


def tune(
    den: Denoiser,
    x: torch.Tensor,
    nfe: int | Iterable[int] | None = None,
    *,
    rounds: int | Iterable[int] | None = None,
    smooth: bool | None = None,
    scales: Iterable[float] | None = None,
    solver: Any = None,
    gauge: str | None = None,
    t_start: float | None = None,
    t_end: float | None = None,
    told: bool = False,
    each: Any = None,
    held_out: float = 0.25,
    reference: torch.Tensor | None = None,
    batch: int | None = None,
    iterations: int = 40,
    progress: bool = False,
) -> Any:
    """A `Program` of ``nfe`` evaluations whose grid and weights are fitted to ``den``; of several budgets, a dict.

    den:        a `Denoiser`; its network is not trained.
    x:          (B, ...), at least 64 noises to fit to, as `solve` takes them at t_start; 256 are a good number.
                Complex ones are fitted to as their parts. Conditions of ``den`` have a row for each.
    nfe:        a budget, 8 by default, or several.
    rounds:     in place of nfe, for ``parallel=logsnr.Rounds()``: so many rounds of two calls, of which the second sees
                nothing of the first one's answer, so that the model is asked for both at once.
    smooth:     of several budgets, one set of numbers for all: steps and corrections are smooth functions of the
                fraction of the run. At most four budgets are fitted to, and the dict makes a program for every one
                between the smallest and the largest. By default so for a ``range``; else each budget has its own fit.
    scales:     of guidance, in place of ``den``'s own, two or more: one set of numbers for all, which are smooth
                functions of the scale's logarithm. The answer is a dict by scale, and makes a program for every scale
                between. With one budget.
    solver:     what to start from, an exponential Adams method in x0 or eps over lam, by name or planner; by default
                the best of a few and of the universal tables, in each gauge. gauge: "x0" or "eps", to look among those
                alone, which takes less time.
    t_start, t_end: the span, by default the schedule's. Where it passes the last level that the network knows, no call
                goes beyond it.
    told:       let the fit also choose the time that the model is told at each call but the first.
    each:       corrections for groups of elements, after the fit of one table for all: "channel", "band" (octaves of
                frequencies: the program is then in the basis of the DCT), "element", or integers of the samples' shape,
                the group of each element. They are kept if the error on held-out noise says so. A number of each table
                for each group, so that more noises pay. Not with smooth, scales and rounds.
    held_out:   the share of x, from its end, that is not fitted to, but decides: the iterate with the least mean log
                error on it is returned, and the start, with a warning, if that is the best.
    reference:  where the trajectories end, like x; by default a solve of order 5 whose steps are doubled until the ends
                do not change, and whose error is in the provenance.
    batch:      how many samples the model is asked for at once, if not all: memory is what it needs for so many, and
                for a few with gradients, 65,536 elements or one sample, whichever is more.
    iterations: at most, each of them a few passes back through the model and trial runs; fits end earlier where eight
                of them improve the error on held-out noise by less than 1 %.
    progress:   show a bar with the median error on held-out noise.

    Levenberg-Marquardt on the mean log error of the end states, by the model's gradients, or by differences where it
    has none. Ctrl-C ends the fit and returns what it has so far. Raises ValueError for fewer than 64 noises, a budget
    below 2 and whatever else does not fit, before the first model call.
    """
    if nfe is not None and rounds is not None:
        raise ValueError(f"give one of nfe and rounds, not nfe = {nfe!r:.60} and rounds = {rounds!r:.60}")
    name, given, together = ("nfe", 8 if nfe is None else nfe, 1) if rounds is None else ("rounds", rounds, TOGETHER)
    budgets = list(given) if isinstance(given, Iterable) else [given]
    if not budgets:
        raise ValueError(f"{name} must hold at least one budget")
    for budget in budgets:
        integer(name, budget, 2 // together, LONGEST // together)
    free = isinstance(given, range) and len(given) > 1 and together == 1 and not told
    smooth = free if smooth is None else smooth
    check(den, x, told, held_out, reference, batch, iterations, progress)
    if smooth:
        check_smooth(smooth, budgets, together, told)
    groups = None if each is None else check_each(each, x, budgets, smooth or scales is not None or together > 1)
    strengths = None if scales is None else check_scales(den, scales, given, reference)
    sch = den.schedule
    span = tuple(
        default if given is None else given
        for given, default in ((end_time("t_start", t_start), sch.t_start), (end_time("t_end", t_end), sch.t_end))
    )
    if x.is_complex():
        den, x = of_parts(den, x), to_parts(x).contiguous()
        reference = None if reference is None else to_parts(reference, "reference")
    x, reference = x.detach(), None if reference is None else reference.detach()
    den = den.like(den.model, x)  # states are float64 from here on, but for a model that is made for those of x
    candidates = {n: starts(sch, n * together, solver, gauge, span[0], span[1], together) for n in budgets}
    if not span[0] > span[1]:
        raise ValueError(f"a fit goes from noise to data: t_start = {span[0]:.6g} must be above t_end = {span[1]:.6g}")
    cases = _cases(den, x, span, reference, held_out, batch, strengths)
    job = Job(cases, told, iterations, progress)
    if smooth:
        fitted = job.fitted(list(zip(*(candidates[n] for n in some_of(list(candidates))), strict=True)))
        make_starts = partial(starts, sch, solver=solver, gauge=gauge, t_start=span[0], t_end=span[1])
        return _judged(_smooth(job, fitted, list(candidates), make_starts))
    programs, free = dict[int, Program](), solver is None and together == 1
    for n in budgets:
        try:
            known = table_starts(sch, n, gauge, den.guidance is not None, *span) if free else []
            fitted = job.fitted([(start,) for start in (*candidates[n], *known)])
            if strengths:
                return _judged(_by_scale(job, fitted, strengths))
            programs[n] = job.program(fitted, fitted.starts[0], cases[0])
            if groups and not job.stopped:
                programs[n] = job.corrected(fitted, groups, programs[n])
        except KeyboardInterrupt:  # before its fit or after it
            if not programs:
                raise
            warnings.warn(f"the fit of {n} evaluations was stopped; the programs so far are returned", stacklevel=2)
            break
        if job.stopped:
            break
    _judged(programs)
    return programs if isinstance(given, Iterable) else programs[given]


def _cases(
    den: Denoiser, x: torch.Tensor, span: Any, reference: torch.Tensor | None, held_out: float, batch: int | None,
    scales: list[float] | None,
) -> list[Case]:  # fmt: skip
    """One, or one for guidance of every scale. Warns the caller of `tune` of noises that are left out."""
    guided = [(den, (1.0,))] if scales is None else [(den.guided(scale), _powers(scale, scales)) for scale in scales]
    cases = list[Case]()
    for one, powers in guided:
        teacher = _teacher(one, x, span, reference, batch)
        warn_of_missing(teacher, "the model" if reference is None else "the reference", 3)
        if (left := int(teacher.good.sum())) < LEAST:
            raise ValueError(f"{left} of {len(x)} noises have a finite end; a fit needs at least {LEAST}")
        cases.append(Case(one, x, teacher, span, held_out, batch, powers))
    return cases


def _powers(scale: float, scales: list[float]) -> tuple[float, ...]:
    """As many as there are scales to tell them."""
    return powers_of(scale, (scales[0], scales[-1]))[: len(scales)]


def _teacher(den: Denoiser, x: torch.Tensor, span: Any, reference: torch.Tensor | None, batch: int | None) -> Teacher:
    if reference is None:
        return ends(den, x, span[0], span[1], batch)
    return Teacher(reference.double(), math.nan, torch.isfinite(reference.flatten(1)).all(1))


def _judged(programs: Found) -> Found:
    """The programs; with a warning to the caller of `tune` where a fit came as near as its reference is."""
    for program in programs.values():
        told = program.provenance
        median, error = float(told.get("held-out median", math.inf)), float(told.get("reference error", 0.0))
        if told["iterations"] and median < 3 * error:
            warnings.warn(
                f"the error on held-out noise, {median:.1e}, is as small as that of the reference, {error:.1e}: the "
                "reference is no better than the table", stacklevel=3,
            )  # fmt: skip
    return programs


def _smooth(job: Job, fitted: Fit, budgets: list[int], make_starts: Callable[[int], list[Start]]) -> Tables:
    """Programs by budget, of one fit."""

    def make(n: Any) -> Program:
        start = next(start for start in make_starts(n) if start.kind == fitted.starts[0].kind)
        return job.program(fitted, start, job.cases[0])

    return Tables({n: make(n) for n in budgets}, make, "evaluations", int)


def _by_scale(job: Job, fitted: Fit, scales: list[float]) -> Tables:
    """Programs by the scale of guidance, of one fit."""
    known, told = dict(zip(scales, job.cases, strict=True)), ", ".join(f"{scale:g}" for scale in scales)

    def make(scale: float) -> Program:
        case = known[min(scales, key=lambda one: abs(math.log(one / scale)))]
        powers = None if scale in known else _powers(scale, scales)
        return job.program(fitted, fitted.starts[0], case, powers, told)

    return Tables({scale: make(scale) for scale in scales}, make, "scales", float)
