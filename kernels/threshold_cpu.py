"""The passes of `dynamic_threshold` on the CPU, compiled: histograms of bits, and clipping."""

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from llvmlite import ir

from . import lanes as emit
from .lanes import CODES, LANES, TYPES, constant, counted, splat, vector
from .native import I64, Native, compile_function, once
from .pool import launch
from .tensors import elements

DIGIT = 11  # bits of a pass: the histograms below fit into the first-level cache
# Elements side by side count in different histograms: adding twice to one place takes a store and a load in between.
COPIES = 4

_I32 = ir.IntType(32)


def order_statistics(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As `threshold.order_statistics_reference`, by bits, see `threshold`, DIGIT of them in a pass of `count`.

    A pass knows the leading bits of the k-th value, the ``prefix`` (B,). Where ``bits`` without the sign are
    ``prefix, d, rest`` with d of ``width`` bits and the rest of ``shift``, it adds 1 to ``counts[sample, d]``. It also
    lowers ``above`` to the least bits with a greater prefix, and raises ``largest`` to the largest bits.
    """
    shift, kind = 8 * x.element_size() - 1, {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    bits, device = x.view(kind), x.device
    prefix, largest = (torch.zeros(len(x), dtype=torch.int64, device=device) for _ in range(2))
    above = torch.full_like(prefix, torch.iinfo(torch.int64).max)
    rank = torch.full_like(prefix, k)
    while shift:
        width = min(DIGIT, shift)
        shift -= width
        counts = torch.zeros(len(x), 1 << width, dtype=torch.int64, device=device)
        count(bits, shift, width, prefix, counts, above, largest)
        total = counts.cumsum(dim=1)
        bins = torch.searchsorted(total, torch.stack([rank, rank + 1], dim=1), right=True)
        low, high = ((prefix << width) + d for d in bins.unbind(1))
        last = bins[:, 1] == counts.shape[1]  # the next value has another prefix
        rank -= total.gather(1, bins[:, :1]).squeeze(1) - counts.gather(1, bins[:, :1]).squeeze(1)
        prefix = low
    high = torch.where(last, above, high)
    high = torch.where(last & (above > largest), low, high)  # there is no next value
    infinite = torch.full((), torch.inf, dtype=x.dtype, device=device).view(kind)
    low, high = (torch.where(largest > infinite, largest, v) for v in (low, high))  # the bits above it are NaNs
    return low.to(kind).view(x.dtype), high.to(kind).view(x.dtype)


def count(
    bits: torch.Tensor,
    shift: int,
    width: int,
    prefix: torch.Tensor,
    counts: torch.Tensor,
    above: torch.Tensor,
    largest: torch.Tensor,
) -> None:
    """One pass of `order_statistics`; each thread counts in its own histograms, then adds to ``counts``."""
    addresses = [x.data_ptr() for x in (bits, prefix, counts, above, largest)]
    words = array("q", [*addresses, elements(bits), shift, width])
    function = _kernel(f"count {8 * bits.element_size()}")
    launch(function, words.buffer_info()[0], 0, bits.numel(), bits.element_size())


def clip(x: torch.Tensor, s: torch.Tensor, factor: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    words = array("q", [*(v.data_ptr() for v in (x, out, s, factor)), elements(x)])
    function = _kernel(f"clip {CODES[x.dtype]}")
    launch(function, words.buffer_info()[0], 0, x.numel(), 2 * x.element_size())
    return out


@once
def _kernel(name: str) -> Native:
    """The compiled loop ``function(words, 0, begin, end)`` over elements of all samples, the first sample first; it
    returns 0. words: address of what `count` and `clip` put there."""
    operation, kind = name.split()

    def body(b: ir.IRBuilder, values: list[Any]) -> Any:
        words, _, begin, end = values
        table = [b.load(b.gep(b.inttoptr(words, I64.as_pointer()), [I64(k)])) for k in range(8)]
        if operation == "count":
            _Count(b, int(kind), table).run(begin, end)
        else:
            _clip(b, kind, table, begin, end)
        return I64(0)

    return compile_function(name, 4, body)


@contextmanager
def _samples(b: ir.IRBuilder, begin: Any, end: Any, size: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Every sample of ``size`` elements that has some between begin and end, and where these begin and end."""
    after = b.sdiv(b.add(end, b.sub(size, I64(1))), size)
    with counted(b, b.sdiv(begin, size), after, 1) as sample:
        first = b.mul(sample, size)
        last = b.add(first, size)
        lo = b.select(b.icmp_signed("<", first, begin), begin, first)
        hi = b.select(b.icmp_signed("<", end, last), end, last)
        yield sample, lo, hi


class _Count:
    def __init__(self, b: ir.IRBuilder, bits: int, table: list[Any]) -> None:
        self.b, self.bits = b, bits
        self.kind = I64 if bits == 64 else _I32
        self.x = b.inttoptr(table[0], ir.IntType(bits).as_pointer())
        self.prefix, self.counts, self.above, self.largest = (b.inttoptr(v, I64.as_pointer()) for v in table[1:5])
        self.size, shift, width = table[5:]
        self.bins = b.shl(I64(1), width)
        self.shift, self.upper = (self._narrow(v) for v in (shift, b.add(shift, width)))
        self.digits = self._narrow(b.sub(self.bins, I64(1)))
        self.local = b.bitcast(b.alloca(ir.ArrayType(_I32, COPIES << DIGIT)), _I32.as_pointer())
        self.low, self.high = (b.alloca(vector(self.kind, LANES)) for _ in range(2))

    def _narrow(self, value: Any) -> Any:
        return value if self.bits == 64 else self.b.trunc(value, _I32)

    def run(self, begin: Any, end: Any) -> None:
        b = self.b
        with _samples(b, begin, end, self.size) as (sample, lo, hi):
            self._clear()
            prefix = self._narrow(b.load(b.gep(self.prefix, [sample])))
            whole = b.add(lo, b.and_(b.sub(hi, lo), I64(-LANES)))
            with counted(b, lo, whole, LANES) as i:
                self._block(prefix, i, LANES)
            with counted(b, whole, hi, 1) as i:
                self._block(prefix, i, 1)
            self._merge(sample)

    def _clear(self) -> None:
        b, block = self.b, ir.VectorType(_I32, LANES)
        b.store(constant(self.low.type.pointee, -1), self.low)
        b.store(constant(self.high.type.pointee, 0), self.high)
        with counted(b, I64(0), I64(COPIES << DIGIT), LANES) as i:
            b.store(constant(block, 0), b.bitcast(b.gep(self.local, [i]), block.as_pointer()), align=4)

    def _block(self, prefix: Any, i: Any, lanes: int) -> None:
        b, kind = self.b, vector(self.kind, lanes)
        pointer = b.bitcast(b.gep(self.x, [i]), vector(self.x.type.pointee, lanes).as_pointer())
        key = b.load(pointer, align=self.bits // 8)
        if self.bits == 16:
            key = b.zext(key, kind)
        key = b.and_(key, constant(kind, (1 << self.bits - 1) - 1))
        leading, wanted = b.lshr(key, splat(b, self.upper, lanes)), splat(b, prefix, lanes)
        greater = b.select(b.icmp_unsigned(">", leading, wanted), key, constant(kind, -1))
        for memory, values, smaller in ((self.low, greater, "<"), (self.high, key, ">")):
            if lanes == 1:
                memory = b.bitcast(memory, kind.as_pointer())
            known = b.load(memory)
            b.store(b.select(b.icmp_unsigned(smaller, values, known), values, known), memory)
        matches = b.icmp_unsigned("==", leading, wanted)
        digits = b.and_(b.lshr(key, splat(b, self.shift, lanes)), splat(b, self.digits, lanes))
        if lanes == 1:
            self._increment(0, digits, matches)
            return
        mask = ir.IntType(lanes)
        with b.if_then(b.icmp_unsigned("!=", b.bitcast(matches, mask), mask(0))):
            for lane in range(lanes):
                digit, match = (b.extract_element(v, _I32(lane)) for v in (digits, matches))
                self._increment(lane % COPIES, digit, match)

    def _increment(self, copy: int, digit: Any, match: Any) -> None:
        b = self.b
        index = digit if self.bits == 64 else b.zext(digit, I64)
        place = b.gep(self.local, [b.add(index, I64(copy << DIGIT))])
        b.store(b.add(b.load(place), b.zext(match, _I32)), place)

    def _merge(self, sample: Any) -> None:
        b = self.b
        row = b.mul(sample, self.bins)
        with counted(b, I64(0), self.bins, 1) as i:
            parts = [b.load(b.gep(self.local, [b.add(i, I64(copy << DIGIT))])) for copy in range(COPIES)]
            total = I64(0)
            for part in parts:
                total = b.add(total, b.zext(part, I64))
            with b.if_then(b.icmp_unsigned("!=", total, I64(0))):
                b.atomic_rmw("add", b.gep(self.counts, [b.add(row, i)]), total, "monotonic")
        for memory, result, name in ((self.low, self.above, "umin"), (self.high, self.largest, "umax")):
            value = b.load(memory)
            found = b.call(self._reduction(name, value.type), [value])
            if self.bits != 64:
                found = b.sext(found, I64) if name == "umin" else b.zext(found, I64)  # none found stays all ones
            b.atomic_rmw(name, b.gep(result, [sample]), found, "monotonic")

    def _reduction(self, name: str, kind: Any) -> Any:
        full = f"llvm.vector.reduce.{name}.v{kind.count}{kind.element.intrinsic_name}"
        declared = self.b.module.globals.get(full)
        return declared or ir.Function(self.b.module, ir.FunctionType(kind.element, [kind]), full)


def _clip(b: ir.IRBuilder, code: str, table: list[Any], begin: Any, end: Any) -> None:
    wide = "d" if code == "d" else "f"
    x, out = (b.inttoptr(v, TYPES[code].as_pointer()) for v in table[:2])
    bounds, factors = (b.inttoptr(v, TYPES[wide].as_pointer()) for v in table[2:4])
    with _samples(b, begin, end, table[4]) as (sample, lo, hi):
        s, factor = (b.load(b.gep(v, [sample])) for v in (bounds, factors))
        whole = b.add(lo, b.and_(b.sub(hi, lo), I64(-LANES)))
        for first, last, lanes in ((lo, whole, LANES), (whole, hi, 1)):
            above, below, divisor = (splat(b, v, lanes) for v in (s, b.fneg(s), factor))
            with counted(b, first, last, lanes) as i:
                value = emit.load(b, x, code, i, lanes, wide)
                # Comparisons with a NaN are false: it stays.
                value = b.select(b.fcmp_ordered(">", value, above), above, value)
                value = b.select(b.fcmp_ordered("<", value, below), below, value)
                emit.store(b, b.fdiv(value, divisor), out, code, i, lanes, wide)
