"""Corrections of a fitted table for groups of elements: by channel, by band of frequencies, by element."""

import math
from typing import Any

import numpy as np
import torch

from ..bases import DCT, Basis
from .numbers import Numbers, Rows, tangents
from .table import Fitted

MOST = 4096  # numbers, whose normal equations are solved at once
NAMES = "channel", "band", "element"


class Groups:
    """labels: int64 (*event), of which group each element is, from 0 on. basis: of whose coordinates; None for the
    elements themselves."""

    def __init__(self, each: Any, event: tuple[int, ...]) -> None:
        """each: of `tune`. Raises ValueError for samples that have no such groups."""
        self.basis: Basis | None = None
        size = math.prod(event)
        if isinstance(each, str):
            if each not in NAMES:
                raise ValueError(f"each = {each!r} must be one of {', '.join(NAMES)}, or integers")
            if each == "channel" and len(event) < 2:
                raise ValueError(f"each = 'channel' is for samples with channels, and these are of shape {event}")
            if each == "element":
                labels = np.arange(size).reshape(event)
            elif each == "channel":
                labels = np.broadcast_to(np.arange(event[0]).reshape(-1, *[1] * (len(event) - 1)), event)
            else:
                axes = min(len(event), 2)
                self.basis = DCT(axes)
                highest = np.max(np.meshgrid(*(np.arange(n) for n in event[-axes:]), indexing="ij"), axis=0)
                labels = np.broadcast_to(np.frexp(highest)[1], event)  # octaves: 0, 1, 2 to 3, 4 to 7, ...
        else:
            try:
                labels = np.asarray(each)
            except ValueError:  # of lists of different lengths
                labels = np.empty(0, dtype=np.int64)
            if labels.shape != event or labels.dtype.kind not in "iu":
                raise ValueError(
                    f"each must be a name or integers of the samples' shape {event}, not {labels.dtype} {labels.shape}"
                )
        known, numbered = np.unique(labels, return_inverse=True)
        self.labels, self.count = torch.from_numpy(numbered.reshape(event)), len(known)
        self.name = each if isinstance(each, str) else "groups of one's own"

    def check(self, numbers: int) -> None:
        """ValueError where a table of so many numbers would have too many."""
        if numbers * self.count > MOST:
            raise ValueError(
                f"each = {self.name!r} has {self.count} groups, and {numbers * self.count} numbers to fit with this "
                f"budget, more than {MOST}; take fewer groups"
            )


class Grouped:
    """A fitted table's grid, its told times and corrections of its weights in each group of elements, the numbers q
    (size,) in this order: q = 0 is the table itself. Corrected are the weights that were free in ``numbers``. Has what
    a fit without a penalty asks of `Numbers`."""

    def __init__(self, numbers: Numbers, fitted: torch.Tensor, groups: Groups) -> None:
        self.numbers, self.table, self.groups, self.gauge = numbers, fitted, groups, numbers.gauge
        shared = [*range(numbers.grid), *range(numbers.size - numbers.told, numbers.size)]
        self.shared = torch.tensor(shared, device="cpu")
        self.size = len(self.shared) + groups.count * len(numbers.rows)

    def _weights(self, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """lam, told and weights (n, n + 1, G)."""
        moved, corrections = q[: len(self.shared)], q[len(self.shared) :].reshape(self.groups.count, -1)
        lam, told, weights = self.numbers.weights(self.table.index_add(0, self.shared, moved))
        placed = torch.vmap(self.numbers.placed)(corrections * self.numbers.scale)
        return lam, told, (weights + placed).movedim(0, -1)

    def __call__(self, q: torch.Tensor) -> Rows:
        return self.numbers.on_circle(*self._weights(q))._replace(labels=self.groups.labels)

    def tangents(self, q: torch.Tensor) -> tuple[Rows, Rows]:
        """As `Numbers.tangents`."""
        return tangents(self, q)

    def fitted(self, q: torch.Tensor) -> Fitted:
        lam, told, weights = (value.numpy() for value in self._weights(q))
        return Fitted(self.gauge, lam, weights[..., self.groups.labels], told if self.numbers.told else None)

    def numbers_of(self, weights: Any) -> torch.Tensor:
        """q of the table itself."""
        return torch.zeros(self.size, dtype=torch.float64, device="cpu")
