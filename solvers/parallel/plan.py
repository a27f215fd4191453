"""What a parallel run knows of its program before the first call of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ...kernels import Recurrence, recurrence
from ...kernels.recurrence import layout
from ...kernels.sums import weighted_sum
from ..denoiser import Denoiser
from ..heads import Level, from_pair, to_pair
from ..lower import Lowered
from ..planners.gauges import Array
from ..program import STATE

Pair = tuple[torch.Tensor, torch.Tensor]  # (x0, eps)


@dataclass(frozen=True, eq=False)
class Plan:
    """The calls of a program, and how (x0, eps), what they see and the model's answers are made of each other.

    wide, seen: dtypes of the slots and of what the model sees. told: (calls,), the times that it is told.
    alpha, sigma: (calls + 1,), when the calls are made and at the end. pair: (calls, 2, 2), what makes (x0, eps) of
    what a call sees and its answer; answer: (calls, 2), the answer of (x0, eps).
    still: (calls,), the slope of the answer with respect to x where x0 stays; slopes: (2, calls), between which it
    lies where neither x0 nor eps turns back: d x0 / dx from 0 to 1 / alpha.
    """

    lowered: Lowered
    recurrence: Recurrence
    wide: torch.dtype
    seen: torch.dtype
    told: torch.Tensor
    alpha: Array
    sigma: Array
    pair: Array
    answer: Array
    still: Array
    slopes: Array

    @classmethod
    def of(cls, lowered: Lowered, den: Denoiser, x: torch.Tensor) -> "Plan":
        """Raises ValueError for programs whose calls do not have the same form."""
        times, dtypes = np.array([*lowered.times, lowered.grid[-1]]), lowered.updates.dtypes
        level = Level.at(den.schedule, times)
        with np.errstate(divide="ignore", invalid="ignore"):
            rows = [*to_pair(den.prediction, level), from_pair(den.prediction, level)]
            (a, b), (c, d), (p, q) = (np.broadcast_arrays(*row, times)[:2] for row in rows)
            pair, answer = np.array([[a, b], [c, d]]), np.stack([p, q], axis=1)[:-1]
            slopes = np.stack([q / level.sigma, p / level.alpha])[:, :-1]
        pair = np.where(np.isfinite(pair).all(axis=(0, 1)), pair, still(level.alpha, level.sigma))
        slopes[:, ~np.isfinite(slopes).all(axis=0)] = 0.0
        answer[~np.isfinite(answer).all(axis=1)] = 0.0
        told = den.model_times(torch.tensor(lowered.times, dtype=torch.float64), x).to(x.device)
        return cls(
            lowered, recurrence(lowered.updates), dtypes[0], dtypes[-1], told, level.alpha, level.sigma,
            np.moveaxis(pair, -1, 0), answer, slopes[0], np.sort(slopes, axis=0),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.recurrence)

    def start(self, x: torch.Tensor) -> torch.Tensor:
        """The slots before the first call, (S, B, ...)."""
        return x.to(self.wide).repeat(self.recurrence.slots, *[1] * x.ndim)

    def begins(self, n: int) -> bool:
        """Whether a step begins with call n."""
        return n == 0 or self.lowered.nodes[n - 1] is not None

    @cached_property
    def orders(self) -> list[tuple[int, ...]]:
        """See `layout`."""
        return layout(self.lowered.updates.calls)

    @cached_property
    def held(self) -> list[list[int]]:
        """Which slots of the recurrence are what a call sees, before every call: the slot itself, and where a step
        begins the state, from which it may differ by its dtype or by noise; the state comes first. At the end it is
        slot 0."""
        orders, found = self.orders, list[list[int]]()
        for n in range(len(self)):
            slots = [STATE] * self.begins(n) + [self.lowered.program.calls[n].at, self.lowered.updates.calls[n].at]
            found.append([orders[n].index(s) for s in dict.fromkeys(slots) if s in orders[n]])
        return [*found, [STATE]]

    def state_after(
        self, n: int, slots: torch.Tensor, answers: Sequence[torch.Tensor], noises: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """The state (B, ...) that call n reaches from the slots before it, also where no later call reads it."""
        call = self.lowered.updates.calls[n]
        row = call.table.tensor[call.writes.index(STATE)].to(self.wide).tolist()
        read = [slots[self.orders[n].index(slot)] for slot in call.reads]
        return weighted_sum(row, [*(y.to(self.wide) for y in answers), *read, *noises[: len(call.noises)]])

    @cached_property
    def line(self) -> Array:
        """(calls, S, 2): what (x0, eps) make of the slots before every call, on the line on which they are constant.
        What a call sees is set to be on it: methods whose steps do not keep to it would drift away."""
        rec = self.recurrence
        slots = np.empty((len(rec), rec.slots, 2))
        now = np.tile([self.alpha[0], self.sigma[0]], (rec.slots, 1))
        for n, matrix in enumerate(rec.matrices):
            now[self.held[n]] = self.alpha[n], self.sigma[n]
            slots[n] = now
            model, past = matrix[:, : rec.models], matrix[:, rec.models : rec.models + rec.slots]
            now = np.outer(model.sum(axis=1), self.answer[n]) + past @ now
        return slots

    def pair_of(self, n: int, seen: torch.Tensor, outputs: Sequence[torch.Tensor]) -> Pair:
        """(x0, eps) at call n, of the shape of ``seen``; of several answers their mean counts."""
        x, answer = seen.to(self.wide), sum(y.to(self.wide) for y in outputs) / len(outputs)
        (a, b), (c, d) = self.pair[n].tolist()
        return a * x + b * answer, c * x + d * answer

    def slots_of(self, n: int, pair: Pair) -> torch.Tensor:
        """The slots before call n on the line of (x0, eps), (S, *shape)."""
        (x0, eps), columns = pair, (column.tolist() for column in self.line[n].T)
        return torch.stack([a * x0 + s * eps for a, s in zip(*columns, strict=True)])


def still(alpha: Array, sigma: Array) -> Array:
    """(2, 2, ...): (x0, eps) of (x, anything) if v = alpha eps - sigma x0 is 0: noise stays noise, data stays data."""
    zero, norm = np.zeros_like(alpha), alpha**2 + sigma**2
    return np.array([[alpha / norm, zero], [sigma / norm, zero]])


def rows(values: Array, like: torch.Tensor) -> torch.Tensor:
    """(W,) as (W, 1, ...), to go with rows like ``like`` (W, ...), in its dtype."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(like).reshape(-1, *[1] * (like.ndim - 1))
