"""`combine` on the CPU: one compiled loop per signature, written as LLVM IR.

Three things that plain loops cannot promise: every load of a block comes before every store, so an output may be
one of the inputs without losing vectorisation to alias checks; float16 and bfloat16 are converted in registers;
and products are never contracted into fused multiply-adds, so that the result is bit-identical to the torch
reference.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from llvmlite import ir

from .native import I64, Native, compile_function

CODES = {torch.float64: "d", torch.float32: "f", torch.float16: "e", torch.bfloat16: "h"}
SIZES = {"d": 8, "f": 4, "e": 2, "h": 2}
LANES = 16  # one AVX-512 register of fp32; narrower machines split it
AHEAD = 4 * LANES  # elements between a store and the prefetch of its line

_TYPES = {"d": ir.DoubleType(), "f": ir.FloatType(), "e": ir.HalfType(), "h": ir.IntType(16)}
_KERNELS: dict[str, Native] = {}
_LOCK = threading.Lock()


def signature(inputs: Sequence[torch.dtype], outputs: Sequence[torch.dtype], coefs: np.ndarray, checked: int) -> str:
    """What a loop is compiled for, such as ``"ef>fh/11.01/1"``: inputs ``e`` (float16) and ``f`` (float32),
    outputs ``f`` and ``h`` (bfloat16), which coefficients are not zero, and the number of inputs checked."""
    used = ".".join("".join(str(int(c != 0)) for c in row) for row in coefs)
    return "".join(CODES[d] for d in inputs) + ">" + "".join(CODES[d] for d in outputs) + f"/{used}/{checked}"


def kernel(sig: str) -> Native:
    """The compiled loop ``function(frame, row, begin, end)`` over the elements from begin to end; it returns 1
    if a checked input was not finite there, else 0.

    frame: address of int64 words, the addresses of tensors. row: address of int64 words: the address of the
    coefficients (row by row, in the accumulation dtype: fp64 where an output is fp64, else fp32), then for every
    input and then every output its place in the frame. Rows belong to a program, frames to a run.
    """
    with _LOCK:
        if sig not in _KERNELS:
            _KERNELS[sig] = compile_function(f"combine {sig}", 4, lambda b, values: _Loop(b, sig).emit(*values))
        return _KERNELS[sig]


def _overload(kind: Any) -> str:
    """How LLVM names the type of an overloaded intrinsic, such as ``v16f32``."""
    return (
        f"v{kind.count}{kind.element.intrinsic_name}" if isinstance(kind, ir.VectorType) else str(kind.intrinsic_name)
    )


class _Loop:
    """Emits the loop: blocks of ``LANES`` elements, then single elements for the remainder."""

    def __init__(self, builder: ir.IRBuilder, sig: str) -> None:
        codes, used, checked = sig.split("/")
        self.b, self.checked = builder, int(checked)
        self.inputs, self.outputs = codes.split(">")
        self.used = [[c == "1" for c in row] for row in used.split(".")]
        self.wide = "d" if "d" in self.outputs else "f"

    def emit(self, frame: Any, row: Any, begin: Any, end: Any) -> Any:
        b, n, block = self.b, len(self.inputs), I64(LANES)
        words, places = (b.inttoptr(v, I64.as_pointer()) for v in (frame, row))

        def word(table: Any, index: Any) -> Any:
            return b.load(b.gep(table, [index]))

        pointers = [
            b.inttoptr(word(words, word(places, I64(1 + j))), _TYPES[code].as_pointer())
            for j, code in enumerate(self.inputs + self.outputs)
        ]
        matrix = b.inttoptr(word(places, I64(0)), _TYPES[self.wide].as_pointer())
        coefs = [[b.load(b.gep(matrix, [I64(r * n + j)])) for j in range(n)] for r in range(len(self.outputs))]
        whole = b.add(begin, b.mul(b.sdiv(b.sub(end, begin), block), block))
        bad = b.or_(
            self._range(pointers, coefs, begin, whole, LANES),
            self._range(pointers, coefs, whole, end, 1),
        )
        return b.zext(bad, I64)

    def _range(self, pointers: Any, coefs: Any, lo: Any, hi: Any, lanes: int) -> Any:
        """One counted loop; returns whether a checked input held an infinity or a NaN.

        0 times a finite number is 0, times an infinity or a NaN it is NaN: the sum of such products over an
        input tells at the price of one operation.
        """
        b, wide = self.b, self._vector(_TYPES[self.wide], lanes)
        zero = ir.Constant(wide, [0.0] * lanes if lanes > 1 else 0.0)
        before, body, after = b.block, b.append_basic_block(), b.append_basic_block()
        b.cbranch(b.icmp_signed("<", lo, hi), body, after)
        b.position_at_end(body)
        i, *sums = (b.phi(kind) for kind in (I64, *[wide] * self.checked))
        if lanes > 1:
            self._fetch_ahead(pointers[len(self.inputs) :], i)
        xs = [self._load(p, code, i, lanes) for p, code in zip(pointers, self.inputs, strict=False)]
        checks = [self._call("llvm.fmuladd", wide, x, zero, s) for x, s in zip(xs, sums, strict=False)]
        totals = [self._sum(row, used, xs, lanes) for row, used in zip(coefs, self.used, strict=True)]
        for p, code, total in zip(pointers[len(self.inputs) :], self.outputs, totals, strict=True):
            self._store(total, p, code, i, lanes)
        following = b.add(i, I64(lanes))
        b.cbranch(b.icmp_signed("<", following, hi), body, after)
        for phi, first, later in zip((i, *sums), (lo, *[zero] * self.checked), (following, *checks), strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(later, body)
        b.position_at_end(after)
        ends = [b.phi(wide) for _ in checks]
        for phi, later in zip(ends, checks, strict=True):
            phi.add_incoming(zero, before)
            phi.add_incoming(later, body)
        return self._any([b.fcmp_unordered("uno", s, s) for s in ends], lanes)

    def _any(self, flags: list[Any], lanes: int) -> Any:
        b = self.b
        total = ir.Constant(self._vector(ir.IntType(1), lanes), [0] * lanes if lanes > 1 else 0)
        for flag in flags:
            total = b.or_(total, flag)
        bits = ir.IntType(lanes)
        return total if lanes == 1 else b.icmp_unsigned("!=", b.bitcast(total, bits), bits(0))

    def _fetch_ahead(self, outputs: Any, offset: Any) -> None:
        """Ask for the lines that will be written soon: a store that misses the first-level cache holds up all
        stores behind it, which costs more than reading does (3 inputs and 2 outputs: 5.9 against 3.8 ns a block)."""
        b, i32 = self.b, ir.IntType(32)
        ahead = b.add(offset, I64(AHEAD))
        for pointer in outputs:
            line = b.bitcast(b.gep(pointer, [ahead]), ir.IntType(8).as_pointer())
            self._call("llvm.prefetch", None, line, i32(1), i32(3), i32(1))

    def _call(self, intrinsic: str, kind: Any, *values: Any) -> Any:
        """An intrinsic of LLVM that is overloaded on ``kind``, or on a pointer if that is None."""
        name = f"{intrinsic}.{'p0' if kind is None else _overload(kind)}"
        declared = self.b.module.globals.get(name)
        if declared is None:
            result = ir.VoidType() if kind is None else kind
            declared = ir.Function(self.b.module, ir.FunctionType(result, [v.type for v in values]), name)
        return self.b.call(declared, values)

    @staticmethod
    def _vector(element: Any, lanes: int) -> Any:
        return element if lanes == 1 else ir.VectorType(element, lanes)

    def _splat(self, value: Any, lanes: int) -> Any:
        if lanes == 1:
            return value
        vector = self._vector(value.type, lanes)
        one = self.b.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
        return self.b.shuffle_vector(
            one, ir.Constant(vector, ir.Undefined), ir.Constant(self._vector(ir.IntType(32), lanes), [0] * lanes)
        )

    def _constant(self, bits: int, value: int, lanes: int) -> Any:
        kind = self._vector(ir.IntType(bits), lanes)
        return ir.Constant(kind, [value] * lanes if lanes > 1 else value)

    def _address(self, pointer: Any, code: str, offset: Any, lanes: int) -> Any:
        return self.b.bitcast(self.b.gep(pointer, [offset]), self._vector(_TYPES[code], lanes).as_pointer())

    def _load(self, pointer: Any, code: str, offset: Any, lanes: int) -> Any:
        """Read ``lanes`` elements; storage is only assumed to be aligned to its elements."""
        x = self.b.load(self._address(pointer, code, offset, lanes), align=SIZES[code])
        return self._widen(x, code, lanes)

    def _widen(self, x: Any, code: str, lanes: int) -> Any:
        b = self.b
        if code == "h":  # bfloat16 is the upper half of a float32
            bits = b.shl(b.zext(x, self._vector(ir.IntType(32), lanes)), self._constant(32, 16, lanes))
            x, code = b.bitcast(bits, self._vector(_TYPES["f"], lanes)), "f"
        if code == self.wide:
            return x
        target = self._vector(_TYPES[self.wide], lanes)
        return b.fptrunc(x, target) if code == "d" else b.fpext(x, target)

    def _store(self, total: Any, pointer: Any, code: str, offset: Any, lanes: int) -> None:
        b = self.b
        if code in "eh" and self.wide == "d":  # as torch rounds, and without a library call on older processors
            total = b.fptrunc(total, self._vector(_TYPES["f"], lanes))
        if code == "h":
            total = self._to_bfloat16(total, lanes)
        elif total.type != (target := self._vector(_TYPES[code], lanes)):
            total = b.fptrunc(total, target)
        b.store(total, self._address(pointer, code, offset, lanes), align=SIZES[code])

    def _to_bfloat16(self, x: Any, lanes: int) -> Any:
        """Round to nearest even on the bits of the float32; NaN stays NaN."""
        b = self.b
        bits = b.bitcast(x, self._vector(ir.IntType(32), lanes))
        odd = b.and_(b.lshr(bits, self._constant(32, 16, lanes)), self._constant(32, 1, lanes))
        rounded = b.add(b.add(bits, self._constant(32, 0x7FFF, lanes)), odd)
        nan = self._constant(32, 0x7FC00000, lanes)
        kept = b.select(b.fcmp_unordered("uno", x, x), nan, rounded)
        return b.trunc(b.lshr(kept, self._constant(32, 16, lanes)), self._vector(ir.IntType(16), lanes))

    def _sum(self, row: Any, used: list[bool], xs: Any, lanes: int) -> Any:
        b = self.b
        products = [b.fmul(self._splat(c, lanes), x) for c, use, x in zip(row, used, xs, strict=True) if use]
        if not products:
            return ir.Constant(xs[0].type, [0.0] * lanes if lanes > 1 else 0.0)
        total = products[0]
        for product in products[1:]:
            total = b.fadd(total, product)
        return total
