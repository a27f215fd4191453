"""`scan` and `advance` on the CPU: one compiled loop over pieces of about a page.

A piece is a chunk of a sample, or as many whole samples as fit into one. All calls are carried out for a piece before
the next is begun: its slots stay in the first-level cache, and every tensor is read or written a page at a time. All
that is read of a piece is read before it is written, so the new nodes may take the place of the old.
"""
# What numba compiles has no annotations.
# mypy: disable-error-code="no-untyped-def"

from array import array
from collections import namedtuple
from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from numba import njit

from . import tiles
from .compiled import compiled
from .intrinsics import address_of, load, part, store
from .pool import launch
from .recurrence import Recurrence
from .sums import CHUNK, STRANDS, by_halves, power_of_two
from .tiles import CODES, F64, INT, TILE, size_of, word

assert CHUNK == TILE

# The words of a row, and the number of columns.
Row = namedtuple("Row", "window batch elements chunks group width slots models noises nodes slopes node count")
# Addresses of what a loop makes for itself: as those of `loops.Space`; what the sum of squares needs; the change of a
# node, its old and its stored values; outputs and noises in the dtype of the slots; ``step`` bytes from tile to tile.
Space = namedtuple("Space", "columns picked names chosen total squares change old stored terms step")


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
def row_of(row):
    slots, models, noises = word(row, 6), word(row, 7), word(row, 8)
    return Row(
        word(row, 0), word(row, 1), word(row, 2), word(row, 3), word(row, 4), word(row, 5), slots, models, noises,
        word(row, 9), word(row, 10), word(row, 11), slots + models + noises,
    )  # fmt: skip


@part
def update(row, kinds, f, k, sample, place, n, now, then, space, wide, size, like):
    """Call k of a piece, ``place`` elements behind the beginnings of its tensors: the slots ``then`` of ``now``."""
    for j in range(row.models + row.noises):
        code, follows = word(kinds, j), row.slopes and j < row.models
        address, tile = word(f, 7 + j) + place * size_of(code), space.terms + j * space.step
        if code != wide or follows:
            tiles.read(code, address, tile, n, like)
            address = tile
        if follows:
            slope = load(word(f, 6), k * row.batch + sample, like)
            for i in range(n):
                store(tile, i, load(tile, i, like) + slope * load(space.change, i, like))
        store(space.columns, j if j < row.models else j + row.slots, address)
    for s in range(row.slots):
        store(space.columns, row.models + s, now + s * space.step)
    for s in range(row.slots):
        coefs, new = word(f, 1) + (k * row.slots + s) * row.count * size, then + s * space.step
        used = tiles.choose(coefs, row.count, space.names, space.chosen, like)
        tiles.pick(used, space.names, space.columns, space.picked)
        tiles.add_row(used, space.chosen, space.picked, new, new, n, tiles.INT, size, like)


@part
def see(row, f, k, place, n, slots, space, wide, like):
    """Write the node that call k makes; its change, and the squares of that."""
    at, new = place * size_of(row.node), slots + word(word(f, 2), k) * space.step
    tiles.read(row.node, word(f, 5) + at, space.old, n, like)
    tiles.write(row.node, new, word(f, 4) + at, n, like)
    if row.node != wide:
        tiles.read(row.node, word(f, 4) + at, space.stored, n, like)
        new = space.stored
    for i in range(n):
        d = load(new, i, like) - load(space.old, i, like)
        store(space.change, i, d)
        store(space.squares, i, np.float64(d) * np.float64(d))


@njit(inline="always")
def scan(f, words, begin, end, like, wide):
    """Pieces from begin to end, those of the first samples first; `scan_cpu` says what is read. Returns 0."""
    row, size = row_of(words), size_of(wide)
    stride, step = row.batch * row.elements, TILE * size
    memory = np.empty(4 * row.count + STRANDS + 32 + TILE + (row.count + row.slots + 4) * step // 8, np.int64)
    at = address_of(memory)
    total = at + 32 * row.count
    squares = total + 8 * STRANDS + 63 & -64  # a cache line begins there
    now, then = squares + 8 * TILE, squares + 8 * TILE + row.slots * step  # slots before and after a call
    old = then + row.slots * step
    space = Space(
        at, at + 8 * row.count, at + 16 * row.count, at + 24 * row.count, total, squares, old + step, old,
        old + 2 * step, old + 3 * step, step,
    )  # fmt: skip
    for piece in range(begin, end):
        sample = piece // row.chunks * row.group
        chunk, samples = piece % row.chunks, min(row.group, row.batch - sample)
        base, n = sample * row.elements + chunk * TILE, min(TILE, samples * row.elements - chunk * TILE)
        for s in range(row.slots):
            tiles.read(wide, word(f, 3) + (base + stride * s) * size, now + s * step, n, like)
        for i in range(n):
            store(space.change, i, like)
        for k in range(row.window):
            place, each = base + stride * k, min(row.elements, n)
            update(row, words + 96, f, k, sample, place, n, now, then, space, wide, size, like)
            now, then = then, now
            if row.nodes:
                see(row, f, k, place, n, now, space, wide, like)
                for j in range(samples):
                    found = sum_strands(squares + 8 * j * each, each, total)
                    store(word(f, 0), (k * row.batch + sample + j) * row.width + chunk, found)
        for s in range(0 if row.nodes else row.slots):
            tiles.write(wide, now + s * step, word(f, 4) + (base + stride * s) * size, n, like)
    return INT


def scan_fp32(frame, row, begin, end):
    return scan(frame, row, begin, end, tiles.F32, tiles.FLOAT)


def scan_fp64(frame, row, begin, end):
    return scan(frame, row, begin, end, tiles.F64, tiles.DOUBLE)
