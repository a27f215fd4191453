"""`compare`: which solver suits a denoiser, measured on the denoiser itself."""

import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypedDict

import torch

from ..solvers.denoisers.answers import check_state
from ..solvers.denoisers.denoiser import Denoiser, check_denoiser, device_of
from ..solvers.grids.grids import GRIDS
from ..solvers.grids.grids import grid as make_grid
from ..solvers.programs.call import finite, integer
from ..solvers.programs.program import Program
from ..solvers.programs.provenance import fingerprint
from ..solvers.runs.normals import start
from ..solvers.runs.watching import Bar
from ..solvers.sampling import solve
from ..solvers.tuning.checks import FEWEST
from ..solvers.tuning.teacher import Teacher, ends, spread, warn_of_missing
from ..solvers.tuning.tune import tune
from .compare_plan import QUICK, TUNED, Candidate, candidates, whole_numbers
from .comparison import Comparison
from .comparison_rows import Conditions, LawRow, PathRow, exact_distances, in_law, on_path

FEWEST_SAMPLES = 4
FAR = 0.1  # of the data's spread: an error that counts as another picture


class Span(TypedDict):
    t_start: float | None
    t_end: float | None


def compare(
    den: Denoiser,
    nfe: int | Iterable[int] = 8,
    *,
    event_shape: Sequence[int] | None = None,
    x: torch.Tensor | None = None,
    solvers: Any = QUICK,
    grids: str | Iterable[str] = GRIDS,
    startups: str | Iterable[str] = ("ramp", "single-step"),
    tuned: int = 0,
    samples: int = 16,
    law_samples: int = 64,
    seed: int = 0,
    t_start: float | None = None,
    t_end: float | None = None,
    threshold: float | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Run solvers on ``den`` from the same noise, and say which comes nearest to where its trajectories end.

    den:         a `Denoiser`, with its conditions and guidance.
    nfe:         a budget of model evaluations, or several; each solver runs the largest program within each.
    event_shape: of one sample, as (3, 32, 32): starts are `logsnr.start` with ``seed``, in the model's dtype, float32
                 at least. Or  x: the starts (B, ...) themselves, at t_start, which then count instead of ``samples``.
    solvers:     names, solvers, planners and programs of one's own; "all" is every solver with fixed steps. By default
                 "auto", "universal" and six more. "auto" and "universal" bring their own grids.
    grids:       names of `logsnr.grid_names`. startups: "ramp", "single-step" or both; where a solver makes the same
                 program of both, that is one row.
    tuned:       how many other noises, 64 at least, to fit a table to for each budget (`logsnr.tune`); 0: no table.
    law_samples: how many samples stochastic solvers are judged by, if one is among ``solvers``.
    threshold:   an error that counts as another picture; by default a tenth of the spread of the ends.
    progress:    show a bar; None: where the output is a terminal.

    The reference is a solve of order 5 whose steps are doubled until the ends do not change (`tune` has the same). Its
    error is the median distance from the solve with half the steps; below that nothing is ranked. A sample's error is
    its root mean square over the event. Stochastic solvers follow no path: they are judged by the energy distance and
    the sliced W2 of what they make of other noise to the ends of the reference, beside what exact samples have.

    A run that is not finite is a row that says so. Ctrl-C ends the runs and returns the rows so far. Raises TypeError
    and ValueError, before the first model call, for arguments that do not fit and if nothing is possible; ValueError if
    the reference is finite for no sample.
    """
    given, budgets = _start(den, x, event_shape), whole_numbers("nfe", nfe)
    _check(samples, law_samples, tuned, seed, threshold, progress)
    span = Span(t_start=t_start, t_end=t_end)
    s, t = make_grid(den.schedule, 1, **span).tolist()
    event, count = (tuple(given.shape[1:]), len(given)) if isinstance(given, torch.Tensor) else (given, samples)
    if not event:
        raise ValueError("samples must have an axis, which errors are means over, as of event_shape=(1,)")
    integer("samples" if x is None else "len(x)", count, FEWEST_SAMPLES, 1_000_000)
    planned, notes = candidates(den, event, budgets, solvers, grids, startups, span)
    noisy = any(candidate.noisy for candidate in planned)
    if noisy and x is not None:
        raise ValueError("stochastic solvers are judged by the law of pure noise's ends: give event_shape, not x")

    def noise(n: int, stream: int) -> torch.Tensor:
        """n noises that no other stream has."""
        return _noise(den, (n, *event), seed + stream, s)

    begin = noise(max(count, law_samples * noisy), 0) if x is None else x.detach()
    with Bar(sys.stderr.isatty() if progress is None else progress, "reference", None) as bar:
        teacher, calls = _reference(den, begin, s, t)
        if tuned:
            planned += _tuned(den, noise(tuned, 1), budgets, span)
        fresh = noise(law_samples, 2) if noisy else begin[:0]
        asked = Asked((s, t), count, seed, threshold, calls * len(begin), tuned)
        return measured(den, planned, notes, begin, fresh, teacher, asked, bar)


class Asked(NamedTuple):
    """What `measured` is told besides: the span, how many starts are followed, and what only goes into the report."""

    span: tuple[float, float]
    followed: int
    seed: int
    threshold: float | None = None
    reference_cost: int = 0
    tuned: int = 0


def measured(
    den: Denoiser, planned: list[Candidate], notes: list[str], begin: torch.Tensor, fresh: torch.Tensor,
    teacher: Teacher, asked: Asked, bar: Bar,
) -> Comparison:  # fmt: skip
    """The rows of what is planned, from ``begin``, whose ends are the teacher's; what adds noise, from ``fresh``."""
    law = teacher.end[teacher.good]
    far = FAR * spread(law) if asked.threshold is None else asked.threshold
    kept, end = teacher.good[: asked.followed], teacher.end[: asked.followed]
    rows, laws = list[PathRow](), list[LawRow]()
    try:
        for k, candidate in enumerate(planned, start=1):
            bar.show(k, f"{candidate.solver}, {k} of {len(planned)}")
            if candidate.noisy:
                laws.append(in_law(candidate, _run(den, fresh, candidate.program, asked.seed), law))
            else:
                made = _run(den, begin[: asked.followed], candidate.program, asked.seed)
                rows.append(on_path(candidate, made[kept], end[kept], far))
    except KeyboardInterrupt:
        if not rows and not laws:
            raise
        notes = [*notes, f"stopped after {len(rows) + len(laws)} of {len(planned)} runs: the others have no row"]
        warnings.warn(notes[-1], stacklevel=3)
    cost = asked.followed * sum(row.nfe_used for row in rows) + len(fresh) * sum(row.nfe_used for row in laws)
    said = Conditions(
        fingerprint(den), *asked.span, tuple(begin.shape[1:]), int(kept.sum()), len(fresh), asked.seed,
        teacher.error, spread(law), far, asked.reference_cost, cost, asked.tuned,
    )  # fmt: skip
    exact = exact_distances(law, len(fresh), asked.seed) if laws else {}
    return Comparison(said, tuple(rows), tuple(laws), tuple(notes), exact)


def _start(den: Any, x: Any, event_shape: Any) -> torch.Tensor | tuple[int, ...]:
    """The one of the two that was given; ValueError unless it is one, and fits."""
    check_denoiser(den)
    if (x is None) == (event_shape is None):
        raise ValueError("a denoiser needs either x, start states (B, ...), or event_shape, to start from noise")
    if x is not None:
        check_state(x)
        return x
    shape = tuple(event_shape)
    if not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"event_shape must hold positive integers, not {shape}")
    return shape


def _check(samples: Any, law_samples: Any, tuned: Any, seed: Any, threshold: Any, progress: Any) -> None:
    integer("samples", samples, FEWEST_SAMPLES, 1_000_000)
    integer("law_samples", law_samples, FEWEST_SAMPLES, 1_000_000)
    integer("seed", seed, 0, (1 << 64) - 3)
    if tuned != 0:
        integer("tuned, a number of noises,", tuned, FEWEST, 1_000_000)
    if threshold is not None and not finite("threshold", threshold) > 0:
        raise ValueError(f"threshold = {threshold} must be positive")
    if progress not in (None, True, False):
        raise TypeError(f"progress must be True, False or None, not {progress!r:.60}")


def _noise(den: Denoiser, shape: tuple[int, ...], seed: int, t_start: float) -> torch.Tensor:
    """Pure noise, in the model's dtype but at least float32, where the model's parameters are."""
    device = device_of(den.model) or torch.device("cpu")
    dtype = torch.promote_types(den.dtype(torch.zeros(1, dtype=torch.float32)), torch.float32)
    return start(den.schedule, shape, seed=seed, t_start=t_start, dtype=dtype, device=device)


def _reference(den: Denoiser, x: torch.Tensor, s: float, t: float) -> tuple[Teacher, int]:
    """Where the trajectories end, float64 on the CPU, and how many calls that took."""
    calls = 0

    def counted(x: torch.Tensor, t: torch.Tensor, **conditions: Any) -> Any:
        nonlocal calls
        calls += 1
        return den.model(x, t, **conditions)

    end, error, good = found = ends(den.like(counted, x), x, s, t)
    warn_of_missing(found, "the model", 3)
    return Teacher(end.cpu(), error, good.cpu()), calls


def _run(den: Denoiser, x: torch.Tensor, program: Program, seed: int) -> torch.Tensor:
    """The ends, float64 on the CPU; what is not finite stays in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of samples that are not finite: their row says so
        return solve(den, x, solver=program, seed=seed, on_nan="keep").x.double().cpu()


def _tuned(den: Denoiser, x: torch.Tensor, budgets: Sequence[int], span: Any) -> list[Candidate]:
    """A table for each budget of at least 2."""
    fitted = tune(den, x, [n for n in budgets if n > 1], progress=False, **span) if max(budgets) > 1 else {}
    return [Candidate(TUNED, "own", "", n, program) for n, program in fitted.items()]
