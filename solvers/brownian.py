"""A virtual Brownian tree: the noise of an interval as the increment of one path, whatever the grid.

The path is the Brownian motion B on the clock ``e^(2 E(lam))`` that drives the SDE (see `stochasticity`), kept as
``U = e^-E B``, which is stationary with variance 1 (Ornstein and Uhlenbeck 1930) and so neither over- nor underflows.
U is drawn at the ends of a fixed range of lam, and between two known values by the bridge

    U_c = (sinh(v) U_a + sinh(u) U_b + sqrt(2 sinh(u) sinh(v) sinh(u + v)) xi) / sinh(u + v),

u = E_c - E_a and v = E_b - E_c. Every normal xi is addressed by its place in the tree of halved intervals: a value of
the path takes one normal a level, no memory, and does not depend on which others were asked for (Li et al. 2020,
"Scalable gradients for stochastic differential equations", section 4, for the tree).
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from ..kernels import Noise, Seeds, combine
from .program import NoiseKey
from .schedule import Schedule
from .stochasticity import Stochasticity

LOW, HIGH = -16.0, 16.0  # in lam: nearly all spans; beyond, values hang on the nearer end alone
DEPTH = 24  # halvings: the law is exact while no two nodes are closer in lam than 2e-6
STREAM = 1  # of the addresses: fresh noise has 0


class BrownianNoise:
    """Increments of the path of every sample, normalised: ``noise(key, like)`` is what the executor asks for."""

    def __init__(self, sch: Schedule, eta: Stochasticity, seeds: Seeds) -> None:
        self.sch, self.eta, self.seeds = sch, eta, seeds
        self.last: tuple[float, torch.Tensor] | None = None

    def __call__(self, key: NoiseKey, like: torch.Tensor) -> torch.Tensor:
        """(B(t) - B(s)) / sqrt(e^2E(t) - e^2E(s)) for stream 0, fp32 at least; other streams are not on the path.

        Raises ValueError where the path stands still.
        """
        s, t = (float(self.sch.half_logsnr(u)) for u in (key.s, key.t))
        gone = self._energy(s, t)
        if not gone > 0:
            raise ValueError(f"there is no Brownian motion from t = {key.s:.6g} to {key.t:.6g}: eta is 0 there")
        after, decay = self._value(t, like), math.exp(-gone)
        dtype = torch.promote_types(like.dtype, torch.float32)
        if decay == 0:
            return after.to(dtype)
        scale = 1 / math.sqrt(-math.expm1(-2 * gone))
        (increment,), _ = combine([after, self._value(s, like)], np.array([[scale, -scale * decay]]), dtypes=[dtype])
        self.last = t, after  # where the next interval begins
        return increment

    def _energy(self, s: float, t: float) -> float:
        return float(self.eta.energy(np.float64(s), np.float64(t)))

    def _value(self, lam: float, like: torch.Tensor) -> torch.Tensor:
        """U at lam, float64: what is known at the ends of ever smaller intervals, weighted together."""
        if self.last is not None and self.last[0] == lam:
            return self.last[1]
        a, b = LOW, HIGH
        left = self._bridge([], [1.0], 0, like)
        whole = math.exp(-self._energy(a, b))
        right = self._bridge([left], [whole, math.sqrt(-math.expm1(-2 * self._energy(a, b)))], 1, like)
        if lam <= a or lam >= b:
            near, end, place = (left, a, 2) if lam <= a else (right, b, 3)
            gone = self._energy(min(lam, end), max(lam, end))
            return self._bridge([near], [math.exp(-gone), math.sqrt(-math.expm1(-2 * gone))], place, like)
        for place, c in _halves(lam):
            u, v = self._energy(a, c), self._energy(c, b)
            middle = self._bridge([left, right], _weights(u, v), place, like)
            if c == lam:
                break
            a, b, left, right = (c, b, middle, right) if lam > c else (a, c, left, middle)
        return middle

    def _bridge(self, known: list[torch.Tensor], weights: list[float], place: int, like: torch.Tensor) -> torch.Tensor:
        noise = Noise(*self.seeds, ((place, STREAM),))
        inputs = known or [torch.zeros(like.shape, dtype=torch.float64, device=like.device)]
        coefs = weights if known else [0.0, *weights]
        return combine(inputs, np.array([coefs]), noise=noise, dtypes=[torch.float64])[0][0]


def _halves(lam: float) -> Iterator[tuple[int, float]]:
    """The middles of the intervals around lam, as (place in the tree, middle), and last lam itself."""
    a, b, node = LOW, HIGH, 1
    for _ in range(DEPTH):
        c = (a + b) / 2
        yield 3 + node, c
        right = lam > c
        a, b, node = (c, b, 2 * node + 1) if right else (a, c, 2 * node)
    yield 3 + node, lam


def _weights(u: float, v: float) -> list[float]:
    """Of the left end, the right end and the normal of the bridge, for distances u and v >= 0 of E."""
    if u == 0 or v == 0:  # eta = 0 on one side: the value there
        return [float(u == 0), float(u > 0), 0.0]
    whole = -math.expm1(-2 * (u + v))  # each sinh(x) is e^x (1 - e^-2x) / 2
    near, far = -math.expm1(-2 * u), -math.expm1(-2 * v)
    return [math.exp(-u) * far / whole, math.exp(-v) * near / whole, math.sqrt(near * far / whole)]
