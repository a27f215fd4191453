"""`tune`: a table fitted to the denoiser that it will serve."""

from collections.abc import Iterable
from typing import Any

import torch

from .call import integer
from .complex_states import of_parts, to_parts
from .denoiser import Denoiser, check_state
from .grids import end_time
from .program import Program
from .tune_family import Tables, some_of
from .tune_job import Job
from .tune_start import starts
from .tune_teacher import ends

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
    solver: Any = None,
    gauge: str | None = None,
    t_start: float | None = None,
    t_end: float | None = None,
    told: bool = False,
    held_out: float = 0.25,
    reference: torch.Tensor | None = None,
    iterations: int = 40,
    progress: bool = False,
) -> Any:
    """A `Program` of ``nfe`` evaluations whose grid and weights are fitted to ``den``; of several budgets, a dict.

    den:        a `Denoiser`; its network is not trained.
    x:          (B, ...), at least 64 noises to fit to, as `solve` takes them at t_start; 256 are a good number.
                Complex ones are fitted to as their parts.
    nfe:        a budget, 8 by default, or several.
    rounds:     in place of nfe, for ``parallel=logsnr.Rounds()``: so many rounds of two calls, of which the second sees
                nothing of the first one's answer, so that the model is asked for both at once.
    smooth:     of several budgets, one set of numbers for all: steps and corrections are smooth functions of the
                fraction of the run. At most four budgets are fitted to, and the dict makes a program for every one
                between the smallest and the largest. By default so for a ``range``; else each budget has its own fit.
    solver:     what to start from, an exponential Adams method in x0 or eps over lam, by name or planner; by default
                the best of a few in each gauge. gauge: "x0" or "eps", to look among those alone, which takes less time.
    t_start, t_end: the span, by default the schedule's.
    told:       let the fit also choose the time that the model is told at each call but the first.
    held_out:   the share of x, from its end, that is not fitted to, but decides: the iterate with the least mean log
                error on it is returned, and the start, with a warning, if that is the best.
    reference:  where the trajectories end, like x; by default a solve of order 5 whose steps are doubled until the ends
                do not change, and whose error is in the provenance.
    iterations: at most, each of them one Jacobian and a few trial runs; fits end earlier where nothing improves.
    progress:   show a bar with the median error on held-out noise.

    Levenberg-Marquardt on the mean log error of the end states. The Jacobian is taken by forward mode, and by central
    differences for models that have none. Ctrl-C ends the fit and returns what it has so far. Raises ValueError for
    fewer than 64 noises, a budget below 2 and whatever else does not fit, before the first model call.
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
    _check(den, x, told, held_out, reference, iterations, progress)
    if smooth:
        _check_smooth(smooth, budgets, together, told)
    sch = den.schedule
    span = tuple(
        default if given is None else given
        for given, default in ((end_time("t_start", t_start), sch.t_start), (end_time("t_end", t_end), sch.t_end))
    )
    if x.is_complex():
        den, x = of_parts(den, x), to_parts(x).contiguous()
        reference = None if reference is None else to_parts(reference, "reference")
    candidates = {n: starts(sch, n * together, solver, gauge, span[0], span[1], together) for n in budgets}
    if reference is None:
        found, error, good = ends(den, x, span[0], span[1])
    else:
        found, error, good = reference.double(), 0.0, torch.isfinite(reference.flatten(1)).all(1)
    job = Job(den, x[good], found[good], span, error, held_out, told, iterations, progress)
    if smooth:
        fitted = job.fitted(list(zip(*(candidates[n] for n in some_of(budgets)), strict=True)))

        def make(n: int) -> Program:
            others = starts(sch, n, solver, gauge, span[0], span[1])
            return job.program(fitted, next(start for start in others if start.kind == fitted.starts[0].kind))

        return Tables({n: make(n) for n in budgets}, make)
    programs: dict[int, Program] = {}
    for n in budgets:
        fitted = job.fitted([(start,) for start in candidates[n]])
        programs[n] = job.program(fitted, fitted.starts[0])
        if job.stopped:
            break
    return programs if isinstance(given, Iterable) else programs[given]


def _check_smooth(smooth: Any, budgets: list[int], together: int, told: bool) -> None:
    if smooth is not True:
        raise TypeError(f"smooth must be True or False, not {smooth!r:.60}")
    if len(set(budgets)) < 2 or together > 1 or told:
        what = "rounds" if together > 1 else "told times" if told else f"nfe = {budgets}"
        raise ValueError(f"smooth tables are for several budgets of one call after the other, not for {what}")


def _check(den: Any, x: Any, told: Any, held_out: Any, reference: Any, iterations: Any, progress: Any) -> None:
    if not isinstance(den, Denoiser):
        raise TypeError(f"den must be a logsnr.Denoiser, not {type(den).__name__}")
    check_state(x, complex_too=True)
    if len(x) < FEWEST:
        raise ValueError(f"x holds {len(x)} noises; a fit needs at least {FEWEST}, and 256 are a good number")
    for name, value in (("told", told), ("progress", progress)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r:.60}")
    if not isinstance(held_out, float) or not 0.1 <= held_out <= 0.5:
        raise ValueError(f"held_out = {held_out!r:.60} must be a share from 0.1 to 0.5")
    integer("iterations", iterations, 1, 10_000)
    if reference is not None:
        check_state(reference, "reference", complex_too=True)
        if reference.shape != x.shape:
            raise ValueError(f"reference must have x's shape {tuple(x.shape)}, not {tuple(reference.shape)}")
