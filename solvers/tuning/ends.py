"""Fitted tables between other ends than their own."""

import math
from dataclasses import replace

import numpy as np
import torch

from ..arrays import Array
from ..planners.gauges import X0, Nodes
from ..planners.singlestep import ddim_calls
from ..programs.program import Program
from ..schedules.base import Schedule
from .aside import aside
from .numbers import adams_weights
from .table import Fitted

SHORTEST = 0.2  # the first step, if it alone is of another length
PURE = -12.0  # the lam of noise that is as good as pure


@aside
def moved(table: Fitted, order: int, low: float, high: float, in_noise: bool) -> Fitted:
    """A table, which corrects the Adams method of this order, with other ends, as far as these are finite.

    in_noise: whether states at both starts, its own and the other, are nothing but noise. Then a start before the
    second node is that of the first step alone, `begun`. Else nodes go with an end, the less the farther they are from
    it, so that they stay in order however small the steps are. The weights are those of the Adams method between them,
    with the corrections of the old ones in proportion to what a step has of answers.
    """
    if in_noise and low != table.lam[0] and low < table.lam[1] - SHORTEST:
        return begun(moved(table, order, float(table.lam[0]), high, in_noise), low)
    if (low, high) == (table.lam[0], table.lam[-1]):
        return table
    lam, finite = table.lam.copy(), np.isfinite(table.lam)
    part = (lam[finite] - lam[finite][0]) / np.ptp(lam[finite])
    first, last = (end - old if math.isfinite(old) else 0.0 for end, old in ((low, lam[0]), (high, lam[-1])))
    lam[finite] += first * (1 - part) ** 2 + last * part**2
    lam[[0, -1]] = low, high
    before, after = (adams_weights(torch.tensor(nodes), table.gauge, order).numpy() for nodes in (table.lam, lam))
    sign = 1 if table.gauge == "eps" else -1
    old, new = (sign * np.diff(nodes) for nodes in (table.lam, lam))
    corrections = table.weights - before
    corrections[:, 1:] *= (np.expm1(new) / np.expm1(old))[:, None]
    weights = after + corrections
    if table.gauge == "eps":
        weights[0, 1] = _first(table, lam)
    return Fitted(table.gauge, lam, weights)


def begun(table: Fitted, low: float) -> Fitted:
    """The table from another start, where states are noise as well, so that the model says the same: the first step
    differs alone."""
    lam, weights = table.lam.copy(), table.weights.copy()
    lam[0] = max(low, PURE)
    weights[0, 1] = _first(table, lam)
    return Fitted(table.gauge, lam, weights)


def _first(table: Fitted, lam: Array) -> float:
    """The weight of the first answer with which the first step between the nodes ``lam`` leaves as much of the noise,
    and of the signal, as the table's own.

    Of a step of length h in eps it leaves S = w_00 of the signal and S e^h + w_01 of the noise; in x0 S is w_00, of
    the noise, and S e^-h + w_01 is left of the signal.
    """
    sign, (kept, answer) = 1 if table.gauge == "eps" else -1, table.weights[0, :2]
    old, new = (math.exp(sign * (nodes[1] - nodes[0])) for nodes in (table.lam, lam))
    return float(answer + kept * (old - new))


def followed(program: Program, schedule: Schedule, end: float) -> Program:
    """The program, and one step more to the time ``end``, DDIM's: networks know no level between."""
    at = Nodes.at(schedule, np.array([program.grid[-1], end]))
    step = ddim_calls(X0, schedule, at[:-1], at[1:], [len(program.grid)])
    return replace(program, grid=(*program.grid, end), calls=(*program.calls, *step))
