"""Parareal: the blocks of a program side by side, corrected by a coarse program from block to block (Lions, Maday and
Turinici 2001; for diffusion models Selvam et al. 2024, SRDS).

With F_j what the program makes of the state at the start of block j, and G_j what the coarse one does, an iteration is

    U_(j+1) <- F_j(U_j) + (G_j(U_j new) - G_j(U_j)).

The first p block starts are right to the last bit after p iterations: there both G are the same. The history that
a multistep program hands on from block to block is what F_j has left of it; the first is that of the line on which
(x0, eps) stay as the coarse program sees them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from ..kernels import Seeds, advance
from .catalogue import Solver
from .coarse import check_coarse, lower_coarse, spread, step
from .denoiser import Denoiser
from .gauges import Array
from .lower import Lowered
from .noise import NoiseFunction
from .options import count
from .parallel import Certificate, Noises, Outcome, check_start, evaluate
from .parallel_plan import Pair, Plan
from .picard import tolerance
from .picard_window import SLOWEST, UNKNOWN
from .run import Observe, not_finite


@dataclass(frozen=True)
class Parareal:
    """How `solve` runs parallel in time, block by block. `Picard` takes fewer rounds; this one takes less memory: that
    of a few states for every block, and that of the noise, if there is some.

    coarse: the solver that takes one step a block, a name or a `Solver`, with fixed steps and without noise.
    blocks: into how many the steps are divided; by default as many as each then has steps.
    tol:    a sample is done when an iteration changes the start of no block by more, relative to its norm. With 0 when
            nothing changes at all: bit for bit the sequential answer, after at most as many iterations as there are
            blocks, of models whose answers for a sample do not depend on the batch.

    Raises ValueError for solvers and numbers that do not fit.
    """

    coarse: str | Solver = "ddim"
    blocks: int | None = None
    tol: float = 1e-3

    def __post_init__(self) -> None:
        check_coarse(self.coarse)
        if self.blocks is not None:
            count("blocks", self.blocks)
        tolerance("tol", self.tol)


def parareal(
    lowered: Lowered,
    den: Denoiser,
    x: torch.Tensor,
    how: Parareal,
    *,
    noise: NoiseFunction | Seeds | None = None,
    keep: bool = False,
) -> Outcome:
    """Run a lowered program from ``x`` (B, ...). A round is a call of the model: all blocks of all samples that are not
    done, one call each; or a call of the coarse program, which asks for one state at a time.

    Raises ValueError for programs whose calls do not have the same form and for more blocks than steps, and
    NonFiniteError if the model returns an infinity or a NaN for a call that sees what it would see one by one.
    """
    check_start(x)
    steps, x = len(lowered.grid) - 1, x.contiguous()
    nodes = spread(steps, how.blocks or round(steps**0.5), "blocks")
    blocks = _Blocks(lowered, lower_coarse(how.coarse, lowered, nodes, den), nodes, den, x, keep)
    noises, done = Noises(lowered, noise, x.to(blocks.plan.seen)), 0
    if len(x):
        blocks.guess()
    while len(blocks.active):
        blocks.carry_out(done, noises)
        done += 1
        blocks.correct(done)
        blocks.finish(done, how.tol)
    nfe, rounds = (int(counts.max(initial=0)) for counts in (blocks.nfe, blocks.rounds))
    found = blocks.change, blocks.distance, blocks.rounds, blocks.nfe
    certificate = Certificate(*map(torch.from_numpy, found))
    return Outcome(blocks.end, nfe, rounds, certificate, partial(_replay, lowered, blocks.states))


def _replay(lowered: Lowered, states: torch.Tensor, observe: Observe) -> None:
    for node, state in enumerate(states, 1):
        observe(node, lowered.grid[node], state)


class _Blocks:
    """The blocks of the samples that are not done, ``active`` by number (A,).

    starts:  before each block and at the end: slots (S, A, ...), of which at the end only the state's counts.
    ends:    after each block, as the program has it; cheap: as the coarse one, whose slots these are, and guessed its
             state (A, ...).
    moved:   (blocks + 1, A), by how much the last iteration has changed starts; most: (A,), the largest of them.
    states:  (steps, B, ...), at the nodes, if they are kept. What has come out, of all samples: end, change, distance,
             rounds and nfe, as in `Certificate`.
    """

    def __init__(
        self, lowered: Lowered, coarse: Lowered, nodes: Array, den: Denoiser, x: torch.Tensor, keep: bool
    ) -> None:
        self.den, self.x, self.nodes = den, x, nodes
        self.plan, self.coarse = (Plan.of(each, den, x) for each in (lowered, coarse))
        self.first, self.coarse_first = _firsts(lowered, nodes.tolist()), _firsts(coarse, range(len(nodes)))
        self.active = np.arange(len(x))
        self.starts, self.ends, self.cheap = (list[torch.Tensor]() for _ in range(3))
        self.guessed = [x.to(self.plan.wide)] * len(self)
        self.moved, self.most = np.zeros((len(nodes), len(x))), np.full(len(x), np.nan)
        self.made = np.zeros(2, dtype=np.int64)  # rounds, evaluations of a sample
        self.states = x.new_empty((len(lowered.grid) - 1 if keep else 0, *x.shape), dtype=self.plan.wide)
        self.end, self.change = x.to(self.plan.wide, copy=True), np.zeros((len(self.plan), len(x)))
        self.distance, (self.rounds, self.nfe) = np.zeros(len(x)), np.zeros((2, len(x)), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.nodes) - 1

    def guess(self) -> None:
        """The first starts: states of the coarse program, with the history of the line of its (x0, eps)."""
        slots, state = self.coarse.start(self.x), self.x.to(self.plan.wide)
        for j in range(len(self)):
            pair = self._coarse_step(j, slots, state)
            start = self.plan.slots_of(self.first[j], pair) if j else self.plan.start(self.x)
            start[self.plan.held[self.first[j]]] = state
            self.starts.append(start)
            state = self.guessed[j]
        self.starts.append(state[None])
        self.made += self.coarse_first[-1]

    def carry_out(self, done: int, noises: Noises) -> None:
        """The program from the starts of the blocks from ``done`` on, of which the first is right."""
        plan, first, finite = self.plan, self.first, list[torch.Tensor]()
        self.ends[done:] = [slots.clone() for slots in self.starts[done:-1]]
        for i in range(max(np.diff(first[done:]))):
            going = [j for j in range(done, len(self)) if first[j] + i < first[j + 1]]
            seen = [self.ends[j][plan.recurrence.at[first[j] + i]].to(plan.seen, copy=True) for j in going]
            told = torch.cat([plan.told[first[j] + i].expand(len(self.active)) for j in going])
            outputs = evaluate(self.den, None, plan.recurrence.models, torch.cat(seen), told)
            if going[0] == done:
                answers = torch.stack([y[: len(self.active)].flatten(1) for y in outputs])
                finite.append(answers.isfinite().all(2).all())
            for j, *answers_of in zip(going, *(y.split(len(self.active)) for y in outputs), strict=True):
                self._advance(j, first[j] + i, answers_of, noises)
            self.made += 1, len(going)
        if not (right := torch.stack(finite)).all():
            n = first[done] + int(right.int().argmin())
            raise not_finite(self.x, n, len(plan), plan.lowered.times[n])

    def _advance(self, j: int, n: int, answers: list[torch.Tensor], noises: Noises) -> None:
        plan, slots = self.plan, self.ends[j]
        added, node = [z[self.active] for z in noises.call(n)], plan.lowered.nodes[n]
        if len(self.states) and node is not None:
            self.states[node - 1, self.active] = plan.state_after(n, slots, answers, added)
        answers, added = ([z[None] for z in rows] for rows in (answers, added))
        advance(slots, answers, plan.recurrence, first=n, noises=added, out=slots)

    def correct(self, done: int) -> None:
        """New starts after ``done`` iterations, by the coarse program from block ``done`` on, whose start is right."""
        self.moved[:] = 0.0
        slots = self.cheap[done - 1].clone()
        self._replace(done, self.ends[done - 1].clone())
        for j in range(done, len(self)):
            old = self.guessed[j]
            self._coarse_step(j, slots, self.starts[j][self.plan.held[self.first[j]][0]])
            change = self.guessed[j] - old
            change[~change.flatten(1).isfinite().all(1)] = 0.0  # says nothing of what to correct
            corrected = self.ends[j].clone()
            corrected[self.plan.held[self.first[j + 1]]] += change
            self._replace(j + 1, corrected)
            if len(self.states):
                self.states[self.nodes[j + 1] - 1, self.active] += change
        self.made += self.coarse_first[-1] - self.coarse_first[done]

    def _coarse_step(self, j: int, slots: torch.Tensor, state: torch.Tensor) -> Pair:
        """Carry the coarse program's slots over block j from a state; its (x0, eps) there."""
        begin, end = self.coarse_first[j : j + 2]
        slots[self.coarse.held[begin]] = state
        pairs = [
            self.coarse.pair_of(n, slots[self.coarse.held[n][0]].clone(), step(self.coarse, self.den, slots, n))
            for n in range(begin, end)
        ]
        self.cheap[j : j + 1] = [slots.clone()]
        self.guessed[j] = slots[self.coarse.held[end][0]].clone()
        return pairs[0]

    def _replace(self, j: int, slots: torch.Tensor) -> None:
        old = self.starts[j]
        slots = slots[: len(old)]
        change, size = ((z.double().flatten(2).norm(dim=2)).cpu().numpy() for z in (slots - old, slots))
        with np.errstate(divide="ignore", invalid="ignore"):
            self.moved[j] = np.where(change > 0, change / size, change).max(axis=0)
        self.starts[j] = slots

    def finish(self, done: int, tol: float) -> None:
        """Put away the samples that are done."""
        most, last = self.moved.max(axis=0), self.most
        ready = (most <= tol) | (done == len(self))
        ratio = np.divide(most, last, out=np.full_like(most, UNKNOWN), where=last > 0).clip(max=SLOWEST)
        rest = np.where(done == len(self), 0.0, most * ratio / (1 - ratio))
        for k in np.flatnonzero(ready):
            b = self.active[k]
            self.end[b], self.distance[b] = self.starts[-1][0, k], rest[k]
            self.change[:, b] = np.repeat(self.moved[:-1, k], np.diff(self.first))
            self.rounds[b], self.nfe[b] = self.made
        self.most, left = most[~ready], torch.from_numpy(np.flatnonzero(~ready)).to(self.x.device)
        self.active, self.moved = self.active[~ready], self.moved[:, ~ready]
        self.starts, self.cheap = ([z[:, left] for z in slots] for slots in (self.starts, self.cheap))
        self.guessed = [z[left] for z in self.guessed]


def _firsts(lowered: Lowered, nodes: Iterable[int]) -> list[int]:
    """The calls that begin the blocks between these nodes, and the number of calls."""
    reached = {node: n + 1 for n, node in enumerate(lowered.nodes) if node is not None} | {0: 0}
    return [reached[node] for node in nodes]
