"""A program as text for people."""

from textwrap import wrap
from typing import Any

import numpy as np

from .call import ONE, STATE

WIDTH = 80
INDENT = 37  # of coefficients
SPACE = "\N{NO-BREAK SPACE}"  # within a term, until lines are wrapped


def program_text(program: Any) -> str:
    """See `Program.__str__`."""
    lines = [f"{program.name}: order {program.order}, {program.steps} steps, {len(program)} model evaluations"]
    if program.basis is not None:
        lines.append(f"in the basis {program.basis}: x, x0 and eps are coordinates")
    for note in program.notes:
        lines += wrap(f"note: {note}", WIDTH, subsequent_indent="      ")
    for key, value in program.provenance.items():
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        lines += wrap(f"{key}: {text}", WIDTH, initial_indent="  ", subsequent_indent="      ")
    kept: dict[int, str] = {}  # slots that hold the answer of a call
    for n, call in enumerate(program.calls):
        reads = [kept.get(k, _slot(k)) for k in call.reads]
        names = ["x0", "eps", *reads, *(_noise(call, key) for key in call.noises)]
        asked = f"model({_slot(call.at)})" if call.asks else "no model"
        head = f"{n:4d}  t = {call.t:<10.6g} {asked}"
        for slot, row, columns in zip(call.writes, call.matrix, call.used, strict=True):
            used = sorted(columns, key=lambda j: names[j] != "x")
            kept.pop(slot, None)
            if slot != STATE and len(call.writes) > 1 and len(used) == 1 and used[0] < 2 and np.all(row[used] == 1):
                kept[slot] = f"{names[used[0]]}[{n}]"
                continue
            terms = " ".join(f"{_coefficient(row[j])}{SPACE}{names[j]}".rstrip(SPACE) for j in used)
            first, *rest = wrap(terms, WIDTH - INDENT) or ["0"]
            lines += [f"{head:31s}{_slot(slot):>2s} <- {first}", *(" " * INDENT + more for more in rest)]
            head = ""
    return "\n".join(lines).replace(SPACE, " ")


def _noise(call: Any, key: Any) -> str:
    parts = [str(key), f"exp({call.learned:.6g} (1 + v) / 2)"] if call.learned else [str(key)]
    return " ".join(part.replace(" ", SPACE) for part in parts)


def _slot(index: int) -> str:
    return {STATE: "x", ONE: ""}.get(index, f"s{index}")


def _coefficient(c: np.ndarray) -> str:
    """One number, or the range of those of the elements."""
    low, high = float(np.min(c)), float(np.max(c))
    return f"{low:+.6g}" if low == high else f"[{low:+.4g}..{high:+.4g}]"
