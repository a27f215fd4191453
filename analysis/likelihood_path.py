"""The log-density gained along a path by classical Runge-Kutta steps in lam, with errors of the path taken back.

It is y = x / R that moves, R^2 = alpha^2 + sigma^2: ``dy/dlam = f = a (x0 - a y)``, a = alpha / R, is the same on every
schedule, and in it pure noise does not move. By the continuity equation ``d log p / dlam = -div f - f . s`` at a fixed
y, s the score, so along any path y(lam)

    d log p(y(lam)) / dlam = -div f + s . (dy/dlam - f).

Along the flow that is -div f. Along a path through the nodes of a Runge-Kutta method, here the cubic one that has the
slopes f there (Hermite), the second term takes back what the path errs by: with the exact score nothing is left of it
but the error of the quadrature, Lobatto's with five points to a step, of order 8. The network says the score too,
``s = (a x0 - y) R^2 / sigma^2``; where it is not that of its own flow, as with guidance, what is left is of order 4.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from ..solvers.schedules.base import Schedule

FAR = math.sqrt(3 / 7) / 2
ENDS = 1 / 20
INNER = ((0.5 - FAR, 49 / 180), (0.5, 16 / 45), (0.5 + FAR, 49 / 180))  # Abramowitz and Stegun, 25.4.32, on [0, 1]

X0 = Callable[[torch.Tensor, float], torch.Tensor]
X0Traces = Callable[[torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]]


class Rates(NamedTuple):
    """The slope and the score (B, ...), and the divergence (rows, B)."""

    slope: torch.Tensor
    score: torch.Tensor
    divergence: torch.Tensor


class Frame:
    """The flow of y = x / R. x0 and traced are asked at x (B, ...) and one time of ``sch``; traced also gives the trace
    of the Jacobian of x0, (rows, B). spread: the deviation of unit noise, sqrt(1/2) of the parts of complex numbers."""

    def __init__(self, sch: Schedule, x0: X0, traced: X0Traces, spread: float = 1.0) -> None:
        self.sch, self.x0, self.traced, self.spread = sch, x0, traced, spread

    def at(self, lam: float) -> tuple[float, float, float, float]:
        """The time, R, alpha / R and sigma / R."""
        t = float(self.sch.time(lam))
        alpha, sigma = float(self.sch.alpha(t)), float(self.sch.sigma(t))
        norm = math.hypot(alpha, sigma)
        return t, norm, alpha / norm, sigma / norm

    def slope(self, y: torch.Tensor, lam: float) -> torch.Tensor:
        t, norm, a, _ = self.at(lam)
        return a * (self.x0(norm * y, t) - a * y)

    def rates(self, y: torch.Tensor, lam: float) -> Rates:
        t, norm, a, s = self.at(lam)
        x0, traces = self.traced(norm * y, t)
        return Rates(
            a * (x0 - a * y), (a * x0 - y) / (self.spread * s) ** 2, a * norm * traces - a * a * y.shape[1:].numel()
        )


def rk4(frame: Frame, x: torch.Tensor, clean: float, noisy: float, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """From ``x`` at lam = ``clean`` in equal steps to ``noisy``: the latent (B, ...), and the log-density gained on the
    way back, (rows, B)."""
    (_, start, *_), (_, end, *_) = frame.at(clean), frame.at(noisy)
    y = x / start
    at = frame.rates(y, clean)
    gained = at.divergence.new_full(at.divergence.shape, x.shape[1:].numel() * math.log(end / start))
    for a, b in pairwise(np.linspace(clean, noisy, steps + 1).tolist()):
        h, slopes = b - a, [at.slope]
        for part in (0.5, 0.5, 1.0):
            slopes.append(frame.slope(y + part * h * slopes[-1], a + part * h))
        z = y + h / 6 * (slopes[0] + 2 * (slopes[1] + slopes[2]) + slopes[3])
        then = frame.rates(z, b)
        gained = gained + ENDS * h * (at.divergence + then.divergence)
        for part, weight in INNER:
            between, slope = hermite(part, h, y, at.slope, z, then.slope)
            found = frame.rates(between, a + part * h)
            off = (found.score * (slope - found.slope)).reshape(len(y), x.shape[1:].numel()).sum(1)
            gained = gained + weight * h * (found.divergence - off)
        y, at = z, then
    return end * y, gained


def hermite(
    c: float, h: float, y: torch.Tensor, dy: torch.Tensor, z: torch.Tensor, dz: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The cubic with these values and slopes at 0 and h, and its slope, at c h."""
    bend = c * (1 - c)
    value = y + c * c * (3 - 2 * c) * (z - y) + h * bend * ((1 - c) * dy - c * dz)
    slope = 6 * bend / h * (z - y) + (1 - c) * (1 - 3 * c) * dy + c * (3 * c - 2) * dz
    return value, slope
