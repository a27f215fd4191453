"""Functions that hand their arguments on to another one, so that editors and `help` know what these are."""

from collections.abc import Callable
from inspect import signature
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


def takes_what(other: Callable[P, Any]) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Mark a function, which stays as it is, as one with the arguments of ``other``: for types, and when it runs."""

    def marked(function: Callable[..., T]) -> Callable[P, T]:
        told = signature(other).replace(return_annotation=signature(function).return_annotation)
        setattr(function, "__signature__", told)  # noqa: B010
        return cast(Callable[P, T], function)

    return marked
