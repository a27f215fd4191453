"""`combine_norm` on a GPU: a kernel over blocks of samples, and one that adds up what the blocks found.

Launched with ``enable_fp_fusion=False``: products and sums are rounded one by one, as the reference rounds them.
"""
# What Triton compiles has no annotations and grows tuples by adding to them.
# mypy: disable-error-code="no-untyped-def, assignment"

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from .combine_triton import WIDE, first_used, on_device
from .table import Table
from .tensors import elements, pieces

BLOCK = 1024


def warps(tensors: Sequence[torch.Tensor]) -> int:
    """As many as make one 128-bit access of the narrowest tensor's part of a block. With 8 fp32 quotients to a thread
    registers spill, as their division is a subroutine."""
    return 4 if min(x.element_size() for x in tensors) == 2 else 8


@triton.jit
def norms_kernel(
    inputs, outputs, table, tolerances, partial, size, blocks,
    USED: tl.constexpr, FIRST: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of one sample: writes its outputs, and to ``partial`` (B, blocks) its sum of squares.

    inputs, outputs: tuples of pointers. table: (R + 3, K), the rows of the outputs and of e, a and b, and
    tolerances: rtol and atol, in the dtype WIDE. size: elements in a sample. USED: (R + 3) x K, which weights are
    not 0. FIRST: the first such of every row, or -1.
    """
    K: tl.constexpr = len(inputs)
    R: tl.constexpr = len(outputs)
    program = tl.program_id(0).to(tl.int64)
    sample, block = program // blocks, program % blocks
    local = block * BLOCK + tl.arange(0, BLOCK)
    inside = local < size
    base = sample * size
    columns = ()
    for j in tl.static_range(K):
        columns = columns + (tl.load(inputs[j] + base + local, mask=inside, other=0.0).to(WIDE),)
    sums = ()
    for r in tl.static_range(R + 3):
        total = tl.zeros((BLOCK,), WIDE)
        for j in tl.static_range(K):
            if j == FIRST[r]:
                total = tl.load(table + r * K + j) * columns[j]
            elif USED[r][j]:
                total = total + tl.load(table + r * K + j) * columns[j]
        sums = sums + (total,)
    for r in tl.static_range(R):
        total = sums[r]
        if outputs[r].dtype.element_ty == tl.float16 or outputs[r].dtype.element_ty == tl.bfloat16:
            total = total.to(tl.float32)  # as torch rounds
        tl.store(outputs[r] + base + local, total.to(outputs[r].dtype.element_ty), mask=inside)
    x, y = tl.abs(sums[R + 1]), tl.abs(sums[R + 2])
    larger = tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)
    scale = tl.load(tolerances + 1) + tl.load(tolerances) * larger
    ratio = (divide(sums[R], scale) + (scale - scale)).to(tl.float64)
    square = tl.where(inside, ratio * ratio, 0.0)
    tl.store(partial + program, tl.sum(square, axis=0))


@triton.jit
def divide(x, y):
    """Rounded to nearest, which ``/`` is not in fp32."""
    if x.dtype == tl.float64:
        quotient = x / y
    else:
        quotient = tl.math.div_rn(x, y)
    return quotient


@triton.jit
def mean_kernel(partial, means, blocks, count, BLOCK: tl.constexpr):
    """One sample: the sum of its partial sums, over ``count`` elements."""
    sample = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, blocks, BLOCK):
        local = first + tl.arange(0, BLOCK)
        total += tl.load(partial + sample * blocks + local, mask=local < blocks, other=0.0)
    tl.store(means + sample, tl.sum(total, axis=0) / tl.cast(count, tl.float64))


def norms_triton(
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[torch.Tensor],
    weights: Table,
    tolerances: tuple[float, float],
    wide: torch.dtype,
) -> torch.Tensor:
    """As `norms_cpu`, on the device of the tensors."""
    device, batch, count = inputs[0].device, len(inputs[0]), elements(inputs[0])
    if not batch * count:
        return torch.zeros(batch, dtype=torch.float64, device=device)
    blocks = pieces(count, BLOCK)
    table, bounds = weights.on(device, wide, ()), on_device(tolerances, wide, device)
    partial = torch.empty(batch * blocks, dtype=torch.float64, device=device)
    means = torch.empty(batch, dtype=torch.float64, device=device)
    used = weights.used(wide)
    norms_kernel[(batch * blocks,)](
        tuple(inputs), tuple(outputs), table, bounds, partial, count, blocks,
        USED=used, FIRST=first_used(used), WIDE=WIDE[wide], BLOCK=BLOCK, num_warps=warps((*inputs, *outputs)),
        enable_fp_fusion=False,
    )  # fmt: skip
    mean_kernel[(batch,)](partial, means, blocks, count, BLOCK=BLOCK, num_warps=4, enable_fp_fusion=False)
    return means.sqrt()
