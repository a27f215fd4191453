"""The parallel executor: Picard iteration over windows of a program's calls, as Shih et al. (2023, ParaDiGMS) do it for
the plain drift of one solver, here for every program and in its own exponential form.

A sweep evaluates the model at all nodes of a window in one batch and carries the program out with these answers, see
`kernels.scan`. Answers are kept in the form in which they change least from sweep to sweep: not the head is frozen, but
x0, whatever the network predicts, or the tangent that the last two sweeps show (``accelerate="secant"``). Its fixed
point is the sequential run; after k sweeps the first k nodes of a window are right to the last bit.
"""

from collections.abc import Sequence
from functools import partial
from itertools import compress
from typing import Any

import numpy as np
import torch

from ...kernels import Seeds
from ..denoisers.denoiser import Denoiser
from ..finite import not_finite
from ..programs.lower import Lowered
from ..runs.noise import NoiseFunction
from ..runs.run import Observe, run
from ..runs.solution import Solution
from ..runs.starts import Starts, run_each
from .common import Certificate, Evaluate, Noises, check_conditions, check_start, evaluate, where_asked
from .plan import Plan
from .ranks import check_ranks, shared
from .settings import Picard
from .window import PicardWindow

Sources = NoiseFunction | Seeds | None | Sequence[NoiseFunction | Seeds | None]


def picard(
    starts: Lowered | Starts,
    den: Denoiser,
    x: torch.Tensor,
    how: Picard,
    *,
    noise: Sources = None,
    keep: bool = False,
    observe: Observe | None = None,
) -> Solution:
    """Run a lowered program from ``x`` (B, ...), or one for each start, windows of its calls at a time. The other
    arguments are as for `run.run`, ``noise`` one by start; ``observe`` sees the states after the run, and cannot change
    them.

    Every sample has its own window, which moves on when its own nodes have converged: a sample's answer does not
    depend on its batch, as far as the model's does not. The nodes of all windows make one batch.
    Raises ValueError for programs whose calls do not have the same form, NonFiniteError if the model returns an
    infinity or a NaN for a call whose inputs have converged (others are tried again), and what `check_output` raises.
    """
    check_start(x)
    check_conditions(den.model, len(x))
    alone = isinstance(starts, Lowered)
    sources: Any
    starts, sources = (Starts.alone(starts, len(x)), [noise]) if isinstance(starts, Lowered) else (starts, noise)
    x, record = x.contiguous(), observe is not None
    plans = [Plan.of(lowered, den, x) for lowered in starts.plans]
    noises = [
        Noises(plan.lowered, source, rows.to(plan.seen), record)
        for plan, source, rows in zip(plans, sources, starts.rows(x), strict=True)
    ]
    asking, told = starts.asking(den, x)
    ask: Evaluate = partial(evaluate, asking, told, how.batch, plans[0].recurrence.models)
    if how.ranks:
        for source in sources:
            check_ranks(x, source)
        ask = shared(ask)
    asks = [a for lowered in starts.plans for a in lowered.asks]
    ask = where_asked(ask, asks, plans[0].recurrence.models)
    of, cost = starts.of.tolist(), [c * a for c, a in zip(asking.cost, asks, strict=True)]
    costs = [cost[k * starts.calls : (k + 1) * starts.calls] for k in range(len(plans))]
    windows = [PicardWindow(plans[k], x[b : b + 1], how, costs[k], record=record) for b, k in enumerate(of)]
    rounds = 0
    while active := {b: window for b, window in enumerate(windows) if len(window)}:
        rounds += any(window.asks for window in active.values())
        failed = _round(active, starts, noises, ask)
        for b in failed:
            if not keep:
                bad = windows[b].first
                raise not_finite(x, bad, starts.calls, starts.plans[of[b]].times[bad], samples=failed)
            windows[b].fail()
    end = torch.cat([window.state for window in windows]) if windows else x.to(plans[0].wide, copy=True)
    certificate = certified(windows, starts.calls)
    most = int(certificate.nfe.max()) if windows else 0
    if observe is not None:
        stopped = _replay(starts, den, x, joined(windows), [made.again() for made in noises], keep, observe)
        end = end if stopped is None else stopped
    program = starts.plans[0].program if alone else None
    times = program.times if program else starts.grids
    return Solution(end, most, rounds, times, program=program, certificate=certificate)


def certified(windows: Sequence[PicardWindow], calls: int) -> Certificate:
    """What the windows of all samples tell, when they are done."""
    return Certificate(
        torch.from_numpy(np.array([w.change for w in windows]).reshape(-1, calls).T.copy()),
        torch.tensor([w.distance for w in windows], dtype=torch.float64, device="cpu"),
        torch.tensor([w.rounds for w in windows], dtype=torch.int64, device="cpu"),
        torch.tensor([w.nfe for w in windows], dtype=torch.int64, device="cpu"),
    )


def _round(active: dict[int, PicardWindow], starts: Starts, noises: Sequence[Noises], ask: Evaluate) -> list[int]:
    """One batch for all windows; the samples of those whose first answer was not finite."""
    of, within = starts.of.tolist(), starts.within
    for k, made in enumerate(noises):
        made.drop(min((window.first for b, window in active.items() if of[b] == k), default=0))
    added = [noises[of[b]].rows(window.calls, within[b]) for b, window in active.items()]
    seen = [window.see(rows) for window, rows in zip(active.values(), added, strict=True)]
    called = ((of[b] * starts.calls, b, window.calls) for b, window in active.items())
    rows = np.array([(first + n, b) for first, b, calls in called for n in range(calls.start, calls.stop)])
    calls, samples = torch.from_numpy(rows.T.copy())
    answers = ask(torch.cat(seen) if len(seen) > 1 else seen[0], calls, samples)
    parts = zip(*(answer.split([*map(len, seen)]) for answer in answers), strict=True)
    swept = zip(active.items(), parts, added, strict=True)
    return [b for (b, window), outputs, rows in swept if not window.sweep(outputs, rows)]


def joined(windows: Sequence[PicardWindow]) -> list[torch.Tensor]:
    """What the calls were carried out with, (calls, B, ...) per output of the model."""
    samples = [[torch.cat(parts) for parts in zip(*(window.kept or ()), strict=True)] for window in windows]
    return [torch.cat(parts, 1) for parts in zip(*samples, strict=True)]


def _replay(
    starts: Starts,
    den: Denoiser,
    x: torch.Tensor,
    outputs: Sequence[torch.Tensor],
    noises: list[NoiseFunction | Seeds | None],
    keep: bool,
    observe: Observe,
) -> torch.Tensor | None:
    """Let ``observe`` see the states of a parallel run, by running the program with the outputs that it has kept. The
    state at which it has stopped the run, if it has."""
    if not len(x):  # no window has asked for anything
        noises = [noise if isinstance(noise, Seeds) else lambda key, like: like for noise in noises]
        outputs = [x.new_empty(starts.calls, *x.shape)] * starts.plans[0].updates.models
    rows = compress(zip(*outputs, strict=True), starts.plans[0].asks)

    def model(x: torch.Tensor, t: torch.Tensor) -> Any:
        answers = next(rows)
        return answers if len(answers) > 1 else answers[0]

    again = Denoiser(model, den.schedule, den.answers, time=den.time, dtype=den.dtype(x))
    if len(starts.plans) > 1:
        end, _ = run_each(starts, again, x, noises, observe=observe, keep=keep)
    else:
        end, _ = run(starts.plans[0], again, x, noise=noises[0], observe=observe, keep=keep)
    return None if observe.stopped is None else end
