"""The compiled loop of `combine`, and the parts that it shares with that of `scan`.

One loop serves every call whose sums are fp32, and one those whose sums are fp64: how many tensors there are, of which
dtypes, and which coefficients are zero are numbers that it reads. It goes over tiles of some thousand elements, which
stay in the first-level cache. Columns that are not of the dtype of the sums are converted into tiles of their own, and
noise is made there. Products and sums are rounded as the torch reference rounds them: the results are the same bits.
"""
# What numba compiles has no annotations.
# mypy: disable-error-code="no-untyped-def"

import numpy as np
import torch
from numba import njit

from .intrinsics import (
    GROUP,
    add_columns,
    address_of,
    beyond,
    bits_of,
    either,
    load,
    of_bits,
    of_half,
    part,
    store,
    to_half,
)  # fmt: skip
from .normals_cpu import normals

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
    found = beyond(like)
    for i in range(n):
        found = either(found, beyond(load(x, i, like)))
    return found < 0


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
def begins_with(names, k, others, m):
    """Whether k numbers begin with m others."""
    same = m <= k
    for j in range(m if same else 0):
        same = same and word(names, j) == word(others, j)
    return same


@part
def pick(used, names, columns, picked):
    """Lay the chosen columns' addresses side by side."""
    for j in range(used):
        store(picked, j, word(columns, word(names, j)))


@part
def add_row(used, chosen, picked, total, target, n, size, like):
    """The sum of ``used`` columns, of any number, over a tile ``total``; whether the first of them is not finite."""
    bad, none = False, INT
    for j in range(0, max(used, 1), GROUP):
        to = target if j + GROUP >= used else total
        begun = total if j else none
        bad |= add_columns(
            like, min(used - j, GROUP), none, picked + 8 * j, chosen + size * j, none, begun, to, none, n
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


@njit(inline="always")
def combine(f, row, begin, end, like, wide):
    """`combine_cpu.prepare` says what is read. Returns 1 if a checked input was not finite, else 0."""
    rows, inputs, noises, checked, tabled = word(row, 0), word(row, 1), word(row, 2), word(row, 3), word(row, 4)
    coefs, samples, reads = word(row, 5), word(row, 6), row + 56
    kinds, writes, made = reads + 8 * inputs, reads + 16 * inputs, reads + 16 * inputs + 8 * rows
    count, size = inputs + noises, size_of(wide)
    uses = made + 8 * rows
    addresses = uses + 8 * rows * count
    span = word(f, samples) if noises or tabled else end

    step = (TILE + 16) * size  # bytes of a tile: noise needs some elements more
    memory = np.empty(2 * count + 2 * rows * count + 32 + (count + rows + 2) * step // 8, np.int64)
    columns = address_of(memory)
    picked, names, chosen = columns + 8 * count, columns + 16 * count, columns + (16 + 8 * rows) * count
    used = chosen + 8 * rows * count
    tile = used + 95 & -64  # a cache line begins there
    direct = not tabled
    for r in range(rows):
        direct = direct and word(made, r) == wide
        p = r * count
        store(used, r, INT + (0 if tabled else choose(coefs + size * p, count, names + 8 * p, chosen + size * p, like)))
    # Of two rows, of which one begins as the other, both sums are taken at once.
    a, b = (1, 0) if rows == 2 and word(used, 1) > word(used, 0) else (0, 1)
    more = word(used, b) if rows == 2 else 0
    two = direct and more > 0 and word(used, a) <= GROUP
    two = two and begins_with(names + 8 * a * count, word(used, a), names + 8 * b * count, more)
    direct = direct and (rows == 1 or two)
    first = word(used, 0) > 0 and word(names, 0) == 0  # whether sums tell if input 0 is finite

    bad, lo = False, begin
    while lo < end:
        sample = lo // span
        inside = lo - sample * span
        n = min(TILE, end - lo, span - inside)
        for j in range(inputs):
            code = word(kinds, j)
            address = word(f, word(reads, j)) + lo * size_of(code)
            if code != wide:
                read(code, address, tile + j * step, n, like)
                address = tile + j * step
            store(columns, j, address)
            if j < checked and (j or not first):
                bad |= not_finite(address, n, like)
        for j in range(noises):
            k = inputs + j
            work, place = tile + (count + rows) * step, tile + k * step
            z = place if wide == FLOAT else work + step
            z = normals(
                word(word(f, samples + 1), sample), word(word(f, samples + 2), sample), word(addresses, 2 * j),
                word(addresses, 2 * j + 1), inside, n, z, work,
            )  # fmt: skip
            if wide == DOUBLE:
                read(FLOAT, z, place, n, like)
                z = place
            store(columns, k, z)
        found, old = False, tile + count * step
        if two:
            pick(word(used, a), names + 8 * a * count, columns, picked)
            found = add_columns(
                like, word(used, a), more, picked, chosen + size * a * count, chosen + size * b * count, INT,
                word(f, word(writes, a)) + lo * size, word(f, word(writes, b)) + lo * size, n,
            )  # fmt: skip
        for r in range(0 if two else rows):
            p, own = r * count, old + r * step
            to = word(f, word(writes, r)) + lo * size if direct else own
            if tabled:
                start = coefs + (p * span + inside) * size
                add_by_element(uses + 8 * p, start, span * size, count, columns, own, n, like)
            else:
                pick(word(used, r), names + 8 * p, columns, picked)
                bad_row = add_row(word(used, r), chosen + size * p, picked, own, to, n, size, like)
                found |= bad_row and r == 0
        bad |= found and first and checked > 0
        for r in range(0 if direct else rows):
            code = word(made, r)
            write(code, old + r * step, word(f, word(writes, r)) + lo * size_of(code), n, like)
        lo += n
    return INT + bad


def combine_fp32(frame, row, begin, end):
    return combine(frame, row, begin, end, F32, FLOAT)


def combine_fp64(frame, row, begin, end):
    return combine(frame, row, begin, end, F64, DOUBLE)
