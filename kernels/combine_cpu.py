"""`combine` on the CPU: one compiled loop per signature.

Every load of a block comes before every store, so an output may be one of the inputs without losing
vectorisation to alias checks. Sums are taken as the torch reference takes them: the results are the same bits.
"""

from array import array
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from llvmlite import ir

from . import lanes as emit
from .lanes import LANES, LINE, TYPES, constant, counted, vector
from .native import I64, Native, compile_function, once
from .normals import Noise
from .normals_cpu import BLOCKS, FEW, Normals
from .pool import launch
from .signature import Signature, signature
from .table import Table
from .tensors import accumulation_dtype

# An output of so many bytes is written past the caches, if it is no input: a fifth less time. Smaller ones are often
# still in a cache from their last use, which would make that a quarter slower.
FAR_BYTES = 16 << 20


@once
def kernel(sig: Signature) -> Native:
    """The compiled loop ``function(frame, row, begin, end)`` over the elements from begin to end; it returns 1
    if a checked input was not finite there, else 0.

    frame: address of int64 words, the addresses of tensors. row: address of int64 words: the addresses of the
    coefficients (output by output, in the accumulation dtype: fp64 where an output is fp64, else fp32) and of
    the limits (one per output, alike), then for every input and every output its place in the frame. Rows belong
    to a program, frames to a run.

    A loop by sample reads more. Row: the place of three words in the frame; they are the number of elements in a
    sample and the addresses of the samples' seeds and numbers, int64. Then interval and stream of every noise.
    """
    return compile_function(f"combine {sig}", 4, lambda b, values: _Loop(b, sig, *values[:2]).run(*values[2:]))


def launch_combine(
    inputs: Sequence[torch.Tensor],
    coefs: Table,
    outputs: Sequence[torch.Tensor],
    checked: int,
    noise: Noise | None,
    limits: Sequence[float] | None,
) -> torch.Tensor:
    """`combine` of plain CPU tensors laid out densely and alike; returns its flag."""
    tensors, event = (*inputs, *outputs), outputs[0].shape[1:]
    frame, count = array("q", [x.data_ptr() for x in tensors]), outputs[0].numel()
    period = prod(event) if noise or coefs.by_element else None
    clamped = None if limits is None else tuple(bound != np.inf for bound in limits)
    past_caches = outputs[0].nbytes >= FAR_BYTES and _new_lines(frame, len(inputs), period)
    shape = event if coefs.by_element else None
    key = tuple(x.dtype for x in tensors), len(outputs), checked, clamped, shape, past_caches
    if key not in coefs.kept:  # looking it up takes a tenth of the time
        kinds = key[0][: len(inputs)], coefs, key[0][len(inputs) :]
        coefs.kept[key] = _prepared(*kinds, checked, clamped, event, past_caches)
    sig, loop, row, matrix = coefs.kept[key]
    if period is not None:
        frame.extend([period, *((noise.seeds.data_ptr(), noise.samples.data_ptr()) if noise else (0, 0))])
    if limits:
        bounds = np.array(limits, dtype=matrix.dtype)
        row = row[:1] + array("q", [bounds.ctypes.data]) + row[2:]
    if noise:
        row = row + array("q", [word for column in noise.columns for word in column])
    bad = launch(loop, frame.buffer_info()[0], row.buffer_info()[0], count, sig.cost, period=period)
    return torch.from_numpy(np.array(bad != 0))  # sooner than torch makes one


def _new_lines(frame: Sequence[int], inputs: int, period: int | None) -> bool:
    """Whether outputs are no inputs and begin with a line, as their samples do."""
    written = frame[inputs:]
    return not (period or 0) % LINE and not any(place % LINE or place in frame[:inputs] for place in written)


def _prepared(
    inputs: Sequence[torch.dtype],
    coefs: Table,
    outputs: Sequence[torch.dtype],
    checked: int,
    clamped: Sequence[bool] | None,
    event: Sequence[int],
    past_caches: bool,
) -> tuple[Signature, Native, array, np.ndarray]:
    """The loop and what it is compiled for, its row without limits and noises, and the coefficients it points to."""
    sig = signature(inputs, outputs, coefs, checked, clamped, past_caches)
    matrix = coefs.rounded(accumulation_dtype(outputs), event)
    places = range(len(inputs) + len(outputs))
    row = array("q", [matrix.ctypes.data, 0, *places, *([len(places)] if sig.by_sample else [])])
    return sig, kernel(sig), row, matrix


class _Loop:
    """Emits the loop: blocks of lanes, then single elements for the remainder."""

    def __init__(self, b: ir.IRBuilder, sig: Signature, frame: Any, row: Any) -> None:
        self.b, self.sig = b, sig
        self.wide = "d" if "d" in sig.outputs else "f"
        self.frame, self.row = (b.inttoptr(v, I64.as_pointer()) for v in (frame, row))
        self.table, limits = (b.inttoptr(self._word(j), TYPES[self.wide].as_pointer()) for j in (0, 1))
        # Read once, here: a store of the loop could change them for all that LLVM knows.
        self.coefs = [
            [None if sig.tabled else b.load(b.gep(self.table, [I64(r * len(used) + j)])) for j in range(len(used))]
            for r, used in enumerate(sig.used)
        ]
        self.limits = [b.load(b.gep(limits, [I64(r)])) if limit else None for r, limit in enumerate(sig.clamped)]
        places = [self._word(2 + j) for j in range(len(sig.inputs + sig.outputs))]
        pointers = [
            b.inttoptr(b.load(b.gep(self.frame, [place])), TYPES[code].as_pointer())
            for place, code in zip(places, sig.inputs + sig.outputs, strict=True)
        ]
        self.reads, self.writes = pointers[: len(sig.inputs)], pointers[len(sig.inputs) :]
        # Sums of 0 times what was read, for each width of blocks: 0, or NaN once an infinity or a NaN was read.
        self.sums: dict[int, list[Any]] = {LANES: [], 1: []}
        for lanes, sums in self.sums.items():
            kind = vector(TYPES[self.wide], lanes)
            for _ in range(sig.checked):
                sums.append(b.alloca(kind))
                b.store(constant(kind, 0.0), sums[-1])
        self.spill = [b.alloca(TYPES["f"], 4 * FEW) for _ in range(sig.noises)]
        # LLVM then aligns what it spills itself, too, which else crosses cache lines: 4 % of the time.
        for place in self.spill:
            place.align = LINE

    def _word(self, j: int) -> Any:
        return self.b.load(self.b.gep(self.row, [I64(j)]))

    def run(self, begin: Any, end: Any) -> Any:
        if self.sig.by_sample:
            self._samples(begin, end)
        else:
            whole = self._whole(begin, end, LANES)
            for lanes, lo, hi in ((LANES, begin, whole), (1, whole, end)):
                with counted(self.b, lo, hi, lanes) as i:
                    self._block(i, i, [], lanes)
        if self.sig.past_caches:
            self.b.fence("seq_cst")  # such stores are not ordered with others
        return self._bad()

    def _whole(self, lo: Any, hi: Any, step: int) -> Any:
        b = self.b
        return b.add(lo, b.mul(b.sdiv(b.sub(hi, lo), I64(step)), I64(step)))

    def _samples(self, begin: Any, end: Any) -> None:
        """Sample by sample; inside of one, noise is made for 128 elements at a time."""
        b = self.b
        first = 2 + len(self.sig.inputs + self.sig.outputs)
        size, seeds, numbers = (b.load(b.gep(self.frame, [b.add(self._word(first), I64(k))])) for k in range(3))
        self.size = size
        wheres = [(self._word(first + 1 + 2 * k), self._word(first + 2 + 2 * k)) for k in range(self.sig.noises)]
        many, few = (4 * BLOCKS, 4 * FEW) if wheres else (LANES, 1)
        last = b.sdiv(b.add(end, b.sub(size, I64(1))), size)
        with counted(b, b.sdiv(begin, size), last, 1) as sample:
            base = b.mul(sample, size)
            lo, hi = emit.larger(b, b.sub(begin, base), I64(0)), emit.smaller(b, b.sub(end, base), size)
            address = (
                [b.load(b.gep(b.inttoptr(words, I64.as_pointer()), [sample])) for words in (seeds, numbers)]
                if wheres
                else []
            )
            whole = self._whole(lo, hi, many)
            with counted(b, lo, whole, many) as i:
                noises = [Normals(b, BLOCKS).emit((*address, *where), i) for where in wheres]
                for k in range(many // LANES):
                    local = b.add(i, I64(k * LANES))
                    self._block(b.add(base, local), local, [z[k] for z in noises], LANES)
            with counted(b, whole, hi, few) as i:
                for where, spill in zip(wheres, self.spill, strict=True):
                    for k, z in enumerate(Normals(b, FEW).emit((*address, *where), i)):
                        emit.store(b, z, spill, "f", I64(k * 2 * FEW), 2 * FEW, "f")
                with counted(b, i, emit.smaller(b, b.add(i, I64(few)), hi), 1) as j:
                    single = [b.load(b.gep(spill, [b.sub(j, i)])) for spill in self.spill]
                    self._block(b.add(base, j), j, single, 1)

    def _block(self, i: Any, local: Any, noises: list[Any], lanes: int) -> None:
        """The elements from i on; ``local`` counts from the beginning of the sample."""
        b, sig, wide = self.b, self.sig, vector(TYPES[self.wide], lanes)
        far = lanes > 1 and sig.past_caches
        if lanes > 1 and not far:
            for p in self.writes:
                emit.prefetch_write(b, p, i)
        if noises and lanes > 1:
            for p in self.reads:
                emit.prefetch_read(b, p, b.add(i, I64(4 * BLOCKS)))
        xs = [emit.load(b, p, code, i, lanes, self.wide) for p, code in zip(self.reads, sig.inputs, strict=True)]
        for x, total in zip(xs, self.sums[lanes], strict=False):
            b.store(emit.intrinsic(b, "llvm.fmuladd", wide, x, constant(wide, 0.0), b.load(total)), total)
        xs += [z if z.type == wide else b.fpext(z, wide) for z in noises]
        rows = [
            emit.weighted_sum(b, [self._coefficient(r, j, local, lanes) for j in range(len(used))], used, xs)
            for r, used in enumerate(sig.used)
        ]
        for r, (x, p, code) in enumerate(zip(rows, self.writes, sig.outputs, strict=True)):
            emit.store(b, self._clamped(x, r, lanes), p, code, i, lanes, self.wide, far)

    def _coefficient(self, r: int, j: int, local: Any, lanes: int) -> Any:
        b = self.b
        if not self.sig.tabled:
            return emit.splat(b, self.coefs[r][j], lanes)
        place = b.mul(I64(r * len(self.sig.used[r]) + j), self.size)
        return emit.load(b, b.gep(self.table, [place]), self.wide, local, lanes, self.wide)

    def _clamped(self, x: Any, r: int, lanes: int) -> Any:
        """Within the limits of output r; NaN stays NaN."""
        if not self.sig.clamped[r]:
            return x
        b = self.b
        low, high = (emit.splat(b, limit, lanes) for limit in (b.fneg(self.limits[r]), self.limits[r]))
        x = b.select(b.fcmp_ordered("<", x, low), low, x)
        return b.select(b.fcmp_ordered(">", x, high), high, x)

    def _bad(self) -> Any:
        b, bad = self.b, I64(0)
        for lanes, sums in self.sums.items():
            for total in sums:
                ended = b.load(total)
                flags = b.bitcast(b.fcmp_unordered("uno", ended, ended), ir.IntType(lanes))
                bad = b.or_(bad, b.zext(b.icmp_unsigned("!=", flags, flags.type(0)), I64))
        return bad
