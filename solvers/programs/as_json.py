"""Programs as JSON: a versioned format, read like any file that a stranger may have written."""

import json
from typing import Any

from ..bases import basis_from_json
from ..planners.stochasticity import eta_from_json, eta_to_json

VERSION = 1
PROGRAM = ("version", "name", "order", "grid", "notes", "eta", "calls")
OPTIONAL = ("provenance", "basis")  # left out where there is none
CALL = ("t", "at", "reads", "writes", "matrix", "noises", "node")
OPTIONAL_IN_CALL = ("learned",)


def write_program(program: Any) -> str:
    """The text that `read_program` takes."""
    return json.dumps(header(program) | {"calls": [call_fields(call) for call in program.calls]})


def header(program: Any) -> dict[str, Any]:
    """The fields of a program, but for its calls."""
    values = VERSION, program.name, program.order, program.grid, program.notes, eta_to_json(program.eta)
    provenance = {"provenance": dict(program.provenance)} if program.provenance else {}
    basis = {"basis": program.basis.to_json()} if program.basis is not None else {}
    return dict(zip(PROGRAM, values, strict=False)) | provenance | basis


def call_fields(call: Any) -> dict[str, Any]:
    """The fields of a call."""
    learned = {"learned": call.learned} if call.learned else {}
    return {name: getattr(call, name) for name in CALL} | {"matrix": call.matrix.tolist()} | learned


def read_program(text: str) -> dict[str, Any]:
    """The fields of a program, those of its calls in the list ``calls``; ValueError for any other text.

    What the fields hold is checked where programs and calls are made.
    """
    if not isinstance(text, (str, bytes)):
        raise ValueError(f"its JSON must be a string, not {type(text).__name__}")
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    version = data.get("version") if isinstance(data, dict) else None
    if isinstance(data, dict) and "head" in data:
        raise ValueError("this is a plan of a network's answers, for other servers; logsnr reads what to_json() writes")
    if type(version) is int and version > VERSION:
        raise ValueError(f"this program has version {version}; this logsnr reads versions up to {VERSION}")
    _fields(data, PROGRAM, "a program", OPTIONAL)
    if version != VERSION or type(version) is not int:
        raise ValueError(f"version must be {VERSION}, not {version!r:.60}")
    if not isinstance(data["calls"], list):
        raise ValueError("calls must be a list")
    for n, call in enumerate(data["calls"]):
        _fields(call, CALL, f"call {n}", OPTIONAL_IN_CALL)
    del data["version"]
    data["eta"] = eta_from_json(data["eta"])
    if "basis" in data:
        data["basis"] = basis_from_json(data["basis"])
    return data


def _fields(data: Any, names: tuple[str, ...], what: str, optional: tuple[str, ...] = ()) -> None:
    if not isinstance(data, dict):
        raise ValueError(f"{what} must be an object, not {data!r:.60}")
    for found, wanted, wrong in ((data.keys(), names + optional, "unknown"), (names, data.keys(), "missing")):
        if others := [name for name in found if name not in wanted]:
            raise ValueError(f"{what} has {wrong} fields: {', '.join(others)!s:.100}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError("a field occurs twice")
    return data


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a finite number")
