"""A program as the memory of a run sees it."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch

from .table import Table

if TYPE_CHECKING:
    from .registers_cpu import CpuPlan

STATE = 0  # the slot of the state
Column = tuple[int, int]  # interval and stream of a noise, see `normals`


class Update(Protocol):
    """What a call does with memory; see `logsnr.solvers.program.Call`."""

    @property
    def at(self) -> int: ...

    @property
    def reads(self) -> tuple[int, ...]: ...

    @property
    def writes(self) -> tuple[int, ...]: ...

    @property
    def matrix(self) -> np.ndarray: ...

    @property
    def models(self) -> int: ...


class Seeds(NamedTuple):
    """What each sample of a batch draws its noise with: int64 (B,), contiguous, on the device of the state."""

    seeds: torch.Tensor
    samples: torch.Tensor


@dataclass(frozen=True, eq=False)
class Updates:
    """calls: the updates. columns: by call, the address of each of its noises.

    dtypes: of every slot. Slot 0 is the state and starts as a copy of x; a last slot of the model's
    dtype, where the state's differs, holds the cast that the model reads (``cast``).
    """

    calls: tuple[Update, ...]
    columns: tuple[tuple[Column, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    cast: int | None
    tables: tuple[Table, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tables", tuple(Table(call.matrix) for call in self.calls))

    def written(self, n: int) -> list[torch.dtype]:
        """The dtypes of what call n writes."""
        return [self.dtypes[k] for k in self.calls[n].writes]

    def read(self, n: int, output: torch.dtype) -> list[torch.dtype]:
        """The dtypes of what call n reads, noises left out, where the model returns ``output``."""
        call = self.calls[n]
        return [output] * call.models + [self.dtypes[k] for k in call.reads]

    @cached_property
    def models(self) -> int:
        """The most tensors that a model returns at a call."""
        return max(call.models for call in self.calls)

    @cached_property
    def noises(self) -> int:
        """The most noises of a call."""
        return max(map(len, self.columns))

    @cached_property
    def by_element(self) -> bool:
        """Whether the coefficients of a call vary over the elements."""
        return any(table.by_element for table in self.tables)

    @cached_property
    def plan(self) -> "CpuPlan":
        from .registers_cpu import CpuPlan  # loads the compiler

        return CpuPlan(self)
