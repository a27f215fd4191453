"""Conditions of a model: tensors with a row per sample, and whatever else its keywords take."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

Conditions = dict[str, Any]
NUMBERS = (bool, int, float, np.number, np.bool_, torch.Tensor)  # the last if it is one


def mapped(tree: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same dictionaries, lists and tuples with every tensor changed; what is neither stays."""
    if isinstance(tree, torch.Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {name: mapped(value, change) for name, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(mapped(value, change) for value in tree)
    return tree


def rows_of(conditions: Conditions, samples: torch.Tensor) -> Conditions:
    """The rows of ``samples``, int64 (N,), of every tensor that has rows."""
    return {name: mapped(y, lambda y: y[samples.to(y.device)] if y.ndim else y) for name, y in conditions.items()}


def as_rows(y: Any, like: Any) -> Any:
    """A number ``y`` for the rows of the tensor ``like``, if these can hold it; anything else as it is."""
    if not isinstance(like, torch.Tensor) or not like.ndim or not isinstance(y, NUMBERS):
        return y
    number = torch.as_tensor(y)
    fits = not number.ndim and torch.can_cast(number.dtype, like.dtype)
    return number.to(like).expand_as(like).contiguous() if fits else y


def joins(parts: Sequence[Any]) -> bool:
    """Whether trees have the same form, and all but tensors with rows the same in both."""
    first, *rest = parts
    if isinstance(first, torch.Tensor):
        form = (first.ndim, first.shape[1:], first.dtype, first.device)
        alike = all(isinstance(y, torch.Tensor) and (y.ndim, y.shape[1:], y.dtype, y.device) == form for y in rest)
        return alike and (first.ndim > 0 or all(torch.equal(y, first) for y in rest))
    if isinstance(first, Mapping):
        same = all(isinstance(y, Mapping) and y.keys() == first.keys() for y in rest)
        return same and all(joins([part[name] for part in parts]) for name in first)
    if isinstance(first, (list, tuple)):
        same = all(type(y) is type(first) and len(y) == len(first) for y in rest)
        return same and all(map(joins, zip(*parts, strict=True)))
    return all(y is first or (type(y) is type(first) and np.array_equal(y, first)) for y in rest)


def joined(parts: Sequence[Any]) -> Any:
    """Trees that can be joined with their tensors put together along the rows; what is no tensor is the first's."""
    first = parts[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(list(parts)) if first.ndim else first
    if isinstance(first, Mapping):
        return {name: joined([part[name] for part in parts]) for name in first}
    if isinstance(first, (list, tuple)):
        return type(first)(map(joined, zip(*parts, strict=True)))
    return first


def check_conditions(name: str, conditions: Any) -> Conditions:
    """``conditions`` as a dictionary of keywords of the model; TypeError for what is none."""
    if conditions is None:
        return {}
    if not isinstance(conditions, Mapping) or not all(isinstance(key, str) for key in conditions):
        raise TypeError(f"{name} must be a dictionary of the model's keywords, not {conditions!r:.60}")
    return dict(conditions)


def check_rows(name: str, conditions: Conditions, batch: int) -> None:
    """ValueError unless every tensor has a row for each of ``batch`` samples, or is a number."""

    for key, tree in conditions.items():
        for y in tensors(tree):
            if y.ndim and len(y) != batch:
                shared = f"What all samples share is bound to the model: functools.partial(model, {key}=...)"
                if len(y) == 1:
                    shared = f"One row for all samples is {key}.expand({', '.join(map(str, (batch, *y.shape[1:])))})"
                raise ValueError(
                    f"{name}[{key!r}] has {len(y)} row{'s' * (len(y) != 1)} for a batch of {batch}: a tensor of "
                    f"conditions has one per sample; its shape is {tuple(y.shape)}. {shared}"
                )


def tensors(tree: Any) -> list[torch.Tensor]:
    """All tensors of a tree."""
    if isinstance(tree, (Mapping, list, tuple)):
        return [y for part in (tree.values() if isinstance(tree, Mapping) else tree) for y in tensors(part)]
    return [tree] if isinstance(tree, torch.Tensor) else []


def column(values: Any, like: torch.Tensor) -> torch.Tensor:
    """(N,) as (N, 1, ...), to go with rows like ``like``."""
    if isinstance(values, list):  # as torch.compile has it
        given = torch.tensor(values, dtype=torch.float64, device="cpu")
    else:
        given = torch.from_numpy(np.array(values, dtype=np.float64, order="C"))
    kind = torch.promote_types(like.dtype, torch.float32)
    return given.to(kind).to(like.device).reshape(-1, *[1] * (like.ndim - 1))
