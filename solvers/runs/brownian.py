"""A virtual Brownian tree: the noise of an interval as the increment of one path, whatever the grid.

The path is the Brownian motion B on the clock ``e^(2 E(lam))`` that drives the SDE (see `stochasticity`), kept as
``U = e^-E B``, which is stationary with variance 1 (Ornstein and Uhlenbeck 1930) and so neither over- nor underflows.
U is drawn at the ends of a fixed range of lam, and between two known values by the bridge

    U_c = (sinh(v) U_a + sinh(u) U_b + sqrt(2 sinh(u) sinh(v) sinh(u + v)) xi) / sinh(u + v),

u = E_c - E_a and v = E_b - E_c. Every normal xi is addressed by its place in the tree of halved intervals (Li et al.
2020, "Scalable gradients for stochastic differential equations", section 4). So a value of the path is a sum of one
normal a level, an increment is a sum of twice as many, and nothing is kept from one to the next.
"""

import math
from itertools import islice

import numpy as np
import torch

from ...kernels import Noise, Seeds, combine
from ...kernels.devices import float64_device
from ..arrays import Array
from ..planners.stochasticity import Stochasticity
from ..programs.call import NoiseKey
from ..schedules.base import Schedule

LOW, HIGH = -16.0, 16.0  # in lam: nearly all spans; beyond, values hang on the nearer end alone
DEPTH = 24  # halvings: the law is exact while no two nodes are closer in lam than 2e-6
STREAM = 1  # of the addresses: fresh noise has 0
TOGETHER = 4  # normals that are added in one pass

Form = dict[int, float]  # a sum of normals: the weight of each by its place


class BrownianNoise:
    """Increments of the path of every sample, normalised: ``noise(key, like)`` is what the executor asks for."""

    def __init__(self, sch: Schedule, eta: Stochasticity, seeds: Seeds) -> None:
        self.sch, self.eta, self.seeds = sch, eta, seeds

    def __call__(self, key: NoiseKey, like: torch.Tensor) -> torch.Tensor:
        """(B(t) - B(s)) / sqrt(e^2E(t) - e^2E(s)), like ``like`` and fp32 at least; the stream is not looked at.

        Raises ValueError where the path stands still.
        """
        form = self.increment(key)
        dtype = torch.promote_types(like.dtype, torch.float32)
        home = float64_device(like.device)
        total = torch.zeros(like.shape, dtype=torch.float64, device=home)
        seeds, samples = (words.to(home) for words in self.seeds)
        terms = iter(form.items())
        while part := tuple(islice(terms, TOGETHER)):
            noise = Noise(seeds, samples, tuple((place, STREAM) for place, _ in part))
            combine([total], np.array([[1.0, *(weight for _, weight in part)]]), noise=noise, out=[total])
        return total.to(dtype).to(like.device)

    def increment(self, key: NoiseKey) -> Form:
        """As a sum of normals."""
        s, t = (float(self.sch.half_logsnr(u)) for u in (key.s, key.t))
        gone = float(self._energy(s, t))
        if not gone > 0:
            raise ValueError(f"there is no Brownian motion from t = {key.s:.6g} to {key.t:.6g}: eta is 0 there")
        after, scale, decay = self.value(t), 1 / math.sqrt(-math.expm1(-2 * gone)), math.exp(-gone)
        return _sum((scale, after), (-scale * decay, self.value(s))) if decay else after

    def value(self, lam: float) -> Form:
        """U at lam: what is known at the ends of ever smaller intervals, weighted together."""
        left, right = {0: 1.0}, _after({0: 1.0}, float(self._energy(LOW, HIGH)), 1)
        if lam <= LOW:
            return _after(left, float(self._energy(lam, LOW)), 2)
        if lam >= HIGH:
            return _after(right, float(self._energy(HIGH, lam)), 3)
        places, a, c, b = _halves(lam)
        for place, middle, u, v in zip(places, c, self._energy(a, c), self._energy(c, b), strict=True):
            here = _bridge(left, right, float(u), float(v), place)
            left, right = (here, right) if lam > middle else (left, here)
        return here

    def _energy(self, s: float | Array, t: float | Array) -> Array:
        return self.eta.energy(np.asarray(s), np.asarray(t))


def _halves(lam: float) -> tuple[list[int], Array, Array, Array]:
    """The places in the tree, left ends, middles and right ends of the intervals around lam; the last is cut at lam."""
    a, b, node, rows = LOW, HIGH, 1, []
    for _ in range(DEPTH):
        c = (a + b) / 2
        rows.append((3 + node, a, c, b))
        if c == lam:
            break
        a, b, node = (c, b, 2 * node + 1) if lam > c else (a, c, 2 * node)
    else:
        rows.append((3 + node, a, lam, b))
    places, *columns = zip(*rows, strict=True)
    return list(places), *(np.array(column) for column in columns)  # type: ignore[return-value]


def _after(form: Form, gone: float, place: int) -> Form:
    """U at a distance of E from a known value, on either side: the process is reversible."""
    return _sum((math.exp(-gone), form), (math.sqrt(-math.expm1(-2 * gone)), {place: 1.0}))


def _bridge(left: Form, right: Form, u: float, v: float, place: int) -> Form:
    """U at distances u and v >= 0 of E from two known values."""
    if u == 0 or v == 0:  # eta = 0 on one side: the value there
        return left if u == 0 else right
    whole, near, far = (-math.expm1(-2 * x) for x in (u + v, u, v))  # each sinh(x) is e^x (1 - e^-2x) / 2
    return _sum(
        (math.exp(-u) * far / whole, left),
        (math.exp(-v) * near / whole, right),
        (math.sqrt(near * far / whole), {place: 1.0}),
    )


def _sum(*terms: tuple[float, Form]) -> Form:
    total: Form = {}
    for factor, form in terms:
        for place, weight in form.items():
            total[place] = total.get(place, 0.0) + factor * weight
    return total
