"""The normals of `normals.py` for Triton kernels, made in registers.

A kernel that calls these must be launched with ``enable_fp_fusion=False``: Triton otherwise contracts products
and sums into fused multiply-adds, which changes the last bits.
"""
# What Triton compiles has no annotations.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

from .normals import COS, LN2_TWICE, LOG, SIN, TWO_THIRDS

_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = map(tl.constexpr, LOG)
_S0, _S1, _S2, _S3 = map(tl.constexpr, SIN)
_C0, _C1, _C2, _C3 = map(tl.constexpr, COS)
_LN2_TWICE, _TWO_THIRDS = tl.constexpr(LN2_TWICE), tl.constexpr(TWO_THIRDS)
_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def normals(seed, sample, interval, stream, first, COUNT: tl.constexpr):
    """Elements ``first`` to ``first + COUNT - 1`` of one sample, fp32 (COUNT,); ``first`` and ``COUNT`` are
    multiples of 4. ``seed`` is an int64 scalar, the rest of the address int32 or int64 scalars."""
    blocks = first // 4 + tl.arange(0, COUNT // 4)
    key, word = seed.to(tl.uint64, bitcast=True), tl.zeros_like(blocks).to(tl.uint32)
    w0, w1, w2, w3 = tl.random.philox_impl(
        word + interval.to(tl.uint32),
        blocks.to(tl.uint32),
        word + sample.to(tl.uint32),
        word + stream.to(tl.uint32),
        (key & 0xFFFFFFFF).to(tl.uint32),
        (key >> 32).to(tl.uint32),
    )
    z0, z1 = _box_muller(w0, w1)
    z2, z3 = _box_muller(w2, w3)
    # Element 4 i + 2 j + k is z[2 j + k] of block i: four elements stay in the thread that made them.
    return tl.reshape(tl.join(tl.join(z0, z2), tl.join(z1, z3)), (COUNT,))


@triton.jit
def _box_muller(radius, angle):
    """The steps of `normals.box_muller`, on uint32 words."""
    w, a = radius.to(tl.int32, bitcast=True), angle.to(tl.int32, bitcast=True)
    d = w.to(tl.float32) * 2.0**-32 + 2.0**-33
    bits = tl.where(d < 0, 1.0 + d, d).to(tl.int32, bitcast=True)
    e = (bits - _TWO_THIRDS) >> 23
    m = (bits - (e << 23)).to(tl.float32, bitcast=True)
    f = tl.where(e == 0, d, m - 1.0)
    log = _fma(_fma(_fma(_fma(f, _L8, _L7), f, _L6), f, _L5), f, _L4)
    log = _fma(_fma(_fma(_fma(log, f, _L3), f, _L2), f, _L1), f, _L0)
    r = tl.sqrt_rn(_fma(f, log, e.to(tl.float32) * -_LN2_TWICE))

    t = ((a << 2) | 2).to(tl.float32) * 2.0**-31
    z = t * t
    sine = t * _fma(_fma(_fma(z, _S3, _S2), z, _S1), z, _S0)
    cosine = _fma(_fma(_fma(z, _C3, _C2), z, _C1), z, _C0)
    cosine = tl.where(a < 0, -cosine, cosine)
    swap = (a & (1 << 30)) != 0
    return r * tl.where(swap, sine, cosine), r * tl.where(swap, cosine, sine)


@triton.jit
def _fma(x, y, z):
    """One rounding. The interpreter's own would make two; in fp64 they differ from one in 1 of 2^29 results."""
    if _INTERPRETED:
        return (x.to(tl.float64) * y + z).to(tl.float32)
    else:
        return tl.fma(x, y, z)
