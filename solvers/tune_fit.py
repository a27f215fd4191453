"""Levenberg-Marquardt on the mean log error of the end states."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from .tune_numbers import Numbers
from .tune_run import Field, end_of, tangents_of

FLOOR = 1e-4  # of the data's spread
TRIALS = 16  # of the damping, before a fit ends
MEMORY = 1 << 28  # bytes of derivatives that are kept at once


@dataclass(frozen=True)
class Noises:
    """Starts u and where they should end, (B, ...) float64 on the unit circle. unit: the data's spread. floor: errors
    below it, in this unit, count as none."""

    u: torch.Tensor
    end: torch.Tensor
    unit: float
    floor: float = FLOOR

    def __len__(self) -> int:
        return len(self.u)

    def errors(self, end: torch.Tensor) -> torch.Tensor:
        """Root-mean-square by sample (B,), in units of the data's spread; a run that diverged is infinitely far."""
        apart = (end - self.end).flatten(1).square().mean(1).sqrt() / self.unit
        return torch.nan_to_num(apart, nan=torch.inf, posinf=torch.inf)

    def loss(self, errors: torch.Tensor) -> float:
        """The mean log error."""
        return float(torch.log(errors + self.floor).mean())


@dataclass
class State:
    """Where a fit is: the numbers, and the loss that they have on the noises that are fitted to."""

    q: torch.Tensor
    loss: float
    damping: float = 1e-2


def fit(f: Field, tables: Sequence[Numbers], noises: Noises, *, forward: bool, dtype: torch.dtype) -> Iterator[State]:
    """States of falling loss, the start first, until no damping brings it down. The tables have their numbers in
    common; of several the mean loss falls."""
    at = State(torch.zeros(tables[0].size, dtype=torch.float64), 0.0)
    at.loss = _loss(f, tables, noises, at.q)
    yield at  # not within no_grad, which would hold for whoever goes on
    while (found := _next(f, tables, noises, at, forward, dtype)) is not None:
        at = found
        yield at


@torch.no_grad()
def _loss(f: Field, tables: Sequence[Numbers], noises: Noises, q: torch.Tensor) -> float:
    ends = (end_of(f, noises.u, numbers(q).to(noises.u.device)) for numbers in tables)
    return sum(noises.loss(noises.errors(end)) for end in ends) / len(tables)


@torch.no_grad()
def _next(
    f: Field, tables: Sequence[Numbers], noises: Noises, at: State, forward: bool, dtype: torch.dtype
) -> State | None:
    parts = [_normal(f, numbers, noises, at.q, forward, dtype) for numbers in tables]
    a, b = (torch.stack(same).mean(0) for same in zip(*parts, strict=True))
    damping, diagonal = at.damping, torch.diag(a.diagonal().clamp_min(1e-12))
    for _ in range(TRIALS):
        q = at.q - torch.linalg.solve(a + damping * diagonal, b)
        found = _loss(f, tables, noises, q)
        if found < at.loss:
            return State(q, found, damping / 4)
        damping *= 4
    return None


def _normal(
    f: Field, numbers: Numbers, noises: Noises, q: torch.Tensor, forward: bool, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """The normal equations of the weighted residuals: 1 / (e (e + floor)) by sample makes the gradient that of the mean
    log error."""
    table, slopes = (part.to(noises.u.device) for part in numbers.tangents(q))
    a, b = torch.zeros(numbers.size, numbers.size, dtype=torch.float64), torch.zeros(numbers.size, dtype=torch.float64)
    one = noises.u[0].numel() * 8 * numbers.size * (numbers.n + 1)
    few = max(1, MEMORY // one)
    for u, end in zip(noises.u.split(few), noises.end.split(few), strict=True):
        found, moved = tangents_of(f, u, table, slopes, forward=forward, dtype=dtype)
        part = replace(noises, u=u, end=end)
        e = part.errors(found)
        weight = (1 / (e * (e + noises.floor)).clamp_min(1e-12)).sqrt() / noises.unit
        weight = torch.where(torch.isfinite(moved.flatten(2)).all(2).all(0), weight, 0.0)
        shaped = weight.reshape(-1, *[1] * (u.dim() - 1))
        j, r = (moved * shaped).nan_to_num().flatten(1), ((found - end) * shaped).nan_to_num().flatten()
        a += (j @ j.T).cpu()
        b += (j @ r).cpu()
    count = noises.end.numel()
    return a / count, b / count
