"""Programs as JSON: what was written comes back, and of what a stranger wrote nothing but a program gets in."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from checks import nameless
from hypothesis import given, settings
from hypothesis import strategies as st
from sampled import sampled

import logsnr
from logsnr.solvers import Smooth, Window
from logsnr.solvers.planners.stochasticity import er_sde
from logsnr.solvers.programs.program import Call, Program

SCH = logsnr.VPLinear()
PLANNED = [name for name in logsnr.solver_names() if logsnr.solver(name).planner]
GRID = logsnr.grid(SCH, 5)
DEEP = 100_000


@pytest.mark.parametrize("name", sampled(PLANNED, every=3))
def test_round_trip(name: str) -> None:
    """from_json(to_json(p)) equals p to the last bit, what says nothing of numbers too; other programs do not."""
    for startup in ("ramp", "single-step"):
        program = logsnr.solver(name).program(SCH, GRID, startup=startup)
        again = Program.from_json(program.to_json())
        assert again == program
        assert (hash(again), again.notes, again.eta) == (hash(program), program.notes, program.eta)
        assert again.to_json() == program.to_json()
        assert again != logsnr.solver(name).program(SCH, logsnr.grid(SCH, 6), startup=startup)
        assert again != program.renamed("other")


@pytest.mark.parametrize("eta", [None, Window(0.3), Window(2.0, -1.0, 0.5), Window(1.0, -np.inf, 0.0), Smooth(er_sde)])
def test_eta_round_trip(eta: Any) -> None:
    """Numbers, windows and ER-SDE's function come back; another function does not, and stays unknown."""
    program = replace(logsnr.solver("sde-dpmpp-2m").program(SCH, GRID), eta=eta)
    again = Program.from_json(program.to_json())
    assert (again.eta, again) == (eta, program)
    lost = Program.from_json(replace(program, eta=Smooth(np.cosh)).to_json())
    assert lost.calls[0].key == program.calls[0].key
    assert lost.eta is not None
    with pytest.raises(ValueError, match="does not know its eta"):
        lost.eta.squared(np.zeros(1))
    assert Program.from_json(lost.to_json()) == lost


def test_floats_are_written_in_full() -> None:
    """The least and the largest numbers, -0.0, and coefficients by element."""
    values = [5e-324, np.finfo(float).max, 0.1, 1 / 3, -0.0, np.nextafter(1.0, 2.0)]
    matrix = np.array(values).reshape(1, 3, 2)
    program = Program("p", 1, (1.0, 1e-300), (Call(1.0, (0,), (0,), matrix, node=1),))
    again = Program.from_json(program.to_json())
    assert again.calls[0].matrix.tobytes() == matrix.tobytes()
    assert (again.grid, again.event) == (program.grid, (2,))


@cache
def good() -> str:
    calls = (
        Call(1.0, (0,), (0, 3), [[0.5, 0.25, 1, 2], [1, 0, 0, 0]], noises=((1.0, 0.5), ), node=1),
        Call(0.5, (0, 3), (0,), [[0.5, 0, 1, 0.5, 1]], noises=((0.5, 0.2, 7), ), node=2),
    )  # fmt: skip
    return Program("p", 2, (1.0, 0.5, 0.2), calls, ("a note",), Window(0.5)).to_json()


def edited(edit: Callable[[dict[str, Any]], object]) -> str:
    data = json.loads(good())
    edit(data)
    return json.dumps(data)


def top(**fields: Any) -> str:
    return edited(lambda data: data.update(fields))


def first(**fields: Any) -> str:
    return edited(lambda data: data["calls"][0].update(fields))


BAD: list[tuple[Any, str]] = [
    ("", "not a program: Expecting value"),
    ("program", "not a program: Expecting value"),
    (good()[:-1], "not a program: Expecting"),
    (good() + "{}", "not a program: Extra data"),
    (b"\xff\xfe\xfd", "not a program"),
    (b"\x80" + good().encode(), "not a program: .*utf-8"),
    (None, "JSON must be a string, not NoneType"),
    (json.loads(good()), "JSON must be a string, not dict"),
    ("[]", "a program must be an object, not "),
    ("3", "a program must be an object, not 3"),
    ("null", "a program must be an object, not None"),
    ("{}", "missing fields: version, name, order, grid, notes, eta, calls"),
    ("[" * DEEP + "]" * DEEP, "nested too deeply"),
    ('{"name": ' * DEEP + "1" + "}" * DEEP, "nested too deeply"),
    (edited(lambda d: d.pop("grid")), "missing fields: grid"),
    (edited(lambda d: d["calls"][1].pop("node")), "call 1 has missing fields: node"),
    (top(extra=1), "unknown fields: extra"),
    (first(__class__="x"), "call 0 has unknown fields: __class__"),
    (good()[:-1] + ', "order": 2}', "a field occurs twice"),
    (good().replace('"at": 0', '"at": 0, "at": 0', 1), "a field occurs twice"),
    (top(version=0), "version must be 1, not 0"),
    (top(version=2), "version 2; this logsnr reads versions up to 1"),
    (top(version="1"), "version must be 1, not '1'"),
    (top(version=True), "version must be 1, not True"),
    (top(version=1.0), "version must be 1, not 1.0"),
    (top(name=3), "name and notes must be strings, not 3"),
    (top(notes="note"), "notes must be a list"),
    (top(notes=[["note"]]), "name and notes must be strings"),
    (top(order=2.0), "order must be a whole number"),
    (top(order=10**30), "order must be a whole number"),
    (good().replace('"order": 2', '"order": ' + "9" * 5000), "not a program: .*[Ee]xceeds the limit"),
    (top(grid=[]), "grid must have at least 2 times"),
    (top(grid={"0": 1.0}), "grid must be a list"),
    (top(grid=[1.0, 0.5, 0.5]), "strictly monotone"),
    (good().replace("[1.0, 0.5, 0.2]", "[1.0, 0.5, NaN]"), "NaN is not a finite number"),
    (good().replace("[1.0, 0.5, 0.2]", "[1.0, 0.5, -Infinity]"), "-Infinity is not a finite number"),
    (good().replace("[1.0, 0.5, 0.2]", "[1e400, 0.5, 0.2]"), "a time of the grid must be finite"),
    (top(eta="uniform"), "eta must be null, 'er-sde', 'function' or"),
    (top(eta=0.5), "eta must be null"),
    (top(eta=[True, None, None]), "eta must be null"),
    (top(eta=[-1.0, None, None]), "eta = -1.0 is not a number of at least 0"),
    (top(eta=[None, None, None]), "eta = nan is not"),
    (top(eta=[1.0, 2.0, 1.0]), "low < high"),
    (top(eta=[10**400, None, None]), "eta must be null"),
    (top(eta=[1.0, -(10**400), None]), "eta must be null"),
    (top(calls=[]), "calls must be one or more"),
    (top(calls={"0": 1}), "calls must be a list"),
    (top(calls=[[1.0]]), "call 0 must be an object"),
    (first(t="1.0"), "call 0: t must be a number"),
    (first(t=[1.0]), "call 0: t must be a number"),
    (first(at=-1), "call 0: at must be a whole number"),
    (first(at=5), r"call 0 reads slots \[5\] that nothing has written"),
    (first(reads=[True]), "call 0: reads: slot must be a whole number .* not True"),
    (first(writes=[0, 10**12]), "call 0: writes: slot must be a whole number from 0 to 255"),
    (first(writes=[0, 0]), "call 0: writes must name 1 to 3 different slots"),
    (first(writes="03"), "call 0: writes must be a list"),
    (first(node=10**9), r"nodes that calls reach must increase from 1 to at most 2, not be \[1000000000, 2\]"),
    (first(node=2), "nodes that calls reach must increase"),
    (first(node=-1), "call 0: node must be a whole number"),
    (first(matrix="[[1, 0, 1, 1], [1, 0, 0, 0]]"), "call 0: matrix must be an array of numbers"),
    (first(matrix=[["1", "0", "1", "1"], ["1", "0", "0", "0"]]), "call 0: matrix must be an array of numbers"),
    (first(matrix=[[1.0, 0.0, 1.0, 1.0], [1.0, 0.0]]), "call 0: matrix must be an array of numbers"),
    (first(matrix=[[None] * 4] * 2), "call 0: matrix must be an array of numbers"),
    (first(matrix=[]), "call 0: matrix must have 2 rows"),
    (first(matrix=[[1.0, 1.0, 1.0]] * 2), "model columns"),
    (good().replace("0.25", "1e999", 1), "call 0: the coefficients at t = 1 are not finite"),
    (good().replace("0.25", "Infinity", 1), "Infinity is not a finite number"),
    (first(noises=[[1.0, 0.5, -1]]), "call 0: noises: a stream must be a whole number"),
    (first(noises=[[1.0, 0.5, "a"]]), "call 0: noises: a stream must be a whole number"),
    (first(noises=[[1.0, 0.3, 7]]), r"overlap; split them"),
    (first(noises=[]), "model columns"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD, ids=lambda value: nameless(value)[:40])
def test_bad_texts(text: Any, message: str) -> None:
    """All that is no program is refused with one ValueError that says what is wrong with it."""
    assert Program.from_json(good()) == Program.from_json(good().encode())
    with pytest.raises(ValueError, match=message):
        Program.from_json(text)


NUMBERS = [-1, 0, 1, 2, 3, 255, 256, 10**9, 10**400, 0.5, 1.0, -2.5, 1e308]
ODD = st.sampled_from([*NUMBERS, None, True, "a", "0", [], {}, [0], [[1.0]], [1, 0]])


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A program's text with a few values, of any field at any depth, replaced, left out or repeated."""
    data = json.loads(draw(st.sampled_from(seeds())))
    rows = [row for call in data["calls"] for row in call["matrix"]]
    for how in draw(st.lists(st.sampled_from(["number", "number", "set", "delete", "repeat"]), min_size=1, max_size=3)):
        inside: Any = draw(st.sampled_from(rows)) if how == "number" else data
        for _ in range(draw(st.integers(0, 5)) if inside is data else 0):
            values = inside.values() if isinstance(inside, dict) else inside
            deeper = [v for v in values if v and type(v) in (dict, list)]
            inside = draw(st.sampled_from(deeper)) if deeper else inside
        key = draw(st.sampled_from(sorted(inside) if isinstance(inside, dict) else range(len(inside))))
        if how == "delete" and len(data) > 1:
            del inside[key]
        elif how == "repeat" and isinstance(inside, list):
            inside.insert(key, deepcopy(inside[key]))
        else:
            inside[key] = draw(st.floats(-1e5, 1e5)) if how == "number" else deepcopy(draw(ODD))
    return json.dumps(data)


@cache
def seeds() -> list[str]:
    names = "dpmpp-2m", "seeds-2", "sa-2", "edm-churn", "ald"
    return [good(), *(logsnr.solver(name).program(SCH, logsnr.grid(SCH, 2)).to_json() for name in names)]


def test_mutations_are_programs_or_errors() -> None:
    """Whatever is done to a text, it is refused with a ValueError, or a program that a small run can go through:
    to an end, or to an error for its numbers."""
    den, x = logsnr.Denoiser(lambda x, t: torch.tanh(x), SCH, "v"), torch.linspace(-1, 1, 6).reshape(2, 3)
    ran = list[bool]()

    @settings(max_examples=200, database=None)
    @given(mutated())
    def all_hold(text: str) -> None:
        try:
            program = Program.from_json(text)
        except ValueError:
            ran.append(False)
            return
        assert Program.from_json(program.to_json()) == program
        assert str(program)
        ran.append(True)
        try:
            assert logsnr.sample(den, x, solver=program, seed=0).shape == x.shape
        except (ValueError, logsnr.NonFiniteError) as error:
            assert any(word in str(error) for word in ("outside", "too large", "non-finite", "samples of shape")), error  # noqa: PT017

    all_hold()
    assert 30 < sum(ran) < len(ran) - 30
