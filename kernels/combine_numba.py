"""`combine` on the CPU: one compiled loop per signature (dtypes of inputs and outputs), called by address.

A signature is a string such as ``"ef>fh/1"``: inputs ``e`` (float16) and ``f`` (float32), outputs ``f`` and
``h`` (bfloat16), and the first 1 input checked for non-finite values. The loop is written as LLVM IR inside a
numba intrinsic, for three reasons that plain Python loops cannot meet: every load of a block comes before
every store, so an output may be one of the inputs without losing vectorisation to alias checks; float16 and
bfloat16, which numba lacks, are converted in registers; and products are never contracted into fused
multiply-adds, so that the result is bit-identical to the torch reference.

Calls go through ctypes, which releases the GIL; kernels hold no state, so any number of threads may call.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

CODES = {torch.float64: "d", torch.float32: "f", torch.float16: "e", torch.bfloat16: "h"}
SIZES = {"d": 8, "f": 4, "e": 2, "h": 2}
LANES = 16  # one AVX-512 register of fp32; narrower machines split it

# Below this many bytes a second thread costs more than it saves: measured by bench/kernels.py on two cores,
# where handing a chunk to the pool takes about 25 microseconds, the time of some 500 KB.
THREADED_BYTES = 4 << 20

Kernel = Callable[[int], int]


def signature(inputs: Sequence[torch.dtype], outputs: Sequence[torch.dtype], checked: int) -> str:
    return "".join(CODES[d] for d in inputs) + ">" + "".join(CODES[d] for d in outputs) + f"/{checked}"


@cache
def kernel(sig: str) -> Kernel:
    """The compiled loop for a signature: takes the address of a *job*, returns 1 if a checked input was not
    finite, else 0.

    A job is a row of int64: the address of the coefficients (row by row, in the accumulation dtype: fp64
    where an output is fp64, else fp32), the number of elements, the addresses of the inputs, then of the
    outputs. One argument, because converting arguments is most of the cost of a ctypes call.
    """

    def loop(job):  # type: ignore[no-untyped-def]
        return _combine(sig, job)

    kind = types.int32(types.intp)
    try:
        compiled = cfunc(kind, cache=True)(loop)
    except RuntimeError:  # there is no folder to write a cache to
        compiled = cfunc(kind)(loop)
    function: Any = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_ssize_t)(compiled.address)
    function.sizes = [SIZES[code] for code in sig.split("/")[0] if code != ">"]
    return function


def launch(function: Kernel, jobs: np.ndarray, row: int) -> int:
    """Run the kernel on one row of ``jobs``, int64 (n, width), split over a thread pool if that is worth it."""
    address = jobs.ctypes.data + row * jobs.strides[0]
    sizes = function.sizes  # type: ignore[attr-defined]
    count, threads = int(jobs[row, 1]), torch.get_num_threads()
    if count * sum(sizes) < THREADED_BYTES or threads == 1:
        return function(address)
    chunk = -(-count // (threads * LANES)) * LANES
    starts = np.arange(0, count, chunk)
    parts = np.repeat(jobs[row : row + 1], len(starts), axis=0)
    parts[:, 1] = np.minimum(chunk, count - starts)
    parts[:, 2 : 2 + len(sizes)] += starts[:, None] * np.array(sizes)
    addresses = [parts.ctypes.data + i * parts.strides[0] for i in range(len(starts))]
    rest = [_pool(os.getpid(), threads).submit(function, a) for a in addresses[1:]]
    return max([function(addresses[0]), *(future.result() for future in rest)])


@cache
def _pool(pid: int, threads: int) -> ThreadPoolExecutor:
    """One pool per process: keyed by the process id, since a forked child inherits no running threads."""
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="logsnr")


@intrinsic(prefer_literal=True)
def _combine(typingctx, sig, job):  # type: ignore[no-untyped-def]
    """``out[r][i] = sum_j coefs[r, j] * in[j][i]`` for all i of the job, as LLVM IR."""
    if not isinstance(sig, types.StringLiteral):
        return None
    inputs, rest = sig.literal_value.split(">")
    outputs, checked = rest.split("/")

    def codegen(context, builder, _signature, args):  # type: ignore[no-untyped-def]
        bad = _Loop(builder, inputs, outputs, int(checked)).emit(args[1])
        return builder.zext(bad, ir.IntType(32))

    return types.int32(sig, job), codegen


_TYPES = {"d": ir.DoubleType(), "f": ir.FloatType(), "e": ir.HalfType(), "h": ir.IntType(16)}


class _Loop:
    """Emits the loop: blocks of ``LANES`` elements, then single elements for the remainder."""

    def __init__(self, builder: Any, inputs: str, outputs: str, checked: int) -> None:
        self.b, self.inputs, self.outputs, self.checked = builder, inputs, outputs, checked
        self.wide = "d" if "d" in outputs else "f"

    def emit(self, job: Any) -> Any:
        b, n, i64 = self.b, len(self.inputs), ir.IntType(64)
        words = b.inttoptr(job, i64.as_pointer())
        coefs, count, *addresses = (b.load(b.gep(words, [i64(j)])) for j in range(2 + n + len(self.outputs)))
        pointers = [
            b.inttoptr(address, _TYPES[code].as_pointer())
            for address, code in zip(addresses, self.inputs + self.outputs, strict=True)
        ]
        matrix = b.inttoptr(coefs, _TYPES[self.wide].as_pointer())
        rows = [[b.load(b.gep(matrix, [i64(r * n + j)])) for j in range(n)] for r in range(len(self.outputs))]
        block = i64(LANES)
        whole = b.mul(b.sdiv(count, block), block)
        return b.or_(
            self._range(pointers, rows, i64(0), whole, LANES),
            self._range(pointers, rows, whole, count, 1),
        )

    def _range(self, pointers: Any, rows: Any, lo: Any, hi: Any, lanes: int) -> Any:
        """One counted loop; returns whether a checked input held an infinity or a NaN."""
        b = self.b
        zero = ir.Constant(self._vector(ir.IntType(1), lanes), [0] * lanes if lanes > 1 else 0)
        bad = cgutils.alloca_once_value(b, zero)
        with cgutils.for_range_slice(b, lo, hi, ir.IntType(64)(lanes)) as (i, _):
            xs = [self._load(p, code, i, lanes) for p, code in zip(pointers, self.inputs, strict=False)]
            for x in xs[: self.checked]:
                b.store(b.or_(b.load(bad), self._nonfinite(x)), bad)
            totals = [self._sum(row, xs, lanes) for row in rows]
            for p, code, total in zip(pointers[len(self.inputs) :], self.outputs, totals, strict=True):
                self._store(total, p, code, i, lanes)
        last = b.load(bad)
        return last if lanes == 1 else b.icmp_unsigned("!=", b.bitcast(last, ir.IntType(lanes)), ir.IntType(lanes)(0))

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

    def _sum(self, row: Any, xs: Any, lanes: int) -> Any:
        b = self.b
        products = [b.fmul(self._splat(c, lanes), x) for c, x in zip(row, xs, strict=True)]
        total = products[0]
        for product in products[1:]:
            total = b.fadd(total, product)
        return total

    def _nonfinite(self, x: Any) -> Any:
        """``x - x`` is 0 for finite numbers and NaN for infinities and NaNs."""
        difference = self.b.fsub(x, x)
        return self.b.fcmp_unordered("uno", difference, difference)
