"""Calls and programs made by hand: every wrong field is refused with one error that names it."""

import math
from typing import Any

import numpy as np
import pytest
from checks import nameless

from logsnr.solvers.programs.call import HASHED, MAX_SLOTS, MAX_STREAM, Call, NoiseKey
from logsnr.solvers.programs.program import MAX_ORDER, Program
from logsnr.solvers.runs import brownian, normals

INF, NAN = float("inf"), float("nan")
ROW = [[0.5, 0.0, 1.0]]


def call(**fields: Any) -> Call:
    return Call(**{"t": 1.0, "reads": (0,), "writes": (0,), "matrix": ROW} | fields)


def program(**fields: Any) -> Program:
    return Program(**{"name": "p", "order": 1, "grid": (1.0, 0.5), "calls": (call(),)} | fields)


CALLS: list[tuple[str, Any, str]] = [
    ("t", "1", "t must be a number, not '1'"),
    ("t", True, "t must be a number, not True"),
    ("t", None, "t must be a number, not None"),
    ("t", NAN, "t must be finite, not nan"),
    ("t", -INF, "t must be finite, not -inf"),
    ("t", 10**400, "t must be finite, not 1000*"),
    ("at", -1, "at must be a whole number from 0 to 255, not -1"),
    ("at", MAX_SLOTS, "at must be a whole number from 0 to 255, not 256"),
    ("at", 0.0, "at must be a whole number .* not 0.0"),
    ("at", False, "at must be a whole number .* not False"),
    ("reads", 0, "reads must be a list, not 0"),
    ("reads", "0", "reads must be a list, not '0'"),
    ("reads", (-1,), "reads: slot must be a whole number from 0 to 255, not -1"),
    ("reads", (1.0,), "reads: slot must be a whole number .* not 1.0"),
    ("reads", (10**9,), "reads: slot must be a whole number .* not 1000000000"),
    ("reads", (0, 0), r"reads must name different slots, not \(0, 0\)"),
    ("writes", None, "writes must be a list, not None"),
    ("writes", (), r"writes must name 1 to 3 different slots, not \(\)"),
    ("writes", (0, 0), "writes must name 1 to 3 different slots"),
    ("writes", (0, 1, 2, 3), "writes must name 1 to 3 different slots"),
    ("writes", (MAX_SLOTS,), "writes: slot must be a whole number from 0 to 255, not 256"),
    ("writes", ("x",), "writes: slot must be a whole number .* not 'x'"),
    ("noises", 3, "noises must be a list, not 3"),
    ("noises", (1.0, 0.5), "noises: a key must be a list, not 1.0"),
    ("noises", ((1.0,),), r"noises: a key must be \(s, t\) or \(s, t, stream\), not \(1.0,\)"),
    ("noises", ((1.0, 0.5, 0, 0),), r"noises: a key must be \(s, t\) or"),
    ("noises", ((1.0, NAN),), "noises: a time must be finite, not nan"),
    ("noises", (("a", 0.5),), "noises: a time must be a number, not 'a'"),
    ("noises", ((1.0, 0.5, -1),), "noises: a stream must be a whole number from 0 to 4294967295, not -1"),
    ("noises", ((1.0, 0.5, MAX_STREAM + 1),), "noises: a stream must be .* not 4294967296"),
    ("noises", ((1.0, 0.5, "a"),), "noises: a stream must be a whole number .* not 'a'"),
    ("node", -1, "node must be a whole number .* not -1"),
    ("node", 1.5, "node must be a whole number .* not 1.5"),
    ("node", True, "node must be a whole number .* not True"),
    ("matrix", None, "matrix must be an array of numbers, not None"),
    ("matrix", "abc", "matrix must be an array of numbers, not 'abc'"),
    ("matrix", [["1", "0", "1"]], "matrix must be an array of numbers"),
    ("matrix", [[1.0, 0.0, 1.0], [1.0]], "matrix must be an array of numbers"),
    ("matrix", [[1.0, None, 1.0]], "matrix must be an array of numbers"),
    ("matrix", [[1j, 0, 1]], "matrix must be an array of numbers"),
    ("matrix", [[10**400, 0, 1]], "matrix must be an array of numbers"),
    ("matrix", [True], "matrix must be an array of numbers"),
    ("matrix", 3.0, r"matrix must have 1 rows and at least 1 columns .* not shape \(\)"),
    ("matrix", [1.0, 0.0, 1.0], r"matrix must have .* not shape \(3,\)"),
    ("matrix", [*ROW, *ROW], r"matrix must have 1 rows .* not shape \(2, 3\)"),
    ("matrix", [[]], r"matrix must have .* at least 1 columns .* not shape \(1, 0\)"),
    (
        "matrix",
        np.ones((1, 3, 0)),
        r"matrix must have coefficients for samples of at least one element, not \(1, 3, 0\)",
    ),
    ("matrix", np.ones((1, 3, 2, 0)), r"matrix must have coefficients .* not \(1, 3, 2, 0\)"),
    ("matrix", [[NAN, 0.0, 1.0]], "the coefficients at t = 1 are not finite: .*nan"),
    ("matrix", [[1.0, 0.0, INF]], "the coefficients at t = 1 are not finite: .*inf"),
]


@pytest.mark.parametrize(("field", "value", "message"), CALLS, ids=nameless)
def test_wrong_fields_of_calls(field: str, value: Any, message: str) -> None:
    """One ValueError, which says the field, the value and what would be right."""
    with pytest.raises(ValueError, match=f"^{message}"):
        call(**{field: value})


KEYS = [(1.0, 0.2), (0.5, 0.2)]
NOISY = call(matrix=[[0.5, 0.0, 1.0, 1.0, 1.0]], noises=KEYS)
TO_1, FROM_1 = call(writes=(0, 1), matrix=ROW * 2), call(reads=(1,))
PROGRAMS: list[tuple[dict[str, Any], str]] = [
    ({"name": 3}, "name and notes must be strings, not 3"),
    ({"name": None}, "name and notes must be strings, not None"),
    ({"notes": (3,)}, "name and notes must be strings, not 3"),
    ({"notes": "note"}, "notes must be a list, not 'note'"),
    ({"order": -1}, "order must be a whole number from 0 to 64, not -1"),
    ({"order": MAX_ORDER + 1}, "order must be a whole number from 0 to 64, not 65"),
    ({"order": 1.0}, "order must be a whole number .* not 1.0"),
    ({"grid": "grid"}, "grid must be a list, not 'grid'"),
    ({"grid": ()}, "grid must have at least 2 times, not 0"),
    ({"grid": (1.0,)}, "grid must have at least 2 times, not 1"),
    ({"grid": (1.0, "a")}, "a time of the grid must be a number, not 'a'"),
    ({"grid": (1.0, -INF)}, "a time of the grid must be finite, not -inf"),
    ({"grid": (1.0, 1.0)}, "grid must be strictly monotone, but times 0 and 1 are 1 and 1"),
    ({"grid": (1.0, 0.5, 0.7)}, "grid must be strictly monotone, but times 1 and 2 are 0.5 and 0.7"),
    ({"grid": (0.1, 0.5, 0.5)}, "grid must be strictly monotone, but times 1 and 2"),
    ({"eta": 1.0}, "eta must be a Stochasticity or None, not 1.0"),
    ({"calls": ()}, "calls must be one or more of type Call"),
    ({"calls": None}, "calls must be a list, not None"),
    ({"calls": call()}, "calls must be a list, not Call"),
    ({"calls": (call(), None)}, "calls must be one or more of type Call"),
    ({"calls": (call(node=2),)}, r"the nodes that calls reach must increase from 1 to at most 1, not be \[2\]"),
    ({"calls": (call(node=0),)}, r"the nodes that calls reach must .* not be \[0\]"),
    ({"calls": (call(node=1), call(node=1))}, r"the nodes that calls reach must increase .* not be \[1, 1\]"),
    ({"calls": (FROM_1,)}, r"call 0 reads slots \[1\] that nothing has written"),
    ({"calls": (call(at=2),)}, r"call 0 reads slots \[2\] that nothing has written"),
    ({"calls": (TO_1, call(reads=(0, 2), matrix=[[1, 0, 1, 1]]))}, r"call 1 reads slots \[2\] that nothing"),
    ({"calls": (call(writes=(1,)),)}, "nothing reads what the call at t = 1 computes"),
    ({"calls": (NOISY,)}, r"noise\(1, 0.2\) and noise\(0.5, 0.2\) overlap"),
    ({"calls": (call(matrix=np.ones((1, 3, 2))), call(matrix=np.ones((1, 3, 3))))}, "per-element .* do not fit"),
]


@pytest.mark.parametrize(("fields", "message"), PROGRAMS, ids=nameless)
def test_wrong_fields_of_programs(fields: dict[str, Any], message: str) -> None:
    """One ValueError, which says the field, the value and what would be right."""
    with pytest.raises(ValueError, match=message):
        program(**fields)


def test_a_program_s_model_columns_are_the_pair() -> None:
    """A call of a program has two model columns, x0 and eps: with one, or three, there is nothing that could run it."""
    for matrix in ([[1.0, 1.0]], [[1.0, 0.0, 0.0, 1.0]]):
        assert call(matrix=matrix).models != 2
        with pytest.raises(ValueError, match="model columns"):
            program(calls=(call(matrix=matrix),))


def test_streams_of_keys_are_theirs() -> None:
    """No key shares a stream with starts and Brownian paths, whatever its hash is; other keys have other addresses."""
    keys = [NoiseKey(1 / n, 1 / (n + 1), stream) for n in range(1, 200) for stream in (0, 1, 2, MAX_STREAM)]
    addresses = [key.address for key in keys]
    assert all(HASHED <= stream <= MAX_STREAM and 0 <= interval < 2**32 for interval, stream in addresses)
    assert len(set(addresses)) == len(keys)
    assert len({brownian.STREAM, normals.START}) == 2
    assert max(brownian.STREAM, normals.START) < HASHED


def test_fields_are_taken_as_they_are_meant() -> None:
    """Lists and what is numpy's become tuples, Python's numbers and read-only float64 arrays of their own memory."""
    matrix = np.array(ROW, dtype=np.float32)
    made = call(t=np.float32(0.5), at=np.int64(0), reads=[np.int8(0)], writes=np.array([0]), matrix=matrix, node=1)
    assert (type(made.t), type(made.at), made.reads, type(made.reads[0]), made.writes) == (float, int, (0,), int, (0,))
    assert made.matrix.dtype == np.float64
    matrix[:] = 7
    assert made.matrix.tolist() == ROW
    with pytest.raises(ValueError, match="read-only"):
        made.matrix[0, 0] = 1
    assert call(matrix=np.array(ROW, order="F")).key == call(matrix=[[0.5, 0, 1]]).key
    assert call(matrix=[[1, 0, 1, 2]], noises=[[1, 0]]).noises == (NoiseKey(1.0, 0.0, 0),)
    whole = program(order=np.int64(2), grid=np.array([1.0, 0.5]), calls=[call()], notes=["n"])
    assert (type(whole.order), whole.grid, type(whole.grid[0]), whole.notes) == (int, (1.0, 0.5), float, ("n",))


def test_an_address_does_not_hang_on_the_last_digits_of_a_time() -> None:
    """A CPU whose exp ends in other digits, a grid in pieces: the same noise. Near times have their own."""
    for s, t in ((0.7223333113724307, 0.001), (80.0, 0.0), (1.0, 1e-12), (1e300, 5e-324)):
        told = NoiseKey(s, t).address
        assert NoiseKey(math.nextafter(s, math.inf), t * (1 + 2**-51)).address == told
        assert NoiseKey(s * (1 + 1e-6), t).address != told
    assert NoiseKey(0.0, -0.0).address == NoiseKey(-0.0, 0.0).address
