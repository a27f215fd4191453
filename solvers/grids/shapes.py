"""The named grids: how the nodes of a run lie between its ends.

Each is a small function ``lay(first, last, steps, **options)``. From the two ends it makes ``steps + 1`` nodes, in the
variable that its `Shape` names. The options are the function's keyword-only arguments, with their defaults.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from types import MappingProxyType
from typing import Any

import numpy as np

from ..arrays import Array

Lay = Callable[..., Array]


@dataclass(frozen=True)
class Shape:
    """A named grid.

    lay:      the function, see the head of this module.
    of:       what it lays out: "lam", "time", or "index", the entries of a table.
    infinite: whether an infinite lam at an end is taken as it is, and not as the edge of the window.
    noisiest: lam at the first entry of a published list, which takes the place of the last level with noise, too.
    """

    lay: Lay
    of: str = "lam"
    infinite: bool = False
    noisiest: float | None = None

    @property
    def options(self) -> Mapping[str, Any]:
        """The names of the options, with their defaults."""
        keywords = (p for p in signature(self.lay).parameters.values() if p.kind is p.KEYWORD_ONLY)
        return MappingProxyType({p.name: p.default for p in keywords})


def _fractions(steps: int) -> Array:
    return np.linspace(0.0, 1.0, steps + 1)


def _uniform(first: float, last: float, steps: int) -> Array:
    return np.linspace(first, last, steps + 1)


def _karras(first: float, last: float, steps: int, *, rho: float = 7.0) -> Array:
    return -rho * np.log(np.linspace(np.exp(-first / rho), np.exp(-last / rho), steps + 1))


def _polyexponential(first: float, last: float, steps: int, *, rho: float = 1.0) -> Array:
    return last + (first - last) * (1 - _fractions(steps)) ** rho


def _arctan(first: float, last: float, steps: int, *, c: float = 1.0) -> Array:
    with np.errstate(divide="ignore", over="ignore"):  # the ends themselves are put in later
        start, end = np.arctan(np.exp(-np.array([first, last])) / c).tolist()
        nodes: Array = -np.log(c * np.tan(np.linspace(start, end, steps + 1)))
    return nodes


def _flow(first: float, last: float, steps: int) -> Array:
    from scipy.special import expit, logit

    return _quantiles(expit, logit, first, last, steps, 0.0, 1.0)


def _laplace(first: float, last: float, steps: int, *, mu: float = 0.0, beta: float = 0.5) -> Array:
    def below(z: float) -> float:
        return float(np.exp(z) / 2 if z < 0 else 1 - np.exp(-z) / 2)

    return _quantiles(below, lambda p: np.log(2 * p), first, last, steps, -mu, beta)


def _logit_normal(first: float, last: float, steps: int, *, mu: float = 0.0, std: float = 1.0) -> Array:
    from scipy.special import ndtr, ndtri

    return _quantiles(ndtr, ndtri, first, last, steps, -mu, std)


def _logistic(
    first: float, last: float, steps: int, *, share: float = 1.0, mu: float = 1.5, scale: float = 1.25
) -> Array:
    """A density of nodes in lam that is constant but for a hump: ``share`` of them lies in that of a logistic law about
    ``mu``. 0 is uniform; 1 at mu 0 and scale 1 uniform in the time of flow matching, as ``flow`` is."""
    lam, u = np.linspace(first, last, 4097), _fractions(steps)

    def part(z: Array) -> Array:
        rising: Array = 1 / (1 + np.exp(-(z - mu) / scale))
        return (rising - rising[0]) / (rising[-1] - rising[0])

    density: Array = (1 - share) * (lam - first) / (last - first) + share * part(lam)
    return np.interp(u, density, lam)


def _quantiles(
    below: Callable[[float], float], lower: Lay, first: float, last: float, steps: int, center: float, scale: float
) -> Array:
    """Equal parts of the probability, between the ends, of a law that is symmetric about ``center``.

    below: its distribution function, lower: the inverse of that up to 1/2, both for center 0 and scale 1. Either tail
    is counted from its own end, so that nothing cancels.
    """
    u, ends = _fractions(steps), [(lam - center) / scale for lam in (first, last)]
    left, right = ((1 - u) * below(sign * ends[0]) + u * below(sign * ends[1]) for sign in (1, -1))
    with np.errstate(divide="ignore"):
        halves = [lower(np.minimum(p, 0.5)) for p in (left, right)]
    return center + scale * np.where(left < right, halves[0], -halves[1])


def _beta(first: float, last: float, steps: int, *, a: float = 0.6, b: float = 0.6) -> Array:
    from scipy.special import betaincinv

    return last + (first - last) * betaincinv(a, b, 1 - _fractions(steps))


def _linear_quadratic(
    first: float, last: float, steps: int, *, threshold: float = 0.025, linear_steps: int | None = None
) -> Array:
    """Straight up to ``threshold`` of the span in ``linear_steps`` steps, then a parabola through the end, which goes
    on with the same slope."""
    straight = min(steps // 2 if linear_steps is None else linear_steps, steps - 1)
    if straight < 1:
        return _uniform(first, last, steps)
    i, rest = np.arange(steps + 1.0), steps - straight
    slope = threshold / straight
    bend = (1 - threshold - slope * rest) / rest**2
    return first + (last - first) * (slope * i + bend * np.clip(i - straight, 0, None) ** 2)


def _bong_tangent(
    first: float, last: float, steps: int, *, pivot: float = 0.6, slope: float = 0.2, middle: float = 0.5
) -> Array:
    """Two arctangents, from the start to ``middle`` of the span and from there to the end, both steepest where they
    meet, after ``pivot`` of the nodes."""
    count = steps + 2
    bend, steep = int(count * pivot), slope * 40 / count
    if not 2 <= bend <= count - 2:
        return _uniform(first, last, steps)
    upper, lower = (-np.arctan(steep * np.arange(*side)) for side in ((-bend, 0), (0, count - bend)))
    upper = middle + (1 - middle) * (upper - upper[-1]) / (upper[0] - upper[-1])
    lower = middle * (lower - lower[-1]) / (lower[0] - lower[-1])
    return last + (first - last) * np.concatenate([upper[:-1], lower])


def _linspace(first: float, last: float, steps: int, *, dpm: bool = False) -> Array:
    nodes = np.rint(np.linspace(0, first, steps + dpm))[::-1][:steps]
    nodes[0] = first  # also of one step, which other libraries begin at 0
    return np.append(nodes, last)


def _leading(first: float, last: float, steps: int, *, dpm: bool = False, offset: int = 1) -> Array:
    stride = (first + 1) // (steps + dpm)
    return np.append(np.arange(steps)[::-1] * stride + stride * dpm + offset, last)


def _trailing(first: float, last: float, steps: int) -> Array:
    return np.append(np.rint((first + 1) * (1 - _fractions(steps)[:-1])) - 1, last)


def of_callable(f: Callable[[float], Any], *, of: str = "lam") -> Shape:
    """The grid of a function from the fraction of the run to that of the span in lam or time, 0 at the start.

    Raises ValueError, when it is laid out, unless f(0) = 0, f(1) = 1 and it grows.
    """

    def lay(first: float, last: float, steps: int) -> Array:
        parts = np.array([float(f(float(u))) for u in _fractions(steps)])
        if not (np.abs(parts[[0, -1]] - [0, 1]) < 1e-6).all() or not (np.diff(parts) > 0).all():
            raise ValueError(
                "grid must be a function that grows from grid(0) = 0 to grid(1) = 1, but at equal parts of the run it "
                f"is {np.array2string(parts, precision=4, threshold=12)}"
            )
        return first + (last - first) * parts

    return Shape(lay, of)


SHAPES: dict[str, Shape] = {
    "logsnr": Shape(_uniform),
    "karras": Shape(_karras),
    "time": Shape(_uniform, "time"),
    "exponential": Shape(_uniform),
    "polyexponential": Shape(_polyexponential),
    "arctan": Shape(_arctan, infinite=True),
    "flow": Shape(_flow, infinite=True),
    "laplace": Shape(_laplace, infinite=True),
    "logit-normal": Shape(_logit_normal, infinite=True),
    "logistic": Shape(_logistic),
    "beta": Shape(_beta, "time"),
    "linear-quadratic": Shape(_linear_quadratic, "time"),
    "bong-tangent": Shape(_bong_tangent, "time"),
    "linspace": Shape(_linspace, "index"),
    "leading": Shape(_leading, "index"),
    "trailing": Shape(_trailing, "index"),
}
