"""Runs a compiled loop over its elements: in this thread alone, or, where it is worth it, with others."""

import os
from collections.abc import Callable
from functools import lru_cache, partial

import torch

from .native import address_of
from .team import board, share

Loop = Callable[[int, int, int, int], int]

# What a thread must have to do for it to be asked, in bytes moved, or what takes as long: 10 microseconds. One that is
# awake comes within 1 microsecond; to wake one costs 3, and the next loop then finds it awake.
SHARE_BYTES = 256 << 10
THREADED_BYTES = 2 * SHARE_BYTES
CHUNK_BYTES = 1 << 20  # of a part, at most: small enough that a thread that comes late leaves its share to the others
PARTS = 4  # of each thread, as long as they are not smaller than half a share


def launch(
    function: Loop, frame: int, row: int, count: int, size: int, *, period: int | None = None, multiple: int = 128
) -> int:
    """``function(frame, row, 0, count)`` by as many threads as it is worth; see `shared`."""
    return shared(function, count, size, period=period, multiple=multiple)(frame, row, 0, count) if count else 0


def shared(function: Loop, count: int, size: int, *, period: int | None = None, multiple: int = 128) -> Loop:
    """``function(frame, row, begin, end)`` for ``count`` elements, with others' help where that is worth it; it
    returns all that the parts return, by or, when all are done.

    size:     bytes moved for an element; arithmetic counts as the bytes that take as long.
    period:   of a function that counts elements by sample, their number in one: parts begin where a sample does,
              or whole multiples behind it.
    multiple: what numbers of elements in a part are multiples of: whole vectors and cache lines. 1 if what the
              function counts are larger things.
    """
    everybody = torch.get_num_threads()
    threads = min(everybody, count * size // SHARE_BYTES)
    if threads < 2:
        return function
    return _divided(function, count, size, period or count, multiple, threads, everybody, os.getpid())


@lru_cache(maxsize=1024)
def _divided(
    function: Loop, count: int, size: int, period: int, multiple: int, threads: int, everybody: int, process: int
) -> Loop:
    """For the team of this process, as a forked child has its own."""
    part = min(CHUNK_BYTES, max(SHARE_BYTES // 2, count * size // (PARTS * threads)))
    length = -(-part // (size * multiple)) * multiple
    if period < length:  # several whole samples
        length, period = length - length % period, count
    return partial(share(), board(everybody), address_of(function), threads, period, length)
