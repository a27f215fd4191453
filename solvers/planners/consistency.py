"""Samplers of networks that jump to the data: to less noise than the next node has, then fresh noise up to it.

They are made for consistency models, whose x0 is the end of the trajectory. With the x0 of a denoiser, the mean of the
data, they do not converge.
"""

from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from ..programs.program import Program
from ..schedules.base import Schedule
from .ancestral import steps_to
from .checks import number
from .gauges import Nodes


@dataclass(frozen=True)
class Consistency:
    """Multistep consistency sampling (Song et al. 2023, Algorithm 1; LCM, Luo et al. 2023):
    ``x_t = alpha_t x0 + sigma_t xi``, and x0 itself at sigma = 0."""

    evaluations = 1
    global_order = 0
    stochastic = True

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at = Nodes.at(schedule, grid)
        t = at[1:]
        return steps_to("lcm", at, np.zeros_like(t.t), t.sigma)


@dataclass(frozen=True)
class TrajectoryConsistency:
    """Strategic stochastic sampling of TCD (Zheng et al. 2024, Algorithm 4): DDIM's step to the time (1 - gamma) t, and
    noise up to t. gamma = 0 is DDIM, 1 the jump to the clean end of the schedule."""

    gamma: float = 0.3
    evaluations = 1

    def __post_init__(self) -> None:
        what = "a number from 0 (DDIM) to 1 (a jump to the data)"
        object.__setattr__(self, "gamma", number("gamma", self.gamma, 0.0, 1.0, what))

    @property
    def global_order(self) -> int:
        return int(self.gamma == 0)

    @property
    def stochastic(self) -> bool:
        return self.gamma > 0

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at = Nodes.at(schedule, grid)
        t, clean = at[1:], min(schedule.domain, key=schedule.sigma)
        less = Nodes.at(schedule, clean + (1 - self.gamma) * (t.t - clean))
        kept = t.alpha / less.alpha * less.sigma  # of the noise: what is left of it at t
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(t.sigma > 0, kept / t.sigma, 1.0)
        return steps_to("tcd", at, share, t.sigma * np.sqrt((1 - share) * (1 + share)))
