"""What a parallel run knows of its program before the first call of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ...kernels import Recurrence, recurrence
from ...kernels.recurrence import layout
from ..arrays import Array
from ..denoisers.answers import pairs_at
from ..denoisers.denoiser import Denoiser
from ..denoisers.heads import Level, from_pair, network_rate
from ..programs.call import STATE
from ..programs.lower import Lowered

Pair = tuple[torch.Tensor, torch.Tensor]  # (x0, eps)


@dataclass(frozen=True, eq=False)
class Plan:
    """The calls of a program, and how (x0, eps), what they see and the model's answers are made of each other.

    wide, seen: dtypes of the slots and of what the model sees. timesteps: (calls,), what the model is told.
    alpha, sigma: (calls + 1,), when the calls are made and at the end. pair: (calls, 2, 2), what makes (x0, eps) of
    what a call sees and its answer; answer: (calls, 2), the answer of (x0, eps).
    frozen: (calls,), the slope of the answer with respect to x where x0 stays; slopes: (2, calls), between which it
    lies where neither x0 nor eps turns back: d x0 / dx from 0 to 1 / alpha.
    """

    lowered: Lowered
    recurrence: Recurrence
    wide: torch.dtype
    seen: torch.dtype
    timesteps: torch.Tensor
    alpha: Array
    sigma: Array
    pair: Array
    answer: Array
    frozen: Array
    slopes: Array

    @classmethod
    def of(cls, lowered: Lowered, den: Denoiser, x: torch.Tensor) -> "Plan":
        """Raises ValueError for programs whose calls do not have the same form."""
        times = np.array([*(call.t for call in lowered.program), lowered.program.grid[-1]])
        known, dtypes = [*(not asks for asks in lowered.asks), False], lowered.updates.dtypes
        level = Level.at(den.schedule, times)
        with np.errstate(divide="ignore", invalid="ignore"):
            p, q = np.broadcast_arrays(*from_pair(den.answers, level), times)[:2]
            rate = network_rate(den.answers, den.schedule)
            pair, answer = pairs_at(den.answers, den.schedule, times), rate * np.stack([p, q], axis=1)[:-1]
            slopes = rate * np.stack([q / level.sigma, p / level.alpha])[:, :-1]
        told = np.isfinite(pair).all(axis=(1, 2)) & ~np.array(known)
        pair = np.where(told[:, None, None], pair, np.moveaxis(resting_pair(level.alpha, level.sigma), -1, 0))
        slopes[:, ~np.isfinite(slopes).all(axis=0)] = 0.0
        answer[~np.isfinite(answer).all(axis=1)] = 0.0
        called = torch.tensor(lowered.times, dtype=torch.float64, device="cpu")
        return cls(
            lowered, recurrence(lowered.updates), dtypes[0], dtypes[-1], den.model_times(called, x).to(x.device),
            level.alpha, level.sigma, pair, answer, slopes[0], np.sort(slopes, axis=0),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.recurrence)

    def start(self, x: torch.Tensor) -> torch.Tensor:
        """The slots before the first call, (S, B, ...)."""
        slots = x.to(self.wide).repeat(self.recurrence.slots, *[1] * x.ndim)
        slots[self.ones[0]] = 1.0
        return slots

    @cached_property
    def ones(self) -> list[list[int]]:
        """Which slots of the recurrence hold 1 everywhere, before every call: one of them, or none."""
        one = self.lowered.updates.one
        return [[k for k, slot in enumerate(order) if slot == one] for order in layout(self.lowered.updates.calls)]

    @cached_property
    def seen_slots(self) -> list[list[int]]:
        """Which slots of the recurrence are what a call sees, before every call: the slot itself, and where a step
        begins the state, from which it may differ by its dtype or by noise; the state comes first. At the end it is
        slot 0."""
        orders, found = layout(self.lowered.updates.calls), list[list[int]]()
        before = None
        for order, call, update in zip(orders, self.lowered.program, self.lowered.updates.calls, strict=False):
            begins = before is None or before.node is not None
            slots = [STATE] * begins + [call.at, update.at]
            found.append([order.index(s) for s in dict.fromkeys(slots) if s in order])
            before = call
        return [*found, [STATE]]

    @cached_property
    def line(self) -> list[Array]:
        """By call, (S, 2, *event): what (x0, eps) make of the slots before it, on the line on which they are constant.
        What a call sees is set to be on it: methods whose steps do not keep to it would drift away."""
        rec = self.recurrence
        event = (1,) * (rec.matrices.ndim - 3)
        now = np.tile(np.reshape([self.alpha[0], self.sigma[0]], (1, 2, *event)), (rec.slots, 1, *event))
        found = []
        for n, matrix in enumerate(rec.matrices):
            now = now.copy()
            now[self.ones[n]] = 0.0
            now[self.seen_slots[n]] = np.reshape([self.alpha[n], self.sigma[n]], (2, *event))
            found.append(now)
            model, past = matrix[:, : rec.models], matrix[:, rec.models : rec.models + rec.slots]
            answers = model.sum(axis=1)[:, None] * np.reshape(self.answer[n], (1, 2, *event))
            now = answers + (past[:, :, None] * now[None]).sum(axis=1)
        return found

    def pair_of(self, n: int, seen: torch.Tensor, outputs: Sequence[torch.Tensor]) -> Pair:
        """(x0, eps) at call n, of the shape of ``seen``; of several answers their mean counts."""
        x, answer = seen.to(self.wide), sum(y.to(self.wide) for y in outputs) / len(outputs)
        (a, b), (c, d) = self.pair[n].tolist()
        return a * x + b * answer, c * x + d * answer

    def slots_of(self, n: int, pair: Pair) -> torch.Tensor:
        """The slots before call n on the line of (x0, eps), tensors (1, ...): (S, 1, ...)."""
        x0, eps = pair
        a, s = torch.from_numpy(np.moveaxis(self.line[n], 1, 0)[:, :, None]).to(x0.dtype).to(x0.device)
        shape = (-1, *[1] * (x0.ndim + 1 - a.ndim), *a.shape[1:])
        slots = a.reshape(shape) * x0 + s.reshape(shape) * eps
        slots[self.ones[n]] = 1.0
        return slots


def resting_pair(alpha: Array, sigma: Array) -> Array:
    """(2, 2, ...): (x0, eps) of (x, anything) if v = alpha eps - sigma x0 is 0: noise stays noise, data stays data."""
    zero, norm = np.zeros_like(alpha), alpha**2 + sigma**2
    return np.array([[alpha / norm, zero], [sigma / norm, zero]])
