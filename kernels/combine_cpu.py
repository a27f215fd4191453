"""`combine` on the CPU: what its compiled loop is told of a call."""

from array import array
from collections.abc import Sequence
from functools import cache
from math import prod
from typing import NamedTuple

import numpy as np
import torch

from .compiled import compiled
from .loops import combine_fp32, combine_fp64
from .normals import Noise
from .pool import Loop, launch
from .table import ONE, Table
from .tensors import accumulation_dtype
from .tiles import CODES

NOISE_BYTES = 20  # moved in the time that a normal takes


class Prepared(NamedTuple):
    """What a call is carried out with: the loop, its row, the coefficients that the row points to, and the bytes that
    are moved for an element, noise counted by its time."""

    loop: Loop
    row: "array[int]"
    matrix: np.ndarray
    size: int


def prepare(
    read: Sequence[torch.dtype],
    written: Sequence[torch.dtype],
    coefs: Table,
    checked: int,
    noises: Sequence[tuple[int, int]],
    event: Sequence[int],
    reads: Sequence[int],
    writes: Sequence[int],
    samples: int,
) -> Prepared:
    """The loop ``function(frame, row, begin, end)`` over the elements from begin to end, and its row.

    frame:   int64 words of a run, the addresses of its tensors. ``reads``, ``writes`` say which words are those of the
             inputs and the outputs. ``samples`` is the place of three words: the number of elements in a sample, and
             the addresses of the samples' seeds and numbers, int64.
    row:     int64 words of a call: the numbers of sums, inputs and noises; how many inputs are checked; whether
             coefficients vary over the elements; their address; ``samples``; how many outputs, the last ones, are the
             sum of one before; the places of the inputs, then their dtypes; the places of the outputs, then their
             dtypes; which coefficients are used; interval and stream of the noises; which sums the last outputs are.
    """
    wide = accumulation_dtype(written)
    matrix, used = coefs.rounded(wide, event), coefs.used(wide)
    same = sums_of(matrix)
    sums = len(same) - next((k for k, r in enumerate(same[::-1]) if r == len(same) - 1 - k), 0)
    row = array("q", [sums, len(read), len(noises), checked, coefs.by_element, matrix.ctypes.data, samples])
    row.append(len(written) - sums)
    row.extend([*reads, *(CODES[d] for d in read), *writes, *(CODES[d] for d in written)])
    row.extend([use for one in used[:sums] for use in one])
    row.extend([word for column in noises for word in column])
    row.extend(same[sums:])
    size = sum(d.itemsize for d in (*read, *written)) + NOISE_BYTES * len(noises)
    loop = compiled(combine_fp64 if wide is torch.float64 else combine_fp32)
    return Prepared(loop, row, matrix, size)


def sums_of(matrix: np.ndarray) -> list[int]:
    """Of each row of coefficients, the first that is the same."""
    rows = [one.tobytes() for one in matrix]
    return [rows.index(one) for one in rows]


def launch_combine(
    inputs: Sequence[torch.Tensor],
    coefs: Table,
    outputs: Sequence[torch.Tensor],
    checked: int,
    noise: Noise | None,
) -> torch.Tensor:
    """`combine` of plain CPU tensors laid out densely and alike; returns its flag."""
    tensors, event, k = (*inputs, *outputs), outputs[0].shape[1:], len(inputs)
    columns, kinds = noise.columns if noise else (), tuple(x.dtype for x in tensors)
    key = kinds, k, checked, columns, event if coefs.by_element else None
    places = range(len(tensors))
    found = coefs.kept.made(
        key,
        lambda: prepare(kinds[:k], kinds[k:], coefs, checked, columns, event, places[:k], places[k:], len(tensors)),
    )
    frame = array("q", [x.data_ptr() for x in tensors])
    if columns or coefs.by_element:
        frame.append(max(prod(event), 1))
    if noise:
        frame.extend([noise.seeds.data_ptr(), noise.samples.data_ptr()])
    bad = launch(found.loop, frame.buffer_info()[0], found.row.buffer_info()[0], outputs[0].numel(), found.size)
    return torch.from_numpy(np.array(bad != 0))  # sooner than torch makes one


def copy(x: torch.Tensor, y: torch.Tensor) -> None:
    """Write ``x`` to ``y``, which is laid out alike, without torch's threads."""
    found, frame = _copying(x.dtype, y.dtype), array("q", [x.data_ptr(), y.data_ptr()])
    launch(found.loop, frame.buffer_info()[0], found.row.buffer_info()[0], y.numel(), found.size)


@cache
def _copying(read: torch.dtype, written: torch.dtype) -> Prepared:
    return prepare([read], [written], ONE, 0, (), (), [0], [1], 2)
