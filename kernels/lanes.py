"""Emits the parts that loops over tensors are made of: blocks of elements as LLVM vectors.

Tensors are read and written in their own dtype and computed with in fp32 or fp64. float16 and bfloat16 are
converted in registers; no product is contracted into a fused multiply-add.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from llvmlite import ir

from .native import I64

CODES = {torch.float64: "d", torch.float32: "f", torch.float16: "e", torch.bfloat16: "h"}
SIZES = {"d": 8, "f": 4, "e": 2, "h": 2}
TYPES = {"d": ir.DoubleType(), "f": ir.FloatType(), "e": ir.HalfType(), "h": ir.IntType(16)}
LINE = 64  # bytes of a cache line
LANES = 16  # one AVX-512 register of fp32; narrower machines split it
AHEAD = 64 * LANES  # elements between a store and the prefetch of its line: 4 KB of fp32

I1, I8, I32 = (ir.IntType(bits) for bits in (1, 8, 32))


def vector(element: Any, lanes: int) -> Any:
    return element if lanes == 1 else ir.VectorType(element, lanes)


def constant(kind: Any, value: float) -> Any:
    """``value`` as a scalar, or in every lane of a vector."""
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


def splat(b: ir.IRBuilder, value: Any, lanes: int) -> Any:
    """A scalar in every lane."""
    if lanes == 1:
        return value
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    return shuffle(b, b.insert_element(undefined, value, I32(0)), undefined, [0] * lanes)


def shuffle(b: ir.IRBuilder, x: Any, y: Any, indices: Sequence[int]) -> Any:
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(indices)), list(indices)))


def intrinsic(b: ir.IRBuilder, name: str, kind: Any, *values: Any) -> Any:
    """A call of an LLVM intrinsic that is overloaded on the type ``kind`` and returns it."""
    suffix = f"v{kind.count}{kind.element.intrinsic_name}" if isinstance(kind, ir.VectorType) else kind.intrinsic_name
    return _call(b, f"{name}.{suffix}", kind, values)


def prefetch_read(b: ir.IRBuilder, pointer: Any, offset: Any) -> None:
    """Ask for the line that will be read at ``offset``, while arithmetic keeps the loop from asking for it itself."""
    _prefetch(b, pointer, offset, 0)


def prefetch_write(b: ir.IRBuilder, pointer: Any, offset: Any) -> None:
    """Ask for the line that will be written ``AHEAD`` elements later. A store that misses the first-level cache
    holds up all stores behind it, which costs more than reading does (3 inputs and 2 outputs of 64 KB: 5.9
    against 3.8 ns a block). Far ahead, as lines may come from memory: 256 bytes take 10 to 25 % longer at 1M elements,
    and no less at 16K."""
    _prefetch(b, pointer, b.add(offset, I64(AHEAD)), 1)


def _prefetch(b: ir.IRBuilder, pointer: Any, offset: Any, write: int) -> None:
    line = b.bitcast(b.gep(pointer, [offset]), I8.as_pointer())
    _call(b, "llvm.prefetch.p0", ir.VoidType(), (line, I32(write), I32(3), I32(1)))


def _call(b: ir.IRBuilder, name: str, result: Any, values: Sequence[Any]) -> Any:
    declared = b.module.globals.get(name)
    if declared is None:
        declared = ir.Function(b.module, ir.FunctionType(result, [v.type for v in values]), name)
    return b.call(declared, values)


@contextmanager
def counted(b: ir.IRBuilder, lo: Any, hi: Any, step: int) -> Iterator[Any]:
    """``for i in range(lo, hi, step)``."""
    before, test = b.block, b.append_basic_block()
    body, after = b.append_basic_block(), b.append_basic_block()
    b.branch(test)
    b.position_at_end(test)
    i = b.phi(I64)
    i.add_incoming(lo, before)
    b.cbranch(b.icmp_signed("<", i, hi), body, after)
    b.position_at_end(body)
    yield i
    i.add_incoming(b.add(i, I64(step)), b.block)
    b.branch(test)
    b.position_at_end(after)


def smaller(b: ir.IRBuilder, x: Any, y: Any) -> Any:
    return b.select(b.icmp_signed("<", x, y), x, y)


def larger(b: ir.IRBuilder, x: Any, y: Any) -> Any:
    return b.select(b.icmp_signed(">", x, y), x, y)


def load(b: ir.IRBuilder, pointer: Any, code: str, offset: Any, lanes: int, wide: str) -> Any:
    """Read ``lanes`` elements of dtype ``code``, as ``wide``; storage is only assumed to be aligned to elements."""
    x = b.load(_address(b, pointer, code, offset, lanes), align=SIZES[code])
    if code == "h":  # bfloat16 is the upper half of a float32
        bits = vector(I32, lanes)
        x, code = b.bitcast(b.shl(b.zext(x, bits), constant(bits, 16)), vector(TYPES["f"], lanes)), "f"
    if code == wide:
        return x
    target = vector(TYPES[wide], lanes)
    return b.fptrunc(x, target) if code == "d" else b.fpext(x, target)


def store(
    b: ir.IRBuilder, x: Any, pointer: Any, code: str, offset: Any, lanes: int, wide: str, past_caches: bool = False
) -> None:
    """Round ``x`` from ``wide`` to dtype ``code`` and write it; ``past_caches``: to memory, where whole lines go
    without being read before. Vectors must then begin with a line, or where they divide one."""
    if code in "eh" and wide == "d":  # as torch rounds, and without a library call on older processors
        x = b.fptrunc(x, vector(TYPES["f"], lanes))
    if code == "h":
        x = _to_bfloat16(b, x, lanes)
    elif x.type != (target := vector(TYPES[code], lanes)):
        x = b.fptrunc(x, target)
    aligned = min(LINE, SIZES[code] * lanes) if past_caches else SIZES[code]
    written = b.store(x, _address(b, pointer, code, offset, lanes), align=aligned)
    if past_caches:
        written.set_metadata("nontemporal", b.module.add_metadata([I32(1)]))


def _address(b: ir.IRBuilder, pointer: Any, code: str, offset: Any, lanes: int) -> Any:
    return b.bitcast(b.gep(pointer, [offset]), vector(TYPES[code], lanes).as_pointer())


def _to_bfloat16(b: ir.IRBuilder, x: Any, lanes: int) -> Any:
    """Round to nearest even on the bits of the float32; NaN stays NaN."""
    kind = vector(I32, lanes)
    bits = b.bitcast(x, kind)
    odd = b.and_(b.lshr(bits, constant(kind, 16)), constant(kind, 1))
    rounded = b.add(b.add(bits, constant(kind, 0x7FFF)), odd)
    kept = b.select(b.fcmp_unordered("uno", x, x), constant(kind, 0x7FC00000), rounded)
    return b.trunc(b.lshr(kept, constant(kind, 16)), vector(TYPES["h"], lanes))


def weighted_sum(b: ir.IRBuilder, coefs: Sequence[Any], used: Sequence[bool], xs: Sequence[Any]) -> Any:
    """``sum c_j x_j`` over the used j, left to right, every product and sum rounded; 0 if none is used."""
    products = [b.fmul(c, x) for c, use, x in zip(coefs, used, xs, strict=True) if use]
    total = products[0] if products else constant(xs[0].type, 0.0)
    for product in products[1:]:
        total = b.fadd(total, product)
    return total


def sum_by_halves(b: ir.IRBuilder, x: Any) -> Any:
    """The sum of a vector's lanes, of a power of two, in the order of `sums.by_halves`."""
    half = x.type.count // 2
    while half > 1:
        low, high = (shuffle(b, x, x, range(k, k + half)) for k in (0, half))
        x, half = b.fadd(low, high), half // 2
    return b.fadd(*(b.extract_element(x, I32(k)) for k in (0, 1)))
