"""Loops in parts: every element is worked on once, by whoever is there, and nobody waits for who is not."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from logsnr.kernels import pool
from logsnr.kernels.pool import THREADED_BYTES, launch

COUNT = THREADED_BYTES // 16


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Three, however many processors there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class Visits:
    """A loop that keeps what it is asked for; it returns bit 0 for the first element, and bit 1 for the last."""

    def __init__(self, count: int) -> None:
        self.count, self.parts, self.by = count, list[tuple[int, int]](), set[str]()

    def __call__(self, frame: int, row: int, begin: int, end: int) -> int:
        assert (frame, row) == (7, 9)
        self.parts.append((begin, end))
        self.by.add(threading.current_thread().name)
        return (begin == 0) + 2 * (end == self.count)

    def complete(self) -> bool:
        edges = sorted(self.parts)
        return [begin for begin, _ in edges] == [0, *(end for _, end in edges[:-1])] and edges[-1][1] == self.count


@pytest.mark.parametrize("count", [1, 127, COUNT - 1, COUNT, 3 * COUNT + 5])
@pytest.mark.parametrize("multiple", [1, 128])
def test_every_element_once(count: int, multiple: int) -> None:
    """Parts begin at whole multiples, and what they return is joined; small loops are not divided."""
    visits = Visits(count)
    assert launch(visits, 7, 9, count, 16, multiple=multiple) == 3
    assert visits.complete()
    assert (len(visits.parts) > 1) == (count >= COUNT)
    assert all(begin % multiple == 0 for begin, _ in visits.parts)


def test_nothing_to_do() -> None:
    assert launch(Visits(0), 7, 9, 0, 1 << 40) == 0


def test_one_thread() -> None:
    """The caller alone."""
    torch.set_num_threads(1)
    visits = Visits(4 * COUNT)
    launch(visits, 7, 9, visits.count, 16)
    assert visits.parts == [(0, visits.count)]


def test_others_work() -> None:
    """A part that waits for another thread to take one is not alone."""
    met = threading.Barrier(3)

    def loop(frame: int, row: int, begin: int, end: int) -> int:
        if begin < 3 * (COUNT // 12 // 128 * 128 + 128):
            met.wait(timeout=60)
        return 0

    launch(loop, 0, 0, COUNT, 16)


def test_many_callers() -> None:
    """They share the helpers, and do alone what nobody helps with."""

    def visit(_: int) -> bool:
        visits = Visits(COUNT)
        return launch(visits, 7, 9, COUNT, 16) == 3 and visits.complete()

    with ThreadPoolExecutor(8) as callers:
        assert all(callers.map(visit, range(64)))


def test_errors_reach_the_caller() -> None:
    def loop(*_: int) -> int:
        raise ArithmeticError("of a part")

    with pytest.raises(ArithmeticError, match="of a part"):
        launch(loop, 0, 0, COUNT, 16)


def test_helpers_do_not_pile_up() -> None:
    """Those of another number of threads end."""
    for count in (2, 3, 4, 2, 5, 3):
        torch.set_num_threads(count)
        launch(Visits(COUNT), 7, 9, COUNT, 16)
    for thread in [t for t in threading.enumerate() if t.name.startswith("logsnr")]:
        if len(pool._HELPERS) == 1 and thread not in next(iter(pool._HELPERS.values()))._threads:
            thread.join(timeout=60)
    assert len(pool._HELPERS) == 1
    assert sum(thread.name.startswith("logsnr") for thread in threading.enumerate()) <= 2


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller goes on alone."""
    monkeypatch.setattr(pool, "_HELPERS", {})

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    visits = Visits(COUNT)
    assert launch(visits, 7, 9, COUNT, 16) == 3
    assert visits.complete()
    assert visits.by == {"MainThread"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_children_of_a_solve_and_the_end_of_a_process() -> None:
    """A child solves, whatever its parent has used: its own threads, above 4 MB, or none; never torch's, which begin at
    32,768 elements and do not survive a fork. And the parent ends while helpers wait."""
    code = (
        "import os, signal, numpy, torch, logsnr\n"
        "from logsnr.kernels import combine\n"
        "torch.set_num_threads(2)\n"
        "def check(run):\n"
        "    wanted = run()\n"
        "    assert run() == wanted\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        signal.alarm(60)\n"
        "        try: os._exit(run() != wanted)\n"
        "        finally: os._exit(99)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "    return wanted\n"
        "def solve(count, model=None, **options):\n"
        "    x = torch.ones(1, count)\n"
        "    answer = torch.zeros_like(x)\n"
        "    den = logsnr.Denoiser(model or (lambda x, t: answer), logsnr.VPLinear())\n"
        "    return lambda: logsnr.sample(den, x, steps=3, **options)[0, :5].tolist()\n"
        "check(solve(40_000, solver='dpmpp-2m'))\n"
        "check(solve(40_000, lambda x, t: x))\n"
        "x = torch.from_numpy(numpy.ones(2_000_000))\n"  # numpy's, as its sum takes no threads of torch
        "assert check(lambda: combine([x], numpy.full((1, 1), 2.0), backend='cpu')[0][0].numpy().sum().item()) == 4e6\n"
        "check(solve(2_000_000, solver='dpmpp-2m'))\n"
        "check(solve(3_000_000, lambda x, t: x))\n"
        "torch.set_num_threads(3)\n"
        "for _ in range(5): combine([x], torch.ones(1, 1), backend='cpu')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)
