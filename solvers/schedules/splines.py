"""Monotone interpolation with two continuous derivatives, by pieces of degree 5 in Bernstein form.

Entries are one apart. A piece that rises by r, with derivatives s0, s1 and second derivatives c0, c1 at its ends, has
a slope of degree 4 with the Bernstein coefficients s0, s0 + c0 / 4, 5 r - (the other four), s1 - c1 / 4, s1 (their
mean is the rise). Where all are positive the slope is, and nothing in its evaluation cancels.
"""

import math
from typing import Any

import numpy as np

NEAREST = 6  # rises behind a derivative: on a formula of scale L it errs by L^-7, rounding for a table of 1000
LEAST = 0.1  # part of a piece's rise below which a coefficient of its slope tells of ringing, not of the table


def monotone_slopes(rise: np.ndarray) -> np.ndarray:
    """Bernstein coefficients (n, 5), all positive, of the slopes of n pieces, from their rises (n,), all positive.

    The derivatives at an entry are those of the polynomial through the nearest entries. At both ends of a piece
    that these would leave too flat somewhere they are the lesser rise of the two pieces that meet, and 0: between
    two such ends all coefficients are positive, for the middle one is at least r. Smooth tables have none.
    """
    slope, bend = _polynomial(rise)
    lesser = np.minimum(np.append(rise, np.inf), np.append(np.inf, rise))
    rough = np.zeros(len(slope), dtype=bool)
    while True:  # to replace one end may flatten the piece on its other side
        pieces = _pieces(rise, slope, bend)
        flat = (pieces < LEAST * rise[:, None]).any(1) & ~(rough[:-1] & rough[1:])
        if not flat.any():
            return pieces
        rough[:-1] |= flat
        rough[1:] |= flat
        slope, bend = np.where(rough, lesser, slope), np.where(rough, 0.0, bend)


def _pieces(rise: np.ndarray, slope: np.ndarray, bend: np.ndarray) -> np.ndarray:
    first, second = slope[:-1] + bend[:-1] / 4, slope[1:] - bend[1:] / 4
    middle = 5 * rise - slope[:-1] - first - second - slope[1:]
    return np.stack([slope[:-1], first, middle, second, slope[1:]], axis=1)


def _polynomial(rise: np.ndarray) -> np.ndarray:
    """y' and y'' at every entry, (2, n + 1)."""
    cells = min(NEAREST, len(rise))
    entry = np.arange(len(rise) + 1)
    first = np.clip(entry - cells // 2, 0, len(rise) - cells)
    weights = np.array([_weights(cells, at) for at in range(cells + 1)])[entry - first]
    return np.asarray(np.einsum("ndc,nc->dn", weights, rise[first[:, None] + np.arange(cells)]))


def _weights(cells: int, at: int) -> np.ndarray:
    """y' and y'' at an entry as sums of ``cells`` rises, (2, cells); sums of rises lose less than sums of values."""
    powers = np.arange(1, max(cells, 2) + 1)
    rises = np.diff((np.arange(cells + 1.0) - at)[:, None] ** powers, axis=0)[:, :cells]  # those of t, t^2, ...
    taylor = np.diag([1.0, 2.0, *np.zeros(len(powers) - 2)])[:2, :cells]
    return np.asarray(taylor @ np.linalg.inv(rises))


def bernstein(coefficients: Any, u: Any, xp: Any) -> Any:
    """The polynomials on [0, 1] with these coefficients, each times its binomial, in the last axis; at the ends they
    are the first and the last."""
    degree = coefficients.shape[-1] - 1
    power = xp.arange(degree + 1) if xp is np else xp.arange(degree + 1, device=u.device)
    u = u[..., None]
    return (coefficients * (u**power * (1 - u) ** (degree - power))).sum(-1)


def binomials(degree: int) -> np.ndarray:
    """What `bernstein` wants multiplied in."""
    return np.array([math.comb(degree, i) for i in range(degree + 1)], dtype=np.float64)
