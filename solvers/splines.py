"""Monotone interpolation with two continuous derivatives, by pieces of degree 5, in numpy and torch alike.

Entries are one apart. On [0, 1] a piece that rises by r, with derivatives s0, s1 and second derivatives c0, c1 at its
ends, has a slope of degree 4 whose Bernstein coefficients are s0, s0 + c0 / 4, 5 r - (the other four),
s1 - c1 / 4, s1; where all are positive the slope is. A derivation from the Hermite conditions is ten lines, a test
is against scipy.
"""

from typing import Any

import numpy as np

CELLS = 6  # a derivative is that of the polynomial through so many rises: off by O(1/L^7) on a formula of scale L
LEAST = 0.1  # a slope below this fraction of the piece's own is a ringing of that polynomial, not of the table


def derivatives(rise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and second derivatives at the n + 1 entries between n rises, all positive, that make every piece rise.

    Those of the polynomial through the nearest entries; at both ends of a piece that would be too flat somewhere,
    the lesser of the slopes of the two neighbouring chords, and no curvature: with these its coefficients are
    at least r, or slopes themselves. Smooth tables have no such piece.
    """
    slope, bend = _polynomial(rise)
    lesser = np.minimum(np.append(rise, np.inf), np.append(np.inf, rise))
    rough = np.zeros(len(slope), dtype=bool)
    while True:  # a replaced end can flatten the piece on its other side
        flat = (np.stack(slope_coefficients(rise, slope[:-1], slope[1:], bend[:-1], bend[1:])) < LEAST * rise).any(0)
        flat &= ~(rough[:-1] & rough[1:])
        if not flat.any():
            return slope, bend
        rough[:-1] |= flat
        rough[1:] |= flat
        slope, bend = np.where(rough, lesser, slope), np.where(rough, 0.0, bend)


def _polynomial(rise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cells = min(CELLS, len(rise))
    entry = np.arange(len(rise) + 1)
    first = np.clip(entry - cells // 2, 0, len(rise) - cells)
    weights = np.array([_weights(cells, at) for at in range(cells + 1)])[entry - first]
    near = rise[first[:, None] + np.arange(cells)]
    slope, bend = np.einsum("nkj,nj->kn", weights, near)
    return slope, bend


def _weights(cells: int, at: int) -> np.ndarray:
    """Rows that make of ``cells`` rises y' and y'' at entry ``at`` of the polynomial that has them."""
    nodes = np.arange(cells + 1.0) - at
    powers = np.arange(1, cells + 1)
    rises = np.diff(nodes[:, None] ** powers, axis=0)  # of t, t^2, ...; by rises, not values: nothing cancels
    taylor = np.zeros((2, cells))
    taylor[[0, 1][:cells], [0, 1][:cells]] = [1.0, 2.0][:cells]
    return taylor @ np.linalg.inv(rises)


def slope_coefficients(rise: Any, s0: Any, s1: Any, c0: Any, c1: Any) -> tuple[Any, ...]:
    """The Bernstein coefficients of the slope of a piece."""
    inner = s0 + c0 / 4, s1 - c1 / 4
    return s0, inner[0], 5 * rise - 2 * (s0 + s1) - (c0 - c1) / 4, inner[1], s1


def slope(u: Any, rise: Any, s0: Any, s1: Any, c0: Any, c1: Any) -> Any:
    """The slope of a piece at u in [0, 1], a sum of positive terms."""
    q0, q1, q2, q3, q4 = slope_coefficients(rise, s0, s1, c0, c1)
    v = 1 - u
    return v**3 * (q0 * v + 4 * q1 * u) + 6 * q2 * (u * v) ** 2 + u**3 * (4 * q3 * v + q4 * u)


def blend(u: Any, y0: Any, y1: Any) -> Any:
    """The piece from y0 to y1 with no derivatives at its ends; at the ends the entries themselves."""
    v = 1 - u
    return y0 * v**3 * (1 + u * (3 + 6 * u)) + y1 * u**3 * (1 + v * (3 + 6 * v))


def bow(u: Any, s0: Any, s1: Any, c0: Any, c1: Any) -> Any:
    """What derivatives at the ends add to `blend`: 0 at the ends."""
    v = 1 - u
    return u * v * (s0 * v**2 * (1 + 3 * u) - s1 * u**2 * (1 + 3 * v) + u * v * (c0 * v + c1 * u) / 2)
