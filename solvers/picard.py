"""The parallel executor: Picard iteration over windows of a program's calls, as Shih et al. (2023, ParaDiGMS) do it for
the plain drift of one solver, here for every program and in its own exponential form.

A sweep evaluates the model at all nodes of a window in one batch and carries the program out with these answers, see
`kernels.scan`. Answers are kept in the form in which they change least from sweep to sweep: not the head is frozen, but
x0, whatever the network predicts, or the tangent that the last two sweeps show (``accelerate="secant"``). Its fixed
point is the sequential run; after k sweeps the first k nodes of a window are right to the last bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from ..kernels import Noise, Seeds, standard_normals, transformed
from .denoiser import Denoiser, check_output
from .lower import Lowered
from .noise import NoiseFunction
from .options import count, number
from .picard_ranks import Evaluate, check_ranks, shared
from .picard_window import Plan, Window
from .run import Observe, not_finite, run

_tolerance = number(0.0, 1.0, "a number from 0 to 1")


@dataclass(frozen=True)
class Picard:
    """How `solve` runs parallel in time.

    window:     how many calls are evaluated at once; None for all. More take fewer rounds and more evaluations.
    tol:        a node is accepted when a sweep changes it by no more than this, relative to its norm: along the flow
                of Gaussian data distances grow as states do, so that a change is worth the same wherever it happens,
                and the answer is about as far from the sequential one, most often less. With 0 a node is accepted
                when it no longer changes at all: bit for bit the sequential answer, in at most as many rounds as
                there are calls, of models whose answers for a sample do not depend on the batch.
    accelerate: "secant": each node's model is followed along the line of its last two values; None: x0 is frozen.
    batch:      the most nodes, of all samples together, that the model is given in one call; None for no limit. A
                round with more takes several calls.
    ranks:      share the nodes of every round among the ranks of torch.distributed's default group, which must all call
                `solve` with the same arguments, a seed included; each gets the answer. A rank that is lost ends the
                others with the error that the group gives, at its timeout at the latest.

    Raises ValueError for numbers out of range and unknown names.
    """

    window: int | None = None
    tol: float = 1e-3
    accelerate: Literal["secant"] | None = "secant"
    batch: int | None = None
    ranks: bool = False

    def __post_init__(self) -> None:
        for name in ("window", "batch"):
            if getattr(self, name) is not None:
                count(name, getattr(self, name))
        _tolerance("tol", self.tol)
        if self.accelerate not in (None, "secant"):
            raise ValueError(f"accelerate = {self.accelerate!r} must be 'secant' or None")
        if not isinstance(self.ranks, bool):
            raise ValueError(f"ranks = {self.ranks!r} must be True or False")


@dataclass(frozen=True, eq=False)
class Certificate:
    """How far a parallel run is from the sequential one, sample by sample.

    change:      (calls, B), float64: how much the last sweep changed what each call sees, relative to its norm. What
                 calls see up to the first where it is not 0 is exact.
    distance:    (B,), float64: an estimate, not a bound, of the relative distance of the end state: for every end of
                 an accepted stretch what a geometric series with the last observed contraction leaves, carried to
                 the end as the state's norm is. 0 is exact: then every change is.
    rounds, nfe: (B,), int64: what each sample took.

    What is a bound: the answer is that of a sequential run of a model whose answers differ from the given one's, at
    every call, by at most ``(L + |slope|) change`` times the norm of what it sees, L being the Lipschitz constant of
    the model between the last two values of that, and slope how `kernels.scan` has followed it.
    """

    change: torch.Tensor
    distance: torch.Tensor
    rounds: torch.Tensor
    nfe: torch.Tensor


class Outcome(NamedTuple):
    """x: the final state. outputs: (calls, B, ...) per output of the model, what the calls were carried out with, if
    they were to be kept. nfe: the evaluations of the sample that took most, rounds: of batched calls."""

    x: torch.Tensor
    outputs: list[torch.Tensor]
    nfe: int
    rounds: int
    certificate: Certificate


def picard(
    lowered: Lowered,
    den: Denoiser,
    x: torch.Tensor,
    how: Picard,
    *,
    noise: NoiseFunction | Seeds | None = None,
    keep: bool = False,
) -> Outcome:
    """Run a lowered program from ``x`` (B, ...), windows of its calls at a time. ``noise`` as for `run.run`.

    Every sample has its own window, which moves on when its own nodes have converged: a sample's answer does not
    depend on its batch, as far as the model's does not. The nodes of all windows make one batch.
    Raises ValueError for programs whose calls do not have the same form, NonFiniteError if the model returns an
    infinity or a NaN for a call whose inputs have converged (others are tried again), and what `check_output` raises.
    """
    if x.requires_grad or transformed():
        raise ValueError("parallel runs record no gradients and cannot be transformed or compiled")
    x, rec = x.contiguous(), lowered.updates.recurrence
    plan = Plan.of(lowered, rec, den, x.device, how.window or len(rec), how.tol, how.accelerate == "secant")
    noises = _Noises(lowered, noise, x.to(plan.seen), rec.noises)
    windows = [Window(plan, x[b : b + 1], keep) for b in range(len(x))]
    evaluate: Evaluate = partial(_evaluate, den, how.batch, rec.models)
    if how.ranks:
        check_ranks(x, noise)
        evaluate = shared(evaluate)
    told = den.model_times(torch.tensor(lowered.times, dtype=torch.float64), x).to(x.device)
    rounds = 0
    while active := {b: window for b, window in enumerate(windows) if len(window)}:
        noises.drop(min(window.first for window in active.values()))
        seen = [window.see() for window in active.values()]
        times = torch.cat([told[window.calls] for window in active.values()])
        answers = evaluate(torch.cat(seen), times)
        parts = zip(*(answer.split([*map(len, seen)]) for answer in answers), strict=True)
        for (b, window), nodes, outputs in zip(active.items(), seen, parts, strict=True):
            if not window.sweep(nodes, outputs, noises.rows(window.calls, b)):
                raise not_finite(x, window.first, len(rec), lowered.times[window.first])
        rounds += 1
    end = torch.cat([window.state for window in windows]) if windows else x.to(plan.wide, copy=True)
    certificate = Certificate(
        torch.from_numpy(np.array([w.change for w in windows]).reshape(-1, len(rec)).T.copy()),
        torch.tensor([w.distance for w in windows], dtype=torch.float64),
        torch.tensor([w.rounds for w in windows]),
        torch.tensor([w.nfe for w in windows]),
    )
    return Outcome(end, _joined(windows) if keep else [], max((w.nfe for w in windows), default=0), rounds, certificate)


def _evaluate(
    den: Denoiser, batch: int | None, models: int, nodes: torch.Tensor, times: torch.Tensor
) -> list[torch.Tensor]:
    """The model's answers, one tensor like ``nodes`` (N, ...) for every tensor that it returns."""
    size, kept = batch or len(nodes), list[torch.Tensor]()
    for k, (part, told) in enumerate(zip(nodes.split(size), times.split(size), strict=True)):
        answer: Any = den.model(part, told)
        answers = [check_output(a, part) for a in (answer if models > 1 else (answer,))]
        if len(answers) != models:
            raise ValueError(f"the model returned {len(answers)} tensors instead of {models}")
        kept = kept or [a.new_empty(nodes.shape) for a in answers]
        for rows, a in zip(kept, answers, strict=True):
            rows[k * size : k * size + len(part)] = a  # a copy: models may use their memory again
    return kept


def _joined(windows: Sequence[Window]) -> list[torch.Tensor]:
    """What the calls were carried out with, (calls, B, ...) per output of the model."""
    samples = [[torch.cat(parts) for parts in zip(*(window.kept or ()), strict=True)] for window in windows]
    return [torch.cat(parts, 1) for parts in zip(*samples, strict=True)]


def replay(
    lowered: Lowered,
    den: Denoiser,
    x: torch.Tensor,
    outputs: Sequence[torch.Tensor],
    *,
    noise: NoiseFunction | Seeds | None,
    observe: Observe,
) -> None:
    """Let ``observe`` see the states of a parallel run, by running the program with the outputs that it has kept."""
    rows = iter(zip(*outputs, strict=True))

    def model(x: torch.Tensor, t: torch.Tensor) -> Any:
        answers = next(rows)
        return answers if len(answers) > 1 else answers[0]

    again = Denoiser(model, den.schedule, den.prediction, time=den.time, dtype=den.dtype(x))
    run(lowered, again, x, noise=noise, observe=observe)


class _Noises:
    """What the calls add, made in their order for the whole batch, as the sequential run does, and kept while a window
    may need it."""

    def __init__(
        self, lowered: Lowered, source: NoiseFunction | Seeds | None, like: torch.Tensor, columns: int
    ) -> None:
        if lowered.stochastic and source is None:
            raise ValueError("this program adds noise; give seed= or noise=")
        self.lowered, self.source, self.like, self.columns = lowered, source, like, columns
        self.made: dict[int, list[torch.Tensor]] = {}
        self.next = 0

    def rows(self, calls: slice, sample: int) -> list[torch.Tensor]:
        """(W, 1, ...) per column."""
        for n in range(self.next, calls.stop if self.columns else 0):
            self.made[n] = self._make(n)
            self.next = n + 1
        return [
            torch.stack([self.made[n][column][sample : sample + 1] for n in range(calls.start, calls.stop)])
            for column in range(self.columns)
        ]

    def drop(self, first: int) -> None:
        for n in [n for n in self.made if n < first]:
            del self.made[n]

    def _make(self, n: int) -> list[torch.Tensor]:
        if isinstance(self.source, Seeds):
            addresses = self.lowered.updates.calls[n].noises
            found = [standard_normals(Noise(*self.source, (a,)), 0, self.like) for a in addresses]
        else:
            assert self.source is not None
            found = [self.source(key, self.like) for key in self.lowered.noises[n]]
        wide = self.lowered.updates.dtypes[0]
        found = [z.to(wide) for z in found]
        return found + [torch.zeros_like(self.like, dtype=wide)] * (self.columns - len(found))
