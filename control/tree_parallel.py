"""Trees parallel in time: a window for each leaf of each sample, those of one sample moving together.

The model sees all leaves of a sample at the same call, so a call is known when that of every leaf is: a sample moves on
by what its slowest leaf allows. With tolerance 0 that is the sequential run, bit for bit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..solvers.denoisers.answers import check_output
from ..solvers.denoisers.conditions import rows_of
from ..solvers.finite import not_finite
from ..solvers.parallel.common import Noises
from ..solvers.parallel.picard import certified, joined
from ..solvers.parallel.plan import Plan
from ..solvers.parallel.settings import Picard
from ..solvers.parallel.window import PicardWindow
from ..solvers.runs.solution import Solution
from .tree_leaf import PlannedLeaf, ask, within
from .tree_shapes import Path

Parts = dict[Path, torch.Tensor]


class Windows:
    """The windows of one leaf, by sample, and what their calls add."""

    def __init__(self, leaf: PlannedLeaf, how: Picard) -> None:
        self.leaf, self.plan = leaf, Plan.of(leaf.lowered, leaf.den, leaf.x.contiguous())
        x = leaf.x.contiguous()
        record = bool(leaf.states)
        self.of = [PicardWindow(self.plan, x[b : b + 1], how, record=record) for b in range(len(x))]
        self.noises = Noises(leaf.lowered, leaf.source, x.to(self.plan.seen))

    def see(self, samples: Sequence[int]) -> torch.Tensor:
        self.noises.drop(min(self.of[b].first for b in samples))
        self.added = {b: self.noises.rows(self.of[b].calls, b) for b in samples}
        return torch.cat([self.of[b].see(self.added[b]) for b in samples])

    def solution(self) -> Solution:
        leaf, calls = self.leaf, len(self.plan)
        for answers in zip(*joined(self.of), strict=True) if leaf.states else ():
            leaf.advance(answers[0])
        made = certified(self.of, calls)
        end = torch.cat([window.state for window in self.of]) if self.of else leaf.x.to(self.plan.wide, copy=True)
        most = int(made.nfe.max()) if self.of else 0
        return leaf.solution(x=end, nfe=most, rounds=max(made.rounds.tolist(), default=0), certificate=made)


def solve_in_parallel(
    den: Any, form: Any, leaves: Mapping[Path, PlannedLeaf], how: Picard
) -> tuple[dict[Path, Solution], int]:
    """The solution of every leaf, and how many rounds there were."""
    windows = {path: Windows(leaf, how) for path, leaf in leaves.items()}
    first, rounds = next(iter(windows.values())), 0
    while active := [b for b, window in enumerate(first.of) if len(window)]:
        _round(den, form, windows, active, how)
        rounds += 1
    return {path: one.solution() for path, one in windows.items()}, rounds


def _round(den: Any, form: Any, windows: Mapping[Path, Windows], active: Sequence[int], how: Picard) -> None:
    spans = [next(iter(windows.values())).of[b].calls for b in active]
    rows = np.array([(n, b) for b, span in zip(active, spans, strict=True) for n in range(span.start, span.stop)])
    calls, samples = torch.from_numpy(rows.T.copy())
    seen = {path: one.see(active) for path, one in windows.items()}
    answers = _answers(den, form, windows, seen, calls, samples, how.batch or len(calls))
    sizes = [span.stop - span.start for span in spans]
    parts = {path: answer.split(sizes) for path, answer in answers.items()}
    for k, b in enumerate(active):
        found = {path: one.of[b].swept([parts[path][k]], one.added[b]) for path, one in windows.items()}
        stride = min(0 if swept is None else swept.stride for swept in found.values())
        for path, swept in found.items():
            one = windows[path]
            if swept is None:
                at, leaf = one.of[b].first, one.leaf
                with within(path):
                    raise not_finite(leaf.x, at, len(one.plan), leaf.lowered.times[at], samples=[b])
            if stride:
                one.of[b].move(swept, stride)


def _answers(
    den: Any, form: Any, windows: Mapping[Path, Windows], seen: Parts, calls: torch.Tensor, samples: torch.Tensor,
    size: int,
) -> Parts:  # fmt: skip
    """The answers for all rows, at most ``size`` at a time."""
    kept = {path: torch.empty_like(x) for path, x in seen.items()}
    leaves = {path: one.leaf for path, one in windows.items()}
    for k in range(0, len(calls), size):
        some = slice(k, k + size)
        part = {path: x[some] for path, x in seen.items()}
        told = {p: one.plan.timesteps[calls[some].to(one.plan.timesteps.device)] for p, one in windows.items()}
        answers = ask(den, form, leaves, part, told, rows_of(den.conditions, samples[some]), "in a parallel run")
        for path, answer in answers.items():
            with within(path):
                kept[path][some] = check_output(answer, part[path])  # a copy: models may use their memory again
    return kept
