"""Levenberg-Marquardt on the mean log error of the end states."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from .groups import Grouped
from .numbers import Numbers
from .run import ELEMENTS, Field, end_of, tangents_of

FLOOR = 1e-4  # of the data's spread
TRIALS = 16  # of the damping, before a fit ends


@dataclass(frozen=True)
class Noises:
    """Starts u and where they should end, (B, ...) float64 on the unit circle. unit: the data's spread. floor: errors
    below it, in this unit, count as none. samples: int64 (B,), which ones they are of the denoiser's batch. rows: how
    many in a row no fit may part."""

    u: torch.Tensor
    end: torch.Tensor
    unit: float
    floor: float = FLOOR
    samples: torch.Tensor | None = None
    rows: int = 1

    def __len__(self) -> int:
        return len(self.u)

    def part(self, which: slice) -> "Noises":
        samples = None if self.samples is None else self.samples[which]
        return replace(self, u=self.u[which], end=self.end[which], samples=samples)

    def errors(self, end: torch.Tensor) -> torch.Tensor:
        """Root-mean-square by sample (B,), in units of the data's spread; a run that diverged is infinitely far."""
        apart = (end - self.end).flatten(1).square().mean(1).sqrt() / self.unit
        return torch.nan_to_num(apart, nan=torch.inf, posinf=torch.inf)

    def loss(self, errors: torch.Tensor) -> float:
        """The mean log error."""
        return float(torch.log(errors + self.floor).mean())


class Aim(NamedTuple):
    """A table, and what it should do.

    field: N for some of the noises. powers: where several tables share numbers that are polynomials in something, its
    powers here; of q = (q0, q1, ...), the table's own numbers are q0 powers[0] + q1 powers[1] + ... penalty: half of it
    times the mean square of the `mismatch` is added to the loss: networks answer worse where a state is not as noisy as
    they are told, and exact denoisers do not.
    """

    field: Callable[[Noises], Field]
    numbers: Numbers | Grouped
    noises: Noises
    powers: tuple[float, ...] = (1.0,)
    penalty: float = 0.0

    @property
    def size(self) -> int:
        return len(self.powers) * self.numbers.size

    def own(self, q: torch.Tensor) -> torch.Tensor:
        """The table's own numbers (numbers.size,) of q (size,)."""
        return torch.tensor(self.powers, dtype=q.dtype) @ q.reshape(len(self.powers), -1)

    @torch.no_grad()
    def errors(self, q: torch.Tensor) -> torch.Tensor:
        """Of the samples (B,), in units of the data's spread."""
        table = self.numbers(self.own(q)).to(self.noises.u.device)
        return self.noises.errors(end_of(self.field(self.noises), self.noises.u, table))

    def loss(self, q: torch.Tensor, errors: torch.Tensor) -> float:
        """Of q, whose errors are known."""
        found = self.noises.loss(errors)
        if self.penalty:
            found += self.penalty / 2 * float(self.mismatch(self.own(q)).square().mean())
        return found

    def mismatch(self, own: torch.Tensor) -> torch.Tensor:
        """`Numbers.mismatch`; a fit of corrections has no penalty."""
        assert isinstance(self.numbers, Numbers)
        return self.numbers.mismatch(own)


@dataclass
class State:
    """Where a fit is: the numbers, and the loss that they have on the noises that are fitted to."""

    q: torch.Tensor
    loss: float
    damping: float = 1e-2


def fit(aims: Sequence[Aim], *, forward: bool, dtype: torch.dtype, q: torch.Tensor | None = None) -> Iterator[State]:
    """States of falling loss, the start ``q`` first, by default zeros, until no damping brings it down. The tables have
    their numbers in common; of several the mean loss falls."""
    at = State(torch.zeros(aims[0].size, dtype=torch.float64) if q is None else q, 0.0)
    at.loss = loss(aims, at.q)
    yield at  # not within no_grad, which would hold for whoever goes on
    while (found := _next(aims, at, forward, dtype)) is not None:
        at = found
        yield at


class Iterate(NamedTuple):
    """The k-th state of a fit, by noises that it does not see. errors: of each table on them. best: the least loss on
    them so far, and the number and the numbers of the state that has it."""

    k: int
    errors: list[torch.Tensor]
    best: tuple[float, int, torch.Tensor]


def iterates(states: Iterator[State], test: Sequence[Aim], patience: int, gain: float = 0.0) -> Iterator[Iterate]:
    """Of the states of a fit, until as many as ``patience`` have not brought the least loss down by more than
    ``gain``."""
    losses = list[float]()
    for k, state in enumerate(states):
        errors = [aim.errors(state.q) for aim in test]
        found = loss_of(test, state.q, errors)
        if not losses or found < losses[-1]:
            best = found, k, state.q
        losses.append(best[0])
        yield Iterate(k, errors, best)
        if k >= patience and losses[k - patience] - best[0] <= gain:
            return


def loss(aims: Sequence[Aim], q: torch.Tensor) -> float:
    """The mean log error with the penalty, in the mean over the tables."""
    return loss_of(aims, q, [aim.errors(q) for aim in aims])


def loss_of(aims: Sequence[Aim], q: torch.Tensor, errors: Sequence[torch.Tensor]) -> float:
    """`loss`, where the errors of each are known."""
    return sum(aim.loss(q, e) for aim, e in zip(aims, errors, strict=True)) / len(aims)


@torch.no_grad()
def _next(aims: Sequence[Aim], at: State, forward: bool, dtype: torch.dtype) -> State | None:
    parts = [_normal(aim, at.q, forward, dtype) for aim in aims]
    a, b = (torch.stack(same).mean(0) for same in zip(*parts, strict=True))
    damping, diagonal = at.damping, torch.diag(a.diagonal().clamp_min(1e-12))
    for _ in range(TRIALS):
        q = at.q - torch.linalg.solve(a + damping * diagonal, b)
        found = loss(aims, q)
        if found < at.loss:
            return State(q, found, damping / 4)
        damping *= 4
    return None


def _normal(aim: Aim, q: torch.Tensor, forward: bool, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The normal equations of the weighted residuals: 1 / (e (e + floor)) by sample makes the gradient that of the mean
    log error."""
    field, numbers, noises, powers, penalty = aim
    table, slopes = (part.to(noises.u.device) for part in numbers.tangents(aim.own(q)))
    a, b = torch.zeros(numbers.size, numbers.size, dtype=torch.float64), torch.zeros(numbers.size, dtype=torch.float64)
    few = max(1, ELEMENTS // (noises.u[0].numel() * numbers.size * noises.rows)) * noises.rows
    for k in range(0, len(noises), few):
        part = noises.part(slice(k, k + few))
        found, moved = tangents_of(field(part), part.u, table, slopes, forward=forward, dtype=dtype)
        e = part.errors(found)
        weight = (1 / (e * (e + noises.floor)).clamp_min(1e-12)).sqrt() / noises.unit
        weight = torch.where(torch.isfinite(moved.flatten(2)).all(2).all(0), weight, 0.0)
        shaped = weight.reshape(-1, *[1] * (part.u.dim() - 1))
        j, r = (moved * shaped).nan_to_num().flatten(1), ((found - part.end) * shaped).nan_to_num().flatten()
        a += (j @ j.T).cpu()
        b += (j @ r).cpu()
    a, b = a / noises.end.numel(), b / noises.end.numel()
    if penalty:
        own = aim.own(q)
        off, j = aim.mismatch(own), torch.func.jacfwd(aim.mismatch)(own)
        a, b = a + penalty / len(off) * j.T @ j, b + penalty / len(off) * j.T @ off
    by = torch.tensor(powers, dtype=torch.float64)
    return torch.kron(torch.outer(by, by), a), torch.kron(by, b)
