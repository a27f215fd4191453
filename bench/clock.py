"""How calls are timed, and for which states."""

from collections.abc import Callable
from time import perf_counter

SMALL, LARGE = (1, 4, 64, 64), (8, 16, 128, 128)


def best_of(repeats: int, function: Callable[[], object]) -> float:
    """Seconds of the fastest call: other processes only ever add time."""
    times = []
    for _ in range(repeats):
        began = perf_counter()
        function()
        times.append(perf_counter() - began)
    return min(times)
