"""Corrections of a fitted table for groups of elements: by channel, by band of frequencies, by element."""

import math
from typing import Any

import numpy as np
import torch

from ..bases import DCT, Basis
from .numbers import Numbers, Rows, alpha_of, rows_of
from .table import Fitted

MOST = 4096  # numbers: each is a direction that goes through the model
NAMES = "channel", "band", "element"


class Groups:
    """labels: int64 (*event), of which group each element is, from 0 on. basis: of whose coordinates; None for the
    elements themselves."""

    def __init__(self, each: Any, event: tuple[int, ...]) -> None:
        """each: of `tune`. Raises ValueError for samples that have no such groups."""
        self.basis: Basis | None = None
        size = math.prod(event)
        if isinstance(each, str):
            if each not in NAMES or (each == "channel" and len(event) < 2):
                raise ValueError(f"each = {each!r} must be one of {', '.join(NAMES)}, for samples of shape {event}")
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
            labels = np.asarray(each)
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
    """Corrections q (size,) to the weights of a table that is fitted: to those that were free in ``numbers``, in each
    group of elements. q = 0 is the table itself. Has what a fit without a penalty asks of `Numbers`."""

    def __init__(self, numbers: Numbers, fitted: torch.Tensor, groups: Groups) -> None:
        self.numbers, self.groups, self.n, self.gauge = numbers, groups, numbers.n, numbers.gauge
        self.lam, self.told, self.weights = numbers.weights(fitted)
        self.size = groups.count * len(numbers.rows)

    def _weights(self, q: torch.Tensor) -> torch.Tensor:
        """(n, n + 1, *event)."""
        placed = torch.vmap(self.numbers.placed)(q.reshape(self.groups.count, -1) * self.numbers.scale)
        by_group = (self.weights + placed).movedim(0, -1)
        return by_group[..., self.groups.labels]

    def __call__(self, q: torch.Tensor) -> Rows:
        return rows_of(self.gauge, self.lam, self.told, self._weights(q), alpha_of(self.lam), alpha_of(-self.lam))

    def tangents(self, q: torch.Tensor) -> tuple[Rows, Rows]:
        """As `Numbers.tangents`: the weights alone move."""
        found, slopes = self(q), torch.func.jacfwd(lambda q: self(q).matrix)(q)
        still = torch.zeros(self.n + 1, self.size, dtype=q.dtype)
        return found, Rows(still, still[:-1], slopes)

    def fitted(self, q: torch.Tensor) -> Fitted:
        told = self.told.numpy() if self.numbers.told else None
        return Fitted(self.gauge, self.lam.numpy(), self._weights(q).numpy(), told)

    def numbers_of(self, weights: Any) -> torch.Tensor:
        """q of the table itself."""
        return torch.zeros(self.size, dtype=torch.float64)
