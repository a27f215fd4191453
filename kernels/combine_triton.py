"""`combine` on a GPU: one Triton kernel, specialised for the number of operands and the columns in use.

Launched with ``enable_fp_fusion=False``: products and sums are rounded one by one, as the reference rounds them.
"""
# What Triton compiles has no annotations and grows tuples by adding to them.
# mypy: disable-error-code="no-untyped-def, assignment"

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl

from .normals import Noise
from .normals_triton import normals
from .table import Table
from .tensors import accumulation_dtype, elements, pieces

BLOCK = 1024  # two 128-bit accesses of fp32 per operand and thread
WARPS = 4
WIDE = {torch.float32: tl.float32, torch.float64: tl.float64}


@triton.jit
def combine_kernel(
    inputs, outputs, table, limits, flag, seeds, samples, words, size,
    USED: tl.constexpr, FIRST: tl.constexpr, CHECKED: tl.constexpr, CLAMPED: tl.constexpr, NOISES: tl.constexpr,
    TABLED: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of one sample; where nothing depends on the sample, the batch is one.

    inputs, outputs: tuples of pointers. table: (R, K) or (R, K, size) in the dtype WIDE, as limits (R,). flag: set
    if a checked input was not finite. words: interval and stream of every noise. size: elements in a sample.
    USED: by output, which columns enter its sum; FIRST: the first of them.
    """
    R: tl.constexpr = len(outputs)
    INPUTS: tl.constexpr = len(inputs)
    K: tl.constexpr = INPUTS + NOISES
    blocks = tl.cdiv(size, BLOCK)
    sample = (tl.program_id(0) // blocks).to(tl.int64)  # one axis: others are limited to 65,535
    first = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK
    local = first + tl.arange(0, BLOCK)
    inside = local < size
    base = sample * size
    columns = ()
    for j in tl.static_range(INPUTS):
        x = tl.load(inputs[j] + base + local, mask=inside, other=0.0).to(WIDE)
        columns = columns + (x,)
        if j < CHECKED:
            bad = tl.max((x - x != 0).to(tl.int32), axis=0)  # x - x is 0 for finite numbers, NaN for others
            tl.store(flag, 1, mask=bad != 0)
    for k in tl.static_range(NOISES):
        interval, stream = tl.load(words + 2 * k), tl.load(words + 2 * k + 1)
        z = normals(tl.load(seeds + sample), tl.load(samples + sample), interval, stream, first, BLOCK)
        columns = columns + (z.to(WIDE),)
    for r in tl.static_range(R):
        total = tl.zeros((BLOCK,), WIDE)
        for j in tl.static_range(K):
            if USED[r][j]:
                if TABLED:
                    c = tl.load(table + (r * K + j) * size + local, mask=inside, other=0.0)
                else:
                    c = tl.load(table + r * K + j)
                if j == FIRST[r]:
                    total = c * columns[j]
                else:
                    total = total + c * columns[j]
        if CLAMPED[r]:
            high = tl.load(limits + r)
            total = tl.where(total < -high, -high, total)
            total = tl.where(total > high, high, total)
        if outputs[r].dtype.element_ty == tl.float16 or outputs[r].dtype.element_ty == tl.bfloat16:
            total = total.to(tl.float32)  # as torch rounds
        tl.store(outputs[r] + base + local, total.to(outputs[r].dtype.element_ty), mask=inside)


def first_used(used: Sequence[Sequence[bool]]) -> tuple[int, ...]:
    """By row, the first column in use, or -1."""
    return tuple(row.index(True) if any(row) else -1 for row in used)


class Launch(NamedTuple):
    """What one combination needs besides its tensors: coefficients on the device and compile-time arguments.

    compiled: kernels for tensors aligned to 16 bytes, by what else Triton specialises for; finding one again takes
    Triton longer than launching it.
    """

    table: torch.Tensor
    constants: dict[str, Any]
    by_sample: bool
    compiled: dict[tuple[Any, ...], Any]

    def grid(self, x: torch.Tensor) -> tuple[int, int]:
        """For tensors like ``x``: the elements that the kernel counts as one sample, and its number of blocks."""
        size = elements(x) if self.by_sample else x.numel()
        return size, pieces(size, BLOCK) * (len(x) if self.by_sample else 1)


def prepare(
    coefs: Table,
    outputs: Sequence[torch.dtype],
    event: Sequence[int],
    device: torch.device,
    checked: int,
    noises: int,
    clamped: Sequence[bool] | None = None,
) -> Launch:
    """``event``: the shape of a sample; ``noises``: how many columns the kernel makes."""
    wide = accumulation_dtype(outputs)
    used = coefs.used(wide)
    constants = {
        "USED": used,
        "FIRST": first_used(used),
        "CHECKED": checked,
        "CLAMPED": tuple(clamped or (False,) * len(used)),
        "NOISES": noises,
        "TABLED": coefs.by_element,
        "WIDE": WIDE[wide],
        "BLOCK": BLOCK,
    }
    return Launch(coefs.on(device, wide, event), constants, coefs.by_element or noises > 0, {})


def start(
    launch: Launch,
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[torch.Tensor],
    flag: torch.Tensor,
    limits: torch.Tensor | None = None,
    seeds: torch.Tensor | None = None,
    samples: torch.Tensor | None = None,
    words: torch.Tensor | None = None,
) -> Any:
    """Run the kernel on tensors laid out densely and alike; nothing is allocated, nothing is waited for. Returns what
    Triton compiled if that serves all tensors of these dtypes and sizes that are aligned to 16 bytes, else None.

    flag: bool, set if a checked input was not finite. limits: (R,) in the accumulation dtype. seeds, samples,
    words: for noises; words (noises, 2), int64, are their intervals and streams.
    """
    if not outputs[0].numel():
        return None
    size, blocks = launch.grid(outputs[0])
    unused = launch.table  # where the kernel reads nothing
    others = tuple(unused if x is None else x for x in (limits, flag, seeds, samples, words))
    given = (tuple(inputs), tuple(outputs), launch.table, *others, size)
    grid = (blocks, 1, 1)
    aligned = not any(x.data_ptr() % 16 for x in (*inputs, *outputs, *others))
    key = size, *(x.dtype for x in inputs), *(x.dtype for x in outputs)
    if aligned and (known := launch.compiled.get(key)) is not None:
        known[grid](*given, *launch.constants.values())
        return known
    kernel = combine_kernel[grid](*given, **launch.constants, num_warps=WARPS, enable_fp_fusion=False)
    if not aligned or kernel is None:  # the interpreter has none
        return None
    launch.compiled[key] = kernel
    return kernel


def launch_combine(
    inputs: Sequence[torch.Tensor],
    coefs: Table,
    outputs: Sequence[torch.Tensor],
    checked: int,
    noise: Noise | None,
    limits: Sequence[float] | None,
) -> torch.Tensor:
    """`combine` of tensors that Triton can serve; returns its flag."""
    first, device = outputs[0], outputs[0].device
    kinds, event = tuple(x.dtype for x in outputs), first.shape[1:]
    clamped = None if limits is None else tuple(bound != np.inf for bound in limits)
    noises = len(noise.columns) if noise else 0
    key = "triton", kinds, device, checked, noises, clamped, event if coefs.by_element else None
    if key not in coefs.kept:
        coefs.kept[key] = prepare(coefs, kinds, event, device, checked, noises, clamped)
    flag = torch.zeros((), dtype=torch.bool, device=device)
    bounds = None if limits is None else on_device(tuple(limits), accumulation_dtype(kinds), device)
    words = on_device(noise.columns, torch.int64, device) if noise else None
    seeds, samples = (noise.seeds, noise.samples) if noise else (None, None)
    start(coefs.kept[key], inputs, outputs, flag, bounds, seeds, samples, words)
    return flag


@lru_cache(maxsize=1024)  # a copy to the device makes the host wait
def on_device(numbers: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What the kernel reads: limits, or the intervals and streams of noises."""
    return torch.tensor(numbers, dtype=dtype, device=device)
