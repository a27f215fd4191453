"""Options of named solvers: what a planner's argument is called, and which values it takes."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .planners.stochasticity import stochasticity

VARIANCES = {"beta-tilde": 0.0, "beta": 1.0}


class Option(NamedTuple):
    """``name``: what users say; ``check``: from (name, value) to what the planner takes as ``argument``, hashable."""

    name: str
    check: Callable[[str, Any], Any]
    argument: str


def number(low: float, high: float, what: str) -> Callable[[str, Any], float]:
    """A check for numbers in [low, high]; ``what`` says so in words."""
    return partial(_number, low, high, what)  # which can be pickled


def _number(low: float, high: float, what: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not low <= value <= high:
        raise ValueError(f"{name} = {value!r} must be {what}")
    return float(value)


def count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} = {value!r} must be an integer of at least 1")
    return int(value)


def _eta(name: str, value: Any) -> Any:
    return stochasticity(value, name)


def _variance(name: str, value: Any) -> float:
    if isinstance(value, str) and value in VARIANCES:
        return VARIANCES[value]
    return number(0.0, 1.0, "'beta-tilde', 'beta' or a number from 0 (beta-tilde) to 1 (beta)")(name, value)


def _data_variance(name: str, value: Any) -> float | None:
    return None if value is None else nonnegative(name, value)


def _intervals(name: str, value: Any) -> tuple[tuple[int, float, float], ...]:
    said = (
        f"{name} = {value!r} must be a sequence of (times, low, high), times >= 1 and 0 < low < high in sigma / alpha"
    )
    try:
        found = tuple((count("times", times), float(low), float(high)) for times, low, high in value)
    except (TypeError, ValueError):
        raise ValueError(said) from None
    if not all(0 < low < high < np.inf for _, low, high in found):
        raise ValueError(said)
    return found


nonnegative = number(0.0, float(np.finfo(float).max), "a number of at least 0")
share = number(0.0, 1.0, "a number from 0 (no noise) to 1 (DDPM)")

ETA = Option("eta", _eta, "eta")
TAU = Option("tau", _eta, "eta")
SHARE = Option("eta", share, "eta")
DDPM = (Option("variance", _variance, "variance"), Option("data_variance", _data_variance, "data_variance"))
CHURN = (
    Option("s_churn", nonnegative, "s_churn"),
    Option("s_tmin", nonnegative, "s_tmin"),
    Option("s_tmax", number(0.0, np.inf, "a number of at least 0"), "s_tmax"),
    Option("s_noise", nonnegative, "s_noise"),
)
INTERVALS = Option("intervals", _intervals, "intervals")
PC = (Option("snr", number(0.0, 1e100, "a number from 0 to 1e100"), "snr"), Option("corrections", count, "corrections"))
STEP = Option("step", nonnegative, "step")
PER_LEVEL = Option("per_level", count, "per_level")
