"""Runs a compiled loop over its elements: in this thread alone, or, where it is worth it, with a small pool."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

Loop = Callable[[int, int, int, int], int]

# Below this many bytes a second thread costs more than it saves: waking one takes about 25 microseconds, the
# time of some 500 KB.
THREADED_BYTES = 4 << 20
CHUNK_BYTES = 1 << 20  # small enough that a thread that wakes late leaves its share to the others


def launch(function: Loop, frame: int, row: int, count: int, size: int) -> int:
    """``function(frame, row, begin, end)`` over ``count`` elements, ``size`` bytes moved for each; returns the
    largest of its results. Waits for every thread before it returns, also if it is interrupted."""
    threads = torch.get_num_threads()
    if count * size < THREADED_BYTES or threads == 1:
        return function(frame, row, 0, count)
    length = -(-CHUNK_BYTES // size // 64) * 64
    begins = deque(range(0, count, length))

    def work() -> int:
        found = 0
        while True:
            try:
                begin = begins.popleft()
            except IndexError:
                return found
            found |= function(frame, row, begin, min(begin + length, count))

    others = [_pool(os.getpid(), threads).submit(work) for _ in range(threads - 1)]
    try:
        found = work()
    finally:
        begins.clear()
        late = [other.result() for other in others if not other.cancel()]
    return max(found, *late) if late else found


@cache
def _pool(pid: int, threads: int) -> ThreadPoolExecutor:
    """One pool per process: keyed by the process id, since a forked child inherits no running threads."""
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="logsnr")
