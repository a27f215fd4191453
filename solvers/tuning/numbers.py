"""The numbers that are fitted: the steps of the grid, and corrections to the weights of exponential Adams methods.

The weights are computed anew on every grid that is tried, in torch, so that they follow it: their corrections stay
small, and a fit of the grid alone already moves along a family of good solvers.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from ..arrays import Array
from ..planners.quadrature import POINTS
from .table import Fitted

LEAST = 1e-3  # the size of corrections to weights that are 0
CLOSEST = 1e-5  # of the span: two calls of a round may like to be at one level, but nodes increase
MARGIN = 1.0  # in lam: room for the step to an infinite end
BEFORE = 0.2  # in lam: how far before the last level a fit begins, whose steps have logarithms


class Rows(NamedTuple):
    """A table on the unit circle alpha^2 + sigma^2 = 1: lam (n + 1,), told (n,), and by step what the state and the
    answers are multiplied with, (n, n + 1), or for groups of elements (n, n + 1, G), with the group of each element,
    labels int64 (*event)."""

    lam: torch.Tensor
    told: torch.Tensor
    matrix: torch.Tensor
    labels: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Rows":
        labels = None if self.labels is None else self.labels.to(device)
        return Rows(self.lam.to(device), self.told.to(device), self.matrix.to(device), labels)

    def row(self, i: int) -> torch.Tensor:
        """What step i multiplies with, (n + 1,) or (n + 1, *event)."""
        return self.matrix[i] if self.labels is None else self.matrix[i][:, self.labels]


class Numbers:
    """A vector q (size,) as a table: q = 0 is the exponential Adams method of ``order`` in ``gauge`` on the nodes
    ``lam`` (n + 1,).

    together: how many calls are asked at once, see `known`. told: whether the lam that the model is told is free too,
    of all calls but the first. follow: whether weights are computed anew on every grid, else once. consistent: whether
    the state keeps its weight and a row its sum, so that constant answers are kept. level: lam of the last level that
    the model knows, beyond which no call goes, where the run does.
    """

    def __init__(
        self, gauge: str, order: int, lam: Array, *, together: int = 1, told: bool = False, follow: bool = True,
        consistent: bool = False, level: float = math.inf,
    ) -> None:  # fmt: skip
        self.gauge, self.order, self.together, self.n = gauge, order, together, len(lam) - 1
        if level - BEFORE < lam[-2]:
            low = level - min(BEFORE, (lam[-2] - lam[-3]) / 2)
            lam = np.array([*lam[:-2], low, lam[-1]])
        self.level, ends = level, (float(lam[0]), float(lam[-1]))
        self.first, self.last = (torch.tensor([end], dtype=torch.float64, device="cpu") for end in ends)
        low = ends[0] if np.isfinite(ends[0]) else float(lam[1]) - MARGIN
        high = min(level, ends[1])
        high = high if np.isfinite(high) else float(lam[-2]) + MARGIN
        inner = torch.from_numpy(np.diff(np.clip(lam, low, high)) / (high - low))
        self.closest = CLOSEST if together > 1 else 0.0
        self.low, self.span, self.start = low, high - low, torch.log(inner - self.closest)
        places = [(i, j) for i in range(self.n) for j in range(known(i, together) + 1)]  # of the weights that are free
        self.rows, self.columns = torch.from_numpy(np.array(places)).T
        if consistent:
            older = (self.columns > 0) & (self.columns <= self.rows)
            self.rows, self.columns = self.rows[older], self.columns[older]
        self.grid, self.told = self.n - 1, (self.n - 1) * told
        self.size = self.grid + len(self.rows) + self.told
        self.frozen: torch.Tensor | None = None
        self.base = self._adams(torch.from_numpy(np.array(lam)))
        self.frozen = None if follow else self.base
        self.consistent = consistent
        self.scale = self.base.abs().clamp_min(LEAST)[self.rows, self.columns]

    def weights(self, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """lam, told and weights as `Fitted` has them."""
        logits = self.start + torch.cat([q[: self.grid], q.new_zeros(1)])
        steps = self.closest + (1 - self.n * self.closest) * torch.softmax(logits, 0)
        inner = self.low + self.span * torch.cumsum(steps, 0)[:-1]
        lam = torch.cat([self.first, inner, self.last])
        corrections = q[self.grid : self.grid + len(self.rows)]
        moved = lam[:-1]
        if self.told:
            told = (inner + q[self.size - self.told :]).clamp(float(self.first), self.level)
            moved = torch.cat([self.first, told])
        return lam, moved, self._adams(lam) + self.placed(self.scale * corrections)

    def placed(self, corrections: torch.Tensor) -> torch.Tensor:
        """The corrections where they belong in (n, n + 1); a row's newest answer takes up what others add to a sum."""
        places = self.rows * (self.n + 1) + self.columns
        flat = corrections.new_zeros(self.n * (self.n + 1)).scatter_add(0, places, corrections)
        placed = flat.reshape(self.n, self.n + 1)
        return placed - torch.nn.functional.pad(torch.diag(placed.sum(1)), (1, 0)) if self.consistent else placed

    def __call__(self, q: torch.Tensor) -> Rows:
        return self.on_circle(*self.weights(q))

    def on_circle(self, lam: torch.Tensor, told: torch.Tensor, weights: torch.Tensor) -> Rows:
        """A table as `Fitted` has it, weights (n, n + 1) or (n, n + 1, G): gradients of infinite ends are none."""
        alpha, sigma = (
            torch.cat([alpha_of(sign * part) for part in (self.first, lam[1:-1], self.last)]) for sign in (1, -1)
        )
        scale, unit = (sigma, alpha) if self.gauge == "x0" else (alpha, sigma)
        shape = -1, 1, *[1] * (weights.dim() - 2)
        state = weights[:, :1] * (scale[1:] / scale[:-1]).reshape(shape)
        return Rows(lam, told, torch.cat([state, weights[:, 1:] * unit[1:].reshape(shape)], 1))

    def numbers_of(self, weights: Array) -> torch.Tensor:
        """q with these weights (n, n + 1) on the nodes that it was made with."""
        corrections = (torch.from_numpy(weights) - self.base)[self.rows, self.columns] / self.scale
        return torch.cat([corrections.new_zeros(self.grid), corrections, corrections.new_zeros(self.told)])

    def mismatch(self, q: torch.Tensor) -> torch.Tensor:
        """By what share the signal and the noise of the state differ from what the model is told at every call but the
        first, where all answers are the same, (2 n - 2,). 0 for consistent tables."""
        _, told, matrix, _ = self(q)
        first, inner = (torch.stack([alpha_of(sign * at) for sign in (1, -1)], 1) for at in (self.first, told[1:]))
        state, found = first[0], []
        answer = q.new_tensor([1.0, 0.0] if self.gauge == "x0" else [0.0, 1.0])
        for row, level in zip(matrix, inner, strict=False):
            state = row[0] * state + row[1:].sum() * answer
            found.append(state / level - 1)
        return torch.cat(found)

    def fitted(self, q: torch.Tensor) -> Fitted:
        lam, told, weights = (value.numpy() for value in self.weights(q))
        return Fitted(self.gauge, lam, weights, told if self.told else None)

    def tangents(self, q: torch.Tensor) -> tuple[Rows, Rows]:
        """The table, and its derivatives by every number in the last dimension."""
        return tangents(self, q)

    def _adams(self, lam: torch.Tensor) -> torch.Tensor:
        return adams_weights(lam, self.gauge, self.order, self.together) if self.frozen is None else self.frozen


def tangents(rows: Callable[[torch.Tensor], Rows], q: torch.Tensor) -> tuple[Rows, Rows]:
    """Of rows as a function of numbers: see `Numbers.tangents`."""
    found = rows(q)
    lam, told, matrix = torch.func.jacfwd(lambda at: rows(at)[:3])(q)
    return found, Rows(lam, told, matrix, found.labels)


def alpha_of(lam: torch.Tensor) -> torch.Tensor:
    """alpha on the unit circle; sigma of -lam."""
    return torch.sqrt(torch.sigmoid(2 * lam))


def known(i: int, together: int) -> int:
    """How many answers row i of a table may use: all up to its own where the next call begins a round of ``together``
    calls, and else those of earlier rounds."""
    return i + 1 if (i + 1) % together == 0 else i - i % together


def adams_weights(lam: torch.Tensor, gauge: str, order: int, together: int = 1) -> torch.Tensor:
    """Weights (n, n + 1) of the exponential Adams method in lam, as `Fitted` has them, on nodes (n + 1,), float64.

    The same integrals as `planners.multistep.Adams` computes, with gradients to the nodes; steps at infinite ends are
    of first order, and history does not reach across them. Of ``together`` calls that are asked at once all but the
    last extrapolate what is `known`; where nothing is, x0 = 0: the noise stays what it is.
    """
    n, finite = len(lam) - 1, torch.isfinite(lam).tolist()
    rows = []
    for i in range(n):
        last, h = known(i, together), lam[i + 1] - lam[i]
        if not last:
            state = lam.new_ones(1) if gauge == "x0" else torch.exp(-h)[None]
            rows.append(torch.cat([state, lam.new_zeros(n)]))
            continue
        first = max(last - order, 0 if finite[0] else 1) if finite[i] and finite[i + 1] else last
        first = min(first, last - 1)
        total = -torch.expm1(-h if gauge == "x0" else h)
        older = _older(lam[first:last] - lam[i], h, gauge) if first < last - 1 else lam.new_zeros(0)
        newest = (total - older.sum())[None]
        rows.append(torch.cat([lam.new_ones(1), lam.new_zeros(first), older, newest, lam.new_zeros(n - last)]))
    return torch.stack(rows)


def _older(nodes: torch.Tensor, h: torch.Tensor, gauge: str) -> torch.Tensor:
    """The integrals of the Lagrange polynomials of all nodes but the newest over the step from 0 to h."""
    x, w = _rule(max(1, int(np.ceil(float(h.detach())))) if not _wrapped(h) else 4)
    u = h * x
    kernel = torch.exp(u - h) * w * h if gauge == "x0" else -torch.exp(h - u) * w * h
    found = []
    for j in range(len(nodes) - 1):
        others = [k for k in range(len(nodes)) if k != j]
        basis = torch.stack([(u - nodes[k]) / (nodes[j] - nodes[k]) for k in others]).prod(0)
        found.append((kernel * basis).sum())
    return torch.stack(found)


def _wrapped(h: torch.Tensor) -> bool:
    """Whether nobody can look at its value, under a transform."""
    return torch._C._functorch.is_functorch_wrapped_tensor(h)


@cache
def _rule(panels: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, w = np.polynomial.legendre.leggauss(POINTS)
    starts = np.arange(panels)[:, None]
    points, weights = ((starts + (x + 1) / 2) / panels).ravel(), np.tile(w / (2 * panels), panels)
    return torch.from_numpy(points), torch.from_numpy(weights)
