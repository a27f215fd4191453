"""Runs a compiled loop over its elements: in this thread, or, from some megabytes on, in parts by several."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import reduce
from operator import or_

import torch

Loop = Callable[[int, int, int, int], int]  # of frame, row, begin and end

THREADED_BYTES = 4 << 20  # moved by a loop, or as long as that takes: less is done before a thread has woken up
PARTS = 4  # of each thread, so that one that comes late leaves its share to the others
_HELPERS: dict[tuple[int, int], ThreadPoolExecutor] = {}  # by process, as a forked child has none, and number


def launch(loop: Loop, frame: int, row: int, count: int, size: int, *, multiple: int = 128) -> int:
    """``loop(frame, row, 0, count)``, in parts where that is worth it: all that they return, by or.

    size:     bytes moved for an element; arithmetic counts as the bytes that take as long.
    multiple: what numbers of elements in a part are multiples of: whole vectors and cache lines.
    """
    threads = torch.get_num_threads()
    if threads < 2 or count * size < THREADED_BYTES:
        return loop(frame, row, 0, count) if count else 0
    length = -(-count // (PARTS * threads * multiple)) * multiple
    begins = list(range(0, count, length))[::-1]

    def work() -> int:
        found = 0
        with suppress(IndexError):  # nothing is left to do
            while True:
                begin = begins.pop()
                found |= loop(frame, row, begin, min(begin + length, count))
        return found

    asked: list[Future[int]] = []
    with suppress(RuntimeError):  # no thread can be started, or the interpreter ends
        helpers = _helpers(threads - 1)
        asked.extend(helpers.submit(work) for _ in range(threads - 1))
    try:
        found = work()
    finally:  # nobody may write to the tensors any more, whatever has interrupted the caller
        begins.clear()
        begun = [future for future in asked if not future.cancel()]
        wait(begun)
    return reduce(or_, (future.result() for future in begun), found)


def _helpers(count: int) -> ThreadPoolExecutor:
    """``count`` threads; those of another number are let go."""
    key = os.getpid(), count
    helpers = _HELPERS.get(key)
    if helpers is None:
        for old in list(_HELPERS):
            others = _HELPERS.pop(old, None)
            if others is not None and old[0] == key[0]:  # a child must not touch its parent's
                others.shutdown(wait=False)
        helpers = _HELPERS.setdefault(key, ThreadPoolExecutor(count, thread_name_prefix="logsnr"))
    return helpers
