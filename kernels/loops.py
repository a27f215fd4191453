"""The compiled loop of `combine`.

One loop serves every call whose sums are fp32, and one those whose sums are fp64: how many tensors there are, of which
dtypes, and which coefficients are zero are numbers that it reads. It goes from tile to tile. Columns that are not of
the dtype of the sums are converted into tiles of their own, and noise is made there. Products and sums are rounded as
the torch reference rounds them: the results are the same bits.
"""
# What numba compiles has no annotations.
# mypy: disable-error-code="no-untyped-def, call-arg, misc"

from collections import namedtuple

import numpy as np
from numba import njit

from . import tiles
from .intrinsics import GROUP, add_columns, address_of, part, store
from .normals_cpu import normals
from .tiles import INT, TILE, size_of, word

# What a row says, see `combine_cpu.prepare`; count: the number of columns.
Call = namedtuple(
    "Call", "rows inputs noises checked tabled coefs samples again reads kinds writes made uses addresses sums count"
)
# Addresses of what a loop makes for itself: of the columns of a tile, and of those of a sum; by row, which columns it
# uses, with which coefficients, and how many; of tiles, ``step`` bytes from one to the next.
Space = namedtuple("Space", "columns picked names chosen used tiles step")
# Whether sums go to the outputs and not to tiles; whether two are taken at once, and then which is the longer one;
# of how many inputs, the first ones, the first sum tells whether they are finite.
Way = namedtuple("Way", "direct two longer tells")


@part
def call_of(row):
    rows, inputs, noises, again, reads = word(row, 0), word(row, 1), word(row, 2), word(row, 7), row + 64
    writes, count = reads + 16 * inputs, inputs + noises
    made = writes + 8 * (rows + again)
    uses = made + 8 * (rows + again)
    addresses = uses + 8 * rows * count
    return Call(
        rows, inputs, noises, word(row, 3), word(row, 4), word(row, 5), word(row, 6), again, reads, reads + 8 * inputs,
        writes, made, uses, addresses, addresses + 16 * noises, count,
    )  # fmt: skip


@part
def way_of(call, space, wide, size, like):
    """Finds the columns that the sums use."""
    direct = call.tabled == 0
    for r in range(call.rows):
        p, used = r * call.count, 0
        if not call.tabled:
            used = tiles.choose(call.coefs + size * p, call.count, space.names + 8 * p, space.chosen + size * p, like)
        store(space.used, r, INT + used)
        direct = direct and word(call.made, r) == wide
    # Of two rows, of which one begins as the other, both sums are taken at once.
    a = 1 if call.rows == 2 and word(space.used, 1) > word(space.used, 0) else 0
    k, m = word(space.used, a), word(space.used, 1 - a) if call.rows == 2 else 0
    two = direct and m > 0 and k <= GROUP
    two = two and tiles.begins_with(space.names + 8 * a * call.count, space.names + 8 * (1 - a) * call.count, m)
    tells = INT
    while tells < min(call.checked, word(space.used, 0), 2) and word(space.names, tells) == tells:
        tells += 1
    return Way(direct and (call.rows == 1 or two), two, a, tells)


@part
def read_inputs(call, f, lo, n, space, checked, wide, like):
    """The inputs of a tile; whether one of the first ``call.checked``, from ``checked`` on, is not finite."""
    bad = False
    for j in range(call.inputs):
        code = word(call.kinds, j)
        address = word(f, word(call.reads, j)) + lo * size_of(code)
        if code != wide:
            tiles.read(code, address, space.tiles + j * space.step, n, like)
            address = space.tiles + j * space.step
        store(space.columns, j, address)
        if checked <= j < call.checked:
            bad |= tiles.not_finite(address, n, like)
    return bad


@part
def make_noises(call, f, sample, inside, n, space, size, like):
    """The normals of a tile that begins ``inside`` elements behind the beginning of a sample."""
    work = space.tiles + (call.count + call.rows) * space.step
    for j in range(call.noises):
        seed, number = word(word(f, call.samples + 1), sample), word(word(f, call.samples + 2), sample)
        interval, stream = word(call.addresses, 2 * j), word(call.addresses, 2 * j + 1)
        tile = space.tiles + (call.inputs + j) * space.step
        z = normals(seed, number, interval, stream, inside, n, tile, work, size, like)
        store(space.columns, call.inputs + j, z)


@part
def add_two(call, f, lo, n, space, way, size, like):
    """Both sums of a tile; whether one of the columns of which they tell is not finite."""
    a, b = way.longer, 1 - way.longer
    k = word(space.used, a)
    tiles.pick(k, space.names + 8 * a * call.count, space.columns, space.picked)
    places = word(f, word(call.writes, a)) + lo * size, word(f, word(call.writes, b)) + lo * size
    coefs = space.chosen + size * a * call.count, space.chosen + size * b * call.count
    also = INT + (way.tells > 1)
    return add_columns(
        like, k, word(space.used, b), space.picked, coefs[0], coefs[1], INT, places[0], places[1], n, also
    )


@part
def add_rows(call, f, lo, inside, span, n, space, way, size, like):
    """The sums of a tile, one by one; whether one of the columns of which the first tells is not finite."""
    bad, also = False, INT + (way.tells > 1)
    for r in range(call.rows):
        p, own = r * call.count, space.tiles + (call.count + r) * space.step
        if call.tabled:
            start = call.coefs + (p * span + inside) * size
            tiles.add_by_element(call.uses + 8 * p, start, span * size, call.count, space.columns, own, n, like)
        else:
            to, used = word(f, word(call.writes, r)) + lo * size if way.direct else own, word(space.used, r)
            tiles.pick(used, space.names + 8 * p, space.columns, space.picked)
            found = tiles.add_row(used, space.chosen + size * p, space.picked, own, to, n, also, size, like)
            bad |= found and r == 0
    for r in range(0 if way.direct else call.rows):  # when all is read
        code = word(call.made, r)
        to = word(f, word(call.writes, r)) + lo * size_of(code)
        tiles.write(code, space.tiles + (call.count + r) * space.step, to, n, like)
    return bad


@part
def add_again(call, f, lo, n, space, way, size, like):
    """The outputs of a tile that are sums of others: from the tile, or from the output just written."""
    for j in range(call.again):
        r, sum_ = call.rows + j, word(call.sums, j)
        own = space.tiles + (call.count + sum_) * space.step
        done = word(f, word(call.writes, sum_)) + lo * size if way.direct else own
        code = word(call.made, r)
        tiles.write(code, done, word(f, word(call.writes, r)) + lo * size_of(code), n, like)


@njit(inline="always")
def combine(f, row, begin, end, like, wide):
    """The elements from begin to end; returns 1 if a checked input was not finite there, else 0."""
    call, size = call_of(row), size_of(wide)
    span = word(f, call.samples) if call.tabled or call.noises else end
    step = (TILE + 16) * size  # noise needs some elements more
    memory = np.empty((2 + 2 * call.rows) * call.count + 32 + (call.count + call.rows + 1) * step // 8, np.int64)
    at = address_of(memory)
    names = at + 16 * call.count
    chosen = names + 8 * call.rows * call.count
    used = chosen + 8 * call.rows * call.count
    space = Space(at, at + 8 * call.count, names, chosen, used, used + 95 & -64, step)  # tiles begin a cache line
    way = way_of(call, space, wide, size, like)
    bad, lo = False, begin
    while lo < end:
        sample = lo // span
        inside = lo - sample * span
        n = min(TILE, end - lo, span - inside)
        bad |= read_inputs(call, f, lo, n, space, way.tells, wide, like)
        make_noises(call, f, sample, inside, n, space, size, like)
        if way.two:
            found = add_two(call, f, lo, n, space, way, size, like)
        else:
            found = add_rows(call, f, lo, inside, span, n, space, way, size, like)
        add_again(call, f, lo, n, space, way, size, like)
        bad |= found and way.tells > 0
        lo += n
    return INT + bad


def combine_fp32(frame, row, begin, end):
    return combine(frame, row, begin, end, tiles.F32, tiles.FLOAT)


def combine_fp64(frame, row, begin, end):
    return combine(frame, row, begin, end, tiles.F64, tiles.DOUBLE)
