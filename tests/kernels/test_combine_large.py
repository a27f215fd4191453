"""combine of large tensors: threads, and more elements than 32 bits count."""

from array import array
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from checks import F32, assert_same, random

from logsnr.kernels import Table, combine, normals
from logsnr.kernels.combine_cpu import prepare
from logsnr.kernels.pool import THREADED_BYTES

THREADED = THREADED_BYTES // 4 // 3 + 1234  # a size that is split for 2 inputs and 1 output of fp32


def test_threads_and_their_number() -> None:
    """Above the threading threshold the answer is that of one thread, from several Python threads at once."""
    inputs = [random((THREADED,), F32, 1), random((THREADED,), F32, 2)]
    coefs = np.random.default_rng(0).normal(size=(1, 2))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert_same(combine(inputs, coefs, backend="cpu")[0][0], combine(inputs, coefs, backend="torch")[0][0])
        with ThreadPoolExecutor(4) as pool:
            many = list(pool.map(lambda _: combine(inputs, coefs, backend="cpu")[0][0], range(8)))
        for where in (0, THREADED // 2, THREADED - 1):
            poisoned = inputs[0].clone()
            poisoned[where] = float("nan")
            assert combine([poisoned, inputs[1]], coefs, checked=1, backend="cpu")[1]
            assert not combine([inputs[1], poisoned], coefs, checked=1, backend="cpu")[1]
    finally:
        torch.set_num_threads(before)
    want = combine(inputs, coefs, backend="torch")[0][0]
    for found in many:
        assert_same(found, want)


@pytest.mark.parametrize("noises", [0, 1])
def test_more_than_two_to_the_31_elements(noises: int) -> None:
    """Elements are counted with 64 bits: the end of a tensor of 2^34 - 8 elements, of which no more is there, is
    written as a tensor of its own would be."""
    count, part = (1 << 34) - 8, 1000
    begin = count - part
    x, y = random((part,), F32, 0), torch.full((part,), float("nan"))
    coefs = Table(np.random.default_rng(0).normal(size=(1, 1 + noises)))
    found = prepare([F32], [F32], coefs, 1, [(3, 0)] * noises, (), [0], [1], 2)
    seeds = torch.tensor([5, 7])
    frame = array("q", [t.data_ptr() - 4 * begin for t in (x, y)])
    frame.extend([count, seeds.data_ptr(), seeds.data_ptr() + 8])
    assert found.loop(frame.buffer_info()[0], found.row.buffer_info()[0], begin, count) == 0
    wanted = found.matrix[0, 0] * x
    if noises:
        wanted = wanted + found.matrix[0, 1] * normals(5, 7, 3, part, first=begin)
    assert_same(y, wanted)
