"""The normals of `normals.py` as LLVM IR, for loops that make their noise in registers.

No floating-point instruction carries a fast-math flag, so LLVM neither fuses nor reorders them; what is fused is so by
the specification. A zmm register has two ports, so the number of instructions is what counts: 3 for a normal.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from llvmlite import ir

from .lanes import I32, LANES, constant, intrinsic, shuffle, splat
from .native import I64
from .normals import COS, LN2_TWICE, LOG, MASK, MULTIPLIERS, ROUNDS, SIN, TWO_THIRDS, WEYL

# Philox blocks, of four normals each, that a loop makes at a time. The chain of operations behind one normal is
# 200 cycles long: 32 blocks have enough independent chains to hide it, and a normal costs a sixth less than with 16.
# For what is left at the end of a loop there are short vectors.
BLOCKS, FEW = 32, 4

F32 = ir.FloatType()
EXPONENT = -1 << 23  # the bits of sign and exponent


class Normals:
    """Emits ``4 * blocks`` consecutive normals at a time, ``lanes`` in a vector."""

    def __init__(self, builder: Any, blocks: int = BLOCKS) -> None:
        self.b, self.blocks, self.lanes = builder, blocks, min(2 * blocks, LANES)

    def emit(self, where: Sequence[Any], first: Any) -> list[Any]:
        """Elements ``first`` to ``first + 4 * blocks - 1``, as vectors of float. ``where`` is seed, sample,
        interval and stream; all are scalar i64, and ``first`` is a multiple of 4."""
        b, n, (seed, sample, interval, stream) = self.b, self.blocks, where
        group = self.lanes // 2  # blocks are numbered so that `_blocks` leaves them in order
        order = [g + i % 2 * (group // 2) + i // 2 for g in range(0, n, group) for i in range(group)]
        index = b.add(splat(b, b.lshr(first, I64(2)), n), ir.Constant(ir.VectorType(I64, n), order))
        interval, sample, stream = (splat(b, b.and_(x, I64(MASK)), n) for x in (interval, sample, stream))
        radius, angle = self.philox([interval, index, sample, stream], (b.and_(seed, I64(MASK)), b.lshr(seed, I64(32))))
        halves = self.box_muller(radius, angle)
        return [z for g in range(0, 2 * n, self.lanes) for z in self._blocks(halves, g)]

    def philox(self, counter: Sequence[Any], key: Sequence[Any]) -> tuple[Any, Any]:
        """Philox4x32-10 of i64 words: the product of two is one instruction, which takes no notice of what is above
        their lower 32 bits. Returns vectors of i32, of words 0 and 2 by turns, and of words 1 and 3."""
        b, (c0, c1, c2, c3) = self.b, counter
        upper = constant(c0.type, 32)
        for i in range(ROUNDS - 1):
            k0, k1 = (splat(b, b.add(k, I64(i * w)), self.blocks) for k, w in zip(key, WEYL, strict=True))
            p0, p1 = self._products(c0, c2)
            c0, c1 = b.xor(b.lshr(p1, upper), b.xor(c1, k0)), p1
            c2, c3 = b.xor(b.lshr(p0, upper), b.xor(c3, k1)), p0
        k0, k1 = (splat(b, b.add(k, I64((ROUNDS - 1) * w)), self.blocks) for k, w in zip(key, WEYL, strict=True))
        p0, p1 = self._products(c0, c2)
        keys, before = self._halves(k0, k1, 0), self._halves(c1, c3, 0)
        return b.xor(self._halves(p1, p0, 1), b.xor(before, keys)), self._halves(p1, p0, 0)

    def _products(self, *words: Any) -> list[Any]:
        kind, b = words[0].type, self.b
        masked = [b.and_(word, constant(kind, MASK)) for word in words]
        return [b.mul(word, constant(kind, m)) for word, m in zip(masked, MULTIPLIERS, strict=True)]

    def _halves(self, x: Any, y: Any, half: int) -> Any:
        """The lower or upper halves of two vectors of i64, as i32, by turns."""
        n = self.blocks
        x, y = (self.b.bitcast(words, ir.VectorType(I32, 2 * n)) for words in (x, y))
        return shuffle(self.b, x, y, [2 * i + half + k for i in range(n) for k in (0, 2 * n)])

    def box_muller(self, radius: Any, angle: Any) -> tuple[Any, Any]:
        """Two vectors of normals from two of i32 words; the steps are those of `normals.box_muller`, except that d
        and u are 2^32 times as large, and e is 2^23 times as large."""
        b, i32 = self.b, radius.type
        f32 = ir.VectorType(F32, i32.count)
        d = b.fadd(b.sitofp(radius, f32), constant(f32, 0.5))
        upper = b.fcmp_ordered("<", d, constant(f32, 0.0))
        u = b.bitcast(b.select(upper, b.fadd(d, constant(f32, 2.0**32)), d), i32)
        e = b.and_(b.sub(u, constant(i32, TWO_THIRDS + (32 << 23))), constant(i32, EXPONENT))
        m = b.bitcast(b.sub(u, e), f32)
        near = b.icmp_signed("==", e, constant(i32, 0))
        scale = constant(f32, 2.0**-32)  # products with it are exact: to fuse them changes nothing
        f = b.select(near, b.fmul(d, scale), self._fma(m, scale, -1.0))

        t = intrinsic(b, "llvm.fshl", i32, angle, constant(i32, -1 << 31), constant(i32, 2))  # 4 angle + 2
        t = b.fmul(b.sitofp(t, f32), constant(f32, 2.0**-31))
        z = b.fmul(t, t)
        log, sine, cosine = self._polynomials((LOG, f), (SIN, z), (COS, z))
        square = self._fma(f, log, b.fmul(b.sitofp(e, f32), constant(f32, -LN2_TWICE * 2.0**-23)))
        r = intrinsic(b, "llvm.sqrt", f32, square)
        sine = b.fmul(t, sine)
        cosine = b.bitcast(b.xor(b.bitcast(cosine, i32), b.and_(angle, constant(i32, -1 << 31))), f32)
        swap = b.icmp_signed("!=", b.and_(angle, constant(i32, 1 << 30)), constant(i32, 0))
        return b.fmul(r, b.select(swap, sine, cosine)), b.fmul(r, b.select(swap, cosine, sine))

    def _polynomials(self, *todo: tuple[Sequence[float], Any]) -> list[Any]:
        """Step by step side by side, as a step waits for the one before."""
        totals = [constant(x.type, coefs[-1]) for coefs, x in todo]
        for k in range(2, max(len(coefs) for coefs, _ in todo) + 1):
            for j, (coefs, x) in enumerate(todo):
                if k <= len(coefs):
                    totals[j] = self._fma(totals[j], x, coefs[-k])
        return totals

    def _fma(self, x: Any, y: Any, z: Any) -> Any:
        addend = constant(x.type, z) if isinstance(z, float) else z
        return intrinsic(self.b, "llvm.fma", x.type, x, y, addend)

    def _blocks(self, halves: Sequence[Any], first: int) -> Iterator[Any]:
        """The normals of the lanes from ``first`` on, as many as a vector has, in order: by turns from both halves."""
        x, y = (shuffle(self.b, z, z, range(first, first + self.lanes)) for z in halves)
        for two in (0, 2):
            pairs = [q + two + i for q in range(0, self.lanes, 4) for i in (0, 1)]
            yield shuffle(self.b, x, y, [i + k for i in pairs for k in (0, self.lanes)])
