"""Langevin dynamics at fixed noise levels, alone or after the steps of a predictor.

One step at a level is ``x - step sigma eps + sqrt(2 step) sigma xi``: unadjusted Langevin of length step sigma^2 along
the score -eps / sigma. Along a direction of variance S the law it leaves alone has the variance
``S / (1 - step sigma^2 / (2 S))`` instead of S (Wibisono 2018), so none of these solvers converges to the data's law as
its grid is refined: their order is 0.
"""

from dataclasses import dataclass, replace

import numpy as np

from ..arrays import Array
from ..programs.call import STATE, Call, NoiseKey
from ..programs.program import Program
from ..schedules.base import Schedule
from .ancestral import ddpm_calls
from .checks import count, nonnegative, number
from .gauges import X0, Nodes
from .singlestep import ddim_calls

SCALED = 1  # the slot of the state carried to the next level


@dataclass(frozen=True)
class PredictorCorrector:
    """Predictor-corrector sampling (Song et al. 2021b, Algorithms 1 to 3): DDPM steps with the forward variance, after
    each of which ``corrections`` Langevin steps with step = 2 snr^2.

    The paper takes 2 (snr |z| / |score|)^2 for the length, which a table cannot know; this is its expectation for a
    model whose eps has the size of z. At sigma = 0 there is nothing to correct.
    """

    snr: float = 0.16
    corrections: int = 1
    global_order = 0
    stochastic = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "snr", number("snr", self.snr, 0.0, 1e100, "a number from 0 to 1e100"))
        object.__setattr__(self, "corrections", count("corrections", self.corrections))

    @property
    def evaluations(self) -> int:
        return 1 + self.corrections

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at = Nodes.at(schedule, grid)
        step, calls = 2 * self.snr**2, []
        for n, predictor in enumerate(ddpm_calls(at[:-1], at[1:])):
            t = at[n + 1]
            corrections = self.corrections if t.sigma > 0 else 0
            calls.append(replace(predictor, node=n + 1 if corrections == 0 else None))
            for m in range(corrections):
                key = NoiseKey(float(at.t[n]), float(t.t), m + 1)
                calls.append(_langevin(t, step, key, n + 1 if m == corrections - 1 else None))
        return Program("pc", 0, tuple(map(float, at.t)), tuple(calls))


@dataclass(frozen=True)
class AnnealedLangevin:
    """Annealed Langevin dynamics (Song and Ermon 2019, Algorithm 1): ``per_level`` steps at every node of the grid,
    the first and the last included, between which x / alpha is carried over. Where the log-SNR of a node is infinite
    there is no such step, and DDIM goes from or to it."""

    step: float = 0.1
    per_level: int = 5
    global_order = 0
    stochastic = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", nonnegative("step", self.step))
        object.__setattr__(self, "per_level", count("per_level", self.per_level))

    @property
    def evaluations(self) -> int:
        return self.per_level

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at = Nodes.at(schedule, grid)
        last = len(grid) - 1
        calls: list[Call] = []
        slot = STATE
        for n in range(last + 1):
            ends = at[n : n + 1], at[n + 1 : n + 2]
            broken = n < last and bool(X0.breaks(schedule, *ends)[0])
            if np.isfinite(at.lam[n]):
                calls += self._level(at, n, slot, carried=n < last and not broken)
                slot = SCALED if n < last and not broken else STATE
            if broken:
                node = None if np.isfinite(at.lam[n + 1]) else last  # Langevin steps there reach it, if there are any
                calls += ddim_calls(X0, schedule, *ends, [node])
        return Program("ald", 0, tuple(map(float, at.t)), tuple(calls))

    def _level(self, at: Nodes, n: int, slot: int, carried: bool) -> list[Call]:
        """The steps at node n; the first reads ``slot``, the last also writes the state carried to the next level."""
        last, count = len(at.t) - 1, self.per_level
        s, t = (n, n + 1) if n < last else (n - 1, n)
        streams = range(1, count + 1) if n < last else range(count + 1, 2 * count + 1)
        calls = []
        for stream in streams:
            final = stream == streams[-1]
            key = NoiseKey(float(at.t[s]), float(at.t[t]), stream)
            calls.append(_langevin(at[n], self.step, key, n if final and n else None, slot))
            slot = STATE
        if carried:
            calls[-1] = _carried(calls[-1], float(at.alpha[n + 1] / at.alpha[n]))
        return calls


@dataclass(frozen=True)
class UnadjustedLangevin:
    """Unadjusted Langevin at the last time of the grid, one step for every step of the grid, whose other times only
    count. Where the last has no noise, the steps are at the one before it, and DDIM goes on from there."""

    step: float = 0.1
    evaluations = 1
    global_order = 0
    stochastic = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", nonnegative("step", self.step))

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at = Nodes.at(schedule, grid)
        last = len(grid) - 1
        broken = bool(at.sigma[-1] == 0)
        keys = map(NoiseKey, at.t[:-1].tolist(), at.t[1:].tolist(), [1] * last)
        level = at[last - broken]
        calls = [_langevin(level, self.step, key, n) for n, key in enumerate(keys, start=1) if n < last or not broken]
        if broken:
            calls += ddim_calls(X0, schedule, at[-2:-1], at[-1:], [last])
        return Program("ula", 0, tuple(map(float, at.t)), tuple(calls))


def _langevin(level: Nodes, step: float, key: NoiseKey, node: int | None, slot: int = STATE) -> Call:
    row = np.array([[0.0, -step * level.sigma, 1.0, np.sqrt(2 * step) * level.sigma]])
    return Call(float(level.t), (slot,), (STATE,), row, at=slot, noises=(key,), node=node)


def _carried(call: Call, ratio: float) -> Call:
    """The same with the state times ``ratio`` in another slot."""
    return replace(call, writes=(STATE, SCALED), matrix=np.concatenate([call.matrix, ratio * call.matrix]))
