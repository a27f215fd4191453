"""Levenberg-Marquardt on the mean log error of the end states."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from .derivatives import Derivatives, Normal
from .groups import Grouped
from .noises import Noises
from .numbers import Numbers
from .run import Field, end_of

TRIALS = 16  # of the damping, before a fit ends


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
        return q.new_tensor(self.powers) @ q.reshape(len(self.powers), -1)

    @torch.no_grad()
    def errors(self, q: torch.Tensor) -> torch.Tensor:
        """Of the samples (B,), in units of the data's spread."""
        table = self.numbers(self.own(q)).to(self.noises.u.device)
        ends = [end_of(self.field(part), part.u, table) for part in self.noises.parts()]
        return self.noises.errors(torch.cat(ends))

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
    """Where a fit is: the numbers, and the errors that their tables have on the noises that are fitted to."""

    q: torch.Tensor
    errors: list[torch.Tensor]
    damping: float = 1e-2


def fit(aims: Sequence[Aim], *, derivatives: Derivatives, q: torch.Tensor | None = None) -> Iterator[State]:
    """States of falling loss, the start ``q`` first, by default zeros, until no damping brings it down. The tables have
    their numbers in common; of several the mean loss falls."""
    q = torch.zeros(aims[0].size, dtype=torch.float64, device="cpu") if q is None else q
    at = State(q, errors_of(aims, q))
    yield at  # not within no_grad, which would hold for whoever goes on
    while (found := _next(near(aims, at.errors), at, derivatives)) is not None:
        at = found
        yield at


class Reached(NamedTuple):
    """The k-th state of a fit: its numbers, and the errors of each table on noises that it does not see."""

    k: int
    q: torch.Tensor
    errors: list[torch.Tensor]


def gained(aims: Sequence[Aim], old: Reached, new: Reached) -> float:
    """By how much the loss is less, with the floors that the old one has."""
    aims = near(aims, old.errors)
    return loss_of(aims, old.q, old.errors) - loss_of(aims, new.q, new.errors)


def iterates(
    states: Iterator[State], test: Sequence[Aim], patience: int, gain: float = 0.0
) -> Iterator[tuple[Reached, Reached]]:
    """The states of a fit by noises that it does not see, each with the best so far, until as many as ``patience`` have
    not brought the loss on them down by more than ``gain``."""
    bests = list[Reached]()
    for k, state in enumerate(states):
        found = Reached(k, state.q, errors_of(test, state.q))
        bests.append(found if not bests or gained(test, bests[-1], found) > 0 else bests[-1])
        yield found, bests[-1]
        if k >= patience and gained(test, bests[k - patience], bests[-1]) <= gain:
            return


def near(aims: Sequence[Aim], errors: Sequence[torch.Tensor]) -> list[Aim]:
    """With the floors that errors as these have."""
    return [aim._replace(noises=aim.noises.near(e)) for aim, e in zip(aims, errors, strict=True)]


def errors_of(aims: Sequence[Aim], q: torch.Tensor) -> list[torch.Tensor]:
    return [aim.errors(q) for aim in aims]


def loss(aims: Sequence[Aim], q: torch.Tensor) -> float:
    """The mean log error with the penalty, in the mean over the tables."""
    return loss_of(aims, q, errors_of(aims, q))


def loss_of(aims: Sequence[Aim], q: torch.Tensor, errors: Sequence[torch.Tensor]) -> float:
    """`loss`, where the errors of each are known."""
    return sum(aim.loss(q, e) for aim, e in zip(aims, errors, strict=True)) / len(aims)


@torch.no_grad()
def _next(aims: Sequence[Aim], at: State, derivatives: Derivatives) -> State | None:
    parts = [_normal(aim, at.q, derivatives) for aim in aims]
    a, b = (torch.stack(same).mean(0) for same in zip(*parts, strict=True))
    damping, diagonal = at.damping, torch.diag(a.diagonal().clamp_min(1e-12))
    least = loss_of(aims, at.q, at.errors)
    for _ in range(TRIALS):
        q = at.q - torch.linalg.solve(a + damping * diagonal, b)
        errors = errors_of(aims, q)
        if loss_of(aims, q, errors) < least:
            return State(q, errors, damping / 4)
        damping *= 4
    return None


def _normal(aim: Aim, q: torch.Tensor, derivatives: Derivatives) -> Normal:
    """The normal equations of the weighted residuals, with those of the penalty."""
    field, numbers, noises, powers, penalty = aim
    table, slopes = (part.to(noises.u.device) for part in numbers.tangents(aim.own(q)))
    parts = noises.parts(derivatives.few(noises.u[0].numel(), numbers.size))
    found = [derivatives.normal(field(part), part, table, slopes) for part in parts]
    a, b = (sum(part.cpu() for part in same) / noises.end.numel() for same in zip(*found, strict=True))
    if penalty:
        own = aim.own(q)
        off, j = aim.mismatch(own), torch.func.jacfwd(aim.mismatch)(own)
        a, b = a + penalty / len(off) * j.T @ j, b + penalty / len(off) * j.T @ off
    by = a.new_tensor(powers)
    return Normal(torch.kron(torch.outer(by, by), a), torch.kron(by, b))
