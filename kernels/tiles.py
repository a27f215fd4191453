"""What compiled loops do with a tile: some thousand elements, which stay in the first-level cache.

A tile is told by its address. It holds numbers of the dtype of the sums, fp32 or fp64: those like ``like``.
"""
# What numba compiles has no annotations.
# mypy: disable-error-code="no-untyped-def"

import numpy as np
import torch

from .intrinsics import GROUP, add_columns, bits_of, flagged, load, of_bits, of_half, part, store, to_half

TILE = 1024  # elements
DOUBLE, FLOAT, HALF, BFLOAT = range(4)
CODES = {torch.float64: DOUBLE, torch.float32: FLOAT, torch.float16: HALF, torch.bfloat16: BFLOAT}
F64, F32, U16, INT = np.float64(0), np.float32(0), np.uint16(0), np.int64(0)  # what `load` reads numbers like


@part
def size_of(code):
    return 8 if code == DOUBLE else 4 if code == FLOAT else 2


@part
def word(words, j):
    return load(words, j, INT)


@part
def read(code, source, tile, n, like):
    """``n`` numbers of a dtype at an address, into a tile of numbers like ``like``."""
    wide = type(like)
    if code == DOUBLE:
        for i in range(n):
            store(tile, i, wide(load(source, i, F64)))
    elif code == FLOAT:
        for i in range(n):
            store(tile, i, wide(load(source, i, F32)))
    elif code == HALF:
        for i in range(n):
            store(tile, i, wide(of_half(load(source, i, U16))))
    else:  # the upper half of an fp32 number
        for i in range(n):
            store(tile, i, wide(of_bits(np.int32(np.int32(load(source, i, U16)) << 16))))


@part
def write(code, tile, target, n, like):
    """A tile rounded to a dtype; from fp64 to 16 bits by way of fp32, as torch rounds."""
    if code == DOUBLE:
        for i in range(n):
            store(target, i, np.float64(load(tile, i, like)))
    elif code == FLOAT:
        for i in range(n):
            store(target, i, np.float32(load(tile, i, like)))
    elif code == HALF:
        for i in range(n):
            store(target, i, to_half(np.float32(load(tile, i, like))))
    else:
        for i in range(n):
            x = np.float32(load(tile, i, like))
            bits = np.uint32(bits_of(x))
            rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            store(target, i, np.uint16(rounded if x == x else np.uint32(0x7FC0)))


@part
def not_finite(x, n, like):
    flag = np.int32(0)
    for i in range(n):
        flag = flagged(flag, load(x, i, like))
    return flag < 0


@part
def choose(coefs, count, names, chosen, like):
    """How many of ``count`` coefficients are not 0, which, and their values."""
    used = 0
    for j in range(count):
        c = load(coefs, j, like)
        if c != 0:
            store(names, used, INT + j)
            store(chosen, used, c)
            used += 1
    return used


@part
def begins_with(names, others, count):
    """Whether the first numbers are ``count`` others."""
    same = True
    for j in range(count):
        same = same and word(names, j) == word(others, j)
    return same


@part
def pick(used, names, columns, picked):
    """Lay the chosen columns' addresses side by side."""
    for j in range(used):
        store(picked, j, word(columns, word(names, j)))


@part
def add_row(used, chosen, picked, total, target, n, also, size, like):
    """The sum of ``used`` columns, of any number, over a tile ``total``; whether the first of them is not finite, or,
    where ``also`` is not 0, the second."""
    bad, none = False, INT
    for j in range(0, max(used, 1), GROUP):
        to = target if j + GROUP >= used else total
        begun = total if j else none
        bad |= add_columns(
            like, min(used - j, GROUP), none, picked + 8 * j, chosen + size * j, none, begun, to, none, n, also
        )
    return bad


@part
def add_by_element(uses, coefs, step, count, columns, total, n, like):
    """A row whose coefficients vary; those of column j begin ``step`` bytes behind those of the one before."""
    begun = False
    for j in range(count):
        if word(uses, j):
            c, x = coefs + j * step, word(columns, j)
            if begun:
                for i in range(n):
                    store(total, i, load(total, i, like) + load(c, i, like) * load(x, i, like))
            else:
                for i in range(n):
                    store(total, i, load(c, i, like) * load(x, i, like))
            begun = True
    for i in range(0 if begun else n):
        store(total, i, like)
