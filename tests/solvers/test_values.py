"""Values: equal ones have one hash, and copies are equal; in another process, test_program_runs."""

import copy
import pickle

import numpy as np
import pytest

import logsnr
from logsnr.solvers.values import Value


def gaussian() -> logsnr.Wiener:
    return logsnr.Wiener(np.array([0.1, 0.2]), np.array([1.0, 2.0]))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_are_the_same(again: object) -> None:
    sch = logsnr.EDM(0.002, 80.0)
    program = logsnr.solver("dpmpp-2m").program(sch, logsnr.grid(sch, 3))
    for value in (gaussian(), program):
        hash(value)
        other = again(value)  # type: ignore[operator]
        assert other == value
        assert hash(other) == hash(value)
        assert isinstance(other, Value)
        assert value != "another"
