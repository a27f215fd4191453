"""Functions of lam by their values at Chebyshev nodes: interpolated, integrated and differentiated as polynomials."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from ..arrays import Array

Span = tuple[float, float]


def chebyshev_nodes(span: Span, count: int) -> Array:
    """``count`` values of lam from the lower to the upper end, denser there: polynomials through them do not
    oscillate."""
    low, high = span
    return (low + high) / 2 + (high - low) / 2 * _points(count)


@dataclass(frozen=True, eq=False)
class Curve:
    """The polynomial of degree K - 1 with ``values``, (K, *event), at the nodes of ``span``; constant outside."""

    span: Span
    values: Array

    def at(self, lam: Any) -> Array:
        """Its values at lam of any shape, (*shape, *event), by the barycentric formula: no digit is lost at nodes."""
        place = self._place(lam)[..., None] - _points(len(self.values))
        hit = place == 0
        weights = np.where(np.arange(len(self.values)) % 2, -1.0, 1.0)
        weights[[0, -1]] /= 2
        shares = weights / np.where(hit, 1.0, place)
        shares = np.where(hit.any(axis=-1, keepdims=True), hit, shares)
        first = self.values[0]  # a constant is one to the last bit, and what hardly moves keeps its digits
        return first + np.tensordot(shares / shares.sum(axis=-1, keepdims=True), self.values - first, 1)

    def integral(self, lam: Any) -> Array:
        """Its integral from lam = 0, or from the end next to it."""
        return integrals([self], lam)[0]

    def slope(self, lam: Any) -> Array:
        """Its derivative."""
        coefficients = np.asarray(chebyshev.chebder(self._coefficients) / self._half, dtype=np.float64)
        return self._sum(polynomials(self._place(lam), len(coefficients)), coefficients)

    @property
    def _half(self) -> float:
        return (self.span[1] - self.span[0]) / 2

    @cached_property
    def _coefficients(self) -> Array:
        count = len(self.values)
        flat = self.values.reshape(count, -1)
        solution: Any = np.linalg.solve(chebyshev.chebvander(_points(count), count - 1), flat)
        return np.asarray(solution, dtype=np.float64)

    @cached_property
    def _integral(self) -> Array:
        start = float(self._place(0.0))
        return np.asarray(chebyshev.chebint(self._coefficients, lbnd=start) * self._half, dtype=np.float64)

    def _place(self, lam: Any) -> Array:
        """From -1 to 1; infinite lam at the ends."""
        place = (np.asarray(lam, dtype=np.float64) - (self.span[0] + self.span[1]) / 2) / self._half
        return np.clip(place, -1.0, 1.0)

    def _sum(self, terms: Array, coefficients: Array) -> Array:
        return np.reshape(terms @ coefficients, (*terms.shape[:-1], *self.values.shape[1:]))


def integrals(curves: Sequence[Curve], lam: Any) -> list[Array]:
    """`Curve.integral` of several of one span and number of nodes, whose polynomials are evaluated once."""
    first = curves[0]
    terms = polynomials(first._place(lam), len(first.values) + 1)
    return [curve._sum(terms, curve._integral) for curve in curves]


def polynomials(x: Array, count: int) -> Array:
    """The Chebyshev polynomials of degrees 0 to count - 1 at x, (*shape, count), as `chebvander`; in a fraction of its
    time, which is that of making arrays."""
    terms = np.empty((count, *x.shape))
    terms[0], terms[1:2], twice = 1.0, x, 2 * x
    for k in range(2, count):
        np.multiply(terms[k - 1], twice, out=terms[k])
        terms[k] -= terms[k - 2]
    return np.moveaxis(terms, 0, -1)


def _points(count: int) -> Array:
    return np.sin(np.linspace(-np.pi / 2, np.pi / 2, count))
