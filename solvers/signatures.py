"""What a user's function asks for, by the number of its arguments."""

from collections.abc import Callable
from inspect import signature
from typing import Any

ALL = 1 << 10  # of functions that take any number


def arguments(function: Callable[..., Any]) -> int:
    """How many positional arguments without a default a function has; 0 where it does not say, as some builtins."""
    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError):
        return 0
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return ALL
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in parameters)
