"""`combine` on a GPU: one Triton kernel, specialised for the number of operands and the columns in use.

Launched with ``enable_fp_fusion=False``: products and sums are rounded one by one, as the reference rounds them.
"""
# What Triton compiles has no annotations and grows tuples by adding to them.
# mypy: disable-error-code="no-untyped-def, assignment"

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .normals import Noise
from .normals_triton import normals
from .table import Table
from .tensors import accumulation_dtype, elements

BLOCK = 1024  # two 128-bit accesses of fp32 per operand and thread
WARPS = 4
WIDE = {torch.float32: tl.float32, torch.float64: tl.float64}


@triton.jit
def combine_kernel(
    inputs, outputs, table, flag, seeds, samples, words, size,
    USED: tl.constexpr, FIRST: tl.constexpr, CHECKED: tl.constexpr, NOISES: tl.constexpr,
    TABLED: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of one sample; where nothing depends on the sample, the batch is one.

    inputs, outputs: tuples of pointers. table: (R, K) or (R, K, size) in the dtype WIDE. flag: set if a checked input
    was not finite. words: interval and stream of every noise. size: elements in a sample.
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
        if outputs[r].dtype.element_ty == tl.float16 or outputs[r].dtype.element_ty == tl.bfloat16:
            total = total.to(tl.float32)  # as torch rounds
        tl.store(outputs[r] + base + local, total.to(outputs[r].dtype.element_ty), mask=inside)


class Launch(NamedTuple):
    """What one combination needs besides its tensors: coefficients and the words of noises on the device, and
    compile-time arguments."""

    table: torch.Tensor
    words: torch.Tensor | None
    constants: dict[str, Any]
    by_sample: bool


def prepare(
    coefs: Table,
    outputs: Sequence[torch.dtype],
    event: Sequence[int],
    device: torch.device,
    checked: int,
    noises: Sequence[tuple[int, int]],
) -> Launch:
    """``event``: the shape of a sample; ``noises``: interval and stream of the columns that the kernel makes. Kept, as
    a copy to the device makes the host wait."""

    def make() -> Launch:
        wide = accumulation_dtype(outputs)
        used = coefs.used(wide)
        first = tuple(row.index(True) if any(row) else -1 for row in used)
        constants = {
            "USED": used, "FIRST": first, "CHECKED": checked, "NOISES": len(noises), "TABLED": coefs.by_element,
            "WIDE": WIDE[wide], "BLOCK": BLOCK,
        }  # fmt: skip
        words = torch.tensor(tuple(noises), dtype=torch.int64, device=device) if noises else None
        return Launch(coefs.on(device, wide, event), words, constants, coefs.by_element or words is not None)

    key = "triton", tuple(outputs), device, checked, tuple(noises), (*event,) if coefs.by_element else None
    return coefs.kept.made(key, make)


def start(
    launch: Launch,
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[torch.Tensor],
    flag: torch.Tensor,
    seeds: torch.Tensor | None = None,
    samples: torch.Tensor | None = None,
) -> None:
    """Run the kernel on tensors laid out densely and alike; nothing is allocated, nothing is waited for.

    flag: bool, set if a checked input was not finite. seeds, samples: for noises.
    """
    x = outputs[0]
    if not x.numel():
        return
    size = elements(x) if launch.by_sample else x.numel()
    blocks = -(-size // BLOCK) * (len(x) if launch.by_sample else 1)  # `triton.cdiv` takes as long as a launch
    others = (launch.table if given is None else given for given in (seeds, samples, launch.words))  # if not read
    combine_kernel[(blocks,)](
        tuple(inputs), tuple(outputs), launch.table, flag, *others, size, **launch.constants, num_warps=WARPS,
        enable_fp_fusion=False,
    )  # fmt: skip


def launch_combine(
    inputs: Sequence[torch.Tensor],
    coefs: Table,
    outputs: Sequence[torch.Tensor],
    checked: int,
    noise: Noise | None,
) -> torch.Tensor:
    """`combine` of tensors that Triton can serve; returns its flag."""
    first, device = outputs[0], outputs[0].device
    columns = noise.columns if noise else ()
    launch = prepare(coefs, [x.dtype for x in outputs], first.shape[1:], device, checked, columns)
    flag = torch.zeros((), dtype=torch.bool, device=device)
    start(launch, inputs, outputs, flag, *((noise.seeds, noise.samples) if noise else ()))
    return flag
