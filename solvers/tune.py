"""`tune`: a table fitted to the denoiser that it will serve."""

import hashlib
import math
import warnings
from collections.abc import Iterable
from typing import Any, overload

import torch

from .._version import __version__
from .call import integer
from .denoiser import Denoiser, check_state
from .grids import end_time
from .program import Program
from .provenance import DENOISER, fingerprint
from .tune_fit import Noises, State, fit, loss
from .tune_numbers import Numbers
from .tune_run import end_of, field, has_forward_mode
from .tune_start import Start, best, starts
from .tune_teacher import ends, spread
from .watching import Bar

FEWEST = 64
LONGEST = 64
PATIENCE = 12  # iterations without less error on held-out noise


@overload
def tune(den: Denoiser, x: torch.Tensor, nfe: int = ..., **options: Any) -> Program: ...


@overload
def tune(den: Denoiser, x: torch.Tensor, nfe: Iterable[int], **options: Any) -> dict[int, Program]: ...


def tune(
    den: Denoiser,
    x: torch.Tensor,
    nfe: int | Iterable[int] = 8,
    *,
    solver: Any = None,
    gauge: str | None = None,
    t_start: float | None = None,
    t_end: float | None = None,
    told: bool = False,
    held_out: float = 0.25,
    reference: torch.Tensor | None = None,
    iterations: int = 40,
    progress: bool = False,
) -> Program | dict[int, Program]:
    """A program of ``nfe`` evaluations whose grid and weights are fitted to ``den``; of several budgets, {nfe: Program}.

    den:        a `Denoiser`; its network is not trained.
    x:          (B, ...), at least 64 noises to fit to, as `solve` takes them at t_start; 256 are a good number.
    solver:     what to start from, by default the best of a few: an exponential Adams method in x0 or eps over lam, by
                name or planner. gauge: "x0" or "eps", which of them to look among.
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
    budgets = [nfe] if isinstance(nfe, int) else list(nfe) if isinstance(nfe, Iterable) else [nfe]
    if not budgets:
        raise ValueError("nfe must hold at least one budget")
    for budget in budgets:
        integer("nfe", budget, 2, LONGEST)
    _check(den, x, told, held_out, reference, iterations, progress)
    sch = den.schedule
    span = tuple(
        default if given is None else given
        for given, default in ((end_time("t_start", t_start), sch.t_start), (end_time("t_end", t_end), sch.t_end))
    )
    candidates = {n: starts(sch, n, solver, gauge, span[0], span[1]) for n in budgets}
    if reference is None:
        found, error, good = ends(den, x, span[0], span[1])
    else:
        found, error, good = reference.double(), 0.0, torch.isfinite(reference.flatten(1)).all(1)
    job = _Job(den, x[good], found[good], span, error, held_out, told, iterations, progress)
    programs: dict[int, Program] = {}
    for n in budgets:
        programs[n] = job.fitted(candidates[n])
        if job.stopped:
            break
    return programs[nfe] if isinstance(nfe, int) else programs


def _check(den: Any, x: Any, told: Any, held_out: Any, reference: Any, iterations: Any, progress: Any) -> None:
    if not isinstance(den, Denoiser):
        raise TypeError(f"den must be a logsnr.Denoiser, not {type(den).__name__}")
    check_state(x)
    if len(x) < FEWEST:
        raise ValueError(f"x holds {len(x)} noises; a fit needs at least {FEWEST}, and 256 are a good number")
    for name, value in (("told", told), ("progress", progress)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r:.60}")
    if not isinstance(held_out, float) or not 0.1 <= held_out <= 0.5:
        raise ValueError(f"held_out = {held_out!r:.60} must be a share from 0.1 to 0.5")
    integer("iterations", iterations, 1, 10_000)
    if reference is not None:
        check_state(reference, "reference")
        if reference.shape != x.shape:
            raise ValueError(f"reference must have x's shape {tuple(x.shape)}, not {tuple(reference.shape)}")


class _Job:
    """What the fits of all budgets share."""

    def __init__(
        self, den: Denoiser, x: torch.Tensor, end: torch.Tensor, span: Any, error: float, held_out: float,
        told: bool, iterations: int, progress: bool,
    ) -> None:  # fmt: skip
        sch, count = den.schedule, round(len(x) * held_out)
        radius = [math.hypot(float(sch.alpha(t)), float(sch.sigma(t))) for t in span]
        self.scale, self.unit = radius[1], spread(end) / radius[1]
        u, v = x.double() / radius[0], end / radius[1]
        self.train, self.test = Noises(u[:-count], v[:-count], self.unit), Noises(u[-count:], v[-count:], self.unit)
        self.den, self.span, self.error, self.told = den, span, error, told
        self.iterations, self.progress, self.stopped = iterations, progress, False
        self.dtype = den.dtype(x.double())
        self.noise = hashlib.blake2b(x.detach().cpu().double().numpy().tobytes(), digest_size=4).hexdigest()

    def fitted(self, candidates: list[Start]) -> Program:
        start = best(self.den, self.train, candidates)
        numbers, f = Numbers(start.gauge, start.order, start.lam, told=self.told), field(self.den, start.gauge)
        forward = has_forward_mode(f, self.train.u[:2], float(start.lam[1]))
        scores: list[tuple[float, int, State]] = []
        with Bar(self.progress, f"{numbers.n} evaluations", self.iterations) as bar:
            try:
                for k, state in enumerate(fit(f, numbers, self.train, forward=forward, dtype=self.dtype)):
                    errors = self._held_out(f, numbers, state)
                    scores.append((loss(errors), k, state))
                    bar.show(k, f"{numbers.n} evaluations, held-out error {self._absolute(errors.median()):.2e}")
                    if k == self.iterations or k - min(scores)[1] >= PATIENCE:
                        break
            except KeyboardInterrupt:
                self.stopped = True
                warnings.warn(f"stopped after {len(scores)} iterations; the best so far is returned", stacklevel=4)
        _, k, state = min(scores, key=lambda score: score[:2]) if scores else (0.0, 0, self._first(numbers))
        return self._program(start, numbers, f, state, k, forward)

    def _first(self, numbers: Numbers) -> State:
        return State(torch.zeros(numbers.size, dtype=torch.float64), math.inf)

    def _held_out(self, f: Any, numbers: Numbers, state: State) -> torch.Tensor:
        with torch.no_grad():
            return self.test.errors(end_of(f, self.test.u, numbers(state.q).to(self.test.u.device)))

    def _absolute(self, error: Any) -> float:
        return float(error) * self.unit * self.scale

    def _program(self, start: Start, numbers: Numbers, f: Any, state: State, k: int, forward: bool) -> Program:
        errors, before = (self._held_out(f, numbers, at) for at in (state, self._first(numbers)))
        medians = self._absolute(errors.median()), self._absolute(before.median())
        if k == 0:
            warnings.warn(f"the fit is no better on held-out noise than its start, {start}, which is returned", stacklevel=5)
        elif medians[0] < 3 * self.error:
            warnings.warn(
                f"the error on held-out noise, {medians[0]:.1e}, is as small as that of the reference, "
                f"{self.error:.1e}: the reference is no better than the table", stacklevel=5,
            )  # fmt: skip
        table = numbers.fitted(state.q)
        provenance = {
            "made by": f"logsnr.tune {__version__}",
            DENOISER: fingerprint(self.den),
            "start": str(start),
            "noises": f"{len(self.train)} fitted to, {len(self.test)} held out, checksum {self.noise}",
            "iterations": k,
            "derivatives": "forward mode" if forward else "central differences",
            "held-out median": medians[0],
            "held-out rms": self._absolute(errors.square().mean().sqrt()),
            "start's median": medians[1],
            "start's rms": self._absolute(before.square().mean().sqrt()),
            "reference error": self.error,
            "row defect": table.defect,
        }
        return table.program(self.den.schedule, f"tuned-{numbers.n}", ends=self.span, provenance=provenance)
