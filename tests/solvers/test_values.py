"""Values: equal ones have one hash, in this process and in the next."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import logsnr
from logsnr.solvers.values import Value

OTHER = """
import pickle, sys
a, b = pickle.load(sys.stdin.buffer), pickle.load(sys.stdin.buffer)
assert a == b and hash(a) == hash(b), a
"""


def gaussian() -> logsnr.Wiener:
    return logsnr.Wiener(np.array([0.1, 0.2]), np.array([1.0, 2.0]))


def test_a_hash_is_not_taken_to_another_process() -> None:
    """Strings and bytes have another one there: dictionaries would not find what is in them."""
    known, new = gaussian(), gaussian()
    hash(known)
    both, where = pickle.dumps(known) + pickle.dumps(new), str(Path(logsnr.__file__).parents[1])
    env = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join([where, *sys.path])}
    done = subprocess.run([sys.executable, "-c", OTHER], input=both, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


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
