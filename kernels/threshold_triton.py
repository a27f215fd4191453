"""The passes of `dynamic_threshold` on a GPU: order statistics by histograms of bits, and clipping."""
# What Triton compiles has no annotations.
# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl

from .norms_triton import divide
from .tensors import elements, pieces

DIGIT = 8  # bits of a pass: a warp's histogram of 256 bins takes few registers
BLOCK, WARPS = 1024, 4
MOST, PROGRAMS = 16, 1024  # blocks of a program, which adds to memory once; fewer where too few programs would run

PREFIX, BELOW, BEFORE, LARGEST, WORDS = (tl.constexpr(k) for k in range(5))  # what a sample's memory begins with


@triton.jit
def count_kernel(
    bits, memory, size, spans, span, shift,
    WIDTH: tl.constexpr, ROW: tl.constexpr, SIGN: tl.constexpr, KEY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One span of one sample; see `order_statistics`. SIGN: all bits of a number but its sign. KEY: the integers to
    compute with, int32 or int64."""
    BINS: tl.constexpr = 1 << WIDTH
    NONE: tl.constexpr = 0x7FFFFFFFFFFFFFFF  # no bits are as large
    program = tl.program_id(0).to(tl.int64)
    sample, start = program // spans, program % spans * span
    memory += sample * ROW
    wanted = tl.load(memory + PREFIX).to(KEY)
    found = tl.zeros((BINS,), tl.int32)
    low, high = tl.full((BLOCK,), SIGN, KEY), tl.zeros((BLOCK,), KEY)
    others = tl.zeros((BLOCK,), tl.int32)
    for first in range(start, tl.minimum(start + span, size), BLOCK):
        local = first + tl.arange(0, BLOCK)
        inside = local < size
        key = tl.load(bits + sample * size + local, mask=inside, other=0).to(KEY) & SIGN
        leading = key >> (shift + WIDTH)
        matches = inside & (leading == wanted)
        found += tl.histogram(tl.where(matches, (key >> shift) & (BINS - 1), 0).to(tl.int32), BINS)
        others += 1 - matches.to(tl.int32)  # which were counted as 0
        low = tl.where(inside & (leading > wanted), tl.minimum(low, key), low)
        high = tl.maximum(high, key)
    i = tl.arange(0, BINS)
    found -= tl.where(i == 0, tl.sum(others, axis=0), 0)
    # Integer additions in any order give the same sum.
    tl.atomic_add(memory + WORDS + i, found.to(tl.int64), mask=found > 0)
    tl.atomic_max(memory + BEFORE, NONE - tl.min(low, axis=0).to(tl.int64))
    tl.atomic_max(memory + LARGEST, tl.max(high, axis=0).to(tl.int64))


@triton.jit(do_not_specialize=["k"])
def digit_kernel(memory, pair, k, WIDTH: tl.constexpr, ROW: tl.constexpr, INFINITE: tl.constexpr, LAST: tl.constexpr):
    """One sample: the next digit of the k-th value, and counts of 0 for the next pass. After the last digit: the bits
    of the k-th and of the next value, to ``pair`` (B, 2)."""
    BINS: tl.constexpr = 1 << WIDTH
    NONE: tl.constexpr = 0x7FFFFFFFFFFFFFFF  # no bits are as large
    sample = tl.program_id(0).to(tl.int64)
    memory += sample * ROW
    i = tl.arange(0, BINS)
    counts = tl.load(memory + WORDS + i)
    tl.store(memory + WORDS + i, tl.zeros_like(counts))
    prefix, below = tl.load(memory + PREFIX) << WIDTH, tl.load(memory + BELOW)
    total, rank = tl.cumsum(counts, axis=0), k - below
    digit = tl.sum((total <= rank).to(tl.int64), axis=0)
    if LAST:
        following = tl.sum((total <= rank + 1).to(tl.int64), axis=0)
        above, largest = NONE - tl.load(memory + BEFORE), tl.load(memory + LARGEST)
        other = tl.where(above > largest, prefix + digit, above)  # of another prefix, if there is a next value
        high = tl.where(following < BINS, prefix + following, other)
        nan = largest > INFINITE  # the bits above it are NaNs
        tl.store(pair + 2 * sample, tl.where(nan, largest, prefix + digit).to(pair.dtype.element_ty))
        tl.store(pair + 2 * sample + 1, tl.where(nan, largest, high).to(pair.dtype.element_ty))
    else:
        tl.store(memory + PREFIX, prefix + digit)
        tl.store(memory + BELOW, below + tl.sum(tl.where(i < digit, counts, 0), axis=0))


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


def order_statistics(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As `threshold.order_statistics_reference`, by bits, see `threshold`: a kernel counts digits, one finds the next.

    Of every sample memory holds the ``prefix``, the leading bits of its k-th value that are known, how many values
    have a smaller one (below), NONE less the least bits with a greater one (before), the largest bits, and
    how many values that have this prefix continue with which digit.
    """
    size, count = x.element_size(), elements(x)
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    infinite = int(torch.full((), torch.inf, dtype=x.dtype).view(kind))
    row = WORDS.value + (1 << DIGIT)
    memory = torch.zeros(len(x), row, dtype=torch.int64, device=x.device)
    pair = torch.empty(len(x), 2, dtype=kind, device=x.device)
    span = BLOCK * min(MOST, pieces(x.numel(), BLOCK * PROGRAMS))
    spans, shift = pieces(count, span), 8 * size - 1
    while shift:
        width = min(DIGIT, shift)
        shift -= width
        count_kernel[(len(x) * spans,)](
            x.view(kind), memory, count, spans, span, shift, WIDTH=width, ROW=row, SIGN=(1 << 8 * size - 1) - 1,
            KEY=tl.int64 if size == 8 else tl.int32, BLOCK=BLOCK, num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
        digit_kernel[(len(x),)](
            memory, pair, k, WIDTH=width, ROW=row, INFINITE=infinite, LAST=shift == 0, num_warps=WARPS
        )
    low, high = pair.view(x.dtype).unbind(1)
    return low, high


def clip(x: torch.Tensor, s: torch.Tensor, factor: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    blocks = pieces(elements(x), BLOCK)
    if x.numel():
        clip_kernel[(len(x) * blocks,)](
            x, out, s, factor, elements(x), blocks, BLOCK=BLOCK, num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return out
