"""`scan` and `advance` on the CPU: one compiled loop per signature, over pieces of about a page.

A piece is a chunk of a sample, or as many whole samples as fit into one. All calls are carried out for a piece before
the next is begun: its slots lie on the stack, which stays in the first-level cache, and every tensor is read or
written a page at a time. Every load of a block comes before every store, so the new nodes may take the place of the
old.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from llvmlite import ir

from . import lanes as emit
from .lanes import CODES, LANES, TYPES, constant, counted, splat, vector
from .native import I64, Native, compile_function, once
from .pool import launch
from .recurrence import NEVER, SOMETIMES, Pattern, Recurrence
from .sums import CHUNK, STRANDS, by_halves, power_of_two

_F64 = ir.DoubleType()


@dataclass(frozen=True)
class Signature:
    """What a loop is compiled for: dtypes by letter, see `lanes.CODES`, and how often each coefficient is used.

    wide: of the slots and sums. outputs, noises: of the columns around those of the slots.
    node: of the nodes; empty for a loop that returns the slots instead. slopes: whether there are any.
    """

    wide: str
    outputs: str
    noises: str
    node: str
    pattern: Pattern
    slopes: bool


def scan_cpu(
    start: torch.Tensor,
    outputs: Sequence[torch.Tensor],
    noises: Sequence[torch.Tensor],
    recurrence: Recurrence,
    first: int,
    nodes: torch.Tensor | None,
    out: torch.Tensor,
    slopes: torch.Tensor | None,
) -> torch.Tensor:
    """Writes the new nodes to ``out`` and returns their change (W, B); without nodes writes the slots instead."""
    window, batch, count = len(outputs[0]), start.shape[1], prod(start.shape[2:])
    chunks, group = -(-count // CHUNK), max(CHUNK // max(count, 1), 1)
    if slopes is not None:
        group = 1  # each sample has its own
    partial = np.zeros((window, batch, power_of_two(chunks)))
    sig = Signature(
        CODES[start.dtype],
        "".join(CODES[x.dtype] for x in outputs),
        "".join(CODES[x.dtype] for x in noises),
        "" if nodes is None else CODES[nodes.dtype],
        recurrence.pattern(start.dtype),
        slopes is not None,
    )
    table = recurrence.table(start.dtype, start.device)[first:]
    at = recurrence.places(start.device)[first + 1 :]
    tensors = (table, at, start, out, *(() if nodes is None else (nodes,)), *outputs, *noises)
    if slopes is not None:
        tensors = (*tensors, slopes)
    frame = array("q", [partial.ctypes.data, *(x.data_ptr() for x in tensors)])
    row = array("q", [window, batch, count, chunks, group, partial.shape[2]])
    if batch and count:
        moved = window * sum(x.element_size() for x in (*outputs, *noises, *([] if nodes is None else [nodes, out])))
        size = min(CHUNK, batch * count) * moved
        pieces = -(-batch // group) * chunks
        launch(kernel(sig), frame.buffer_info()[0], row.buffer_info()[0], pieces, size, multiple=1)
    return torch.from_numpy(by_halves(partial))


@once
def kernel(sig: Signature) -> Native:
    """The compiled loop ``function(frame, row, begin, end)`` over the pieces from begin to end, those of the
    first samples first; it returns 0.

    frame: address of int64 words, addresses: of the partial sums (W, B, width), the matrices and the places from
    the first call on, the start, the result, the old nodes if there are any, the outputs, the noises, and the slopes
    if there are any.
    row: address of six int64 words: W, B, the number of elements and of chunks in a sample, the number of samples
    in a piece, and the width.
    """
    return compile_function(f"scan {sig}", 4, lambda b, values: _Loop(b, sig, *values[:2]).run(*values[2:]))


class _Loop:
    """Emits the loop over pieces and calls: in each, blocks of lanes, then single elements for the remainder."""

    def __init__(self, b: ir.IRBuilder, sig: Signature, frame: Any, row: Any) -> None:
        self.b, self.sig, self.wide = b, sig, TYPES[sig.wide]
        self.slots, self.columns = len(sig.pattern), len(sig.pattern[0])
        words, numbers = (b.inttoptr(v, I64.as_pointer()) for v in (frame, row))

        def address(index: int, kind: Any) -> Any:
            return b.inttoptr(b.load(b.gep(words, [I64(index)])), kind.as_pointer())

        self.partial, self.table, self.at = (address(j, kind) for j, kind in enumerate((_F64, self.wide, I64)))
        self.start, self.out = address(3, self.wide), address(4, TYPES[sig.node or sig.wide])
        codes = sig.node + sig.outputs + sig.noises
        reads = [address(5 + j, TYPES[code]) for j, code in enumerate(codes)]
        self.nodes, self.terms = reads[: len(sig.node)], reads[len(sig.node) :]
        self.slopes = address(5 + len(codes), self.wide) if sig.slopes else None
        self.window, self.batch, self.count, self.chunks, self.group, self.width = (
            b.load(b.gep(numbers, [I64(k)])) for k in range(6)
        )
        self.stride = b.mul(self.batch, self.count)  # from one row of a tensor to the next
        self.memory = [b.alloca(self.wide, CHUNK) for _ in range(self.slots)]
        self.change = b.alloca(self.wide, CHUNK)  # of the node that the call sees
        self.squares = b.alloca(_F64, CHUNK + STRANDS)  # sums read whole vectors
        self.total = b.alloca(ir.VectorType(_F64, STRANDS))

    def run(self, begin: Any, end: Any) -> Any:
        b = self.b
        with counted(b, begin, end, 1) as piece:
            several = b.sdiv(piece, self.chunks)
            chunk = b.sub(piece, b.mul(several, self.chunks))
            sample, offset = b.mul(several, self.group), b.mul(chunk, I64(CHUNK))
            samples = self._smaller(self.group, b.sub(self.batch, sample))
            length = self._smaller(I64(CHUNK), b.sub(b.mul(samples, self.count), offset))
            base = b.add(b.mul(sample, self.count), offset)
            for s, slot in enumerate(self.memory):
                self._copy(b.gep(self.start, [b.add(base, b.mul(self.stride, I64(s)))]), slot, length)
            if self.slopes:
                with counted(b, I64(0), length, 1) as i:
                    b.store(constant(self.wide, 0.0), b.gep(self.change, [i]))
            with counted(b, I64(0), self.window, 1) as k:
                if self.slopes:
                    self.slope = b.load(b.gep(self.slopes, [b.add(b.mul(k, self.batch), sample)]))
                self._call(k, b.add(base, b.mul(self.stride, k)), length)
                if self.nodes:
                    row, each = b.add(b.mul(k, self.batch), sample), self._smaller(self.count, length)
                    with counted(b, I64(0), samples, 1) as j:
                        place = b.add(b.mul(b.add(row, j), self.width), chunk)
                        b.store(self._sum(b.gep(self.squares, [b.mul(j, each)]), each), b.gep(self.partial, [place]))
            if not self.nodes:
                for s, slot in enumerate(self.memory):
                    self._copy(slot, b.gep(self.out, [b.add(base, b.mul(self.stride, I64(s)))]), length)
        return I64(0)

    def _smaller(self, x: Any, y: Any) -> Any:
        return self.b.select(self.b.icmp_signed("<", x, y), x, y)

    def _copy(self, source: Any, target: Any, length: Any) -> None:
        with counted(self.b, I64(0), length, 1) as i:
            self.b.store(self.b.load(self.b.gep(source, [i])), self.b.gep(target, [i]))

    def _call(self, k: Any, base: Any, length: Any) -> None:
        """One call on the piece of ``length`` elements whose row begins at ``base``."""
        b = self.b
        matrix = b.gep(self.table, [b.mul(k, I64(self.slots * self.columns))])
        # Read once, here: a store of the loop could change them for all that LLVM knows.
        self.coefs = [
            [b.load(b.gep(matrix, [I64(r * self.columns + j)])) for j in range(self.columns)] for r in range(self.slots)
        ]
        self.here, self.new = [b.gep(p, [base]) for p in (*self.nodes, *self.terms)], b.gep(self.out, [base])
        # Every row is a page of its own, so the processor does not foresee where the next call's begins.
        self.next = [b.gep(p, [b.sub(self.stride, I64(emit.AHEAD))]) for p in self.here]
        self.seen, at = self.memory[0], b.load(b.gep(self.at, [k]))
        for s, slot in enumerate(self.memory[1:], 1):
            self.seen = b.select(b.icmp_signed("==", at, I64(s)), slot, self.seen)
        whole = b.and_(length, I64(-LANES))
        for lo, hi, lanes in ((I64(0), whole, LANES), (whole, length, 1)):
            with counted(b, lo, hi, lanes) as i:
                self._block(i, lanes)

    def _block(self, i: Any, lanes: int) -> None:
        """``lanes`` elements from ``i``: the new slots, the new nodes, and the squares of their change."""
        b, wide = self.b, self.sig.wide
        if lanes > 1:
            for p in self.next:
                emit.prefetch_write(b, p, i)
        codes = self.sig.node + self.sig.outputs + self.sig.noises
        read = [emit.load(b, p, code, i, lanes, wide) for p, code in zip(self.here, codes, strict=True)]
        slots = [emit.load(b, p, wide, i, lanes, wide) for p in self.memory]
        old, terms, models = read[: len(self.nodes)], read[len(self.nodes) :], len(self.sig.outputs)
        if self.slopes:
            change = emit.load(b, self.change, wide, i, lanes, wide)
            follow = b.fmul(splat(b, self.slope, lanes), change)
            terms[:models] = [b.fadd(x, follow) for x in terms[:models]]
        columns = [*terms[:models], *slots, *terms[models:]]
        rows = [self._row(r, columns, lanes) for r in range(self.slots)]
        for slot, row in zip(self.memory, rows, strict=True):
            emit.store(b, row, slot, wide, i, lanes, wide)
        if not old:
            return
        seen = emit.load(b, self.seen, wide, i, lanes, wide)
        emit.store(b, seen, self.new, self.sig.node, i, lanes, wide)
        change = b.fsub(emit.load(b, self.new, self.sig.node, i, lanes, wide), old[0])
        if self.slopes:
            emit.store(b, change, self.change, wide, i, lanes, wide)
        if wide == "f":
            change = b.fpext(change, vector(_F64, lanes))
        emit.store(b, b.fmul(change, change), self.squares, "d", i, lanes, "d")

    def _row(self, r: int, columns: Sequence[Any], lanes: int) -> Any:
        """``sum_j c_j x_j`` from left to right; -0 is what leaves every sum as it is."""
        b, kind, total = self.b, vector(self.wide, lanes), None
        for c, often, x in zip(self.coefs[r], self.sig.pattern[r], columns, strict=True):
            if often == NEVER:
                continue
            product = b.fmul(splat(b, c, lanes), x)
            if often == SOMETIMES:
                used = splat(b, b.fcmp_unordered("une", c, constant(self.wide, 0.0)), lanes)
                product = b.select(used, product, constant(kind, -0.0))
            total = product if total is None else b.fadd(total, product)
        return constant(kind, 0.0) if total is None else total

    def _sum(self, squares: Any, count: Any) -> Any:
        """In strands, as the specification: what lies behind the last of ``count`` squares counts as 0."""
        b, kind = self.b, self.total.type.pointee
        b.store(constant(kind, 0.0), self.total)
        lane = ir.Constant(ir.VectorType(I64, STRANDS), list(range(STRANDS)))
        with counted(b, I64(0), count, STRANDS) as i:
            x = emit.load(b, squares, "d", i, STRANDS, "d")
            x = b.select(b.icmp_signed("<", lane, splat(b, b.sub(count, i), STRANDS)), x, constant(kind, 0.0))
            b.store(b.fadd(b.load(self.total), x), self.total)
        return emit.sum_by_halves(b, b.load(self.total))
