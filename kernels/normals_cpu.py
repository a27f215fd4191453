"""The normals of `normals.py` as LLVM IR, for loops that make their noise in registers.

No floating-point instruction carries a fast-math flag, so LLVM neither fuses nor reorders them.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from .lanes import I32, constant, intrinsic, shuffle, splat
from .native import I64
from .normals import COS, LN2_TWICE, LOG, MASK, MULTIPLIERS, ROUNDS, SIN, TWO_THIRDS, WEYL

# Philox blocks, of four normals each, that a loop makes at a time. The chain of operations behind one normal is
# 200 cycles long: with 32 blocks there are enough independent chains to hide it, and a normal costs a third less
# than with 16. For what is left at the end of a loop there are short vectors.
BLOCKS, FEW = 32, 2

F32 = ir.FloatType()


class Normals:
    """Emits ``4 * blocks`` consecutive normals at a time; ``blocks`` is even."""

    def __init__(self, builder: Any, blocks: int = BLOCKS) -> None:
        self.b, self.blocks = builder, blocks

    def emit(self, where: Sequence[Any], first: Any) -> Any:
        """Elements ``first`` to ``first + 4 * blocks - 1``, as one vector of float. ``where`` is seed, sample,
        interval and stream; all are scalar i64, and ``first`` is a multiple of 4."""
        b, n, (seed, sample, interval, stream) = self.b, self.blocks, where
        order = [*range(0, n, 2), *range(1, n, 2)]  # see _merge
        index = b.add(splat(b, b.lshr(first, I64(2)), n), ir.Constant(ir.VectorType(I64, n), order))
        counter = [index, *(splat(b, x, n) for x in (interval, sample, stream))]
        key = b.and_(seed, I64(MASK)), b.lshr(seed, I64(32))
        words = [self._merge(w) for w in self.philox([b.and_(c, constant(index.type, MASK)) for c in counter], key)]
        # Both pairs of a block side by side: the radii of words 0 and 2, the angles of words 1 and 3.
        radius, angle = (shuffle(b, words[i], words[i + 2], range(2 * n)) for i in (0, 1))
        halves = self.box_muller(radius, angle)
        # Element 4 i + 2 j + k is item n j + i of half k.
        even, odd = (shuffle(b, z, z, [n * j + i for i in range(n) for j in (0, 1)]) for z in halves)
        return shuffle(b, even, odd, [2 * n * k + i for i in range(2 * n) for k in (0, 1)])

    def philox(self, counter: Sequence[Any], key: Sequence[Any]) -> list[Any]:
        """Philox4x32-10. Words are i64 below 2^32: the product of two is then one instruction, and its halves
        need no packing."""
        b, (c0, c1, c2, c3) = self.b, counter
        kind = c0.type
        for i in range(ROUNDS):
            k0, k1 = (
                splat(b, b.and_(b.add(k, I64(i * w)), I64(MASK)), self.blocks) for k, w in zip(key, WEYL, strict=True)
            )
            p0, p1 = (b.mul(c, constant(kind, m)) for c, m in zip((c0, c2), MULTIPLIERS, strict=True))
            c0 = b.xor(b.lshr(p1, constant(kind, 32)), b.xor(c1, k0))
            c2 = b.xor(b.lshr(p0, constant(kind, 32)), b.xor(c3, k1))
            c1, c3 = b.and_(p1, constant(kind, MASK)), b.and_(p0, constant(kind, MASK))
        return [c0, c1, c2, c3]

    def box_muller(self, radius: Any, angle: Any) -> tuple[Any, Any]:
        """Two vectors of normals from two of i32 words; the steps are those of `normals.box_muller`."""
        b, i32 = self.b, radius.type
        f32 = ir.VectorType(F32, i32.count)
        upper = b.icmp_signed("<", radius, constant(i32, 0))
        distance = b.sitofp(b.xor(radius, b.ashr(radius, constant(i32, 31))), f32)
        d = b.fadd(b.fmul(distance, constant(f32, 2.0**-32)), constant(f32, 2.0**-33))
        bits = b.bitcast(b.select(upper, b.fsub(constant(f32, 1.0), d), d), i32)
        e = b.ashr(b.sub(bits, constant(i32, TWO_THIRDS)), constant(i32, 23))
        m = b.bitcast(b.sub(bits, b.shl(e, constant(i32, 23))), f32)
        near = b.icmp_signed("==", e, constant(i32, 0))
        f = b.select(near, b.fneg(d), b.fsub(m, constant(f32, 1.0)))
        square = b.fsub(b.fmul(f, self._polynomial(LOG, f)), b.fmul(b.sitofp(e, f32), constant(f32, LN2_TWICE)))
        r = intrinsic(b, "llvm.sqrt", f32, square)

        t = b.or_(b.shl(angle, constant(i32, 2)), constant(i32, 2))
        t = b.fmul(b.sitofp(t, f32), constant(f32, 2.0**-31))
        z = b.fmul(t, t)
        sine, cosine = b.fmul(t, self._polynomial(SIN, z)), self._polynomial(COS, z)
        cosine = b.bitcast(b.xor(b.bitcast(cosine, i32), b.and_(angle, constant(i32, -1 << 31))), f32)
        swap = b.icmp_signed("!=", b.and_(angle, constant(i32, 1 << 30)), constant(i32, 0))
        return b.fmul(r, b.select(swap, sine, cosine)), b.fmul(r, b.select(swap, cosine, sine))

    def _polynomial(self, coefs: Sequence[float], x: Any) -> Any:
        b, total = self.b, constant(x.type, coefs[-1])
        for c in coefs[-2::-1]:
            total = b.fadd(b.fmul(total, x), constant(x.type, c))
        return total

    def _merge(self, words: Any) -> Any:
        """i64 words as i32: the second half of the vector goes between the words of the first, for a shift and
        a merge where truncation would take permutations. Blocks are numbered so that the result is in order."""
        b, n = self.b, self.blocks
        even, odd = shuffle(b, words, words, range(n // 2)), shuffle(b, words, words, range(n // 2, n))
        return b.bitcast(b.or_(even, b.shl(odd, constant(odd.type, 32))), ir.VectorType(I32, n))
