"""The parallel executor: Picard iteration over windows of a program's calls, as Shih et al. (2023, ParaDiGMS) do it for
the plain drift of one solver, here for every program and in its own exponential form.

A sweep evaluates the model at all nodes of a window in one batch and carries the program out with these answers, see
`kernels.scan`. Answers are kept in the form in which they change least from sweep to sweep: not the head is frozen, but
x0, whatever the network predicts, or the tangent that the last two sweeps show (``accelerate="secant"``). Its fixed
point is the sequential run; after k sweeps the first k nodes of a window are right to the last bit.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from ...kernels import Seeds
from ..denoiser import Denoiser
from ..finite import not_finite
from ..lower import Lowered
from ..noise import NoiseFunction
from ..run import Observe, run
from ..solution import Solution
from .common import Certificate, Noises, check_conditions, check_start, evaluate
from .plan import Plan
from .ranks import Evaluate, check_ranks, shared
from .settings import Picard
from .window import PicardWindow


def picard(
    lowered: Lowered,
    den: Denoiser,
    x: torch.Tensor,
    how: Picard,
    *,
    noise: NoiseFunction | Seeds | None = None,
    keep: bool = False,
    observe: Observe | None = None,
) -> Solution:
    """Run a lowered program from ``x`` (B, ...), windows of its calls at a time. The other arguments are
    as for `run.run`; ``observe`` sees the states after the run, and cannot change them.

    Every sample has its own window, which moves on when its own nodes have converged: a sample's answer does not
    depend on its batch, as far as the model's does not. The nodes of all windows make one batch.
    Raises ValueError for programs whose calls do not have the same form, NonFiniteError if the model returns an
    infinity or a NaN for a call whose inputs have converged (others are tried again), and what `check_output` raises.
    """
    check_start(x)
    check_conditions(den.model, len(x))
    x, record = x.contiguous(), observe is not None
    plan = Plan.of(lowered, den, x)
    noises = Noises(lowered, noise, x.to(plan.seen), record)
    asking = den.asking(lowered.times, len(x))
    ask: Evaluate = partial(evaluate, asking, plan.timesteps, how.batch, plan.recurrence.models)
    if how.ranks:
        check_ranks(x, noise)
        ask = shared(ask)
    windows = [PicardWindow(plan, x[b : b + 1], how, asking.cost, record=record) for b in range(len(x))]
    rounds = 0
    while active := {b: window for b, window in enumerate(windows) if len(window)}:
        noises.drop(min(window.first for window in active.values()))
        failed = _round(active, plan, noises, ask)
        for b in failed:
            if not keep:
                bad = windows[b].first
                raise not_finite(x, bad, len(plan), lowered.times[bad], samples=failed)
            windows[b].fail()
        rounds += 1
    end = torch.cat([window.state for window in windows]) if windows else x.to(plan.wide, copy=True)
    certificate = Certificate(
        torch.from_numpy(np.array([w.change for w in windows]).reshape(-1, len(plan)).T.copy()),
        torch.tensor([w.distance for w in windows], dtype=torch.float64, device="cpu"),
        torch.tensor([w.rounds for w in windows], dtype=torch.int64, device="cpu"),
        torch.tensor([w.nfe for w in windows], dtype=torch.int64, device="cpu"),
    )
    most = int(certificate.nfe.max()) if windows else 0
    if observe is not None:
        _replay(lowered, den, x, _joined(windows), noises.again(), keep, observe)
    return Solution(end, most, rounds, lowered.program.times, program=lowered.program, certificate=certificate)


def _round(active: dict[int, PicardWindow], plan: Plan, noises: Noises, ask: Evaluate) -> list[int]:
    """One batch for all windows; the samples of those whose first answer was not finite."""
    added = [noises.rows(window.calls, b) for b, window in active.items()]
    seen = [window.see(rows) for window, rows in zip(active.values(), added, strict=True)]
    rows = np.array([(n, b) for b, window in active.items() for n in range(window.calls.start, window.calls.stop)])
    calls, samples = torch.from_numpy(rows.T.copy())
    answers = ask(torch.cat(seen) if len(seen) > 1 else seen[0], calls, samples)
    parts = zip(*(answer.split([*map(len, seen)]) for answer in answers), strict=True)
    swept = zip(active.items(), parts, added, strict=True)
    return [b for (b, window), outputs, rows in swept if not window.sweep(outputs, rows)]


def _joined(windows: Sequence[PicardWindow]) -> list[torch.Tensor]:
    """What the calls were carried out with, (calls, B, ...) per output of the model."""
    samples = [[torch.cat(parts) for parts in zip(*(window.kept or ()), strict=True)] for window in windows]
    return [torch.cat(parts, 1) for parts in zip(*samples, strict=True)]


def _replay(
    lowered: Lowered,
    den: Denoiser,
    x: torch.Tensor,
    outputs: Sequence[torch.Tensor],
    noise: NoiseFunction | Seeds | None,
    keep: bool,
    observe: Observe,
) -> None:
    """Let ``observe`` see the states of a parallel run, by running the program with the outputs that it has kept."""
    if not len(x):  # no window has asked for anything
        noise = noise if isinstance(noise, Seeds) else lambda key, like: like
        outputs = [x.new_empty(len(lowered.times), *x.shape)] * lowered.updates.models
    rows = iter(zip(*outputs, strict=True))

    def model(x: torch.Tensor, t: torch.Tensor) -> Any:
        answers = next(rows)
        return answers if len(answers) > 1 else answers[0]

    again = Denoiser(model, den.schedule, den.answers, time=den.time, dtype=den.dtype(x))
    run(lowered, again, x, noise=noise, observe=observe, keep=keep)
