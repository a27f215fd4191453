"""Checks of planners' fields: one error that names the field, the value, and what would be right."""

from collections.abc import Iterable
from typing import Any

import numpy as np


def number(name: str, value: Any, low: float, high: float, what: str) -> float:
    """``value`` as a float; ValueError unless it lies in [low, high], which ``what`` says in words."""
    plain = value.item() if isinstance(value, np.number) else value  # numpy compares in the value's own precision
    if isinstance(plain, bool) or not isinstance(plain, (int, float)) or not low <= plain <= high:
        raise ValueError(f"{name} = {value!r:.60} must be {what}")
    return float(plain)


def nonnegative(name: str, value: Any) -> float:
    return number(name, value, 0.0, float(np.finfo(float).max), "a number of at least 0")


def count(name: str, value: Any, most: int | None = None) -> int:
    """``value`` as an int; ValueError unless it is a whole number from 1 to ``most``."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < 1 or (most is not None and value > most):
        upper = "of at least 1" if most is None else f"from 1 to {most}"
        raise ValueError(f"{name} = {value!r} must be an integer {upper}")
    return int(value)


def choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """ValueError unless ``value`` is one of the names."""
    names = list(choices)
    if not isinstance(value, str) or value not in names:
        several = f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}"
        raise ValueError(f"{name} must be {several}, not {value!r}")


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} = {value!r} must be True or False")
