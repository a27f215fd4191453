"""Trees by adaptive pairs: all leaves of a sample take the same step, as a share of their own spans of lam.

What the model sees together must be on one path. That is a straight line in the half-log-SNRs of the leaves, from each
time that is given to the next: then a share of a step is the same share in every leaf, stages included, and each leaf
keeps the order of its pair. Of the errors of a step that of the worst leaf counts.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..solvers.adaptive import TOLERANCE, check_tolerances, inside, limit_weights, report, states_at
from ..solvers.adaptive_control import Control
from ..solvers.adaptive_run import STRETCH, Run
from ..solvers.answers import check_output
from ..solvers.arrays import Array, Indices
from ..solvers.catalogue import Solver
from ..solvers.finite import all_finite, broken_samples, not_finite
from ..solvers.planners.gauge import Nodes
from ..solvers.planners.pairs import LONGEST, Pair
from ..solvers.solution import Solution
from .tree_leaf import Leaf, ask, within
from .tree_shapes import Path, named

SAME = 1e-6  # of a share: what roundings of the leaves' own spans cannot tell apart
States = dict[Path, torch.Tensor]


class AdaptiveTree:
    """The run of all leaves, from ``begin`` to the ends. times: by leaf, where the run must stop."""

    def __init__(
        self, den: Any, form: Any, leaves: Mapping[Path, Leaf], method: Solver, times: Mapping[Path, Array],
        tolerances: tuple[float | None, float | None],
    ) -> None:  # fmt: skip
        self.den, self.form, self.leaves, self.times, self.calls = den, form, leaves, times, 0
        rtol, atol = (TOLERANCE[True] if tol is None else tol for tol in tolerances)
        for leaf in leaves.values():
            check_tolerances(leaf.den.state_dtype(leaf.x), rtol=rtol, atol=atol)
        self.inner = {path: inside(leaf.den.schedule, times[path], rtol + atol) for path, leaf in leaves.items()}
        counts = {named(path): len(t) for path, t in self.inner.items()}
        if len(set(counts.values())) > 1 or len({len(t) for t in times.values()}) > 1:
            raise ValueError(f"all leaves must have as many times, with noise and data at each, not {counts}")
        self.method, self.rtol, self.atol = method, rtol, atol
        ends = (lambda t, u: (t[0], u[0])), (lambda t, u: (u[-1], t[-1]))
        self.limits = [
            {path: limit_weights(leaf.den, *end(times[path], self.inner[path])) for path, leaf in leaves.items()}
            for end in ends
        ]

    def solve(self) -> dict[Path, Solution]:
        pair: Any = self.method.adaptive
        states = {path: leaf.x.to(leaf.den.state_dtype(leaf.x)) for path, leaf in self.leaves.items()}
        begin = self._limit(states, 0)
        n = len(next(iter(states.values())))
        runs = {}
        for path, leaf in self.leaves.items():
            control = Control.start(self.method.name, self.rtol, self.atol, pair.exponent(np.zeros((n, 1))))
            stops = Nodes.at(leaf.den.schedule, self.inner[path])
            runs[path] = Run(leaf.den, pair, begin[path], stops, control, False)
        self._aim(runs, np.arange(n))
        lead = next(iter(runs.values()))
        while lead.active.any():
            self._step(runs)
        self.calls += int(lead.nfe.max(initial=0))
        end = self._limit({path: run.states[-1] for path, run in runs.items()}, -1)
        return {path: self._solution(path, run, states[path], end[path]) for path, run in runs.items()}

    def _step(self, runs: Mapping[Path, Run]) -> None:
        """One call of the model, and what it ends."""
        answers = self._asked({p: run.seen for p, run in runs.items()}, {p: run.asked for p, run in runs.items()})
        for path, run in runs.items():
            with within(path):
                run.take(answers[path])
        rows, *_ = [run.ended() for run in runs.values()]  # the same in all leaves, and so below
        if len(rows):
            judged = {path: run.judged(rows) for path, run in runs.items()}
            worst = np.maximum.reduce([norm for norm, _ in judged.values()])
            left, *_ = [run.settle(rows, worst, judged[path][1]) for path, run in runs.items()]
            self._aim(runs, left)
        for run in runs.values():
            run.prepare()

    def _aim(self, runs: Mapping[Path, Run], rows: Indices) -> None:
        """Where the next steps end: the shortest of the leaves' own, as a share of what is left to their stops."""
        if not len(rows):
            return
        left = {p: np.abs(run.stops[run.stop[rows]].lam - run.s.lam[rows]) for p, run in runs.items()}
        share = np.minimum.reduce([np.minimum(run.control.size[rows], LONGEST) / left[p] for p, run in runs.items()])
        share = np.where(STRETCH * share >= 1 - SAME, 1.0, np.where(2 * share > 1 - SAME, 0.5, share))
        for path, run in runs.items():
            run.control.size[rows] = share * left[path]
            run.aim(rows)

    def _asked(self, seen: States, times: Mapping[Path, Array]) -> States:
        given, told = {}, {}
        for path, leaf in self.leaves.items():
            given[path] = seen[path].to(leaf.den.dtype(leaf.x))
            told[path] = leaf.den.model_times(torch.from_numpy(times[path].copy()), given[path]).to(leaf.x.device)
        found = ask(self.den, self.form, self.leaves, given, told, self.den.conditions, "in an adaptive run")
        for path, answer in found.items():
            with within(path):
                found[path] = check_output(answer, given[path])
        return found

    def _limit(self, states: States, end: int) -> States:
        """The DDIM step to or from infinite log-SNR, of those leaves that have one."""
        weights = self.limits[end]
        if not any(weights.values()):
            return states
        self.calls += 1
        times = {path: (self.times, self.inner)[end][path][end] for path in states}
        answers = self._asked(states, {path: np.full(len(x), times[path]) for path, x in states.items()})
        found = dict(states)
        for path, given in weights.items():
            if given is None:
                continue
            found[path] = given[0] * states[path] + given[1] * answers[path].to(states[path].dtype)
            if not all_finite(found[path]):
                with within(path):
                    x, broken = self.leaves[path].x, broken_samples(found[path])
                    raise not_finite(x, self.calls - 1, self.calls, times[path], samples=broken)
        return found

    def _solution(self, path: Path, run: Run, start: torch.Tensor, end: torch.Tensor) -> Solution:
        times, driven = self.times[path], run.driven()
        return report(driven, states_at(times, self.inner[path], driven, start, end), times, self.calls)


def check_adaptive(methods: Mapping[Path, Any], **fixed: Any) -> Solver:
    """The one method of all leaves; ValueError for several, for fixed steps and their arguments, for black boxes."""
    first = next(iter(methods.values()))
    for one in methods.values():
        if not getattr(one, "adaptive", None):
            raise ValueError(f"rtol and atol are for adaptive solvers; {one.name} takes fixed steps")
    if any(one != first for one in methods.values()):
        told = ", ".join(f"{named(path)} {one.name}" for path, one in methods.items())
        raise ValueError(f"all leaves must take the same adaptive solver, not {told}")
    if not isinstance(first.adaptive, Pair):
        raise ValueError(
            f"{first.name} takes steps in one time, of which leaves with schedules of their own have none in common: "
            "take a pair, such as solver='dpm-23', or fixed steps"
        )
    for name, value in fixed.items():
        if value is not None:
            raise ValueError(f"{name} = {value} does not go with an adaptive run of {first.name}; give rtol and atol")
    method: Solver = first
    return method


def check_path(grids: Mapping[Path, Any]) -> None:
    """ValueError for grids that have a name or are functions: an adaptive run has no steps to lay out on them."""
    for path, grid in grids.items():
        if callable(grid) or (isinstance(grid, str) and grid != "logsnr"):
            raise ValueError(
                f"grid of {named(path)!r} is {grid!r:.60}, but adaptive runs of trees go from start to end on a "
                "straight line in the half-log-SNRs of all leaves; for another path give every leaf an array of times "
                "along it, as logsnr.grid(schedule, 16, 'time') makes, which are then joined by such lines"
            )
