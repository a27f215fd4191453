"""The normals of `normals.py` for compiled loops: whole blocks into a tile."""
# What numba compiles has no annotations.
# mypy: disable-error-code="no-untyped-def"

from math import sqrt

import numpy as np

from .intrinsics import bits_of, fma, load, of_bits, part, store
from .normals import COS, LN2_TWICE, LOG, MASK, MULTIPLIERS, ROUNDS, SIN, TWO_THIRDS, WEYL

_F = np.float32
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = map(_F, LOG)
_S0, _S1, _S2, _S3 = map(_F, SIN)
_C0, _C1, _C2, _C3 = map(_F, COS)
_LN2, _TINY, _HALF_TINY = _F(-LN2_TWICE), _F(2.0**-32), _F(2.0**-33)
_ONE, _INT = _F(1), np.int32(0)
_M0, _M1 = map(np.uint64, MULTIPLIERS)
_W0, _W1 = map(np.uint64, WEYL)
_MASK, _HIGH = np.uint64(MASK), np.uint64(32)


@part
def philox(seed, sample, interval, stream, block, blocks, radius, angle):
    """The words of as many Philox blocks from ``block`` on, words 0 and 2 of each at the address ``radius``, 1 and 3 at
    ``angle``."""
    key0, key1 = np.uint64(seed) & _MASK, np.uint64(seed) >> _HIGH
    start0, start2, start3 = np.uint64(interval) & _MASK, np.uint64(sample) & _MASK, np.uint64(stream) & _MASK
    for i in range(blocks):
        c0, c1, c2, c3 = start0, np.uint64(block + i), start2, start3
        k0, k1 = key0, key1
        for _ in range(ROUNDS):
            p0, p1 = (c0 & _MASK) * _M0, (c2 & _MASK) * _M1
            c0, c1, c2, c3 = (
                (p1 >> _HIGH) ^ c1 ^ (k0 & _MASK),
                p1 & _MASK,
                (p0 >> _HIGH) ^ c3 ^ (k1 & _MASK),
                p0 & _MASK,
            )
            k0, k1 = k0 + _W0, k1 + _W1
        store(radius, 2 * i, np.uint32(c0))
        store(radius, 2 * i + 1, np.uint32(c2))
        store(angle, 2 * i, np.uint32(c1))
        store(angle, 2 * i + 1, np.uint32(c3))


@part
def box_muller(radius, angle, pairs, z, like):
    """The steps of `normals.box_muller`, on words at two addresses, as signed numbers; into numbers like ``like``."""
    wide = type(like)
    for i in range(pairs):
        w, a = load(radius, i, _INT), load(angle, i, _INT)
        d = fma(_F(w), _TINY, _HALF_TINY)
        bits = bits_of(_ONE + d if d < 0 else d)
        e = np.int32(np.int32(bits - np.int32(TWO_THIRDS)) >> 23)
        m = of_bits(np.int32(bits - np.int32(e << 23)))
        f = d if e == 0 else m - _ONE
        log = fma(fma(fma(fma(f, _L8, _L7), f, _L6), f, _L5), f, _L4)
        log = fma(fma(fma(fma(log, f, _L3), f, _L2), f, _L1), f, _L0)
        r = sqrt(fma(f, log, _F(e) * _LN2))

        t = _F(np.int32(np.int32(a << 2) | 2)) * _F(2.0**-31)
        s = t * t
        sine = t * fma(fma(fma(s, _S3, _S2), s, _S1), s, _S0)
        cosine = fma(fma(fma(s, _C3, _C2), s, _C1), s, _C0)
        cosine = -cosine if a < 0 else cosine
        swap = a & 0x40000000 != 0
        store(z, 2 * i, wide(r * (sine if swap else cosine)))
        store(z, 2 * i + 1, wide(r * (cosine if swap else sine)))


@part
def normals(seed, sample, interval, stream, first, n, tile, work, size, like):
    """Elements ``first`` to ``first + n - 1``, as numbers like ``like``, of ``size`` bytes. Returns where they are: in
    the tile, at its beginning or a little behind it. Tile and ``work`` have room for n such numbers, and 8 more."""
    skipped = first % 4
    blocks = (skipped + n + 3) // 4
    angle = work + 8 * blocks
    philox(seed, sample, interval, stream, first // 4, blocks, work, angle)
    box_muller(work, angle, 2 * blocks, tile, like)
    return tile + size * skipped
