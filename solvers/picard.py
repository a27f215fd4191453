"""The parallel executor: Picard iteration over windows of a program's calls, as Shih et al. (2023, ParaDiGMS) do it for
the plain drift of one solver, here for every program and in its own exponential form.

A sweep evaluates the model at all nodes of a window in one batch and carries the program out with these answers, see
`kernels.scan`. Answers are kept in the form in which they change least from sweep to sweep: not the head is frozen, but
x0, whatever the network predicts, or the tangent that the last two sweeps show (``accelerate="secant"``), and nodes may
be mixed with those of past sweeps (``"anderson"``). Its fixed point is the sequential run; after k sweeps the first k
nodes of a window are right to the last bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch

from ..kernels import Seeds
from .coarse import Coarse, Guess
from .denoiser import Denoiser
from .lower import Lowered
from .noise import NoiseFunction
from .options import count, number
from .parallel import Certificate, Noises, Outcome, check_start, evaluate
from .parallel_plan import Plan
from .picard_memory import auto_window
from .picard_ranks import Evaluate, check_ranks, least, shared
from .picard_window import Window
from .run import Observe, not_finite, run

Init = Literal["straight", "constant"]
Acceleration = Literal["secant", "anderson"]

tolerance = number(0.0, 1.0, "a number from 0 to 1")


@dataclass(frozen=True)
class Picard:
    """How `solve` runs parallel in time.

    window:     how many calls are evaluated at once; None for all; "auto" for as many as the memory that is free allows
                (`picard_memory`). More take fewer rounds and more evaluations.
    tol:        a node is accepted when a sweep changes it by no more than this, relative to its norm: along the flow
                of Gaussian data distances grow as states do, so that a change is worth the same wherever it happens,
                and the answer is about as far from the sequential one, most often less. With 0 a node is accepted
                when it no longer changes at all: bit for bit the sequential answer, in at most as many rounds as
                there are calls, of models whose answers for a sample do not depend on the batch.
    accelerate: "secant": each node's model is followed along the line of its last two values; "anderson": so it is, and
                nodes are mixed with those of the sweeps before; None: x0 is frozen.
    init:       what nodes that nothing is known of are taken to be: "straight", on the line on which (x0, eps) stay
                what they are at the last node that is known; "constant", that node; or as a `Coarse` run has them.
                Noise is added to the first and the last.
    batch:      the most nodes, of all samples together, that the model is given in one call; None for no limit. A
                round with more takes several calls.
    ranks:      share the nodes of every round among the ranks of torch.distributed's default group, which must all call
                `solve` with the same arguments, a seed included; each gets the answer. A rank that is lost ends the
                others with the error that the group gives, at its timeout at the latest.

    Raises ValueError for numbers out of range and unknown names.
    """

    window: int | Literal["auto"] | None = None
    tol: float = 1e-3
    accelerate: Acceleration | None = "secant"
    init: Init | Coarse = "straight"
    batch: int | None = None
    ranks: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.window, str) and self.window != "auto":
            raise ValueError(f"window = {self.window!r} must be 'auto', None or an integer of at least 1")
        for name, value in (("window", self.window if self.window != "auto" else None), ("batch", self.batch)):
            if value is not None:
                count(name, value)
        tolerance("tol", self.tol)
        if self.accelerate not in (None, *get_args(Acceleration)):
            raise ValueError(f"accelerate = {self.accelerate!r} must be 'secant', 'anderson' or None")
        if not isinstance(self.init, Coarse) and self.init not in get_args(Init):
            raise ValueError(f"init = {self.init!r} must be 'straight', 'constant' or a logsnr.Coarse")
        if not isinstance(self.ranks, bool):
            raise ValueError(f"ranks = {self.ranks!r} must be True or False")


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
    check_start(x)
    x = x.contiguous()
    plan = Plan.of(lowered, den, x)
    noises = Noises(lowered, noise, x.to(plan.seen), keep)
    ask: Evaluate = partial(evaluate, den, how.batch, plan.recurrence.models)
    if how.ranks:
        check_ranks(x, noise)
        ask = shared(ask)
    coarse = Guess(how.init, lowered, den, x) if isinstance(how.init, Coarse) and len(x) else None
    windows = _windows(plan, x, how, coarse, keep)
    cheap = coarse.nfe if coarse else 0
    rounds = cheap
    while active := {b: window for b, window in enumerate(windows) if len(window)}:
        noises.drop(min(window.first for window in active.values()))
        bad = _round(active, plan, noises, ask)
        if bad is not None:
            raise not_finite(x, bad, len(plan), lowered.times[bad])
        rounds += 1
    end = torch.cat([window.state for window in windows]) if windows else x.to(plan.wide, copy=True)
    certificate = Certificate(
        torch.from_numpy(np.array([w.change for w in windows]).reshape(-1, len(plan)).T.copy()),
        torch.tensor([w.distance for w in windows], dtype=torch.float64),
        torch.tensor([w.rounds + cheap for w in windows], dtype=torch.int64),
        torch.tensor([w.nfe + cheap for w in windows], dtype=torch.int64),
    )
    most = int(certificate.nfe.max()) if windows else 0
    outputs = _joined(windows) if keep else []
    return Outcome(end, most, rounds, certificate, partial(_replay, lowered, den, x, outputs, noises.again()))


def _round(active: dict[int, Window], plan: Plan, noises: Noises, ask: Evaluate) -> int | None:
    """One batch for all windows; the call of a window whose first answer was not finite, if there is one."""
    added = [noises.rows(window.calls, b) for b, window in active.items()]
    seen = [window.see(rows) for window, rows in zip(active.values(), added, strict=True)]
    told = torch.cat([plan.told[window.calls] for window in active.values()])
    answers = ask(torch.cat(seen) if len(seen) > 1 else seen[0], told)
    parts = zip(*(answer.split([*map(len, seen)]) for answer in answers), strict=True)
    for window, outputs, rows in zip(active.values(), parts, added, strict=True):
        if not window.sweep(outputs, rows):
            return window.first
    return None


def _windows(plan: Plan, x: torch.Tensor, how: Picard, coarse: Guess | None, keep: bool) -> list[Window]:
    size = how.window or len(plan)
    if size == "auto":
        size = auto_window(plan.lowered, x, anderson=how.accelerate == "anderson")
        size = least(size) if how.ranks else size
    secant, anderson = how.accelerate is not None, how.accelerate == "anderson"
    return [
        Window(
            plan, x[b : b + 1], size, how.tol, guess=partial(coarse.of, b) if coarse else str(how.init),
            secant=secant, anderson=anderson, keep=keep,
        )
        for b in range(len(x))
    ]  # fmt: skip


def _joined(windows: Sequence[Window]) -> list[torch.Tensor]:
    """What the calls were carried out with, (calls, B, ...) per output of the model."""
    samples = [[torch.cat(parts) for parts in zip(*(window.kept or ()), strict=True)] for window in windows]
    return [torch.cat(parts, 1) for parts in zip(*samples, strict=True)]


def _replay(
    lowered: Lowered,
    den: Denoiser,
    x: torch.Tensor,
    outputs: Sequence[torch.Tensor],
    noise: NoiseFunction | Seeds | None,
    observe: Observe,
) -> None:
    """Let ``observe`` see the states of a parallel run, by running the program with the outputs that it has kept."""
    if not len(x):
        outputs = [x.new_empty(len(lowered.times), *x.shape)] * lowered.updates.models
    rows = iter(zip(*outputs, strict=True))

    def model(x: torch.Tensor, t: torch.Tensor) -> Any:
        answers = next(rows)
        return answers if len(answers) > 1 else answers[0]

    again = Denoiser(model, den.schedule, den.prediction, time=den.time, dtype=den.dtype(x))
    run(lowered, again, x, noise=noise, observe=observe)
