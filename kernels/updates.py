"""What the calls of a program do with the memory of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from .table import Recent, Table

STATE = 0  # the slot of the state
Column = tuple[int, int]  # interval and stream of a noise, see `normals`


class Update(NamedTuple):
    """What a call does with memory.

    at: the slot that the model sees. models: how many tensors it returns. table: the coefficients, with a column
    for each of these tensors, then the slots ``reads``, then the ``noises`` by their addresses, and a row for each
    of the slots ``writes``, whose ``dtypes`` these are. checked: how many of its inputs must be finite; those that the
    model returns are.
    """

    at: int
    models: int
    reads: tuple[int, ...]
    noises: tuple[Column, ...]
    writes: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...]
    table: Table
    checked: int

    def again(self, rows: Sequence[int], slots: Sequence[int]) -> "Update":
        """The same call whose results ``rows`` also go to other ``slots``."""
        if not rows:
            return self
        dtypes, coefs = [self.dtypes[r] for r in rows], self.table.coefs
        table = Table(np.concatenate([coefs, coefs[list(rows)]]))
        return self._replace(writes=(*self.writes, *slots), dtypes=(*self.dtypes, *dtypes), table=table)


class Seeds(NamedTuple):
    """What each sample of a batch draws its noise with: int64 (B,), contiguous, on the device of the state."""

    seeds: torch.Tensor
    samples: torch.Tensor


@dataclass(frozen=True, eq=False)
class Updates:
    """A program as the memory of a run sees it.

    dtypes: of every slot. Slot 0 is the state and starts as a copy of x; a last slot of the model's
    dtype, where the state's differs, holds the cast that the model reads (``cast``). The slot ``one``, if there is
    one, holds 1 everywhere, and no call writes it. twins: see `doubled`.
    kept: what those who run it prepare for the next run.
    """

    calls: tuple[Update, ...]
    dtypes: tuple[torch.dtype, ...]
    cast: int | None
    one: int | None = None
    twins: Mapping[int, int] = field(default_factory=dict)
    kept: Recent = field(default_factory=Recent, init=False, repr=False)

    def read(self, n: int, output: torch.dtype) -> list[torch.dtype]:
        """The dtypes of what call n reads, noises left out, where the model returns ``output``."""
        call = self.calls[n]
        return [output] * call.models + [self.dtypes[k] for k in call.reads]

    def doubled(self, twice: tuple[bool, ...]) -> "Updates":
        """The same for a model that sees its slot ``twice`` over, as one batch, at the calls that are marked: such
        slots have a *twin*, behind them in memory, and whoever writes the one writes the other in the same pass."""
        return self.kept.made(("doubled", twice), lambda: self._doubled(twice))

    def _doubled(self, twice: tuple[bool, ...]) -> "Updates":
        slots = sorted({call.at for call, two in zip(self.calls, twice, strict=True) if two})
        twins = {k: len(self.dtypes) + i for i, k in enumerate(slots)}
        calls, wanted = list[Update](), set[int]()
        for call, two in zip(self.calls[::-1], twice[::-1], strict=True):
            rows = [r for r, k in enumerate(call.writes) if k in wanted]
            calls.append(call.again(rows, [twins[call.writes[r]] for r in rows]))
            wanted = (wanted - {*call.writes}) | ({call.at} if two else set())
        dtypes = *self.dtypes, *(self.dtypes[k] for k in slots)
        return replace(self, calls=tuple(calls[::-1]), dtypes=dtypes, twins=twins)

    @cached_property
    def begun(self) -> tuple[int, ...]:
        """The slots that begin as copies of x: the state, the cast, and their twins."""
        first = [STATE] if self.cast is None else [STATE, self.cast]
        return *first, *(self.twins[k] for k in first if k in self.twins)

    @cached_property
    def models(self) -> int:
        """The most tensors that a model returns at a call."""
        return max(call.models for call in self.calls)

    @cached_property
    def noises(self) -> int:
        """The most noises of a call."""
        return max(len(call.noises) for call in self.calls)

    @cached_property
    def by_element(self) -> bool:
        """Whether the coefficients of a call vary over the elements."""
        return any(call.table.by_element for call in self.calls)
