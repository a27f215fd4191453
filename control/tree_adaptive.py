"""Trees by adaptive pairs: all leaves of a sample take the same step, as a share of their own spans.

What the model sees together must be on one path. That is a straight line in the half-log-SNRs of the leaves, from each
time that is given to the next, or in the times of those with the grid "time". Its pair interpolates each leaf in what
its line is straight in. So a share of a step is the same share in every leaf, stages included, and each leaf keeps the
order of its pair. Of the errors of a step that of the worst leaf counts.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..solvers.adaptive.control import Control
from ..solvers.adaptive.run import STRETCH, Run
from ..solvers.adaptive.solve import (
    MARGIN,
    TOLERANCE,
    check_tolerances,
    inside,
    limit_weights,
    margin,
    report,
    states_at,
)
from ..solvers.arrays import Array, Indices
from ..solvers.catalogue.catalogue import Solver
from ..solvers.denoisers.answers import check_output
from ..solvers.finite import all_finite, broken_samples, not_finite
from ..solvers.planners.gauge import Nodes
from ..solvers.planners.pairs import LONGEST, Pair
from ..solvers.runs.solution import Solution
from ..solvers.schedules.base import Schedule
from .tree_leaf import Leaf, ask, within
from .tree_shapes import Path, named

PATHS = ("logsnr", "time")
SAME = 1e-6  # of a share: what roundings of the leaves' own spans cannot tell apart
States = dict[Path, torch.Tensor]


class AdaptiveTree:
    """The run of all leaves, from ``begin`` to the ends. times: by leaf, where the run must stop."""

    def __init__(
        self, den: Any, form: Any, leaves: Mapping[Path, Leaf], method: Solver, times: Mapping[Path, Array],
        grids: Mapping[Path, Any], tolerances: tuple[float | None, float | None],
    ) -> None:  # fmt: skip
        self.in_time = {path for path, grid in grids.items() if isinstance(grid, str) and grid == "time"}
        self.den, self.form, self.leaves, self.times, self.calls = den, form, leaves, times, 0
        rtol, atol = (TOLERANCE[True] if tol is None else tol for tol in tolerances)
        for leaf in leaves.values():
            check_tolerances(leaf.den.state_dtype(leaf.x), rtol=rtol, atol=atol)
        self.inner = {path: inside(leaf.den.schedule, times[path], rtol + atol) for path, leaf in leaves.items()}
        self.inner |= inside_together({path: leaves[path].den.schedule for path in self.in_time}, times, rtol + atol)
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
            sch, stops = leaf.den.schedule, Nodes.at(leaf.den.schedule, self.inner[path])
            own = replace(pair, schedule=sch) if path in self.in_time else pair
            runs[path] = Run(leaf.den, own, begin[path], stops, control, False)
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
        size = {p: np.minimum(run.control.size[rows], LONGEST) for p, run in runs.items()}
        reach = np.minimum.reduce([size[p] / left[p] for p in runs])
        size = {p: np.where(2 * reach > 1 - SAME, left[p] / 2, size[p]) for p in runs}
        share = np.minimum.reduce([run.share(rows, size[p]) for p, run in runs.items()])
        for run in runs.values():
            run.aim_at(rows, np.where(STRETCH * reach >= 1 - SAME, 1.0, share))

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
            raise ValueError(
                f"{name} = {value} does not go with an adaptive run of {first.name}: leave it out, or take a solver "
                "with fixed steps; rtol and atol say how fine the steps are"
            )
    method: Solver = first
    return method


def inside_together(schedules: Mapping[Path, Schedule], times: Mapping[Path, Array], tol: float) -> dict[Path, Array]:
    """As `inside`, of leaves that stay on a straight line in their times: where one of them needs it, all move inside,
    by the same share of their spans.

    A DDIM step turns x from noise to data by an angle, atan(sigma/alpha), and neglects of the order of its square: no
    leaf moves by more than that of the `margin`, but to its own last level. ValueError where that of another leaf, at
    which the network is last asked, is too far from the end for it.
    """
    found = {path: inside(sch, times[path], tol) for path, sch in schedules.items()}
    for end in (0, -1):
        if all(found[path][end] == times[path][end] for path in found):
            continue
        limits, share = dict[Path, float](), 0.0
        for path, sch in schedules.items():
            near, far = times[path][end], times[path][-1 - end]
            here, there = (math.atan2(float(sch.sigma(t)), float(sch.alpha(t))) for t in (near, far))
            turn = min(math.exp(-margin(tol)), abs(there - here) / 4)
            to = float(sch.time(-math.log(math.tan(here + math.copysign(turn, there - here)))))
            limits[path] = (to - near) / (far - near)
            if found[path][end] == sch.last_level != near:
                level = (found[path][end] - near) / (far - near)
                limits[path], share = max(limits[path], level), max(share, level)
        first = min(limits, key=lambda path: limits[path])
        if share > math.exp(MARGIN) * limits[first]:  # half of the tolerance
            raise ValueError(
                f"grid = 'time': {named(first)!r} would come to its end t = {times[first][end]:.6g} in one step from "
                "the last level at which another leaf is asked, farther than the tolerances allow: give t_end, or "
                "leave out the grid"
            )
        for path in found:
            near, far = times[path][end], times[path][-1 - end]
            found[path][end] = near + max(limits[first], share) * (far - near)
    return found


def check_path(grids: Mapping[Path, Any]) -> None:
    """ValueError for functions and other names of grids: an adaptive run has no steps to lay out on them."""
    for path, grid in grids.items():
        if callable(grid) or (isinstance(grid, str) and grid not in PATHS):
            raise ValueError(
                f"grid of {named(path)!r} is {grid!r:.60}, but adaptive runs of trees go from start to end on a "
                "straight line in the half-log-SNRs of all leaves, or in the times of those whose grid is 'time'; for "
                "another path give every leaf an array of times along it, as logsnr.grid(schedule, 16, 'karras') "
                "makes, which are then joined by straight lines in the half-log-SNRs"
            )
