"""`tune`: a table fitted to the denoiser that it will serve."""

import math
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

from ..denoisers.answers import check_state
from ..denoisers.complex_states import of_parts, to_parts
from ..denoisers.denoiser import Denoiser, check_denoiser
from ..grids.grids import end_time
from ..programs.call import integer
from ..programs.program import Program
from .family import Tables, powers_of, some_of
from .groups import Groups
from .job import Case, Fit, Job
from .start import Start, starts, table_starts
from .teacher import Teacher, ends

FEWEST = 64
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
                for each group, so that more noises pay. With one budget and one scale.
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
    _check(den, x, told, held_out, reference, batch, iterations, progress)
    if smooth:
        _check_smooth(smooth, budgets, together, told)
    groups = None if each is None else _check_each(each, x, budgets, smooth or scales is not None or together > 1)
    strengths = None if scales is None else _check_scales(den, scales, given, reference)
    sch = den.schedule
    span = tuple(
        default if given is None else given
        for given, default in ((end_time("t_start", t_start), sch.t_start), (end_time("t_end", t_end), sch.t_end))
    )
    if x.is_complex():
        den, x = of_parts(den, x), to_parts(x).contiguous()
        reference = None if reference is None else to_parts(reference, "reference")
    den = den.like(den.model, x)  # states are float64 from here on, but for a model that is made for those of x
    candidates = {n: starts(sch, n * together, solver, gauge, span[0], span[1], together) for n in budgets}
    if not span[0] > span[1]:
        raise ValueError(f"a fit goes from noise to data: t_start = {span[0]:.6g} must be above t_end = {span[1]:.6g}")
    cases = [
        Case(one, x, _teacher(one, x, span, reference, batch), span, held_out, batch, powers)
        for one, powers in _guided(den, strengths)
    ]
    job = Job(cases, told, iterations, progress)
    if smooth:
        return _smooth(
            job, candidates, partial(starts, sch, solver=solver, gauge=gauge, t_start=span[0], t_end=span[1])
        )
    programs, free = dict[int, Program](), solver is None and together == 1
    for n in budgets:
        try:
            known = table_starts(sch, n, gauge, den.guidance is not None, *span) if free else []
            fitted = job.fitted([(start,) for start in (*candidates[n], *known)])
            if strengths:
                return _by_scale(job, fitted, strengths)
            if groups is None or job.stopped:
                programs[n] = job.program(fitted, fitted.starts[0], cases[0])
            else:
                programs[n] = job.corrected(fitted, groups)
        except KeyboardInterrupt:  # before its fit or after it
            if not programs:
                raise
            warnings.warn(f"the fit of {n} evaluations was stopped; the programs so far are returned", stacklevel=2)
            break
        if job.stopped:
            break
    return programs if isinstance(given, Iterable) else programs[given]


def _guided(den: Denoiser, scales: list[float] | None) -> list[tuple[Denoiser, tuple[float, ...]]]:
    """The denoiser with guidance of every scale, and the powers of its case."""
    if scales is None:
        return [(den, (1.0,))]
    return [(den.guided(scale), _powers(scale, scales)) for scale in scales]


def _powers(scale: float, scales: list[float]) -> tuple[float, ...]:
    """As many as there are scales to tell them."""
    return powers_of(scale, (scales[0], scales[-1]))[: len(scales)]


def _teacher(den: Denoiser, x: torch.Tensor, span: Any, reference: torch.Tensor | None, batch: int | None) -> Teacher:
    if reference is None:
        return ends(den, x, span[0], span[1], batch)
    return Teacher(reference.double(), 0.0, torch.isfinite(reference.flatten(1)).all(1))


def _smooth(job: Job, candidates: dict[int, list[Start]], make_starts: Callable[[int], list[Start]]) -> Tables:
    """Programs by budget, of one fit."""
    fitted = job.fitted(list(zip(*(candidates[n] for n in some_of(list(candidates))), strict=True)))

    def make(n: Any) -> Program:
        start = next(start for start in make_starts(n) if start.kind == fitted.starts[0].kind)
        return job.program(fitted, start, job.cases[0])

    return Tables({n: make(n) for n in candidates}, make, "evaluations", int)


def _by_scale(job: Job, fitted: Fit, scales: list[float]) -> Tables:
    """Programs by the scale of guidance, of one fit."""
    known, told = dict(zip(scales, job.cases, strict=True)), ", ".join(f"{scale:g}" for scale in scales)

    def make(scale: float) -> Program:
        case = known[min(scales, key=lambda one: abs(math.log(one / scale)))]
        powers = None if scale in known else _powers(scale, scales)
        return job.program(fitted, fitted.starts[0], case, powers, told)

    return Tables({scale: make(scale) for scale in scales}, make, "scales", float)


def _check_each(each: Any, x: torch.Tensor, budgets: list[int], several: bool) -> Groups:
    if several:
        raise ValueError(f"each = {each!r:.60} is for one budget a fit, without smooth=, scales= and rounds=")
    if x.is_complex():
        raise ValueError(f"each = {each!r:.60} is for real samples, and x is complex")
    groups = Groups(each, tuple(x.shape[1:]))
    groups.check(max(budgets) * (max(budgets) + 3) // 2)
    return groups


def _check_scales(den: Denoiser, scales: Any, budgets: Any, reference: Any) -> list[float]:
    if den.guidance is None:
        raise ValueError("scales are those of guidance, which den has not: give it guidance=logsnr.Guidance(...)")
    if isinstance(budgets, Iterable) or reference is not None:
        raise ValueError("scales go with one budget, and with references of tune's own")
    try:
        found = sorted({float(scale) for scale in scales})
    except (TypeError, ValueError):
        found = []
    if len(found) < 2 or not 0 < found[0] <= found[-1] < math.inf:
        raise ValueError(f"scales must be two or more different positive numbers, not {scales!r:.60}")
    return found


def _check_smooth(smooth: Any, budgets: list[int], together: int, told: bool) -> None:
    if smooth is not True:
        raise TypeError(f"smooth must be True or False, not {smooth!r:.60}")
    if len(set(budgets)) < 2 or together > 1 or told:
        what = "rounds" if together > 1 else "told times" if told else f"nfe = {budgets}"
        raise ValueError(f"smooth tables are for several budgets of one call after the other, not for {what}")


def _check(
    den: Any, x: Any, told: Any, held_out: Any, reference: Any, batch: Any, iterations: Any, progress: Any
) -> None:
    check_denoiser(den)
    check_state(x, complex_too=True)
    if not x[:1].numel():
        raise ValueError(f"x has no elements: its shape is {tuple(x.shape)}")
    if x.ndim < 2 and not x.is_complex():
        raise ValueError(f"x must have axes besides the samples', as ({len(x)}, 1), not the shape {tuple(x.shape)}")
    if len(x) < FEWEST:
        raise ValueError(f"x holds {len(x)} noises; a fit needs at least {FEWEST}, and 256 are a good number")
    for name, value in (("told", told), ("progress", progress)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r:.60}")
    if not isinstance(held_out, float) or not 0.1 <= held_out <= 0.5:
        raise ValueError(f"held_out = {held_out!r:.60} must be a share from 0.1 to 0.5")
    integer("iterations", iterations, 1, 10_000)
    if batch is not None:
        integer("batch", batch, 1, len(x))
    if reference is not None:
        check_state(reference, "reference", complex_too=True)
        if reference.shape != x.shape:
            raise ValueError(f"reference must have x's shape {tuple(x.shape)}, not {tuple(reference.shape)}")
        if not bool(torch.isfinite(reference).flatten(1).all(1).any()):
            raise ValueError("reference is finite for no sample")
    den.asking([], len(x))  # conditions of another batch, and guidance that goes from call to call
