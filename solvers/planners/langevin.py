"""Langevin dynamics at fixed noise levels, alone or after the steps of a predictor.

One step at a level is ``x - step sigma eps + sqrt(2 step) sigma xi``: unadjusted Langevin of length step sigma^2 along
the score -eps / sigma. Along a direction of variance S the law it leaves alone has the variance
``S / (1 - step sigma^2 / (2 S))`` instead of S (Wibisono 2018), so none of these solvers converges to the data's law as
its grid is refined: their order is 0.
"""

from dataclasses import replace

import numpy as np

from ..program import STATE, Call, NoiseKey, Program
from ..schedules.base import Schedule
from .ancestral import ddpm_calls
from .gauges import X0, Array, Nodes
from .singlestep import ddim_calls

SCALED = 1  # the slot of the state carried to the next level


def pc(sch: Schedule, grid: Array, startup: object = None, *, name: str, snr: float, corrections: int) -> Program:
    """Predictor-corrector sampling (Song et al. 2021b, Algorithms 1 to 3): DDPM steps with the forward variance, after
    each of which ``corrections`` Langevin steps with step = 2 snr^2.

    The paper takes 2 (snr |z| / |score|)^2 for the length, which a table cannot know; this is its expectation for a
    model whose eps has the size of z. At sigma = 0 there is nothing to correct.
    """
    del startup
    at = Nodes.at(sch, grid)
    step, calls = 2 * snr**2, []
    for n, predictor in enumerate(ddpm_calls(at[:-1], at[1:])):
        t = at[n + 1]
        count = corrections if t.sigma > 0 else 0
        calls.append(replace(predictor, node=n + 1 if count == 0 else None))
        for m in range(count):
            key = NoiseKey(float(at.t[n]), float(t.t), m + 1)
            calls.append(_langevin(t, step, key, n + 1 if m == count - 1 else None))
    return Program(name, 0, tuple(map(float, at.t)), tuple(calls))


def ald(sch: Schedule, grid: Array, startup: object = None, *, name: str, step: float, per_level: int) -> Program:
    """Annealed Langevin dynamics (Song and Ermon 2019, Algorithm 1): ``per_level`` steps at every node of the grid,
    the first and the last included, between which x / alpha is carried over. Where the log-SNR of a node is infinite
    there is no such step, and DDIM goes from or to it."""
    del startup
    at = Nodes.at(sch, grid)
    last = len(grid) - 1
    calls: list[Call] = []
    slot = STATE
    for n in range(last + 1):
        level = at[n]
        broken = n < last and bool(X0.breaks(sch, at[n : n + 1], at[n + 1 : n + 2])[0])
        if np.isfinite(level.lam):
            s, t = (n, n + 1) if n < last else (n - 1, n)
            streams = range(1, per_level + 1) if n < last else range(per_level + 1, 2 * per_level + 1)
            for stream in streams:
                final = stream == streams[-1]
                key = NoiseKey(float(at.t[s]), float(at.t[t]), stream)
                call = _langevin(level, step, key, n if final and n else None, slot)
                slot = STATE
                if final and n < last and not broken:
                    call = _carried(call, float(at.alpha[n + 1] / level.alpha))
                    slot = SCALED
                calls.append(call)
        if broken:
            node = None if np.isfinite(at.lam[n + 1]) else last  # Langevin steps there reach it, if there are any
            calls += ddim_calls(X0, sch, at[n : n + 1], at[n + 1 : n + 2], [node])
    return Program(name, 0, tuple(map(float, at.t)), tuple(calls))


def ula(sch: Schedule, grid: Array, startup: object = None, *, name: str, step: float) -> Program:
    """Unadjusted Langevin at the last time of the grid, one step for every step of the grid, whose other times only
    count. Where the last has no noise, the steps are at the one before it, and DDIM goes on from there."""
    del startup
    at = Nodes.at(sch, grid)
    last = len(grid) - 1
    broken = bool(at.sigma[-1] == 0)
    keys = map(NoiseKey, at.t[:-1].tolist(), at.t[1:].tolist(), [1] * last)
    level = at[last - broken]
    calls = [_langevin(level, step, key, n) for n, key in enumerate(keys, start=1) if n < last or not broken]
    if broken:
        calls += ddim_calls(X0, sch, at[-2:-1], at[-1:], [last])
    return Program(name, 0, tuple(map(float, at.t)), tuple(calls))


def _langevin(level: Nodes, step: float, key: NoiseKey, node: int | None, slot: int = STATE) -> Call:
    row = np.array([[0.0, -step * level.sigma, 1.0, np.sqrt(2 * step) * level.sigma]])
    return Call(float(level.t), (slot,), (STATE,), row, at=slot, noises=(key,), node=node)


def _carried(call: Call, ratio: float) -> Call:
    """The same with the state times ``ratio`` in another slot."""
    return replace(call, writes=(STATE, SCALED), matrix=np.concatenate([call.matrix, ratio * call.matrix]))
