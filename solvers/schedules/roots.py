"""Vectorised root finding, for numpy and torch alike."""

from collections.abc import Callable
from typing import Any


def increasing_root(f: Callable[[Any], tuple[Any, Any]], low: Any, high: Any, xp: Any) -> Any:
    """The root in [low, high] of an increasing function, elementwise; f returns values and derivatives.

    Newton inside a shrinking bracket; bisection where Newton leaves it or the derivative is 0, inf or nan. A root that
    is found stays as it is, so that none depends on the others.
    """
    x, found = (low + high) / 2, xp.zeros_like(low) != 0
    for _ in range(100):  # bisection alone finds any root above 1e-13 of the interval to the last bit
        y, dy = f(x)
        low, high = xp.where(y <= 0, x, low), xp.where(y >= 0, x, high)
        step = y / dy
        # Quadratic convergence: after a step this short the error is rounding.
        settled = (y == 0) | (xp.isfinite(dy) & (abs(step) <= 1e-12 * abs(x)))
        inside = (x - step > low) & (x - step < high)
        better = xp.where(settled | inside, xp.where(y == 0, x, x - step), (low + high) / 2)
        x, found = xp.where(found, x, better), found | settled
        if found.all():
            break
    return x
