"""`scan` and `advance` on the CPU: one compiled loop over pieces of about a page.

A piece is a chunk of a sample, or as many whole samples as fit into one. All calls are carried out for a piece before
the next is begun: its slots stay in the first-level cache, and every tensor is read or written a page at a time. All
that is read of a piece is read before it is written, so the new nodes may take the place of the old.
"""
# What numba compiles has no annotations.
# mypy: disable-error-code="no-untyped-def"

from array import array
from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from numba import njit

from .compiled import compiled
from .intrinsics import address_of, load, part, store
from .loops import CODES, DOUBLE, F32, F64, FLOAT, INT, TILE, add_row, choose, pick, read, size_of, word, write
from .pool import launch
from .recurrence import Recurrence
from .sums import CHUNK, STRANDS, by_halves, power_of_two

assert CHUNK == TILE


def scan_cpu(
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
    chunks, group = -(-count // CHUNK), max(CHUNK // max(count, 1), 1)
    if slopes is not None:
        group = 1  # each sample has its own
    partial = np.zeros((window, batch, power_of_two(chunks)))
    table = recurrence.table(start.dtype, start.device)[first:]
    places = recurrence.places(start.device)[first + 1 :]
    given = [None if x is None else x.data_ptr() for x in (table, places, start, out, nodes, slopes)]
    frame = array("q", [partial.ctypes.data, *(address or 0 for address in given)])
    frame.extend([x.data_ptr() for x in (*outputs, *noises)])
    row = array("q", [window, batch, count, chunks, group, partial.shape[2], len(start), len(outputs), len(noises)])
    row.extend(
        [nodes is not None, slopes is not None, CODES[out.dtype], *(CODES[x.dtype] for x in (*outputs, *noises))]
    )
    if batch and count:
        moved = window * sum(x.element_size() for x in (*outputs, *noises, *([] if nodes is None else [nodes, out])))
        size, pieces = min(CHUNK, batch * count) * moved, -(-batch // group) * chunks
        loop = compiled(scan_fp64 if start.dtype is torch.float64 else scan_fp32)
        launch(loop, frame.buffer_info()[0], row.buffer_info()[0], pieces, size, multiple=1)
    return torch.from_numpy(by_halves(partial))


@part
def sum_strands(squares, n, total):
    """The sum of fp64 numbers in the order of `sums.sum_squares`; ``total`` has room for the strands."""
    for j in range(STRANDS):
        store(total, j, F64)
    whole = n - n % STRANDS
    for i in range(0, whole, STRANDS):
        for j in range(STRANDS):
            store(total, j, load(total, j, F64) + load(squares, i + j, F64))
    for i in range(whole, n):
        store(total, i - whole, load(total, i - whole, F64) + load(squares, i, F64))
    half = STRANDS // 2
    while half:
        for j in range(half):
            store(total, j, load(total, j, F64) + load(total, half + j, F64))
        half //= 2
    return load(total, 0, F64)


@part
def compare(new, old, change, squares, n, like):
    """The change of a node, and its squares."""
    for i in range(n):
        d = load(new, i, like) - load(old, i, like)
        store(change, i, d)
        store(squares, i, np.float64(d) * np.float64(d))


@part
def follow(answers, slope, change, n, like):
    for i in range(n):
        store(answers, i, load(answers, i, like) + slope * load(change, i, like))


@njit(inline="always")
def scan(f, row, begin, end, like, wide):
    """Pieces from begin to end, those of the first samples first; `scan_cpu` says what is read. Returns 0."""
    window, batch, elements, chunks, group, width = (
        word(row, 0), word(row, 1), word(row, 2), word(row, 3), word(row, 4), word(row, 5),
    )  # fmt: skip
    slots, models, noises, nodes, slopes, node = (
        word(row, 6), word(row, 7), word(row, 8), word(row, 9), word(row, 10), word(row, 11),
    )  # fmt: skip
    count, size, stride = models + slots + noises, size_of(wide), batch * elements
    step = TILE * size
    memory = np.empty(4 * count + STRANDS + 32 + TILE + (count + slots + 4) * step // 8, np.int64)
    columns = address_of(memory)
    picked, names, chosen = columns + 8 * count, columns + 16 * count, columns + 24 * count
    total = columns + 32 * count
    squares = total + 8 * STRANDS + 63 & -64
    tile = squares + 8 * TILE
    now, then, spare = tile, tile + slots * step, tile + 2 * slots * step  # slots before and after a call
    change, old, stored = spare, spare + step, spare + 2 * step
    terms = spare + 3 * step  # outputs and noises in the dtype of the slots

    for piece in range(begin, end):
        several = piece // chunks
        chunk, sample = piece - several * chunks, several * group
        offset = chunk * TILE
        samples = min(group, batch - sample)
        n = min(TILE, samples * elements - offset)
        base = sample * elements + offset
        for s in range(slots):
            read(wide, word(f, 3) + (base + stride * s) * size, now + s * step, n, like)
        for i in range(n if slopes else 0):
            store(change, i, like)
        for k in range(window):
            place = base + stride * k
            for j in range(models + noises):
                code, address = word(row, 12 + j), word(f, 7 + j)
                address += place * size_of(code)
                if code != wide or (slopes and j < models):
                    read(code, address, terms + j * step, n, like)
                    address = terms + j * step
                if slopes and j < models:
                    follow(address, load(word(f, 6), k * batch + sample, like), change, n, like)
                store(columns, j if j < models else j + slots, address)
            for s in range(slots):
                store(columns, models + s, now + s * step)
            matrix = word(f, 1) + k * slots * count * size
            for s in range(slots):
                used = choose(matrix + s * count * size, count, names, chosen, like)
                pick(used, names, columns, picked)
                new = then + s * step
                add_row(used, chosen, picked, new, new, n, size, like)
            now, then = then, now
            if nodes:
                where = place * size_of(node)
                read(node, word(f, 5) + where, old, n, like)
                seen = now + word(word(f, 2), k) * step
                write(node, seen, word(f, 4) + where, n, like)
                if node != wide:
                    read(node, word(f, 4) + where, stored, n, like)
                    seen = stored
                compare(seen, old, change, squares, n, like)
                each = min(elements, n)
                for j in range(samples):
                    found = sum_strands(squares + 8 * j * each, each, total)
                    store(word(f, 0), (k * batch + sample + j) * width + chunk, found)
        for s in range(0 if nodes else slots):
            write(wide, now + s * step, word(f, 4) + (base + stride * s) * size, n, like)
    return INT


def scan_fp32(frame, row, begin, end):
    return scan(frame, row, begin, end, F32, FLOAT)


def scan_fp64(frame, row, begin, end):
    return scan(frame, row, begin, end, F64, DOUBLE)
