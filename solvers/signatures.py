"""The arguments of functions: what a user's function asks for, and what functions hand on to others."""

from collections.abc import Callable
from inspect import signature
from typing import Any, ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
T = TypeVar("T")
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


def fits(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many positional arguments; True where it does not say."""
    try:
        called = signature(function)
    except (TypeError, ValueError):
        return True
    try:
        called.bind(*range(count))
    except TypeError:
        return False
    return True


def takes_x0(callback: Callable[..., Any]) -> bool:
    """Whether a callback has a fourth argument, without a default, for the x0 estimate."""
    return arguments(callback) >= 4


def watching(
    callback: Callable[..., Any],
    shown: Callable[[torch.Tensor], torch.Tensor],
    changed: Callable[[torch.Tensor, Callable[[torch.Tensor], Any]], torch.Tensor | None],
) -> Callable[..., Any]:
    """A callback that sees states in another form, as one of states.

    shown: that form of an x0. changed(state, call): shows the state, ``call(form)``, and says what takes its place.
    """

    def three(node: int, t: Any, state: torch.Tensor) -> torch.Tensor | None:
        return changed(state, lambda form: callback(node, t, form))

    def four(node: int, t: Any, state: torch.Tensor, x0: torch.Tensor | None) -> torch.Tensor | None:
        return changed(state, lambda form: callback(node, t, form, None if x0 is None else shown(x0)))

    return four if takes_x0(callback) else three


def takes_what(other: Callable[P, Any]) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Mark a function, which stays as it is, as one with the arguments of ``other``: for types, and when it runs."""

    def marked(function: Callable[..., T]) -> Callable[P, T]:
        told = signature(other).replace(return_annotation=signature(function).return_annotation)
        setattr(function, "__signature__", told)  # noqa: B010
        return cast(Callable[P, T], function)

    return marked
