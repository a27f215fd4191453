"""What Python does not say to numba: memory by its address, the bits of numbers, one rounding for two operations, and
a loop whose elements do not depend on each other.

These few functions write LLVM's instructions. All else that is compiled for the CPU is ordinary Python.
"""
# numba gives its intrinsics the types of their arguments, and what LLVM writes has no annotations.
# mypy: disable-error-code="no-untyped-def"

from functools import reduce
from typing import Any

from llvmlite import ir
from llvmlite.ir.values import MDValue
from numba import njit, types
from numba.extending import intrinsic

GROUP = 4  # columns that `add_columns` adds at a time
FLOAT, DOUBLE, HALF = ir.FloatType(), ir.DoubleType(), ir.HalfType()
I16, I32, I64 = (ir.IntType(bits) for bits in (16, 32, 64))
# By dtype of the sums: numbers, integers as wide, and the bits of the exponent with the lowest of them.
KINDS = {
    types.float32: (FLOAT, I32, types.int32, 0x7F800000, 1 << 23),
    types.float64: (DOUBLE, I64, types.int64, 0x7FF << 52, 1 << 52),
}


# Without what Python would need to call them: for functions that only compiled functions call.
part = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)


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
def bits_of(typing, x):
    """The bits of an fp32 number, int32."""
    return types.int32(x), lambda context, b, _, given: b.bitcast(given[0], I32)


@intrinsic
def of_bits(typing, x):
    """The fp32 number that has the bits of an int32."""
    return types.float32(x), lambda context, b, _, given: b.bitcast(given[0], FLOAT)


@intrinsic
def of_half(typing, x):
    """The fp32 number that has the value of an fp16 number, given by its bits as uint16."""
    return types.float32(x), lambda context, b, _, given: b.fpext(b.bitcast(given[0], HALF), FLOAT)


@intrinsic
def to_half(typing, x):
    """The bits of an fp32 number rounded to fp16, uint16."""
    return types.uint16(x), lambda context, b, _, given: b.bitcast(b.fptrunc(given[0], HALF), I16)


@intrinsic
def fma(typing, x, y, z):
    """``x y + z`` of fp32 numbers, rounded once."""
    return types.float32(x, y, z), lambda context, b, _, given: b.fma(*given)


@intrinsic
def beyond(typing, x):
    """An integer that is negative where a number is infinite or NaN, and only there: it goes with others by or."""
    _, kind, result, exponent, lowest = KINDS[x]
    return result(x), lambda context, b, _, given: _beyond(b, given[0], kind, exponent, lowest)


def _beyond(b: ir.IRBuilder, x: Any, kind: Any, exponent: int, lowest: int) -> Any:
    return b.add(b.and_(b.bitcast(x, kind), kind(exponent)), kind(lowest))  # carries into the sign


@intrinsic
def either(typing, x, y):
    """The bits of two integers, by or, no wider than they are."""
    return x(x, y), lambda context, b, _, given: b.or_(*given)


@intrinsic
def add_columns(typing, like, count, more, columns, coefs, others, total, target, second, n):
    """``target[i] = total[i] + sum_j coefs[j] columns[j][i]`` for i < n, from left to right, each product and sum
    rounded; True if a number of the first column is not finite.

    All are int64: numbers, or addresses of numbers like ``like``, or, of columns, of their addresses. count: of the
    columns, 0 to GROUP. total: 0 where sums begin with the first product. more: if not 0, also
    ``second[i] = sum_j others[j] columns[j][i]`` over the first ``more`` columns; there is no total then.

    A target may be a column: numbers are read before those of the same place are written, and LLVM is told that
    places do not depend on each other, so that it makes vectors of them.
    """
    wide, whole, _, exponent, lowest = KINDS[like]

    def array(b, address, kind):
        return b.inttoptr(address, kind.as_pointer())

    def item(b, items, *place):
        return b.load(b.gep(items, place))

    def loop(b, given, count, more, begun, head, end):
        """One loop; returns its last block and the flag."""
        columns, coefs, others, total, target, second, n = given
        group = Distinct(b.module)
        rows = [[item(b, weights, I64(j)) for j in range(k)] for weights, k in ((coefs, count), (others, more))]
        xs = [array(b, item(b, columns, I64(j)), wide) for j in range(count)]
        body = b.append_basic_block()
        b.branch(body)
        b.position_at_end(body)
        i, flag = b.phi(I64), b.phi(whole)
        i.add_incoming(I64(0), head)
        flag.add_incoming(whole(0), head)

        def of_group(access):
            access.set_metadata("llvm.access.group", group)
            return access

        values = [of_group(item(b, x, i)) for x in xs]
        found = b.or_(flag, _beyond(b, values[0], whole, exponent, lowest)) if count and not begun else flag
        sums = []
        for weights in rows[: 1 + (more > 0)]:
            terms = [of_group(item(b, total, i))] if begun else []
            terms += [b.fmul(c, x) for c, x in zip(weights, values, strict=False)]
            sums.append(reduce(b.fadd, terms) if terms else wide(0.0))
        for place, result in zip((target, second), sums, strict=False):
            of_group(b.store(result, b.gep(place, [i])))
        following = b.add(i, I64(1), flags=["nuw", "nsw"])
        i.add_incoming(following, body)
        flag.add_incoming(found, body)
        again = b.cbranch(b.icmp_signed("<", following, n), body, end)
        again.set_metadata("llvm.loop", independent(b.module, group))
        return body, found

    def emit(context, b, _, given):
        _, count, more, columns, coefs, others, total, target, second, n = given
        begun = b.zext(b.icmp_signed("!=", total, I64(0)), I64)
        case = b.add(b.mul(b.add(b.mul(count, I64(GROUP + 1)), more), I64(2)), begun)
        arrays = [array(b, address, wide) for address in (coefs, others, total, target, second)]
        given = (array(b, columns, I64), *arrays, n)
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
            ends.append(loop(b, given, k, m, old, head, end))
        b.position_at_end(end)
        flag = b.phi(whole)
        for block, found in ends:
            flag.add_incoming(found, block)
        return b.icmp_signed("<", flag, whole(0))

    return types.boolean(like, *[types.int64] * 9), emit


class Distinct(MDValue):
    """A metadata node that equals no other."""

    def __init__(self, module: ir.Module, *operands: Any) -> None:
        super().__init__(module, operands, name=str(len(module.metadata)))

    def descr(self, buf: list[str]) -> None:
        buf.append("distinct ")
        super().descr(buf)


def independent(module: ir.Module, group: Any) -> Any:
    """What a loop says of itself whose accesses ``group`` do not depend on other rounds."""
    parallel = Distinct(module, ir.MetaDataString(module, "llvm.loop.parallel_accesses"), group)
    node = Distinct(module)
    node.operands = (node, parallel)  # loops are known by nodes that name themselves
    return node
