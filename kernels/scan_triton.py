"""`scan` and `advance` on a GPU: a program carries a block of one sample through all calls, its slots in registers.

The rows of the next call are asked for before those of this call are used, so that a program has something to wait
for while it computes. Every program writes its part of every node's squared change; `_total` adds the parts in a
fixed order.
"""
# What Triton compiles has no annotations and grows tuples by adding to them.
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"

from collections.abc import Sequence
from math import prod

import torch
import triton
import triton.language as tl

from .recurrence import ALWAYS, NEVER, Recurrence

PARTS = 128  # sums of squared changes that are added side by side

_NEVER, _ALWAYS = tl.constexpr(NEVER), tl.constexpr(ALWAYS)


def scan_triton(
    start: torch.Tensor,
    outputs: Sequence[torch.Tensor],
    noises: Sequence[torch.Tensor],
    recurrence: Recurrence,
    first: int,
    nodes: torch.Tensor | None,
    out: torch.Tensor,
    slopes: torch.Tensor | None,
) -> torch.Tensor:
    """Writes the new nodes to ``out`` and returns their change (W, B); without nodes writes the slots instead."""
    window, batch, count = len(outputs[0]), start.shape[1], prod(start.shape[2:])
    size = block(recurrence.slots, start.dtype)
    blocks = -(-count // size)
    partial = torch.empty((window, batch, blocks), dtype=torch.float64, device=start.device)
    change = torch.zeros((window, batch), dtype=torch.float64, device=start.device)
    if not batch * count:
        return change
    table, places = recurrence.table(start.dtype, start.device), recurrence.places(start.device)
    scan_kernel[(batch * blocks,)](
        table, places, start, out, start if nodes is None else nodes, tuple(outputs), tuple(noises), partial,
        start if slopes is None else slopes, first, window, batch * count, count, blocks, batch * blocks,
        PATTERN=recurrence.pattern(start.dtype), SEEN=recurrence.seen, NODES=nodes is not None,
        SLOPES=slopes is not None, BLOCK=size, num_warps=1, enable_fp_fusion=False,
    )  # fmt: skip
    if nodes is not None and window:
        total_kernel[(window * batch,)](partial, change, blocks, PARTS=PARTS, num_warps=1, enable_fp_fusion=False)
    return change


def block(slots: int, dtype: torch.dtype) -> int:
    """Elements to a program of one warp, whose sums over a block need no shared memory: with more, slots, sums and
    the rows asked for do not fit into registers."""
    return 256 if slots * dtype.itemsize <= 16 else 128


@triton.jit(do_not_specialize=["first", "window"])
def scan_kernel(
    table, places, start, out, nodes, outputs, noises, partial, slopes, first, window, stride, count, blocks, parts,
    PATTERN: tl.constexpr, SEEN: tl.constexpr, NODES: tl.constexpr, SLOPES: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of one sample.

    Pointers to contiguous tensors, see `scan`, of rows of ``stride`` elements, samples of ``count``; partial: rows
    of ``parts``, samples of ``blocks``; slopes: rows of as many numbers as there are samples. Offsets within a tensor
    need 64 bits.
    """
    slots: tl.constexpr = len(PATTERN)
    columns: tl.constexpr = len(PATTERN[0])
    models: tl.constexpr = len(outputs)
    program = tl.program_id(0)
    sample, part = program // blocks, program % blocks
    inside = part * BLOCK + tl.arange(0, BLOCK)
    mask = inside < count
    wide = start.dtype.element_ty
    begin = sample.to(tl.int64) * count + inside
    x = ()
    i = begin
    for _ in tl.static_range(slots):
        x = x + (tl.load(start + i, mask=mask, other=0.0),)
        i += stride
    i = begin
    table += first * slots * columns
    places += first + 1
    rows = _rows(outputs, noises, nodes, i, inside < tl.where(window > 0, count, 0), NODES)
    slopes += sample
    change = tl.zeros((BLOCK,), dtype=wide)  # of the node that the call sees
    for k in range(window):
        following = i + stride
        ahead = _rows(outputs, noises, nodes, following, inside < tl.where(k + 1 < window, count, 0), NODES)
        terms = ()
        for j in tl.static_range(models):
            term = rows[j].to(wide)
            if SLOPES:
                term = term + tl.load(slopes) * change
            terms = terms + (term,)
        terms = terms + x
        slopes += parts // blocks
        for j in tl.static_range(models, len(rows) - NODES):
            terms = terms + (rows[j].to(wide),)
        x = ()
        for s in tl.static_range(slots):
            x = x + (_row(table + s * columns, terms, PATTERN, s),)
        table += slots * columns
        if NODES:
            at = tl.load(places + k)
            new = x[SEEN[0]]
            for s in tl.static_range(1, len(SEEN)):
                new = tl.where(at == SEEN[s], x[SEEN[s]], new)
            old = rows[len(rows) - 1]
            stored = _round(new, old.dtype)
            tl.store(out + i, stored, mask=mask)
            change = stored.to(wide) - old.to(wide)
            square = change.to(tl.float64) * change.to(tl.float64)
            tl.store(partial + program, tl.sum(square))
            partial += parts
        rows = ahead
        i = following
    if not NODES:
        i = begin
        for s in tl.static_range(slots):
            tl.store(out + i, x[s], mask=mask)
            i += stride


@triton.jit
def _rows(outputs, noises, nodes, i, mask, NODES: tl.constexpr):
    """What one call reads: outputs, noises, and the old node last."""
    rows = ()
    for j in tl.static_range(len(outputs)):
        rows = rows + (tl.load(outputs[j] + i, mask=mask, other=0.0),)
    for j in tl.static_range(len(noises)):
        rows = rows + (tl.load(noises[j] + i, mask=mask, other=0.0),)
    if NODES:
        rows = rows + (tl.load(nodes + i, mask=mask, other=0.0),)
    return rows


@triton.jit
def _row(coefs, terms, PATTERN: tl.constexpr, ROW: tl.constexpr):
    """Row ROW of the matrix: ``sum_j c_j x_j`` from left to right, without the columns whose coefficient is 0."""
    total = tl.zeros_like(terms[0])
    begun: tl.constexpr = False
    for j in tl.static_range(len(PATTERN[ROW])):
        if PATTERN[ROW][j] != _NEVER:
            c = tl.load(coefs + j)
            if PATTERN[ROW][j] == _ALWAYS:
                total = total + c * terms[j] if begun else c * terms[j]
            else:
                total = tl.where(c != 0, total + c * terms[j], total)
            begun = True
    return total


@triton.jit
def _round(x, dtype: tl.constexpr):
    """As torch rounds: from fp64 to 16 bits by way of fp32."""
    if x.dtype == tl.float64 and dtype.primitive_bitwidth == 16:
        x = x.to(tl.float32)
    return x.to(dtype)


@triton.jit
def total_kernel(partial, change, blocks, PARTS: tl.constexpr):
    """The sum of one row of ``partial``."""
    row = tl.program_id(0)
    lane = tl.arange(0, PARTS)
    total = tl.zeros((PARTS,), dtype=tl.float64)
    for first in range(0, blocks, PARTS):
        at = first + lane
        total += tl.load(partial + row.to(tl.int64) * blocks + at, mask=at < blocks, other=0.0)
    tl.store(change + row, tl.sum(total))
