"""Threads that share the elements of a compiled loop.

A thread that sleeps takes 25 to 50 microseconds to wake, as long as whole loops take; so those that have worked stay
awake for a while, in compiled code and without the GIL, and are then there within a microsecond. Nobody waits for a
thread that comes late: the work is taken part by part, and a loop ends when its parts are done.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import cache
from typing import Any

from llvmlite import ir

from .lanes import I32, LINE, counted, smaller
from .native import I64, Native, compile_function, external, once

# How often a thread that has worked looks for more before it lets others have the processor in between, for it may
# come within 10 microseconds, and how often before it sleeps, after 0.1 ms or more.
KEEPS, LOOKS = 3000, 3500
PARTS = 64  # at most, of a loop: bits of a word
APART = 2 * LINE // 8  # words of two cache lines, which processors fetch in pairs

VOID, LOCK = ir.VoidType(), ir.IntType(8).as_pointer()
LOOP = ir.FunctionType(I64, [I64] * 4).as_pointer()


class Word(IntEnum):
    """What the threads of a team share, on cache lines by who writes and reads it when: a line that helpers look at
    takes 0.1 microseconds to write to.

    JOB: counts up when work opens and when it closes, so it is odd while there is some; helpers look at it all the
    time. BUSY: whether somebody uses the team; who calls looks at it. FUNCTION to END: the job, as `share` gets it,
    written before it opens. ACTIVE: how many helpers are at it. TAKEN: a bit for every part. RESULT: of the parts, by
    or. Two words of every helper follow: whether it is awake, and the lock that it sleeps on.
    """

    JOB = 0
    BUSY = APART
    FUNCTION, WANTED, PERIOD, LENGTH, FRAME, ROW, BEGIN, END = range(2 * APART, 2 * APART + 8)
    ACTIVE, TAKEN, RESULT = range(3 * APART, 3 * APART + 3)
    HELPERS = 4 * APART


def board(threads: int) -> int:
    """The address of the shared words of a team of ``threads``, counting the one that calls. It lives as long as the
    process; a forked child, which inherits no running threads, has its own."""
    return _hired((os.getpid(), threads))


@once
def _hired(team: tuple[int, int]) -> int:
    threads = team[1]
    allocate, acquire = ctypes.pythonapi.PyThread_allocate_lock, ctypes.pythonapi.PyThread_acquire_lock
    allocate.restype, acquire.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int)
    memory = (ctypes.c_int64 * (APART + Word.HELPERS + 2 * (threads - 1)))()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))  # helpers outlive what Python takes down at exit
    address = -(-ctypes.addressof(memory) // (8 * APART)) * 8 * APART
    helpers = (ctypes.c_int64 * (2 * (threads - 1))).from_address(address + 8 * Word.HELPERS)
    for k in range(threads - 1):
        lock = allocate()
        acquire(lock, 1)
        helpers[2 * k : 2 * k + 2] = [1, lock]
    share()  # compiled here, where nobody else compiles it
    for k in range(threads - 1):
        threading.Thread(target=_help(), args=(address, k), name=f"logsnr-{k}", daemon=True).start()
    return address


@cache
def share() -> Native:
    """``share(board, function, wanted, period, length, frame, row, begin, end)``: the function at an address, as
    ``function(frame, row, begin, end)``, but called for ``length`` elements at a time, and never beyond a multiple of
    ``period``, by up to ``wanted`` threads; returns all its results, by or. Where the team is busy, this thread does
    it alone."""
    return compile_function("team.share", 9, lambda b, values: _Board(b, values[0]).share(*values[1:]))


@cache
def _help() -> Native:
    """``help(board, k)``: what helper k does for ever."""
    return compile_function("team.help", 2, lambda b, values: _Board(b, values[0]).help(values[1]))


class _Board:
    def __init__(self, b: ir.IRBuilder, address: Any) -> None:
        self.b, self.words = b, b.inttoptr(address, I64.as_pointer())

    def at(self, word: int | Any) -> Any:
        return self.b.gep(self.words, [I64(word) if isinstance(word, int) else word])

    def get(self, word: int | Any) -> Any:
        return self.b.load_atomic(self.at(word), "seq_cst", 8)

    def set(self, word: int | Any, value: Any) -> None:
        self.b.store_atomic(value, self.at(word), "seq_cst", 8)

    def add(self, word: int, value: int) -> Any:
        """Returns what was there before."""
        return self.b.atomic_rmw("add", self.at(word), I64(value), "seq_cst")

    def claimed(self, word: int | Any) -> Any:
        """Whether it was 0, and now is 1."""
        return self.b.extract_value(self.b.cmpxchg(self.at(word), I64(0), I64(1), "seq_cst"), 1)

    def share(self, *job: Any) -> Any:
        b = self.b
        result = b.alloca(I64)
        with b.if_else(self.claimed(Word.BUSY)) as (free, busy):
            with free:
                # Nobody is at work: these are ordinary stores, which others see when the job is open.
                for word, value in zip(range(Word.FUNCTION, Word.END + 1), job, strict=True):
                    b.store(value, self.at(word))
                for word in (Word.TAKEN, Word.RESULT):
                    b.store(I64(0), self.at(word))
                self.add(Word.JOB, 1)
                self._wake(b.sub(job[1], I64(1)))
                self._work(I64(0))
                self.add(Word.JOB, 1)
                with self._repeat() as leave:  # helpers finish the parts that they have taken
                    leave(b.icmp_signed("==", self.get(Word.ACTIVE), I64(0)))
                    self._pause()
                b.store(self.get(Word.RESULT), result)
                self.set(Word.BUSY, I64(0))
            with busy:
                b.store(b.call(b.inttoptr(job[0], LOOP), job[4:]), result)
        return b.load(result)

    def help(self, k: Any) -> Any:
        b = self.b
        awake = b.add(b.mul(k, I64(2)), I64(Word.HELPERS))
        lock = b.inttoptr(self.get(b.add(awake, I64(1))), LOCK)
        acquire = external(b.module, "PyThread_acquire_lock", I32, LOCK, I32)
        looks, seen = b.alloca(I64), b.alloca(I64)
        for place in (looks, seen):
            b.store(I64(0), place)
        with self._repeat():
            job = self.get(Word.JOB)
            fresh = b.and_(b.trunc(job, ir.IntType(1)), b.icmp_signed("!=", job, b.load(seen)))
            with b.if_then(fresh):
                b.store(job, seen)
                # Either it is still open after this, or who closes it sees that somebody is active and waits.
                self.add(Word.ACTIVE, 1)
                still = b.icmp_signed("==", self.get(Word.JOB), job)
                wanted = b.icmp_signed("<", b.add(k, I64(1)), self.get(Word.WANTED))
                with b.if_then(b.and_(still, wanted)):
                    self._work(b.add(k, I64(1)))
                    b.store(I64(0), looks)
                self.add(Word.ACTIVE, -1)
            looked = b.add(b.load(looks), I64(1))
            b.store(looked, looks)
            with b.if_then(b.icmp_signed(">", looked, I64(KEEPS))):
                self._pause()
            with b.if_then(b.icmp_signed(">", looked, I64(LOOKS))):
                self.set(awake, I64(0))
                b.call(acquire, [lock, I32(1)])
                b.store(I64(0), looks)
        return I64(0)

    def _wake(self, helpers: Any) -> None:
        b = self.b
        release = external(b.module, "PyThread_release_lock", VOID, LOCK)
        with counted(b, I64(0), helpers, 1) as k:
            awake = b.add(b.mul(k, I64(2)), I64(Word.HELPERS))
            asleep = b.icmp_signed("==", self.get(awake), I64(0))
            with b.if_then(asleep, likely=False), b.if_then(self.claimed(awake)):
                b.call(release, [b.inttoptr(self.get(b.add(awake, I64(1))), LOCK)])

    def _work(self, thread: Any) -> None:
        """Take parts until none is left. A thread begins where it begins in every loop, with what its cache may hold
        from the last one."""
        b = self.b
        job = [b.load(self.at(word)) for word in range(Word.FUNCTION, Word.END + 1)]
        wanted, period, length, frame, row, begin, end = job[1:]
        function = b.inttoptr(job[0], LOOP)
        with b.goto_entry_block():  # a helper comes here again and again
            result = b.alloca(I64)
        b.store(I64(0), result)
        by = self._ceiling(period, length)
        pieces = b.mul(self._ceiling(b.sub(end, begin), period), by)
        parts = smaller(b, pieces, I64(PARTS))
        at = b.sdiv(b.mul(thread, parts), wanted)
        with counted(b, at, b.add(at, parts), 1) as i:
            part = b.srem(i, parts)
            bit = b.shl(I64(1), part)
            taken = b.and_(b.atomic_rmw("or", self.at(Word.TAKEN), bit, "seq_cst"), bit)
            with b.if_then(b.icmp_signed("==", taken, I64(0))):
                first, last = (b.sdiv(b.mul(p, pieces), parts) for p in (part, b.add(part, I64(1))))
                with counted(b, first, last, 1) as piece:
                    sample = b.add(begin, b.mul(b.sdiv(piece, by), period))
                    lo = b.add(sample, b.mul(b.srem(piece, by), length))
                    hi = smaller(b, smaller(b, b.add(lo, length), b.add(sample, period)), end)
                    b.store(b.or_(b.load(result), b.call(function, [frame, row, lo, hi])), result)
        with b.if_then(b.icmp_signed("!=", b.load(result), I64(0))):
            b.atomic_rmw("or", self.at(Word.RESULT), b.load(result), "seq_cst")

    def _ceiling(self, x: Any, y: Any) -> Any:
        b = self.b
        return b.sdiv(b.add(x, b.sub(y, I64(1))), y)

    def _pause(self) -> None:
        """Let another thread run, if one waits for this processor: spinning holds up nobody."""
        symbol, library = ("SwitchToThread", "kernel32") if os.name == "nt" else ("sched_yield", None)
        self.b.call(external(self.b.module, symbol, I32, library=ctypes.CDLL(library)), [])

    @contextmanager
    def _repeat(self) -> Iterator[Callable[[Any], None]]:
        """For ever, or until a condition that is handed to what it gives is met."""
        b = self.b
        body, after = b.append_basic_block(), b.append_basic_block()
        b.branch(body)
        b.position_at_end(body)

        def leave(condition: Any) -> None:
            on = b.append_basic_block()
            b.cbranch(condition, after, on)
            b.position_at_end(on)

        yield leave
        b.branch(body)
        b.position_at_end(after)
