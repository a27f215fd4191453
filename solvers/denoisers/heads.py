"""The five heads a network may predict, as linear maps of (x, prediction).

With ``x = alpha x0 + sigma eps`` every head is one linear equation for the pair (x0, eps), book Prop. 6.3.1:

======== ============================== ==========================================================
x0        x0                             the clean data
eps       eps                            the noise
v         alpha eps - sigma x0           Salimans and Ho (2022); the "v-prediction" of diffusers
velocity  alpha' x0 + sigma' eps         dx/dt of the PF-ODE; eps - x0 on the flow-matching path
score     -eps / sigma                   gradient of log p_t
======== ============================== ==========================================================
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..schedules.base import Schedule

HEADS = ("x0", "eps", "v", "velocity", "score")


class Level(NamedTuple):
    """The schedule at one time (floats) or many (arrays, tensors): alpha, sigma and their t-derivatives."""

    alpha: Any
    sigma: Any
    dalpha: Any
    dsigma: Any

    @classmethod
    def at(cls, sch: Schedule, t: Any) -> "Level":
        return cls(sch.alpha(t), sch.sigma(t), sch.dalpha(t), sch.dsigma(t))


def to_pair(head: str, level: Level) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """``((a, b), (c, d))`` with ``x0 = a x + b prediction`` and ``eps = c x + d prediction``.

    Entries are infinite or NaN where the head does not determine the quantity: eps says nothing about x0 at
    alpha = 0, x0 nothing about eps at sigma = 0. The caller asks only for what it uses.
    """
    return _TO_PAIR[head](level)


def network_rate(head: str, sch: Schedule) -> float:
    """The factor that makes the network's answer ``head`` on the schedule's time: -1 for the velocity of a network
    whose own time runs from noise to data, else 1."""
    return sch.clock_rate if head == "velocity" else 1.0


def from_pair(head: str, level: Level) -> tuple[Any, Any]:
    """``(p, q)`` with ``head = p x0 + q eps``."""
    return _FROM_PAIR[head](level)


def _v(at: Level) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    norm = at.alpha * at.alpha + at.sigma * at.sigma
    return (at.alpha / norm, -at.sigma / norm), (at.sigma / norm, at.alpha / norm)


def _velocity(at: Level) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    wronskian = at.alpha * at.dsigma - at.sigma * at.dalpha
    return (at.dsigma / wronskian, -at.sigma / wronskian), (-at.dalpha / wronskian, at.alpha / wronskian)


_TO_PAIR: dict[str, Callable[[Level], tuple[tuple[Any, Any], tuple[Any, Any]]]] = {
    "x0": lambda at: ((0.0, 1.0), (1 / at.sigma, -at.alpha / at.sigma)),
    "eps": lambda at: ((1 / at.alpha, -at.sigma / at.alpha), (0.0, 1.0)),
    "v": _v,
    "velocity": _velocity,
    "score": lambda at: ((1 / at.alpha, at.sigma * at.sigma / at.alpha), (0.0, -at.sigma)),
}

_FROM_PAIR: dict[str, Callable[[Level], tuple[Any, Any]]] = {
    "x0": lambda at: (1.0, 0.0),
    "eps": lambda at: (0.0, 1.0),
    "v": lambda at: (-at.sigma, at.alpha),
    "velocity": lambda at: (at.dalpha, at.dsigma),
    "score": lambda at: (0.0, -1 / at.sigma),
}
