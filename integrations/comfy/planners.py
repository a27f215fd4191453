"""Methods that ComfyUI and k-diffusion have, and that are no Adams or exponential Runge-Kutta methods here."""

from dataclasses import dataclass, replace

import numpy as np

from ...solvers.arrays import Array
from ...solvers.planners.ancestral import kept, posterior_std, steps_to
from ...solvers.planners.checks import number
from ...solvers.planners.gauges import EPS, Nodes
from ...solvers.planners.singlestep import ddim_calls, ddim_notes
from ...solvers.planners.stochasticity import WithEta
from ...solvers.programs.call import STATE, Call, NoiseKey
from ...solvers.programs.program import Program
from ...solvers.schedules.base import Schedule

STAGE, OLD, NEXT = 1, 2, 3  # slots: the stage's state, and values of this node and the next


@dataclass(frozen=True)
class StochasticMidpoint(WithEta):
    """k-diffusion's dpmpp_sde: DPM-Solver++(2S) with a stage at ``r`` of the step in lam, stage and result with noise
    of an ancestral step from the start.

    The noises of stage and result are increments of one Brownian motion that runs in the schedule's time, in place of
    the SDE's own clock: their correlation is another, so the weak order is 1; for eta = 0 it is 2.
    """

    eta: float = 1.0
    r: float = 0.5
    evaluations = 2

    def __post_init__(self) -> None:
        number("eta", self.eta, 0.0, 1.0, "a number from 0 (no noise) to 1")
        number("r", self.r, 1e-3, 1.0 - 1e-3, "a number between 0 and 1")

    @property
    def global_order(self) -> int:
        return 1 if self.eta else 2

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at = Nodes.at(schedule, grid)
        s, t = at[:-1], at[1:]
        leaps = ~np.isfinite(t.lam - s.lam)
        with np.errstate(invalid="ignore"):
            mid = Nodes.at(schedule, schedule.time(np.where(leaps, t.lam, s.lam + self.r * (t.lam - s.lam))))
        (one, left, first), (two, kept_two, second) = (self._step(s, end) for end in (mid, t))
        share = 1 / (2 * self.r)
        before, after = np.sqrt((s.t - mid.t) / (s.t - t.t)), np.sqrt((mid.t - t.t) / (s.t - t.t))
        calls = []
        for n, (start, stage, end) in enumerate(zip(s.t.tolist(), mid.t.tolist(), t.t.tolist(), strict=True)):
            if leaps[n]:
                std = self.eta * posterior_std(s, t)[n]
                row = [t.alpha[n], t.sigma[n] * kept(s, t, self.eta)[n], std]
                calls.append(Call(start, (), (STATE,), np.array([row]), noises=(NoiseKey(start, end),), node=n + 1))
                continue
            keys = NoiseKey(start, stage), NoiseKey(stage, end)
            rows = np.array([[one[n], 0.0, left[n], first[n]], [1.0, 0.0, 0.0, 0.0]])
            calls.append(Call(start, (STATE,), (STAGE, OLD), rows, noises=keys[:1]))
            parts = second[n] * np.array([before[n], after[n]])
            row = [share * two[n], 0.0, kept_two[n], (1 - share) * two[n], *parts]
            calls.append(Call(stage, (STATE, OLD), (STATE,), np.array([row]), at=STAGE, noises=keys, node=n + 1))
        times = tuple(at.t.tolist())
        return Program("dpmpp-sde", self.global_order, times, tuple(calls), ddim_notes(leaps, at))

    def _step(self, s: Nodes, t: Nodes) -> tuple[Array, Array, Array]:
        """The weights of x0, the state and the noise of an ancestral step."""
        share = kept(s, t, self.eta)
        with np.errstate(divide="ignore", invalid="ignore"):
            whole = -t.alpha * np.expm1(np.log(share) + s.lam - t.lam)
            return whole, t.sigma * share / s.sigma, self.eta * posterior_std(s, t)


@dataclass(frozen=True)
class FlowAncestral(WithEta):
    """ComfyUI's euler_ancestral for flow models: Euler's step to ``t (1 + eta (t / s - 1))``, and from there the noise
    and the scaling that lead to t. eta = 1 is less noise than DDPM's: all marginals are right, too."""

    eta: float = 1.0
    evaluations = 1
    global_order = 1

    def __post_init__(self) -> None:
        number("eta", self.eta, 0.0, 1.0, "a number from 0 (no noise) to 1")

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at = Nodes.at(schedule, grid)
        s, t = at[:-1], at[1:]
        down = t.sigma * (1 + self.eta * (t.sigma / s.sigma - 1))
        share = t.alpha / (1 - down) * (1 + self.eta * (t.sigma / s.sigma - 1))
        std = t.sigma * np.sqrt(np.maximum((1 - share) * (1 + share), 0.0))
        return replace(steps_to("euler-ancestral", at, share, std), order=1)


@dataclass(frozen=True)
class HeunPlus:
    """heunpp2 of ComfyUI: Euler's slopes at this node and the next two, weighted by rho = sigma / alpha over three
    times the grid's first, in place of weights of a quadrature: first order."""

    evaluations = 3
    global_order = 1

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at = Nodes.at(schedule, grid)
        s, t = at[:-1], at[1:]
        ddim, ratio, rho = EPS.breaks(schedule, s, t), EPS.ratio(s, t), at.variable("rho")
        with np.errstate(invalid="ignore"):
            total = EPS.total(s, t)
        calls: list[Call] = []
        steps = len(grid) - 1
        for n in range(steps):
            stages = min(3, steps - n)
            if stages == 1 or ddim[n]:
                calls += ddim_calls(EPS, schedule, s[n : n + 1], t[n : n + 1], [n + 1])
                continue
            shares = [share / (stages * rho[0]) for share in rho[n + 1 : n + stages]]
            # Euler's steps from stage to stage, and their eps kept
            rows = np.array([[0.0, total[n], ratio[n]], [0.0, 1.0, 0.0]])
            calls.append(Call(float(at.t[n]), (STATE,), (STAGE, OLD), rows))
            if stages == 3:
                rows = np.array([[0.0, total[n + 1], ratio[n + 1]], [0.0, 1.0, 0.0]])
                calls.append(Call(float(at.t[n + 1]), (STAGE,), (STAGE, NEXT), rows, at=STAGE))
            reads = (STATE, OLD, NEXT)[:stages]
            weights = [1 - sum(shares), *shares]
            row = [0.0, total[n] * weights[-1], ratio[n], *(total[n] * w for w in weights[:-1])]
            where = float(at.t[n + stages - 1])
            calls.append(Call(where, reads, (STATE,), np.array([row]), at=STAGE, node=n + 1))
        return Program("heunpp2", 1, tuple(at.t.tolist()), tuple(calls), ddim_notes(ddim, at))
