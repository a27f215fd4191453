"""A fitted solver: nodes in lam, and by step the weights of the state and of every answer so far."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array
from ..planners.gauges import EPS, X0, Gauge
from ..programs.call import STATE, Call
from ..programs.program import Program
from ..schedules.base import Schedule

GAUGES: dict[str, Gauge] = {"x0": X0, "eps": EPS}  # whose tables are the same on every schedule


@dataclass(frozen=True, eq=False)
class Fitted:
    """A table in coordinates in which every schedule is the same.

    gauge:   N, what is combined: "x0" or "eps".
    lam:     (n + 1,) increasing; -inf and +inf are pure noise and clean data, with x0. In eps a very noisy first one
             serves for pure noise.
    weights: (n, n + 1, *event), row i of the state and of N_0 .. N_i; nothing above. In x0

                 x_{i+1} = (sigma_{i+1} / sigma_i) w_i0 x_i + alpha_{i+1} sum_j w_i,j+1 x0_j,

             and in eps the same with alpha and sigma exchanged: what exponential Adams methods do with w_i0 = 1
             (book 9.4.4) does not depend on alpha and sigma, only on lam.
    told:    (n,), the lam that the model is told at each call; by default that of its node.
    """

    gauge: str
    lam: Array
    weights: Array
    told: Array | None = None

    def __len__(self) -> int:
        return len(self.lam) - 1

    def program(self, sch: Schedule, name: str, *, ends: tuple[float, float] | None = None, **fields: Any) -> Program:
        """The table on a schedule. ends: the times of the first and the last node, where the inverse of lam would
        round. fields: of `Program`. Raises ValueError where the schedule does not reach a node."""
        n, times = len(self), np.array(sch.time(self.lam))
        told = times[:-1].copy() if self.told is None else np.array(sch.time(self.told))
        if ends is not None:
            times[0], times[-1] = ends
            told[0] = ends[0] if self.told is None or self.told[0] == self.lam[0] else told[0]
        alpha, sigma = np.asarray(sch.alpha(times)), np.asarray(sch.sigma(times))
        scale, unit = (sigma, alpha) if self.gauge == "x0" else (alpha, sigma)
        pair, kept = (1.0, 0.0) if self.gauge == "x0" else (0.0, 1.0), self.kept
        calls = []
        for i in range(n):
            row = self.weights[i, : i + 2] * unit[i + 1]
            if scale[i]:
                row[0] = self.weights[i, 0] * (scale[i + 1] / scale[i])
                state, *old, new = row
                update = [pair[0] * new, pair[1] * new, state, *old[max(i - kept, 0) :]]
            else:  # pure noise, where eps says no more than x: what the step leaves of signal and of noise
                left, more = self.weights[0, :2]
                noise = left * np.exp(self.lam[1] - self.lam[0]) + more
                new, update = left, [left * alpha[1], np.zeros_like(left), noise * sigma[1] / sigma[0]]
            store = [np.full_like(new, c) for c in (*pair, *[0.0] * (len(update) - 2))]
            slots = [1 + j % kept for j in range(max(i - kept, 0), i)]
            reads, writes = (STATE, *slots), (STATE, 1 + i % kept) if i < n - 1 else (STATE,)
            matrix = np.array([update, store][: len(writes)])
            calls.append(Call(float(told[i]), reads, writes, matrix, node=i + 1))
        return Program(name, 0, tuple(map(float, times)), tuple(calls), **fields)

    @property
    def kept(self) -> int:
        """How many older answers a row may need."""
        used = self.weights[:, 1:].reshape(len(self), len(self), -1).any(-1)
        return max((i - j for i, j in np.argwhere(used)), default=0) or 1

    @property
    def defect(self) -> float:
        """How far the weights of the rows are from keeping a constant N, as a first-order method does: the largest
        difference relative to the step's own weight."""
        h = np.diff(self.lam)
        total = -np.expm1(-h) if self.gauge == "x0" else -np.expm1(h)
        total = total.reshape(-1, *[1] * (self.weights.ndim - 2))
        return float(np.abs(self.weights[:, 1:].sum(1) / total - 1).max())
