"""ComfyUI's ancestral samplers of two stages for flow models, x = (1 - sigma) x0 + sigma eps."""

from dataclasses import dataclass

import numpy as np

from ...solvers.arrays import Array
from ...solvers.planners.checks import choice, number
from ...solvers.planners.gauges import Nodes
from ...solvers.programs.call import STATE, Call, NoiseKey
from ...solvers.programs.program import Program
from ...solvers.schedules.base import Schedule

STAGE = 1  # the slot of the stage's state
FIRST = 0.9999  # sigma of the stage where a step begins at 1, whose lam is infinite


@dataclass(frozen=True)
class FlowMidpoint:
    """A midpoint rule to ``down = t (1 + eta (t / s - 1))`` of noise, and from there the noise and the scaling that
    lead to t, as in `foreign.FlowAncestral`. The last step, to sigma = 0, is Euler's.

    gauge: "x0" is dpmpp_2s_ancestral, whose stage is half way in lam; "straight" is dpm_2_ancestral: Euler's steps
    along eps - x0, with the stage half way in log sigma. Both are of second order at any eta, as the noise
    is exact.
    """

    gauge: str = "x0"
    eta: float = 1.0
    evaluations = 2
    global_order = 2

    def __post_init__(self) -> None:
        choice("gauge", self.gauge, ("x0", "straight"))
        number("eta", self.eta, 0.0, 1.0, "a number from 0 (no noise) to 1")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at, calls = Nodes.at(schedule, grid), list[Call]()
        for n, (s, t) in enumerate(zip(at.sigma[:-1].tolist(), at.sigma[1:].tolist(), strict=True), start=1):
            key = NoiseKey(float(at.t[n - 1]), float(at.t[n]))
            if t == 0:
                calls.append(Call(key.s, (), (STATE,), np.array([[1.0, 0.0]]), node=n))
                continue
            down = t * (1 + self.eta * (t / s - 1))
            scale = (1 - t) / (1 - down)
            std = np.sqrt(max((t - scale * down) * (t + scale * down), 0.0))
            mid = self._middle(s, down)
            pair, ratio = ((1 - down / s, 0.0), down / s) if self.gauge == "x0" else ((s - down, down - s), 1.0)
            calls.append(Call(key.s, (STATE,), (STAGE,), np.array([[1 - mid, mid, 0.0]])))
            row = np.array([[scale * pair[0], scale * pair[1], scale * ratio, std]])
            told = float(schedule.time(np.log1p(-mid) - np.log(mid)))
            calls.append(Call(told, (STATE,), (STATE,), row, at=STAGE, noises=(key,), node=n))
        return Program("midpoint", 2, tuple(at.t.tolist()), tuple(calls))

    def _middle(self, s: float, down: float) -> float:
        """sigma of the stage."""
        if self.gauge == "straight":
            return float(np.sqrt(s * down))
        if s == 1:
            return FIRST
        odds = np.sqrt((s / (1 - s)) * (down / (1 - down)))  # exp(-lam) is sigma / (1 - sigma)
        return float(odds / (1 + odds))
