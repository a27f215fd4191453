"""The passes of `dynamic_threshold` on a GPU: histograms of bits, and clipping."""
# What Triton compiles has no annotations.
# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl

from .norms_triton import divide
from .tensors import elements

DIGIT = 8  # bits of a pass: a warp's histogram of 256 bins takes few registers
BLOCK = 1024
SPAN = 16 * BLOCK  # elements of a program, which adds to the histogram in memory once
WARPS = 4


@triton.jit
def count_kernel(
    bits, prefix, counts, above, largest, size, spans, shift,
    WIDTH: tl.constexpr, SIGN: tl.constexpr, KEY: tl.constexpr, BLOCK: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """One span of one sample; see `threshold._order_statistics`. SIGN: all bits of a number but its sign. KEY: the
    integers to compute with, int32 or int64."""
    BINS: tl.constexpr = 1 << WIDTH
    NONE: tl.constexpr = 0x7FFFFFFFFFFFFFFF  # no bits are as large
    program = tl.program_id(0).to(tl.int64)
    sample, start = program // spans, program % spans * SPAN
    wanted = tl.load(prefix + sample)
    found = tl.zeros((BINS,), tl.int32)
    low, high = tl.full((), NONE, tl.int64), tl.full((), 0, tl.int64)
    for first in range(start, tl.minimum(start + SPAN, size), BLOCK):
        local = first + tl.arange(0, BLOCK)
        inside = local < size
        key = tl.load(bits + sample * size + local, mask=inside, other=0).to(KEY) & SIGN
        leading = (key >> (shift + WIDTH)).to(tl.int64)
        matches = inside & (leading == wanted)
        digit = ((key >> shift) & (BINS - 1)).to(tl.int32)
        found += tl.histogram(tl.where(matches, digit, 0), BINS)
        # What does not match was counted as 0.
        others = BLOCK - tl.sum(matches.to(tl.int32), axis=0)
        found -= tl.where(tl.arange(0, BINS) == 0, others, 0)
        low = tl.minimum(low, tl.min(tl.where(inside & (leading > wanted), key.to(tl.int64), NONE), axis=0))
        high = tl.maximum(high, tl.max(key, axis=0).to(tl.int64))
    # Integer additions in any order give the same sum.
    tl.atomic_add(counts + sample * BINS + tl.arange(0, BINS), found.to(tl.int64), mask=found > 0)
    tl.atomic_min(above + sample, low)
    tl.atomic_max(largest + sample, high)


@triton.jit
def clip_kernel(x, out, bounds, factors, size, blocks, BLOCK: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    sample, block = program // blocks, program % blocks
    local = block * BLOCK + tl.arange(0, BLOCK)
    inside = local < size
    bound, factor = tl.load(bounds + sample), tl.load(factors + sample)
    value = tl.load(x + sample * size + local, mask=inside, other=0.0).to(bound.dtype)
    # Comparisons with a NaN are false: it stays.
    value = tl.where(value > bound, bound, value)
    value = tl.where(value < -bound, -bound, value)
    value = divide(value, factor)
    tl.store(out + sample * size + local, value.to(out.dtype.element_ty), mask=inside)


def count(
    bits: torch.Tensor,
    shift: int,
    width: int,
    prefix: torch.Tensor,
    counts: torch.Tensor,
    above: torch.Tensor,
    largest: torch.Tensor,
) -> None:
    """One pass of `threshold._order_statistics`."""
    spans, size = triton.cdiv(elements(bits), SPAN), bits.element_size()
    count_kernel[(len(bits) * spans,)](
        bits, prefix, counts, above, largest, elements(bits), spans, shift, WIDTH=width, SIGN=(1 << 8 * size - 1) - 1,
        KEY=tl.int64 if size == 8 else tl.int32, BLOCK=BLOCK, SPAN=SPAN, num_warps=WARPS, enable_fp_fusion=False,
    )  # fmt: skip


def clip(x: torch.Tensor, s: torch.Tensor, factor: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    blocks = triton.cdiv(elements(x), BLOCK)
    if x.numel():
        clip_kernel[(len(x) * blocks,)](
            x, out, s, factor, elements(x), blocks, BLOCK=BLOCK, num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return out
