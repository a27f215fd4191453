"""The interpreter: a table carried out entry by entry, on anything that can be added and multiplied.

Slow, and independent of the executors and their kernels. The same dozen lines run a table on torch tensors with
gradients, on numpy arrays, on Decimals, on the exact moments of Gaussian data and on unit vectors.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from functools import reduce
from operator import add
from types import MappingProxyType
from typing import Any

from .call import ONE, Call, NoiseKey

PairModel = Callable[[Any, float], tuple[Any, Any]]
NO_NOISE: Mapping[NoiseKey, Any] = MappingProxyType({})


def carry_out(
    calls: Iterable[Call],
    slots: MutableMapping[int, Any],
    model: PairModel,
    noises: Mapping[NoiseKey, Any] = NO_NOISE,
    matrices: Sequence[Any] | None = None,
) -> Iterator[Call]:
    """Carry out ``calls`` one by one, and yield each when its results are in ``slots``, which may be looked at and
    changed in between.

    slots:    what each slot holds, updated in place; ``{STATE: x}`` before the first call of a program. ONE holds the
              number 1 unless it is given.
    model:    ``model(x, t)`` gives the pair (x0, eps) at the schedule's time t; asked where a call asks.
    noises:   what stands for the standard normal of each key, times its factor where a variance is learned.
    matrices: in place of the calls' own float64 coefficients, one table per call, indexed ``[row][column]``: tensors
              that record gradients, Decimals, ... Columns that are 0 in the call's own table are left out, whatever
              they hold, as everywhere.
    """
    slots.setdefault(ONE, 1.0)
    for n, call in enumerate(calls):
        seen = slots[call.at]
        answer = model(seen, call.t) if call.asks else [seen] * call.models  # whose coefficients are 0
        columns = [*answer, *(slots[k] for k in call.reads), *(noises[key] for key in call.noises)]
        table = call.numbers if matrices is None else matrices[n]
        for slot, used, row in zip(call.writes, call.used, table, strict=True):
            slots[slot] = reduce(add, [row[j] * columns[j] for j in used] or [0 * seen])
        yield call
