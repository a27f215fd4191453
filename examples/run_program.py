"""Run a program of logsnr with numpy alone. docs/interchange.md describes the format.

text = program.to_json(den)  # or program.to_json(), whose answers are x0 and eps
x = run(text, noise, lambda x, told, answers: [network(x, told)])
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
STATE, ONE = 0, 256  # the slots of the state and of a constant


def run(
    text: str,
    x: Array,
    model: Callable[[Array, float, list[str]], list[Array]],
    normal: Callable[[tuple[float, float, int]], Array] | None = None,
) -> Array:
    """x (B, ...); model(x, told, answers): an array like x for each of ``answers``; normal(key): one for each key."""
    plan = json.loads(text)
    if plan["version"] != 1:
        raise ValueError(f"this runs version 1, not {plan['version']}")
    slots, normals = {STATE: x, ONE: np.ones_like(x)}, {}
    for call in plan["calls"]:
        answers, seen = call.get("answers", ["x0", "eps"]), slots[call["at"]]
        used = any(np.any(row[: len(answers)]) for row in call["matrix"])
        columns = model(seen, call.get("told", call["t"]), answers) if used else [seen for _ in answers]
        columns = [*columns, *(slots[slot] for slot in call["reads"])]
        for s, t, stream in call["noises"]:
            if (s, t, stream) not in normals and normal:
                normals[s, t, stream] = normal((s, t, stream))
            columns.append(normals[s, t, stream])
        for slot, row in zip(call["writes"], call["matrix"], strict=True):
            terms = [np.asarray(c) * column for c, column in zip(row, columns, strict=True) if np.any(c)]
            slots[slot] = sum(terms[1:], start=terms[0] if terms else 0 * x)  # left to right: the same bits
    return slots[STATE]
