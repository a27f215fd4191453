"""`tune`: a table fitted to the denoiser that it will serve."""

import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from .._version import __version__
from .call import integer
from .complex_states import of_parts, to_parts
from .denoiser import Denoiser, check_state
from .grids import end_time
from .program import Program
from .provenance import DENOISER, fingerprint
from .tune_fit import Noises, fit, loss
from .tune_numbers import Numbers
from .tune_run import end_of, field, has_forward_mode
from .tune_start import Start, best, starts
from .tune_teacher import ends, spread
from .watching import Bar

FEWEST = 64
LONGEST = 64
TOGETHER = 2  # calls of a round
PATIENCE = 12  # iterations without less error on held-out noise
TRIAL = 8  # iterations, before one of several starts goes on


def tune(
    den: Denoiser,
    x: torch.Tensor,
    nfe: int | Iterable[int] | None = None,
    *,
    rounds: int | Iterable[int] | None = None,
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

    rounds: in place of nfe (8 if neither is given), for ``parallel=logsnr.Rounds()``: so many rounds of two calls, of
                which the second sees nothing of the first one's answer, so that the model is asked for both at once.

    den:        a `Denoiser`; its network is not trained.
    x:          (B, ...), at least 64 noises to fit to, as `solve` takes them at t_start; 256 are a good number.
                Complex ones are fitted to as their parts.
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
    _check(den, x, told, held_out, reference, iterations, progress)
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
    job = _Job(den, x[good], found[good], span, error, held_out, told, iterations, progress)
    programs: dict[int, Program] = {}
    for n in budgets:
        programs[n] = job.fitted(candidates[n])
        if job.stopped:
            break
    return programs if isinstance(given, Iterable) else programs[given]


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


class _Fit:
    """A fit from one start, and its iterates by their error on held-out noise."""

    def __init__(self, start: Start, den: Denoiser, train: Noises, test: Noises, told: bool) -> None:
        self.start, self.test = start, test
        self.numbers = Numbers(start.gauge, start.order, start.lam, together=start.together, told=told)
        self.field = field(den, start.gauge)
        self.forward = has_forward_mode(self.field, train.u[:2], float(start.lam[1]))
        dtype = den.dtype(train.u)
        self.states = enumerate(fit(self.field, self.numbers, train, forward=self.forward, dtype=dtype))
        self.best, self.at = (math.inf, 0, torch.zeros(self.numbers.size, dtype=torch.float64)), 0

    def errors(self, q: torch.Tensor) -> torch.Tensor:
        """Of the numbers q on held-out noise."""
        with torch.no_grad():
            return self.test.errors(end_of(self.field, self.test.u, self.numbers(q).to(self.test.u.device)))

    def advance(self, iterations: int) -> Iterator[torch.Tensor]:
        """Up to the iterate of this number, or where it ends: the errors of each."""
        for k, state in self.states:
            errors = self.errors(state.q)
            if (found := loss(errors)) < self.best[0]:
                self.best = found, k, state.q
            self.at = k
            yield errors
            if k >= iterations or k - self.best[1] >= PATIENCE:
                break


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
        self.noise = hashlib.blake2b(x.detach().cpu().double().numpy().tobytes(), digest_size=4).hexdigest()

    def fitted(self, candidates: list[Start]) -> Program:
        """The best of the fits from the best start of each gauge: all go a few iterations, one goes on. With several
        calls a round all go to their end: who leads at first is often not the best."""
        fits = [_Fit(s, self.den, self.train, self.test, self.told) for s in best(self.den, self.train, candidates)]
        n, trial = fits[0].numbers.n, TRIAL if fits[0].numbers.together == 1 else self.iterations
        with Bar(self.progress, f"{n} evaluations", self.iterations) as bar:
            try:
                for one in fits if len(fits) > 1 else []:
                    self._watched(one, min(trial, self.iterations), bar)
                if trial < self.iterations or len(fits) == 1:
                    self._watched(min(fits, key=lambda one: one.best[:2]), self.iterations, bar)
            except KeyboardInterrupt:
                self.stopped = True
                warnings.warn("the fit was stopped; the best so far is returned", stacklevel=4)
        return self._program(min(fits, key=lambda one: one.best[:2]))

    def _watched(self, one: _Fit, iterations: int, bar: Bar) -> None:
        for errors in one.advance(iterations):
            bar.show(one.at, f"{one.numbers.n} evaluations, held-out error {self._absolute(errors.median()):.2e}")

    def _absolute(self, error: Any) -> float:
        return float(error) * self.unit * self.scale

    def _program(self, one: _Fit) -> Program:
        numbers, (_, k, q) = one.numbers, one.best
        errors, before = one.errors(q), one.errors(torch.zeros_like(q))
        medians = self._absolute(errors.median()), self._absolute(before.median())
        if k == 0:
            text = f"the fit is no better on held-out noise than its start, {one.start}, which is returned"
            warnings.warn(text, stacklevel=5)
        elif medians[0] < 3 * self.error:
            warnings.warn(
                f"the error on held-out noise, {medians[0]:.1e}, is as small as that of the reference, "
                f"{self.error:.1e}: the reference is no better than the table", stacklevel=5,
            )  # fmt: skip
        table, calls = numbers.fitted(q), numbers.together
        provenance = {
            "made by": f"logsnr.tune {__version__}",
            DENOISER: fingerprint(self.den),
            "start": str(one.start),
            "noises": f"{len(self.train)} fitted to, {len(self.test)} held out, checksum {self.noise}",
            "iterations": k,
            "derivatives": "forward mode" if one.forward else "central differences",
            "held-out median": medians[0],
            "held-out rms": self._absolute(errors.square().mean().sqrt()),
            "start's median": medians[1],
            "start's rms": self._absolute(before.square().mean().sqrt()),
            "reference error": self.error,
            "row defect": table.defect if calls == 1 else math.nan,  # within a round states are off their trajectories
        }
        provenance = {name: value for name, value in provenance.items() if value == value and value != math.inf}
        name = f"tuned-{numbers.n // calls}x{calls}" if calls > 1 else f"tuned-{numbers.n}"
        return table.program(self.den.schedule, name, ends=self.span, provenance=provenance)
