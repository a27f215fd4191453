"""Methods made of others' steps: DDIM steps with a combination of answers, and DPM-Solver's steps of several orders."""

from dataclasses import dataclass, replace

import numpy as np

from ..arrays import Array
from ..programs.call import STATE, Call, NoiseKey
from ..programs.program import Program
from ..schedules.base import Schedule
from .ancestral import kept
from .checks import number
from .gauges import EPS, Nodes
from .singlestep import ddim_calls, ddim_notes, step_calls
from .stochasticity import WithEta
from .tableaux import DDIM, DPM_2, DPM_3

KEPT = 1  # the slot of the last eps
STEPS = {1: DDIM, 2: DPM_2, 3: DPM_3}


@dataclass(frozen=True)
class GradientEstimation:
    """DDIM with ``gamma eps_n + (1 - gamma) eps_(n-1)`` in place of eps (Permenter and Yuan 2024, Algorithm 2): first
    order on every grid."""

    gamma: float = 2.0
    evaluations = 1
    global_order = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "gamma", number("gamma", self.gamma, -1e6, 1e6, "a number; the paper takes 2"))

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at = Nodes.at(schedule, grid)
        s, t = at[:-1], at[1:]
        ddim, ratio = EPS.breaks(schedule, s, t), EPS.ratio(s, t)
        with np.errstate(invalid="ignore"):  # not used where the gauge breaks
            total = EPS.total(s, t)
        calls: list[Call] = []
        for n, time in enumerate(s.t.tolist()):
            if ddim[n]:
                calls += ddim_calls(EPS, schedule, s[n : n + 1], t[n : n + 1], [n + 1], (KEPT,))
                continue
            share = self.gamma if n else 1.0
            update = [0.0, share * total[n], ratio[n], (1 - share) * total[n]]
            columns = 4 if n else 3
            rows = np.array([update[:columns], [0.0, 1.0, 0.0, 0.0][:columns]])
            calls.append(Call(time, (STATE, KEPT)[: columns - 2], (STATE, KEPT), rows, node=n + 1))
        return Program("gradient-estimation", 1, tuple(at.t.tolist()), tuple(calls), ddim_notes(ddim, at))


@dataclass(frozen=True)
class DPMFast(WithEta):
    """DPM-Solver-fast (Lu et al. 2022a, 3.4): steps of DPM-Solver-3, and at the end those of the orders ``tail``, which
    fill a budget of evaluations. One step of order 1 leaves the second order of the whole.

    With ``eta`` each step goes on to the lower level of `AncestralDDIM`, but not beyond the last node, and the noise
    that is then missing is added, as k-diffusion has it."""

    tail: tuple[int, ...] = (2, 1)
    eta: float = 0.0
    evaluations = 3

    def __post_init__(self) -> None:
        if not isinstance(self.tail, tuple) or not self.tail or not set(self.tail) <= set(STEPS):
            raise ValueError(f"tail = {self.tail!r} must be a tuple of the orders 1, 2 or 3")
        object.__setattr__(self, "eta", number("eta", self.eta, 0.0, 1.0, "a number from 0 (no noise) to 1"))

    @property
    def global_order(self) -> int:
        return min(3, min(self.tail) + 1)

    def within(self, nfe: int) -> tuple["DPMFast", int]:
        """The planner and the number of steps that take exactly ``nfe`` evaluations."""
        return replace(self, tail=(nfe % 3,) if nfe % 3 else (2, 1)), nfe // 3 + 1

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at = Nodes.at(schedule, grid)
        steps = len(grid) - 1
        s, t = at[:-1], at[1:]
        orders = np.array([*[3] * (steps - len(self.tail)), *self.tail][-steps:])
        ddim = EPS.breaks(schedule, s, t)
        lower = self._lower(schedule, s, t)
        parts = dict[int, list[Call]]()
        for order in set(orders.tolist()):
            some = np.flatnonzero(orders == order)
            found = step_calls(STEPS[order], EPS, schedule, s[some], lower[some], (some + 1).tolist(), ddim[some])
            parts.update(zip(some.tolist(), found, strict=True))
        if self.eta:
            for n in range(steps):
                parts[n][-1] = _up(parts[n][-1], s[n : n + 1], lower[n : n + 1], t[n : n + 1])
        calls = tuple(call for n in range(steps) for call in parts[n])
        return Program("dpm-fast", self.global_order, tuple(at.t.tolist()), calls, ddim_notes(ddim, at))

    def _lower(self, schedule: Schedule, s: Nodes, t: Nodes) -> Nodes:
        """Where the steps without noise end."""
        if not self.eta:
            return t
        with np.errstate(divide="ignore"):
            lam = np.minimum(t.lam - np.log(kept(s, t, self.eta)), t.lam[-1])
        times = np.where(lam == t.lam[-1], t.t[-1], schedule.time(lam))
        return Nodes.at(schedule, times)


def _up(call: Call, s: Nodes, lower: Nodes, t: Nodes) -> Call:
    """A call that ends at ``lower`` as one that ends at t, with noise."""
    left = t.alpha * lower.sigma / lower.alpha
    noise = np.zeros((len(call.writes), 1))
    noise[0] = np.sqrt(np.maximum((t.sigma - left) * (t.sigma + left), 0.0))
    matrix = np.concatenate([call.matrix, noise], axis=1)
    matrix[0, :-1] *= t.alpha[0] / lower.alpha[0]
    return replace(call, matrix=matrix, noises=(NoiseKey(float(s.t[0]), float(t.t[0])),))
