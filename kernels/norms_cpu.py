"""`combine_norm` on the CPU: one compiled loop per signature, over the chunks of all samples.

Every load of a block comes before every store, so an output may be one of the inputs.
"""

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from llvmlite import ir

from . import lanes as emit
from .lanes import CODES, TYPES, constant, counted, intrinsic, splat, vector
from .native import I64, Native, compile_function, once
from .pool import launch
from .sums import CHUNK, STRANDS, by_halves, power_of_two
from .table import Table
from .tensors import elements

_F64 = ir.DoubleType()


def norms_cpu(
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[torch.Tensor],
    weights: Table,
    tolerances: tuple[float, float],
    wide: torch.dtype,
) -> torch.Tensor:
    """Writes the outputs and returns the norms (B,). Tensors are laid out alike, sample by sample. ``weights`` has a
    row for every output, then those of e, a and b. tolerances: rtol and atol. wide: the dtype of the sums."""
    matrix = weights.rounded(wide, ())
    bounds = np.array(tolerances, dtype=matrix.dtype)
    batch, count = len(inputs[0]), elements(inputs[0])
    chunks = -(-count // CHUNK)
    partial = np.zeros((batch, power_of_two(chunks)))
    tensors = (*inputs, *outputs)
    frame = array("q", [x.data_ptr() for x in tensors])
    addresses = [x.ctypes.data for x in (matrix, bounds, partial)]
    row = array("q", [*addresses, count, chunks, partial.shape[1]])
    size = min(CHUNK, count) * sum(x.element_size() for x in tensors)
    if batch and count:
        function = kernel(signature([x.dtype for x in inputs], [x.dtype for x in outputs], matrix))
        launch(function, frame.buffer_info()[0], row.buffer_info()[0], batch * chunks, size, multiple=1)
    return torch.from_numpy(by_halves(partial) / max(count, 1)).sqrt()  # torch's, as in the reference


def signature(inputs: Sequence[torch.dtype], outputs: Sequence[torch.dtype], matrix: np.ndarray) -> str:
    """What a loop is compiled for, such as ``"ef>f/f/11.01.10.11"``: inputs ``e`` (float16) and ``f`` (float32),
    output ``f``, sums in ``f``, and which weights of the outputs and of e, a, b are not zero."""
    used = ".".join("".join(str(int(c != 0)) for c in row) for row in matrix)
    wide = "d" if matrix.dtype == np.float64 else "f"
    return f"{''.join(CODES[d] for d in inputs)}>{''.join(CODES[d] for d in outputs)}/{wide}/{used}"


@once
def kernel(sig: str) -> Native:
    """The compiled loop ``function(frame, row, begin, end)`` over the chunks from begin to end, those of the first
    sample first; it returns 0.

    frame: address of the addresses of the inputs, then of the outputs. row: address of six int64 words: the
    addresses of the matrix, the tolerances and the partial sums (B, width), the number of elements and of chunks in
    a sample, and the width.
    """
    return compile_function(f"norms {sig}", 4, lambda b, values: _Loop(b, sig, *values[:2]).run(*values[2:]))


class _Loop:
    """Emits the loop over chunks: in each, blocks of lanes, then single elements for the remainder."""

    def __init__(self, b: ir.IRBuilder, sig: str, frame: Any, row: Any) -> None:
        codes, self.wide, used = sig.split("/")
        self.b, self.used = b, [[c == "1" for c in row] for row in used.split(".")]
        self.inputs, self.outputs = codes.split(">")
        words, self.row = (b.inttoptr(v, I64.as_pointer()) for v in (frame, row))
        matrix, tolerances = (self._address(self.row, k, self.wide) for k in (0, 1))
        self.pointers = [self._address(words, j, code) for j, code in enumerate(self.inputs + self.outputs)]
        n = len(self.inputs)
        # Read once, here: a store of the loop could change them for all that LLVM knows.
        self.coefs = [[b.load(b.gep(matrix, [I64(r * n + j)])) for j in range(n)] for r in range(len(self.used))]
        self.rtol, self.atol = (b.load(b.gep(tolerances, [I64(k)])) for k in (0, 1))
        self.partial = self._address(self.row, 2, "d")
        self.count, self.chunks, self.width = (b.load(b.gep(self.row, [I64(k)])) for k in (3, 4, 5))
        strands = ir.VectorType(_F64, STRANDS)
        self.total, self.rest = b.alloca(strands), b.alloca(strands)

    def _address(self, table: Any, index: int, code: str) -> Any:
        b = self.b
        return b.inttoptr(b.load(b.gep(table, [I64(index)])), TYPES[code].as_pointer())

    def run(self, begin: Any, end: Any) -> Any:
        b = self.b
        with counted(b, begin, end, 1) as item:
            sample = b.sdiv(item, self.chunks)
            chunk = b.sub(item, b.mul(sample, self.chunks))
            offset = b.mul(chunk, I64(CHUNK))
            left = b.sub(self.count, offset)
            length = b.select(b.icmp_signed("<", left, I64(CHUNK)), left, I64(CHUNK))
            total = self._chunk(b.add(b.mul(sample, self.count), offset), length)
            b.store(total, b.gep(self.partial, [b.add(b.mul(sample, self.width), chunk)]))
        return I64(0)

    def _chunk(self, start: Any, length: Any) -> Any:
        """The sum of squares over ``length`` elements from ``start``."""
        b, zero = self.b, constant(self.total.type.pointee, 0.0)
        b.store(zero, self.total)
        b.store(zero, self.rest)
        stop, whole = b.add(start, length), b.add(start, b.and_(length, I64(-STRANDS)))
        with counted(b, start, whole, STRANDS) as i:
            b.store(b.fadd(b.load(self.total), self._squares(i, STRANDS)), self.total)
        rest = b.bitcast(self.rest, _F64.as_pointer())
        with counted(b, whole, stop, 1) as i:
            b.store(self._squares(i, 1), b.gep(rest, [b.sub(i, whole)]))
        return emit.sum_by_halves(b, b.fadd(b.load(self.total), b.load(self.rest)))

    def _squares(self, i: Any, lanes: int) -> Any:
        """Of the quotients of ``lanes`` elements from ``i``, in fp64; writes the outputs there."""
        b, n, kind = self.b, len(self.inputs), vector(TYPES[self.wide], lanes)
        if lanes > 1:
            for pointer in self.pointers[n:]:
                emit.prefetch_write(b, pointer, i)
        xs = [emit.load(b, p, c, i, lanes, self.wide) for p, c in zip(self.pointers, self.inputs, strict=False)]
        *sums, e, x, y = (
            emit.weighted_sum(b, [splat(b, c, lanes) for c in row], used, xs)
            for row, used in zip(self.coefs, self.used, strict=True)
        )
        for total, pointer, code in zip(sums, self.pointers[n:], self.outputs, strict=True):
            emit.store(b, total, pointer, code, i, lanes, self.wide)
        x, y = (intrinsic(b, "llvm.fabs", kind, value) for value in (x, y))
        larger = intrinsic(b, "llvm.maximum", kind, x, y)  # NaN if either is
        scale = b.fadd(splat(b, self.atol, lanes), b.fmul(splat(b, self.rtol, lanes), larger))
        ratio = b.fadd(b.fdiv(e, scale), b.fsub(scale, scale))
        if self.wide == "f":
            ratio = b.fpext(ratio, vector(_F64, lanes))
        return b.fmul(ratio, ratio)
