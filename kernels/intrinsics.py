"""What Python does not say to numba: memory by its address, the bits of numbers, one rounding for two operations, and
a loop whose places do not depend on each other.

These few functions write LLVM's instructions. All else that is compiled for the CPU is ordinary Python.
"""
# numba gives its intrinsics the types of their arguments, and what LLVM writes has no annotations.
# mypy: disable-error-code="no-untyped-def, call-arg, misc"

from functools import reduce
from typing import Any

from llvmlite import ir
from llvmlite.ir.values import MDValue
from numba import njit, types
from numba.extending import intrinsic

GROUP = 6  # columns that `add_columns` adds at a time: as many as an Adams method of order 4 reads with guidance
FLOAT, DOUBLE, HALF = ir.FloatType(), ir.DoubleType(), ir.HalfType()
I16, I32, I64 = (ir.IntType(bits) for bits in (16, 32, 64))
# By dtype of the sums: numbers, integers as wide, and the bits of the exponent with the lowest of them.
KINDS: dict[Any, Any] = {
    types.float32: (FLOAT, I32, types.int32, 0x7F800000, 1 << 23),
    types.float64: (DOUBLE, I64, types.int64, 0x7FF << 52, 1 << 52),
}

# Without what Python would need to call them: for functions that only compiled functions call.
part = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)


def conversion(result: Any, write: Any) -> Any:
    """An intrinsic of one number; ``write(builder, value)`` makes a ``result`` of it."""

    @intrinsic
    def convert(typing, x):
        return result(x), lambda context, b, _, given: write(b, given[0])

    return convert


bits_of = conversion(types.int32, lambda b, x: b.bitcast(x, I32))  # of an fp32 number
of_bits = conversion(types.float32, lambda b, x: b.bitcast(x, FLOAT))
of_half = conversion(types.float32, lambda b, x: b.fpext(b.bitcast(x, HALF), FLOAT))  # an fp16 number as its bits
to_half = conversion(types.uint16, lambda b, x: b.bitcast(b.fptrunc(x, HALF), I16))


@intrinsic
def load(typing, address, i, like):
    """Number i of those like ``like`` that begin at an address."""

    def emit(context, b, _, given):
        at = b.inttoptr(given[0], context.get_value_type(like).as_pointer())
        return b.load(b.gep(at, [given[1]]))

    return like(types.int64, types.int64, like), emit


@intrinsic
def store(typing, address, i, x):
    """Write a number i places behind an address."""

    def emit(context, b, _, given):
        b.store(given[2], b.gep(b.inttoptr(given[0], given[2].type.as_pointer()), [given[1]]))

    return types.void(types.int64, types.int64, x), emit


@intrinsic
def address_of(typing, array):
    """Where an array begins."""

    def emit(context, b, _, given):
        return b.ptrtoint(context.make_array(array)(context, b, given[0]).data, I64)

    return types.int64(array), emit


@intrinsic
def fma(typing, x, y, z):
    """``x y + z`` of fp32 numbers, rounded once."""
    return types.float32(x, y, z), lambda context, b, _, given: b.fma(*given)


@intrinsic
def flagged(typing, flag, x):
    """``flag``, an integer as wide as x; from the first x that is infinite or NaN on it is negative."""
    result = KINDS[x][2]
    kind, _, exponent, lowest = KINDS[x][1:]
    return result(result, x), lambda context, b, _, given: _flagged(b, *given, kind(exponent), kind(lowest))


def _flagged(b: ir.IRBuilder, flag: Any, x: Any, exponent: Any, lowest: Any) -> Any:
    return b.or_(flag, b.add(b.and_(b.bitcast(x, lowest.type), exponent), lowest))  # carries into the sign


@intrinsic
def add_columns(typing, like, count, more, columns, coefs, others, total, target, second, n, also):
    """``target[i] = total[i] + sum_j coefs[j] columns[j][i]`` for i < n, from left to right, each product and sum
    rounded; True if a number of the first column is not finite, or, where ``also`` is not 0, of the second one.

    All are int64: numbers, or addresses of numbers like ``like``, or, of columns, of their addresses. count: of the
    columns, 0 to GROUP. total: 0 where sums begin with the first product. more: if not 0, also
    ``second[i] = sum_j others[j] columns[j][i]`` over the first ``more`` columns; there is no total then.

    A target may be a column: numbers are read before those of the same place are written, and LLVM is told that
    places do not depend on each other, so that it makes vectors of them.
    """

    def emit(context, b, _, given):
        _, count, more, columns, coefs, others, total, target, second, n, also = given
        wide, whole, _, exponent, lowest = KINDS[like]
        also = b.icmp_signed("!=", also, I64(0))
        tests = [(whole(exponent), whole(lowest))]
        tests += [tuple(b.select(also, bits, whole(0)) for bits in tests[0])]
        begun = b.zext(b.icmp_signed("!=", total, I64(0)), I64)
        case = b.add(b.mul(b.add(b.mul(count, I64(GROUP + 1)), more), I64(2)), begun)
        arrays = [b.inttoptr(x, wide.as_pointer()) for x in (coefs, others, total, target, second)]
        end, nothing = b.append_basic_block(), b.append_basic_block()
        switch = b.switch(case, nothing)
        b.position_at_end(nothing)
        b.branch(end)
        ends = [(nothing, whole(0))]
        cases = [(k, m, 0) for k in range(GROUP + 1) for m in range(k + 1)] + [(k, 0, 1) for k in range(1, GROUP + 1)]
        for k, m, old in cases:
            head = b.append_basic_block()
            switch.add_case(I64((k * (GROUP + 1) + m) * 2 + old), head)
            b.position_at_end(head)
            xs = [b.load(b.gep(b.inttoptr(columns, I64.as_pointer()), [I64(j)])) for j in range(k)]
            xs = [b.inttoptr(x, wide.as_pointer()) for x in xs]
            ends.append(_loop(b, like, (k, m, old), xs, arrays, n, tests, end))
        b.position_at_end(end)
        flag = b.phi(whole)
        for block, found in ends:
            flag.add_incoming(found, block)
        return b.icmp_signed("<", flag, whole(0))

    return types.boolean(like, *[types.int64] * 10), emit


def _loop(b, like, case, xs, arrays, n, tests, end):
    """One loop of `add_columns`, then ``end``; returns its last block and its flag, see `flagged`."""
    (wide, whole), (count, more, begun), (coefs, others, total, target, second) = KINDS[like][:2], case, arrays
    rows = [[b.load(b.gep(w, [I64(j)])) for j in range(k)] for w, k in ((coefs, count), (others, more))]
    group, head, body = Distinct(b.module), b.block, b.append_basic_block()
    b.branch(body)
    b.position_at_end(body)
    i, flag = b.phi(I64), b.phi(whole)
    i.add_incoming(I64(0), head)
    flag.add_incoming(whole(0), head)

    def number(array):
        value = b.load(b.gep(array, [i]))
        value.set_metadata("llvm.access.group", group)
        return value

    values, sums = [number(x) for x in xs], []
    found = flag
    for x, test in zip(values, [] if begun else tests, strict=False):
        found = _flagged(b, found, x, *test)
    for weights in rows[: 1 + (more > 0)]:
        terms = [number(total)] if begun else []
        terms += [b.fmul(c, x) for c, x in zip(weights, values, strict=False)]
        sums.append(reduce(b.fadd, terms) if terms else wide(0.0))
    for place, result in zip((target, second), sums, strict=False):
        b.store(result, b.gep(place, [i])).set_metadata("llvm.access.group", group)
    following = b.add(i, I64(1), flags=["nuw", "nsw"])
    i.add_incoming(following, body)
    flag.add_incoming(found, body)
    again = b.cbranch(b.icmp_signed("<", following, n), body, end)
    loop = Distinct(b.module)
    parallel = Distinct(b.module, ir.MetaDataString(b.module, "llvm.loop.parallel_accesses"), group)
    loop.operands = (loop, parallel)  # loops are known by nodes that name themselves
    again.set_metadata("llvm.loop", loop)
    return body, found


class Distinct(MDValue):
    """A metadata node that equals no other."""

    def __init__(self, module: ir.Module, *operands: Any) -> None:
        super().__init__(module, operands, name=str(len(module.metadata)))

    def descr(self, buf: list[str]) -> None:
        buf.append("distinct ")
        super().descr(buf)
