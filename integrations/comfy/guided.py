"""CFG++ (Chung et al. 2024) as ComfyUI has it: x0 is guided, and eps, or part of it, is of the answer without guidance.

A network is asked for both at each state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...solvers.arrays import Array
from ...solvers.planners.ancestral import kept, posterior_std
from ...solvers.planners.checks import choice, flag, number
from ...solvers.planners.gauges import Nodes
from ...solvers.planners.quadrature import phi
from ...solvers.planners.stochasticity import WithEta
from ...solvers.programs.call import STATE, Call, NoiseKey
from ...solvers.programs.program import Program
from ...solvers.schedules.base import Schedule

GUIDED, OLD, STAGE, STAGE_GUIDED = 1, 2, 3, 4  # slots
# (starts and ends of the steps, eta, gamma) -> rows (n, 4) of P, Q, R and S, and of what is kept
Loop = Callable[[Nodes, Nodes, float, float], tuple[Array, Array | None]]


def _ddim(s: Nodes, t: Nodes, eta: float, gamma: float) -> tuple[Array, Array | None]:
    """x_t = alpha_t x0 + sigma_t share eps."""
    share = t.sigma * kept(s, t, eta) / s.sigma
    return np.stack([t.alpha, -share * s.alpha, share, 0 * share], axis=1), None


def _dpmpp_2m(s: Nodes, t: Nodes, eta: float, gamma: float) -> tuple[Array, Array | None]:
    """DPM-Solver++(2M) with the published weights; the old x0 is without guidance."""
    decay, h = t.sigma / s.sigma, t.lam - s.lam
    weight = np.zeros_like(h)
    weight[1:] = np.where(t.sigma > 0, (1 - decay) * h, 0.0)[1:] / (2 * h[:-1])
    return np.stack([t.alpha + weight, -decay * s.alpha, decay, -weight], axis=1), None


def _gradient_estimation(s: Nodes, t: Nodes, eta: float, gamma: float) -> tuple[Array, Array | None]:
    """DDIM, and gamma - 1 times what eps has changed by; eps without guidance is kept."""
    more = (gamma - 1) * np.where(t.sigma > 0, t.sigma - s.sigma, 0.0)
    more[0] = 0.0
    share = (t.sigma + more) / s.sigma
    eps = np.stack([0 * more, -s.alpha / s.sigma, 1 / s.sigma, 0 * more], axis=1)
    return np.stack([t.alpha, -share * s.alpha, share, -more], axis=1), eps


def _res(s: Nodes, t: Nodes, eta: float, gamma: float) -> tuple[Array, Array | None]:
    """RES as a multistep method, to the less noise of an ancestral step; what it takes for the distance of the old x0
    counts from the node before to where its step would have ended without noise."""
    share = kept(s, t, eta)
    down = t.sigma * share / s.sigma
    rows, _ = _ddim(s, t, eta, gamma)
    for n in range(1, len(t.t)):
        if t.sigma[n] == 0:
            continue
        h = -np.log(down[n])
        c2 = (s.lam[n - 1] - s.lam[n] + np.log(share[n - 1])) / h
        one, two = h * float(phi(1, -h)), h * float(phi(2, -h))
        b2 = np.nan_to_num(two / c2, nan=0.0)
        rows[n] = [down[n], -down[n] + one - b2, down[n], b2]
    return rows, None


LOOPS: dict[str, Loop] = {
    "ddim": _ddim,
    "dpmpp-2m": _dpmpp_2m,
    "gradient-estimation": _gradient_estimation,
    "res": _res,
}


@dataclass(frozen=True)
class TwoAnswers(WithEta):
    """A multistep method ``x_t = P x0 + Q u + R x_s + S old + noise`` with the guided x0 and u that without guidance.

    loop: by name, what gives P, Q, R and S, and what is kept for the next step, u if nothing else. guided: whether both
    are different. Then each call for an answer comes twice, with the even ones for x0 and the odd ones for u. CFG++ is
    another equation than the PF-ODE: there is no order of convergence; without it all are of order 1, "dpmpp-2m" and
    "res" of 2 without noise.
    """

    loop: str = "ddim"
    eta: float = 0.0
    gamma: float = 2.0
    guided: bool = True
    evaluations = 1

    def __post_init__(self) -> None:
        choice("loop", self.loop, (*LOOPS, "midpoint"))
        number("eta", self.eta, 0.0, 1.0, "a number from 0 (no noise) to 1")
        number("gamma", self.gamma, -1e6, 1e6, "a number")
        flag("guided", self.guided)

    @property
    def global_order(self) -> int:
        return 0 if self.guided else 2 if self.loop in ("res", "dpmpp-2m") and not self.eta else 1

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at = Nodes.at(schedule, grid)
        s, t = at[:-1], at[1:]
        std = self.eta * posterior_std(s, t)
        keys = [(NoiseKey(*ends),) for ends in zip(s.t.tolist(), t.t.tolist(), strict=True)]
        with np.errstate(divide="ignore", invalid="ignore"):
            rows, stored = (None, None) if self.loop == "midpoint" else LOOPS[self.loop](s, t, self.eta, self.gamma)
        calls: list[Call] = []
        for n, start in enumerate(s.t.tolist()):
            if rows is None:
                calls += self._midpoint(schedule, s[n : n + 1], t[n : n + 1], std[n], keys[n], n + 1)
                continue
            p, q, r, old = rows[n]
            keep = [0.0, 1.0, 0.0, 0.0] if stored is None else stored[n]
            pairs = [(q, r, p, old, std[n]), (keep[1], keep[2], keep[0], 0.0, 0.0)]
            if self.guided:
                calls.append(Call(start, (), (GUIDED,), np.array([[1.0, 0.0]])))
                matrix = np.array([[u, 0.0, x, g, o, z] for u, x, g, o, z in pairs])
                calls.append(Call(start, (STATE, GUIDED, OLD), (STATE, OLD), matrix, noises=keys[n], node=n + 1))
            else:
                matrix = np.array([[u + g, 0.0, x, o, z] for u, x, g, o, z in pairs])
                calls.append(Call(start, (STATE, OLD), (STATE, OLD), matrix, noises=keys[n], node=n + 1))
        return Program(f"{self.loop}-cfg-pp", self.global_order, tuple(at.t.tolist()), tuple(calls))

    def _midpoint(self, sch: Schedule, s: Nodes, t: Nodes, std: float, keys: Any, node: int) -> list[Call]:
        """DPM-Solver++(2S) to less noise, with alpha = 1: both of its states less u, plus the guided x0."""
        start, ask = float(s.t[0]), lambda time, at, slot: Call(time, (), (slot,), np.array([[1.0, 0.0]]), at=at)
        first = ask(start, STATE, GUIDED)
        if t.sigma[0] == 0:  # the guided x0, but the other is asked for as well
            return [first, Call(start, (GUIDED,), (STATE,), np.array([[0.0, 0.0, 1.0]]), node=node)]
        whole = float((t.sigma * kept(s, t, self.eta) / s.sigma)[0])
        half = np.sqrt(whole)
        mid = float(np.asarray(sch.time(s.lam - np.log(half)))[0])
        stage = Call(start, (STATE, GUIDED), (STAGE,), np.array([[-half, 0.0, half, 1.0]]))
        row = np.array([[-whole, 0.0, whole, whole, 1 - whole, std]])
        end = Call(mid, (STATE, GUIDED, STAGE_GUIDED), (STATE,), row, at=STAGE, noises=keys, node=node)
        return [first, stage, ask(mid, STAGE, STAGE_GUIDED), end]
