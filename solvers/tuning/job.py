"""A fit of `tune`: its starts, its iterates by their error on held-out noise, and the programs that come out."""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any

import torch

from ..._version import __version__
from ..arrays import Array
from ..bases import Basis, to_coordinates
from ..denoisers.denoiser import Denoiser
from ..programs.program import Program
from ..programs.provenance import DENOISER, fingerprint
from ..runs.watching import Bar
from .derivatives import NUDGE, Derivatives, Differences, Gradients, has_gradients
from .family import Shared
from .fit import Aim, Reached, fit, gained, iterates
from .groups import Grouped, Groups
from .noises import Noises
from .numbers import Numbers
from .run import Field, field
from .start import Start, best_of
from .teacher import Teacher, spread

PATIENCE, GAIN = 8, 0.01  # iterations that have to bring the mean log error on held-out noise down by as much
# Of the median error, below which errors count little where a model is in less than double precision: with few noises,
# those that a network is very near to lead a fit to what others do not share. Exact models lose by it.
SHARE = 0.5
MANY = 10  # calls from which on consistent tables, of fewer numbers, are better on noise that they were not fitted to


class Case:
    """A denoiser, and noises with the ends of their trajectories, the last of which are held out. powers: of `Aim`."""

    def __init__(
        self, den: Denoiser, x: torch.Tensor, known: Teacher, span: Any, held_out: float, batch: int | None,
        powers: tuple[float, ...] = (1.0,),
    ) -> None:  # fmt: skip
        self.basis: Basis | None = None
        samples = known.good.nonzero()[:, 0]
        sch, x, end = den.schedule, x[samples], known.end[samples]
        radius = [math.hypot(float(sch.alpha(t)), float(sch.sigma(t))) for t in span]
        self.scale, self.unit, count = radius[1], spread(end) / radius[1], max(1, round(len(x) * held_out))
        u, v = x.double() / radius[0], end / radius[1]
        share = 0.0 if den.dtype(u) == torch.float64 else SHARE
        noises = Noises(u, v, self.unit, samples=samples, share=share, batch=batch)
        self.train, self.test = noises.part(slice(-count)), noises.part(slice(-count, None))
        self.den, self.span, self.error, self.powers = den, span, known.error, powers
        self.noise = hashlib.blake2b(x.detach().cpu().double().numpy().tobytes(), digest_size=4).hexdigest()

    def turned(self, basis: Basis | None) -> "Case":
        """The same case in the coordinates of a basis."""
        other = copy(self)
        other.basis = basis
        other.train, other.test = (
            replace(part, u=to_coordinates(basis, part.u), end=to_coordinates(basis, part.end))
            for part in (self.train, self.test)
        )
        return other

    def field(self, gauge: str) -> Callable[[Noises], Field]:
        """N for some of the noises, as `Aim` has it."""
        return lambda noises: field(self.den, gauge, noises.samples, self.basis)

    def absolute(self, error: Any) -> float:
        """An error in the data's own unit."""
        return float(error) * self.unit * self.scale


class Fit:
    """A fit from a start for each budget, to one or several cases, whose tables have their numbers in common, and its
    iterates by their error on held-out noise. numbers: what q is of a start."""

    def __init__(
        self, starts: tuple[Start, ...], cases: Sequence[Case], numbers: Callable[[Start], Numbers | Grouped]
    ) -> None:
        self.starts, self.numbers = starts, numbers
        pairs = [(numbers(start), case) for case in cases for start in starts]
        gauge = starts[0].gauge
        train, self.test = (
            [Aim(case.field(gauge), numbers, getattr(case, part), case.powers) for numbers, case in pairs]
            for part in ("train", "test")
        )
        self.derivatives = _derivatives(train[0], cases[0].den.dtype(cases[0].train.u), starts[0].lam)
        own = starts[0].begin(train[0].numbers)
        self.start = torch.cat([own, own.new_zeros(train[0].size - len(own))])
        self.states = fit(train, derivatives=self.derivatives, q=self.start)
        self.best, self.at = Reached(0, self.start, [torch.tensor([math.inf], device="cpu") for _ in self.test]), 0

    @property
    def budgets(self) -> list[int]:
        """That it is fitted to."""
        return [len(start.lam) - 1 for start in self.starts]

    def advance(self, iterations: int) -> Iterator[torch.Tensor]:
        """Up to the iterate of this number, or where it ends: the errors of each."""
        for found, best in iterates(self.states, self.test, PATIENCE, GAIN):
            self.at, self.best = found.k, best
            yield torch.cat(found.errors)
            if self.at >= iterations:
                break

    def __str__(self) -> str:
        budgets = self.budgets
        return f"{min(budgets)} to {max(budgets)} evaluations" if len(budgets) > 1 else f"{budgets[0]} evaluations"


class Job:
    """What the fits of all budgets share: the cases, and how they are fitted to."""

    def __init__(self, cases: Sequence[Case], told: bool, iterations: int, progress: bool) -> None:
        self.cases, self.told, self.iterations, self.progress, self.stopped = cases, told, iterations, progress, False

    def fitted(self, candidates: list[tuple[Start, ...]]) -> Fit:
        """The best of the fits from the best start of each gauge. All go to their end: who leads at first is often not
        the best."""
        fits = [Fit(starts, self.cases, self._numbers(starts)) for starts in best_of(self.cases, candidates)]
        with self._interruptible(), Bar(self.progress, str(fits[0]), self.iterations) as bar:
            for one in fits:
                self._watched(one, self.iterations, bar)
        found = fits[0]
        for one in fits[1:]:
            if gained(one.test, found.best, one.best) > 0:
                found = one
        if not found.best.k and not self.stopped:
            text = f"the fit is no better on held-out noise than its start, {found.starts[0]}, which is returned"
            warnings.warn(text, stacklevel=3)
        return found

    def _numbers(self, starts: tuple[Start, ...]) -> Callable[[Start], Numbers]:
        """Of one budget as many as there are weights, if they are not too many; few of several."""
        if len(starts) > 1:
            return lambda start: Shared(start.gauge, start.order, start.lam, start.level)
        together, told = starts[0].together, self.told
        consistent = together == 1 and len(starts[0].lam) > MANY
        return lambda start: Numbers(
            start.gauge, start.order, start.lam, level=start.level, together=together, told=told, consistent=consistent
        )

    def corrected(self, one: Fit, groups: Groups, plain: Program) -> Program:
        """A fit's program with corrections of the weights in each group, or ``plain``, without, where they do not
        pay."""
        start, case, numbers = one.starts[0], self.cases[0].turned(groups.basis), self._numbers(one.starts)
        fit = Fit(one.starts, [case], lambda start: Grouped(numbers(start), one.best.q, groups))
        with self._interruptible(), Bar(self.progress, f"{one}, each {groups.name}", self.iterations) as bar:
            self._watched(fit, self.iterations, bar)
        if not fit.best.k:
            if not self.stopped:
                warnings.warn(
                    f"corrections of each {groups.name} are no better on held-out noise than one table for all, which "
                    "is returned", stacklevel=3,
                )  # fmt: skip
            return plain
        found = self.program(fit, start, case)
        told = {name: plain.provenance[name] for name in ("start's median", "start's rms")}
        told["median of one table for all"] = plain.provenance["held-out median"]
        told["each"] = f"{groups.name}, {groups.count} groups"
        return replace(found, provenance={**found.provenance, **told})

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            self.stopped = True
            warnings.warn("the fit was stopped; the best so far is returned", stacklevel=5)

    def _watched(self, one: Fit, iterations: int, bar: Bar) -> None:
        for errors in one.advance(iterations):
            bar.show(one.at, f"{one}, held-out error {self.cases[0].absolute(errors.median()):.2e}")

    def program(
        self, one: Fit, start: Start, case: Case, powers: tuple[float, ...] | None = None, scales: str = ""
    ) -> Program:
        """What a fit makes of a start, of a budget that it was fitted to or another, for a case; or for other powers
        than that case's, whose errors are not known. scales: of guidance that it was fitted to."""
        aim = Aim(case.field(start.gauge), one.numbers(start), case.test, powers or case.powers)
        k, q = one.best[:2]
        table, calls = aim.numbers.fitted(aim.own(q)), start.together
        provenance = {
            "made by": f"logsnr.tune {__version__}",
            DENOISER: fingerprint(case.den),
            "start": str(start),
            "noises": f"{len(case.train)} fitted to, {len(case.test)} held out, checksum {case.noise}",
            "iterations": k,
            "derivatives": one.derivatives.name,
            **(_errors(aim, (one.start, q), case) if powers is None else {}),
            "row defect": table.defect if calls == 1 else math.nan,  # within a round states are off their trajectories
        }
        if len(one.starts) > 1:
            provenance["fitted to evaluations"] = ", ".join(map(str, one.budgets))
        provenance |= {"fitted to scales": scales} if scales else {}
        provenance = {name: value for name, value in provenance.items() if value == value and value != math.inf}
        name = f"tuned-{len(table) // calls}x{calls}" if calls > 1 else f"tuned-{len(table)}"
        return table.program(case.den.schedule, name, ends=case.span, provenance=provenance, basis=case.basis)


def _errors(aim: Aim, ends: tuple[torch.Tensor, torch.Tensor], case: Case) -> dict[str, float]:
    """Of a start and of what it became, on held-out noise."""
    before, after = map(aim.errors, ends)
    return {
        "held-out median": case.absolute(after.median()),
        "held-out rms": case.absolute(after.square().mean().sqrt()),
        "start's median": case.absolute(before.median()),
        "start's rms": case.absolute(before.square().mean().sqrt()),
        "reference error": case.error,
    }


def _derivatives(aim: Aim, dtype: torch.dtype, lam: Array) -> Derivatives:
    """Gradients where the model has them, at the second call and at the last one."""
    few, nudge = aim.noises.part(slice(2)), NUDGE[dtype]
    f, places = aim.field(few), ((few.u, float(lam[1])), (few.end, float(lam[-2])))
    for once in (False, True):
        if all(has_gradients(f, *place, nudge, once) for place in places):
            return Gradients.enough(aim.numbers.size, len(aim.noises), once)
    return Differences(nudge)
