"""Threads that share a loop: every element is worked on once, by whoever is there, and nobody waits for who is not."""

import ctypes
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from llvmlite import ir

from logsnr.kernels import team
from logsnr.kernels.lanes import counted
from logsnr.kernels.native import I64, Native, compile_function
from logsnr.kernels.pool import THREADED_BYTES, shared
from logsnr.kernels.team import Word


@pytest.fixture
def threads() -> Iterator[int]:
    """Three, however many processors there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def visits() -> Native:
    """A loop that adds 1 to element i of the words at ``frame``, and to element i of the words at ``row`` its begin; it
    returns bit 0 for an even begin, and bit 1 where it ends at a multiple of 1000."""

    def emit(b: ir.IRBuilder, values: list[Any]) -> Any:
        counts, begins = (b.inttoptr(v, I64.as_pointer()) for v in values[:2])
        begin, end = values[2:]
        with counted(b, begin, end, 1) as i:
            for words, added in ((counts, I64(1)), (begins, begin)):
                place = b.gep(words, [i])
                b.store(b.add(b.load(place), added), place)
        even = b.zext(b.icmp_signed("==", b.and_(begin, I64(1)), I64(0)), I64)
        whole = b.zext(b.icmp_signed("==", b.srem(end, I64(1000)), I64(0)), I64)
        return b.or_(even, b.shl(whole, I64(1)))

    return compile_function("visits", 4, emit)


def visit(count: int, size: int, **options: int) -> tuple[array, array, int]:
    counts, begins = (array("q", bytes(8 * count)) for _ in range(2))
    loop = shared(visits(), count, size, **options)
    found = loop(counts.buffer_info()[0], begins.buffer_info()[0], 0, count)
    return counts, begins, found


@pytest.mark.parametrize("count", [1000, 100_000, 1_234_567])
@pytest.mark.parametrize("period", [None, 7, 999, 40_000])
def test_every_element_is_visited_once(threads: int, count: int, period: int | None) -> None:
    """However long samples are; parts begin a whole multiple of 64 behind the beginning of a sample, or with one."""
    count = max(count - count % (period or 1), period or 0)
    counts, begins, found = visit(count, 16, period=period, multiple=64)
    assert set(counts) == {1}
    assert all(begin % (period or count) % 64 == 0 for begin in set(begins))
    assert found & 1
    assert len(set(begins)) > 1 or count * 16 < THREADED_BYTES


def test_results_are_joined(threads: int) -> None:
    """A bit that one part returns is returned: only the last ends at a multiple of 1000."""
    count = 1_000_000
    for end, expected in ((count, 3), (count - 1, 1)):
        assert visit(end, 16, multiple=64)[2] == expected


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_small_loops_and_one_thread_are_not_shared(threads: int, asked: int) -> None:
    """A loop is what it was where no second thread is worth it or asked for."""
    torch.set_num_threads(asked)
    loop = visits()
    assert (shared(loop, THREADED_BYTES // 16 - 1, 16)) is loop
    assert (shared(loop, THREADED_BYTES // 16, 16) is loop) == (asked == 1)


def test_a_busy_team_is_not_waited_for(threads: int) -> None:
    """Many threads may share loops at once: one has the team, others do theirs alone."""
    with ThreadPoolExecutor(8) as callers:
        for counts, _, _ in callers.map(lambda _: visit(300_000, 16), range(64)):
            assert set(counts) == {1}


def stacks() -> Native:
    """A loop that leaves in its elements where its thread has its stack."""

    def emit(b: ir.IRBuilder, values: list[Any]) -> Any:
        words, here = b.inttoptr(values[0], I64.as_pointer()), b.ptrtoint(b.alloca(I64), I64)
        with counted(b, values[2], values[3], 1) as i:
            b.store(here, b.gep(words, [i]))
        return I64(0)

    return compile_function("stacks", 4, emit)


def test_others_work(threads: int) -> None:
    """Sooner or later a helper comes in time to take parts."""
    count = 1_000_000
    words = array("q", bytes(8 * count))
    loop = shared(stacks(), count, 16)
    for _ in range(1000):
        loop(words.buffer_info()[0], 0, 0, count)
        if len(set(words)) > 1:
            return
    raise AssertionError("all parts were done by one thread")


def test_helpers_sleep_and_wake(threads: int) -> None:
    """Without work they soon sleep; the next loop wakes those that it asks for, and no others."""
    words = words_of(threads)
    asleep(words)
    assert set(visit(THREADED_BYTES // 16, 16)[0]) == {1}  # two threads are enough
    assert words[Word.HELPERS + 2] == 0
    asleep(words)
    woken = False
    for _ in range(100):
        visit(THREADED_BYTES, 16)
        woken = woken or words[Word.HELPERS + 2] == 1
    assert woken
    asleep(words)


def words_of(threads: int) -> Any:
    address = team.board(threads)
    return (ctypes.c_int64 * (Word.HELPERS + 2 * threads - 2)).from_address(address)


def asleep(words: Any) -> None:
    for _ in range(1000):
        if not any(words[Word.HELPERS :: 2]):
            return
        time.sleep(0.01)
    raise AssertionError("helpers stay awake")


def test_a_process_ends_while_helpers_are_awake() -> None:
    """They run compiled code then, and what they read is still there."""
    code = (
        "import torch\n"
        "from logsnr.kernels import combine\n"
        "torch.set_num_threads(3)\n"
        "x = torch.ones(2_000_000)\n"
        "for _ in range(5): combine([x], torch.ones(1, 1), backend='cpu')\n"
    )
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
