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
        self.b, self.blocks, self.lanes = builder, blocks, min(blocks, LANES)

    def emit(self, where: Sequence[Any], first: Any) -> list[Any]:
        """Elements ``first`` to ``first + 4 * blocks - 1``, as vectors of float. ``where`` is seed, sample,
        interval and stream; all are scalar i64, and ``first`` is a multiple of 4."""
        b, n, (seed, sample, interval, stream) = self.b, self.blocks, where
        order = [g + i % 4 * (self.lanes // 4) + i // 4 for g in range(0, n, self.lanes) for i in range(self.lanes)]
        order = order[::2] + order[1::2]  # see _packed
        index = b.add(splat(b, b.lshr(first, I64(2)), n), ir.Constant(ir.VectorType(I64, n), order))
        interval, sample, stream = (splat(b, b.and_(x, I64(MASK)), n) for x in (interval, sample, stream))
        words = self.philox([interval, index, sample, stream], (b.and_(seed, I64(MASK)), b.lshr(seed, I64(32))))
        # Both pairs of a block side by side: the radii of words 0 and 2, the angles of words 1 and 3.
        radius, angle = (shuffle(b, words[i], words[i + 2], range(2 * n)) for i in (0, 1))
        halves = self.box_muller(radius, angle)
        return [z for g in range(0, n, self.lanes) for z in self._blocks(halves, g)]

    def philox(self, counter: Sequence[Any], key: Sequence[Any]) -> list[Any]:
        """Philox4x32-10 of i64 words, as i32: the product of two is one instruction, which takes no notice of what
        is above their lower 32 bits."""
        b, (c0, c1, c2, c3) = self.b, counter
        upper = constant(c0.type, 32)
        for i in range(ROUNDS - 1):
            k0, k1 = (splat(b, b.add(k, I64(i * w)), self.blocks) for k, w in zip(key, WEYL, strict=True))
            p0, p1 = self._products(c0, c2)
            c0, c1 = b.xor(b.lshr(p1, upper), b.xor(c1, k0)), p1
            c2, c3 = b.xor(b.lshr(p0, upper), b.xor(c3, k1)), p0
        keys = (b.trunc(b.add(k, I64((ROUNDS - 1) * w)), I32) for k, w in zip(key, WEYL, strict=True))
        k0, k1 = (splat(b, k, self.blocks) for k in keys)
        p0, p1 = self._products(c0, c2)
        c0 = b.xor(self._packed(p1, 1), b.xor(self._packed(c1, 0), k0))
        c2 = b.xor(self._packed(p0, 1), b.xor(self._packed(c3, 0), k1))
        return [c0, self._packed(p1, 0), c2, self._packed(p0, 0)]

    def _products(self, *words: Any) -> list[Any]:
        kind, b = words[0].type, self.b
        masked = [b.and_(word, constant(kind, MASK)) for word in words]
        return [b.mul(word, constant(kind, m)) for word, m in zip(masked, MULTIPLIERS, strict=True)]

    def _packed(self, words: Any, half: int) -> Any:
        """The lower or upper halves of i64, as i32: those of the second half of the vector between those of the
        first, for one instruction where truncation would take three. Blocks are numbered so that the result is in
        order."""
        n = self.blocks
        halves = self.b.bitcast(words, ir.VectorType(I32, 2 * n))
        return shuffle(self.b, halves, halves, [i + half for j in range(0, n, 2) for i in (j, j + n)])

    def box_muller(self, radius: Any, angle: Any) -> tuple[Any, Any]:
        """Two vectors of normals from two of i32 words; the steps are those of `normals.box_muller`, except that d
        and u are 2^32 times as large, and e is 2^23 times as large."""
        b, i32 = self.b, radius.type
        f32 = ir.VectorType(F32, i32.count)
        upper = b.icmp_signed("<", radius, constant(i32, 0))
        d = b.sitofp(b.xor(radius, b.ashr(radius, constant(i32, 31))), f32)
        d = b.fadd(d, constant(f32, 0.5))
        u = b.bitcast(b.select(upper, b.fsub(constant(f32, 2.0**32), d), d), i32)
        e = b.and_(b.sub(u, constant(i32, TWO_THIRDS + (32 << 23))), constant(i32, EXPONENT))
        m = b.bitcast(b.sub(u, e), f32)
        near = b.icmp_signed("==", e, constant(i32, 0))
        scale = constant(f32, 2.0**-32)  # products with it are exact: to fuse them changes nothing
        f = b.select(near, b.fmul(d, b.fneg(scale)), self._fma(m, scale, -1.0))

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
        """The normals of the blocks from ``first`` on, as many as a vector has lanes, in order: the transpose of
        what item i of both halves has of both pairs, within every four lanes."""
        b, n, lanes = self.b, self.blocks, self.lanes
        fours = range(0, lanes, 4)
        pairs = []
        for at in (first, first + n):
            x, y = (shuffle(b, z, z, range(at, at + lanes)) for z in halves)
            pairs.append(
                [shuffle(b, x, y, [q + i + k for q in fours for i in two for k in (0, lanes)]) for two in _TWOS]
            )
        for low, high in zip(*pairs, strict=True):
            for two in _TWOS:
                yield shuffle(b, low, high, [q + i + k for q in fours for k in (0, lanes) for i in two])


_TWOS = (0, 1), (2, 3)
