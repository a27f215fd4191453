"""Embedded pairs step by step, every sample with its own lam, step and stage."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..arrays import Array, Indices, Mask
from ..denoisers.answers import weights_at
from ..denoisers.denoiser import Denoiser
from ..finite import not_finite
from ..planners.gauge import Nodes
from ..planners.pairs import LONGEST, Pair, Row
from .control import Control

STRETCH = 1.1  # a step may be that much longer than planned if it then ends where the run must stop


class Driven(NamedTuple):
    """The states (B, ...) at the stops, and by sample: steps accepted and rejected, evaluations, and their times."""

    states: list[torch.Tensor]
    accepted: Indices
    rejected: Indices
    nfe: Indices
    grids: tuple[Array, ...]


def drive(
    den: Denoiser,
    pair: Pair,
    x: torch.Tensor,
    stops: Nodes,
    control: Control,
    *,
    keep: bool = False,
    count: Callable[[int], object] = lambda nfe: None,
) -> Driven:
    """From ``x`` (B, ...), in the state's dtype, through ``stops``, at finite lam, monotone.

    The model is always called with the whole batch, as it may hold conditions of every sample; of samples that are done
    the answer is left out. All operations are elementwise, so a sample has the same bits in every batch if the model's
    answers do. ``keep``: samples that stop being finite are given up, as NaN; else NonFiniteError.
    """
    run = Run(den, pair, x, stops, control, keep)
    while run.active.any():
        count(run.call())
        run.go_on()
    return run.driven()


class Run:
    """s: where the samples are; t: where their steps end; stage: the call that comes next, on ``seen`` at ``asked``;
    stop: the stop that comes next, beyond the last for samples that are done."""

    def __init__(self, den: Denoiser, pair: Pair, x: torch.Tensor, stops: Nodes, control: Control, keep: bool) -> None:
        self.den, self.pair, self.stops, self.control, self.keep = den, pair, stops, control, keep
        n, everyone = len(x), np.arange(len(x))
        self.start, self.x, self.seen = x, x, x
        self.states = [x] * len(stops.t)
        self.slots = [torch.zeros_like(x)] * pair.slots
        self.s, self.t = _repeated(stops[0], n), _repeated(stops[0], n)
        self.asked = self.s.t.copy()
        self.past = np.full((n, pair.slots - 1), np.nan)
        self.past[:, :1] = pair.variable(self.s)[:, None]
        self.sign = np.sign(stops.lam[-1] - stops.lam[0])
        self.stage, self.stop, self.nfe = np.zeros(n, dtype=int), np.ones(n, dtype=int), np.zeros(n, dtype=np.int64)
        self.grids: list[list[float]] = [[float(stops.t[0])] for _ in range(n)]
        self.calls = 0
        self.aim(everyone)

    def call(self) -> int:
        """Ask the model, and put its answer where it belongs; the number of calls."""
        den = self.den
        try:
            answer = den.predict(self.seen.to(den.dtype(self.start)), torch.from_numpy(self.asked))
        except (TypeError, ValueError) as error:
            error.add_note(f"at call {self.calls + 1}, t = {self.asked[0]:.6g}")
            raise
        self.take(answer)
        return self.calls

    def driven(self) -> Driven:
        """What the run has found, when no sample is active."""
        grids = tuple(map(np.array, self.grids))
        return Driven(self.states, self.control.accepted, self.control.rejected, self.nfe, grids)

    @property
    def active(self) -> Mask:
        """(B,): which samples are not done."""
        return self.stop < len(self.stops.t)

    def take(self, answer: torch.Tensor) -> None:
        """Put the model's answer for ``seen`` at ``asked`` where it belongs."""
        active, den = self.active, self.den
        self.calls += 1
        self.nfe += active * den.evaluations(self.asked)
        weights = np.column_stack(weights_at(den.answers, self.pair.gauge, den.schedule, self.asked))
        value = self._combined([self.seen, answer.to(self.x.dtype)], weights)
        self._check(value, answer, active)
        slot = np.array([self.pair.slot(i) for i in range(self.pair.stages)])[self.stage]
        self.slots = [self._where(active & (slot == j), value, kept) for j, kept in enumerate(self.slots)]

    def go_on(self) -> None:
        """End the steps whose last call that was, and make what the model is asked next."""
        rows = self.ended()
        if len(rows):
            self.aim(self.settle(rows, *self.judged(rows)))
        self.prepare()

    def ended(self) -> Indices:
        """The samples whose step has had its last call; the others go to their next stage."""
        active = self.active
        last = active & (self.stage == self.pair.stages - 1)
        self.stage += active & ~last
        return np.flatnonzero(last)

    def judged(self, rows: Indices) -> tuple[Array, torch.Tensor]:
        """The errors of the steps of these samples, in tolerances, and where the steps end."""
        s, t, past = self.s[rows], self.t[rows], self.past[rows]
        row, errors = self.pair.result(s, t, past)
        end = self._state(rows, row)
        error = self._combined(self.slots, self._spread(rows, errors))
        return self.control.norm(error, self.x, end)[rows], end

    def settle(self, rows: Indices, norm: Array, end: torch.Tensor) -> Indices:
        """Accept the steps or not; those of the samples that are not done."""
        pair, control = self.pair, self.control
        s, t, past = self.s[rows], self.t[rows], self.past[rows]
        good = control.decide(rows, norm, np.abs(t.lam - s.lam), pair.exponent(past))
        self.stage[rows] = np.where(good & (not pair.carries), 0, 1)
        self._accept(rows[good], end)
        left = self.stop[rows] < len(self.stops.t)
        rows, norm = rows[left], norm[left]
        control.check(rows, self.s.lam[rows], self.s.t[rows], norm)
        return rows

    def _accept(self, rows: Indices, end: torch.Tensor) -> None:
        mine = self._mask(rows)
        self.x = self._where(mine, end, self.x)
        _put(self.s, rows, self.t[rows])
        if self.pair.carries:
            moved = [self.slots[-1], *self.slots[:-2], self.slots[-1]]
            self.slots = [self._where(mine, new, old) for new, old in zip(moved, self.slots, strict=True)]
            self.past[rows] = np.column_stack([self.pair.variable(self.s)[rows], self.past[rows, :-1]])
        for i in rows.tolist():
            self.grids[i].append(float(self.s.t[i]))
        reached = rows[self.s.lam[rows] == self.stops.lam[self.stop[rows]]]
        for stop in np.unique(self.stop[reached]).tolist():
            there = self._mask(reached[self.stop[reached] == stop])
            self.states[stop] = self._where(there, self.x, self.states[stop])
        self.stop[reached] += 1

    def aim(self, rows: Indices) -> None:
        """Where the next steps of these samples end: at the next stop, or half way if two steps reach it."""
        if not len(rows):
            return
        s, stop = self.s[rows], self.stops[self.stop[rows]]
        left = np.abs(stop.lam - s.lam)
        size = np.minimum(self.control.size[rows], LONGEST)
        lands = STRETCH * size >= left
        size = np.where(2 * size > left, left / 2, size)
        inner = s.lam + self.sign * np.where(lands, 0, size)
        self._head_for(rows, lands, Nodes.at(self.den.schedule, self.den.schedule.time(inner)))

    def share(self, rows: Indices, size: Array) -> Array:
        """(n,): of the way to the next stops, what steps of such a size in lam are, in the pair's variable."""
        s, stop, pair, sch = self.s[rows], self.stops[self.stop[rows]], self.pair, self.den.schedule
        if pair.schedule is None:
            return np.asarray(size / np.abs(stop.lam - s.lam))
        return np.asarray((sch.time(s.lam + self.sign * size) - s.t) / (stop.t - s.t))

    def aim_at(self, rows: Indices, share: Array) -> None:
        """The next steps of these samples end at a share of the way to their next stops, 1 for the stops themselves."""
        s, stop = self.s[rows], self.stops[self.stop[rows]]
        self._head_for(rows, share == 1, self.pair.between(self.den.schedule, s, stop, np.where(share == 1, 0, share)))
        self.control.size[rows] = np.abs(self.t.lam[rows] - s.lam)

    def _head_for(self, rows: Indices, lands: Mask, inner: Nodes) -> None:
        stop = self.stops[self.stop[rows]]
        fields = zip(vars(stop).values(), vars(inner).values(), strict=True)
        _put(self.t, rows, Nodes(*(np.where(lands, a, b) for a, b in fields)))

    def prepare(self) -> None:
        """What the model is asked next: the state itself at the start of a step and of samples that are done."""
        active = self.active
        weights, self.asked = np.zeros((len(self.x), 1 + self.pair.slots)), self.s.t.copy()
        weights[:, 0] = 1.0
        for stage in np.unique(self.stage[active & (self.stage > 0)]).tolist():
            rows = np.flatnonzero(active & (self.stage == stage))
            s, t, part = self.s[rows], self.t[rows], self.pair.node(stage)
            at = t if part == 1 else self.pair.between(self.den.schedule, s, t, part)
            row = self.pair.stage(stage, s, at, self.past[rows])
            weights[rows] = np.column_stack(row)
            self.asked[rows] = at.t
        self.seen = self._combined([self.x, *self.slots], weights)

    def _state(self, rows: Indices, row: Row) -> torch.Tensor:
        return self._combined([self.x, *self.slots], self._spread(rows, np.column_stack(row)))

    def _spread(self, rows: Indices, some: Array) -> Array:
        """Rows of a matrix for all samples, 0 for the others."""
        whole = np.zeros((len(self.x), some.shape[1]))
        whole[rows] = some
        return whole

    def _combined(self, inputs: Sequence[torch.Tensor], weights: Array) -> torch.Tensor:
        """The sum of the inputs (B, ...) times their columns of weights (B, inputs), left to right."""
        columns = torch.from_numpy(weights).to(self.x.dtype).to(self.x.device)
        shape = (-1, *[1] * (self.x.dim() - 1))
        total = columns[:, 0].reshape(shape) * inputs[0]
        for j, more in enumerate(inputs[1:], start=1):
            total = total + columns[:, j].reshape(shape) * more
        return total

    def _mask(self, rows: Indices) -> Mask:
        mask = np.zeros(len(self.x), dtype=bool)
        mask[rows] = True
        return mask

    def _where(self, mask: Mask, yes: torch.Tensor, no: torch.Tensor) -> torch.Tensor:
        chosen = torch.from_numpy(mask).to(self.x.device).reshape(-1, *[1] * (self.x.dim() - 1))
        return torch.where(chosen, yes, no)

    def _check(self, value: torch.Tensor, answer: torch.Tensor, active: Mask) -> None:
        finite = value.detach().isfinite().reshape(len(value), -1).all(1).cpu().numpy()
        broken = np.flatnonzero(active & ~finite)
        if not len(broken):
            return
        if not self.keep:
            t = float(self.asked[broken[0]])
            raise not_finite(self.start, self.calls - 1, self.calls, t, [answer], broken.tolist())
        self.x = self._where(self._mask(broken), torch.full_like(self.x, torch.nan), self.x)
        for stop in range(len(self.stops.t)):
            later = self._mask(broken[self.stop[broken] <= stop])
            self.states[stop] = self._where(later, self.x, self.states[stop])
        self.stop[broken] = len(self.stops.t)


def _repeated(at: Nodes, n: int) -> Nodes:
    return Nodes(*(np.full(n, float(value)) for value in vars(at).values()))


def _put(nodes: Nodes, rows: Indices, new: Nodes) -> None:
    for old, values in zip(vars(nodes).values(), vars(new).values(), strict=True):
        old[rows] = values
