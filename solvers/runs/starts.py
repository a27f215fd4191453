"""Runs in which every sample starts at its own time: a table for each start, and one call of the model for all.

The samples of one start are an `Execution`. All take the same number of steps, so that call n of one goes with call n
of the others: the model is asked for the whole batch at once, told of each sample its own time.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
import torch

from ...kernels import Seeds, transformed
from ..arrays import Array
from ..denoisers.answers import check_output
from ..denoisers.asking import Asking
from ..denoisers.denoiser import Denoiser
from ..finite import NonFiniteError
from ..programs.call import STATE
from ..programs.lower import Lowered
from .execution import Execution
from .noise import NoiseFunction, addressed, noise_source
from .normals import Seed, drawn_seed, seeds_of
from .run import Observe, writes


@dataclass(frozen=True, eq=False)
class Starts:
    """plans: one for each different start. of: (B,), int64, which is that of each sample.

    Raises ValueError for plans whose calls do not go with each other.
    """

    plans: tuple[Lowered, ...]
    of: torch.Tensor

    @classmethod
    def planned(cls, times: Sequence[float], plan: Callable[[float], Lowered]) -> "Starts":
        """A plan for each of ``times`` (B,)."""
        different = list(dict.fromkeys(times))
        plans = tuple(map(plan, different))
        if len({tuple((call.node, call.asks) for call in one.program) for one in plans}) > 1:
            counts = sorted({len(one.program) for one in plans})
            raise ValueError(
                f"t_start: {plans[0].program.name} takes other calls from one start than from another, {counts} "
                "evaluations; run the samples of each start for themselves"
            )
        return cls(plans, torch.tensor([different.index(t) for t in times], dtype=torch.int64, device="cpu"))

    @classmethod
    def alone(cls, plan: Lowered, batch: int) -> "Starts":
        """One plan for all samples."""
        return cls((plan,), torch.zeros(batch, dtype=torch.int64, device="cpu"))

    @cached_property
    def samples(self) -> list[torch.Tensor]:
        """By plan, the samples that it is of."""
        return [(self.of == k).nonzero().flatten() for k in range(len(self.plans))]

    @cached_property
    def within(self) -> list[int]:
        """The number of each sample among those of its plan."""
        counts = [count(0) for _ in self.plans]
        return [next(counts[k]) for k in self.of.tolist()]

    @property
    def calls(self) -> int:
        return len(self.plans[0].asks)

    @property
    def grids(self) -> Array:
        """(steps + 1, B), read-only: the times of every sample."""
        grids = np.array([one.program.grid for one in self.plans]).T[:, self.of.numpy()]
        grids.setflags(write=False)
        return grids

    def asking(self, den: Denoiser, x: torch.Tensor) -> tuple[Asking, torch.Tensor]:
        """What is asked, call n of plan k being number ``calls k + n``, and what the model is told at each."""
        times = [t for one in self.plans for t in one.times]
        told = den.model_times(torch.tensor(times, dtype=torch.float64, device="cpu"), x)
        return den.asking(times, len(x)), told.to(x.device)

    def rows(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The rows of the samples of each plan."""
        return [x[mine.to(x.device)] for mine in self.samples]

    def whole(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The inverse of `rows`."""
        order = torch.argsort(torch.cat(self.samples)).to(parts[0].device)
        return torch.cat(list(parts))[order]

    def noises(
        self, den: Denoiser, x: torch.Tensor, seed: Seed | None, sample_ids: Iterable[int] | None,
        generator: torch.Generator | None, brownian: bool, noise: NoiseFunction | None,
    ) -> list[Seeds | NoiseFunction | None]:  # fmt: skip
        """By plan, the source of its noise: samples keep their seeds and ids."""
        if len(self.plans) == 1 or not any(one.program.noises for one in self.plans):
            given = seed, sample_ids, generator, brownian, noise
            return [noise_source(one.program, den.schedule, x, *given) for one in self.plans]
        if noise is not None:
            raise ValueError(
                "noise= is asked for the intervals of all samples; with a t_start of every sample give seed="
            )
        if seed is not None and generator is not None:
            raise ValueError("give one of seed and generator, not seed and generator")
        if seed is None:
            seed = drawn_seed(generator)
        seeds = zip(*map(self.rows, seeds_of(len(x), x.device, seed, sample_ids)), strict=True)
        return [
            addressed(one.program, den.schedule, Seeds(*mine), brownian)
            for one, mine in zip(self.plans, seeds, strict=True)
        ]


def start_times(t_start: Any, x: torch.Tensor) -> list[float] | None:
    """Those of every sample, or None where there is one for all. ValueError for another number of them."""
    if t_start is None or isinstance(t_start, (int, float)):
        return None
    if isinstance(t_start, (list, tuple)):
        raise ValueError(f"t_start must be a number, or a tensor ({len(x)},) of one per sample, not {t_start!r:.60}")
    if not isinstance(t_start, (torch.Tensor, np.ndarray)) or t_start.ndim == 0:
        return None
    if t_start.shape != (len(x),):
        raise ValueError(f"t_start must be a number or have shape ({len(x)},), not {tuple(t_start.shape)}")
    if isinstance(t_start, np.ndarray) and t_start.dtype.kind not in "iuf":
        raise TypeError(f"t_start must be of real numbers, not {t_start.dtype}")
    if isinstance(t_start, torch.Tensor) and (t_start.is_complex() or t_start.dtype is torch.bool):
        raise TypeError(f"t_start must be of real numbers, not {t_start.dtype}")
    if not len(x):
        raise ValueError("t_start of no sample says nothing; give one number for an empty batch")
    if transformed():
        raise ValueError("t_start of every sample cannot be transformed or compiled; give one number")
    return [float(t) for t in t_start.tolist()]


def run_each(
    starts: Starts,
    den: Denoiser,
    x: torch.Tensor,
    noises: Sequence[Seeds | NoiseFunction | None],
    *,
    observe: Observe | None = None,
    functional: bool = False,
    keep: bool = False,
) -> tuple[torch.Tensor, int]:
    """Run samples from ``x`` (B, ...), each by its own plan; what is returned and raised is as of `run.run`.

    ``observe`` is told the time of each node as a tensor (B,).
    """
    parts = [
        Execution(one, rows, source, functional=functional, keep=keep)
        for one, rows, source in zip(starts.plans, starts.rows(x), noises, strict=True)
    ]
    for part in parts:
        part.begun = x  # which errors name the samples of
    asking, told = starts.asking(den, x)
    everyone, nfe, grids = torch.arange(len(x)), 0, torch.from_numpy(starts.grids.copy())
    for n, row in enumerate(starts.plans[0].program.calls):
        calls = starts.of * starts.calls + n
        seen = answer = starts.whole([part.x for part in parts])
        if row.asks:
            answer = check_output(asking.rows(seen, told[calls.to(told.device)], calls, everyone), seen)
            nfe += max(asking.cost[k] for k in calls.tolist())
        asked, answers = starts.rows(seen), starts.rows(answer)
        _advance(starts, parts, answers, n)
        if observe is None or row.node is None:
            continue
        x0 = None
        if observe.wants_x0 and row.asks:
            numbers = range(n, starts.calls * len(parts), starts.calls)
            x0 = starts.whole([asking.estimate(*one) for one in zip(asked, answers, numbers, strict=True)])
        state = starts.whole([part.memory.slots[STATE] for part in parts])
        version = writes(state)
        new = observe.node(row.node, grids[row.node], state, x0)
        state, changed = state if new is None else new, new is not None or writes(state) != version
        if observe.stopped is not None:
            return state, nfe
        _replace(starts, parts, state, changed)
    return starts.whole([part.finish() for part in parts]), nfe


def _advance(starts: Starts, parts: Sequence[Execution], answers: Sequence[torch.Tensor], n: int) -> None:
    for part, mine, answer in zip(parts, starts.samples, answers, strict=True):
        try:
            part.advance(answer)
        except NonFiniteError as error:
            samples, t = [int(mine[k]) for k in error.samples], part.rows[n].t
            raise NonFiniteError.at(n, starts.calls, t, samples, len(starts.of)) from None


def _replace(starts: Starts, parts: Sequence[Execution], state: torch.Tensor, changed: bool) -> None:
    """Go on from a state that somebody has seen. Torch does not count all that may have changed it, so it is written
    back in any case."""
    for part, rows in zip(parts, starts.rows(state), strict=True):
        if not part.done and part.rows[part.n].at != STATE:
            if not changed:
                continue
            name = starts.plans[0].program.name
            raise ValueError(f"{name} does not go on from the state of its nodes: a callback cannot change it")
        part.memory.replace(rows)
