"""A fit of `tune`: its starts, its iterates by their error on held-out noise, and the programs that come out."""

import hashlib
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from .._version import __version__
from .denoiser import Denoiser
from .program import Program
from .provenance import DENOISER, fingerprint
from .tune_family import Shared
from .tune_fit import Noises, fit
from .tune_numbers import Numbers
from .tune_run import end_of, field, has_forward_mode
from .tune_start import Start, best
from .tune_teacher import spread
from .watching import Bar

PATIENCE = 12  # iterations without less error on held-out noise
MANY = 10  # calls from which on consistent tables, of fewer numbers, are better on noise that they were not fitted to
TRIAL = 8  # iterations, before one of several starts goes on


class Fit:
    """A fit from a start for each budget, whose tables have their numbers in common, and its iterates by their error on
    held-out noise."""

    def __init__(self, starts: tuple[Start, ...], den: Denoiser, train: Noises, test: Noises, told: bool) -> None:
        self.starts, self.test, self.told = starts, test, told
        self.shared = len(starts) > 1
        self.tables = [self.numbers(start) for start in starts]
        self.field = field(den, starts[0].gauge)
        self.forward = has_forward_mode(self.field, train.u[:2], float(starts[0].lam[1]))
        dtype = den.dtype(train.u)
        self.states = enumerate(fit(self.field, self.tables, train, forward=self.forward, dtype=dtype))
        self.best, self.at = (math.inf, 0, torch.zeros(self.tables[0].size, dtype=torch.float64)), 0

    def numbers(self, start: Start) -> Numbers:
        """What q is of a start."""
        if self.shared:
            return Shared(start.gauge, start.order, start.lam)
        consistent = start.together == 1 and len(start.lam) > MANY
        return Numbers(
            start.gauge, start.order, start.lam, together=start.together, told=self.told, consistent=consistent
        )

    def errors(self, numbers: Numbers, q: torch.Tensor) -> torch.Tensor:
        """Of a table on held-out noise."""
        with torch.no_grad():
            return self.test.errors(end_of(self.field, self.test.u, numbers(q).to(self.test.u.device)))

    def advance(self, iterations: int) -> Iterator[torch.Tensor]:
        """Up to the iterate of this number, or where it ends: the errors of each."""
        for k, state in self.states:
            errors = torch.cat([self.errors(numbers, state.q) for numbers in self.tables])
            if (found := self.test.loss(errors)) < self.best[0]:
                self.best = found, k, state.q
            self.at = k
            yield errors
            if k >= iterations or k - self.best[1] >= PATIENCE:
                break


class Job:
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

    def fitted(self, candidates: list[tuple[Start, ...]]) -> Fit:
        """The best of the fits from the best start of each gauge: all go a few iterations, one goes on. With several
        calls a round all go to their end: who leads at first is often not the best."""
        fits = [Fit(s, self.den, self.train, self.test, self.told) for s in best(self.den, self.train, candidates)]
        trial = TRIAL if fits[0].starts[0].together == 1 else self.iterations
        with Bar(self.progress, _told(fits[0]), self.iterations) as bar:
            try:
                for one in fits if len(fits) > 1 else []:
                    self._watched(one, min(trial, self.iterations), bar)
                if trial < self.iterations or len(fits) == 1:
                    self._watched(min(fits, key=lambda one: one.best[:2]), self.iterations, bar)
            except KeyboardInterrupt:
                self.stopped = True
                warnings.warn("the fit was stopped; the best so far is returned", stacklevel=4)
        found = min(fits, key=lambda one: one.best[:2])
        if found.best[1] == 0:
            text = f"the fit is no better on held-out noise than its start, {found.starts[0]}, which is returned"
            warnings.warn(text, stacklevel=4)
        return found

    def _watched(self, one: Fit, iterations: int, bar: Bar) -> None:
        for errors in one.advance(iterations):
            bar.show(one.at, f"{_told(one)}, held-out error {self._absolute(errors.median()):.2e}")

    def _absolute(self, error: Any) -> float:
        return float(error) * self.unit * self.scale

    def program(self, one: Fit, start: Start) -> Program:
        """What a fit makes of a start, of a budget that it was fitted to or another."""
        numbers, (_, k, q) = one.numbers(start), one.best
        errors, before = one.errors(numbers, q), one.errors(numbers, torch.zeros_like(q))
        medians = self._absolute(errors.median()), self._absolute(before.median())
        if k and medians[0] < 3 * self.error:
            warnings.warn(
                f"the error on held-out noise, {medians[0]:.1e}, is as small as that of the reference, "
                f"{self.error:.1e}: the reference is no better than the table", stacklevel=4,
            )  # fmt: skip
        table, calls = numbers.fitted(q), start.together
        provenance = {
            "made by": f"logsnr.tune {__version__}",
            DENOISER: fingerprint(self.den),
            "start": str(start),
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
        if one.shared:
            provenance["fitted to evaluations"] = ", ".join(str(len(s.lam) - 1) for s in one.starts)
        provenance = {name: value for name, value in provenance.items() if value == value and value != math.inf}
        name = f"tuned-{len(table) // calls}x{calls}" if calls > 1 else f"tuned-{len(table)}"
        return table.program(self.den.schedule, name, ends=self.span, provenance=provenance)


def _told(one: Fit) -> str:
    budgets = [numbers.n for numbers in one.tables]
    return f"{budgets[0]} evaluations" if len(budgets) == 1 else f"{min(budgets)} to {max(budgets)} evaluations"
