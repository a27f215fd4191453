"""Runs a compiled loop over its elements: in this thread alone, or, where it is worth it, with a small pool."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

Loop = Callable[[int, int, int, int], int]

# Below this many bytes a second thread costs more than it saves: waking one takes about 25 microseconds, the
# time of some 500 KB.
THREADED_BYTES = 4 << 20
CHUNK_BYTES = 1 << 20  # small enough that a thread that wakes late leaves its share to the others


def launch(
    function: Loop, frame: int, row: int, count: int, size: int, *, period: int | None = None, multiple: int = 128
) -> int:
    """``function(frame, row, begin, end)`` over ``count`` elements, ``size`` bytes moved for each; returns the
    largest of its results. Waits for every thread before it returns, also if it is interrupted.

    period:   of a function that counts elements by sample, their number in one: parts begin where a sample does,
              or whole multiples behind it.
    multiple: what numbers of elements in a part are multiples of: whole vectors and cache lines. 1 if what the
              function counts are larger things.
    """
    if not count:
        return 0
    threads = torch.get_num_threads()
    if count * size < THREADED_BYTES or threads == 1:
        return function(frame, row, 0, count)
    parts = deque(_parts(count, -(-CHUNK_BYTES // size // multiple) * multiple, period or count))

    def work() -> int:
        found = 0
        while True:
            try:
                begin, end = parts.popleft()
            except IndexError:
                return found
            found |= function(frame, row, begin, end)

    others = [_pool(os.getpid(), threads).submit(work) for _ in range(threads - 1)]
    try:
        found = work()
    finally:
        parts.clear()
        late = [other.result() for other in others if not other.cancel()]
    return max(found, *late) if late else found


def _parts(count: int, length: int, period: int) -> Iterator[tuple[int, int]]:
    """Ranges of about ``length`` elements: several whole samples, or a part of one."""
    if period < length:
        length -= length % period
        period = count
    for sample in range(0, count, period):
        for begin in range(sample, sample + period, length):
            yield begin, min(begin + length, sample + period, count)


@cache
def _pool(pid: int, threads: int) -> ThreadPoolExecutor:
    """One pool per process: keyed by the process id, since a forked child inherits no running threads."""
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="logsnr")
