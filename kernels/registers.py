"""The memory of a running program: slots, and the update of one call as one fused `combine`.

Two kinds of the same thing, chosen once per run by `registers`. `NumbaRegisters` owns preallocated buffers and
calls compiled code by address: nothing is allocated after the start. `TorchRegisters` is functional, so that
it can be differentiated, transformed and run on any device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from .combine import combine, in_accumulation_dtype, numba_refuses, plain, vmapped


class Update(Protocol):
    """What a call does with memory; see `logsnr.solvers.program.Call`."""

    @property
    def reads(self) -> tuple[int, ...]: ...

    @property
    def writes(self) -> tuple[int, ...]: ...

    @property
    def matrix(self) -> np.ndarray: ...

    @property
    def models(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Updates:
    """A program as the registers see it.

    dtypes: of every slot. Slot 0 is the state and starts as a copy of x; a last slot of the model's
    dtype, where the state's differs, holds the cast that the model reads (``cast``).
    """

    calls: tuple[Update, ...]
    dtypes: tuple[torch.dtype, ...]
    cast: int | None

    @cached_property
    def widest(self) -> np.ndarray:
        """The matrix with the most dimensions: per-element coefficients anywhere decide for the whole run."""
        return max((call.matrix for call in self.calls), key=np.ndim)

    @cached_property
    def plan(self) -> "NumbaPlan":
        return NumbaPlan(self)


class Registers(Protocol):
    """``slots[k]`` is the current tensor of slot k."""

    slots: list[torch.Tensor]

    def hot(self, n: int, output: Any) -> int:
        """Carry out call n if the model's output is an ordinary tensor laid out like the state: one compiled
        call. Returns 0, 1 if the output was not finite, or -1 if nothing was done and `update` is needed."""

    def update(self, n: int, outputs: Sequence[torch.Tensor], noises: Sequence[torch.Tensor]) -> int:
        """Carry out call n for any outputs of the state's shape; 1 if one is known not to be finite, else 0."""

    def first_bad(self) -> int | None:
        """At the end: the first call whose output was not finite, if any; under vmap nobody can know."""


def registers(updates: Updates, x: torch.Tensor) -> Registers:
    """Memory for one run that starts from ``x``: compiled on a CPU, plain torch everywhere else."""
    return TorchRegisters(updates, x) if numba_refuses([x], updates.widest) else NumbaRegisters(updates, x)


class TorchRegisters:
    def __init__(self, updates: Updates, x: torch.Tensor) -> None:
        self.updates = updates
        self.slots: list[Any] = [None] * len(updates.dtypes)
        self.slots[0] = x.to(updates.dtypes[0], copy=True)  # models may work in place on what they are given
        if updates.cast is not None:
            self.slots[updates.cast] = x.to(updates.dtypes[updates.cast])
        self.flags: list[torch.Tensor] = []

    def hot(self, n: int, output: Any) -> int:
        return -1

    def update(self, n: int, outputs: Sequence[torch.Tensor], noises: Sequence[torch.Tensor]) -> int:
        call = self.updates.calls[n]
        inputs = [*outputs, *(self.slots[k] for k in call.reads), *noises]
        dtypes = [self.updates.dtypes[k] for k in call.writes]
        results, bad = combine(inputs, call.matrix, dtypes=dtypes, checked=call.models)
        for k, result in zip(call.writes, results, strict=True):
            self.slots[k] = result
        self.flags.append(bad)
        return 0  # the flag is not read here: a GPU would have to stop

    def first_bad(self) -> int | None:
        if vmapped():
            return None
        bad = torch.stack(self.flags)
        return int(bad.nonzero()[0]) if bool(bad.any()) else None


class NumbaPlan:
    """What every run of the same program shares: coefficients, layout of the jobs, kernels."""

    def __init__(self, updates: Updates) -> None:
        self.calls, self.dtypes, self.cast = updates.calls, updates.dtypes, updates.cast
        # Each call sums in the dtype that its own outputs ask for, which need not be the widest of all slots.
        self.coefs = [in_accumulation_dtype(call.matrix, self.written(call)) for call in self.calls]
        self.by_output: dict[torch.dtype, list[Any]] = {}
        self.single = all(call.models == 1 for call in self.calls)
        # Jobs as indices into the words that a run fills in: the addresses of its slots, the number of
        # elements, and what all runs share, the addresses of the coefficients. Columns of model outputs and
        # noises are filled in as they come.
        count = len(self.dtypes)
        heads = [matrix.ctypes.data for matrix in self.coefs]
        self.words = np.array([0] * (count + 1) + heads, dtype=np.int64)
        width = 2 + max(call.matrix.shape[1] + len(call.writes) for call in self.calls)
        self.jobs = np.zeros((len(self.calls), width), dtype=np.intp)
        self.jobs[:, 0] = count + 1 + np.arange(len(self.calls))
        self.jobs[:, 1] = count
        for row, call in zip(self.jobs, self.calls, strict=True):
            first, outputs = 2 + call.models, 2 + call.matrix.shape[1]
            row[first : first + len(call.reads)] = call.reads
            row[outputs : outputs + len(call.writes)] = call.writes

    def written(self, call: Update) -> list[torch.dtype]:
        return [self.dtypes[k] for k in call.writes]

    def kernels(self, output: torch.dtype) -> list[Any]:
        """One compiled kernel per call, for a model that returns ``output``."""
        from . import combine_numba as numba

        if output not in self.by_output:
            found = []
            for call in self.calls:
                noises = call.matrix.shape[1] - call.models - len(call.reads)
                read = [self.dtypes[k] for k in call.reads] + [self.dtypes[0]] * noises
                sig = numba.signature([output] * call.models + read, self.written(call), call.models)
                found.append(numba.kernel(sig))
            self.by_output[output] = found
        return self.by_output[output]


class NumbaRegisters:
    def __init__(self, updates: Updates, x: torch.Tensor) -> None:
        plan = self.plan = updates.plan
        # A copy, as models may work in place on what they are given.
        state = self.state = x.to(plan.dtypes[0], copy=True)
        self.slots = [state, *(torch.empty_like(state, dtype=dtype) for dtype in plan.dtypes[1:])]
        if plan.cast is not None:
            self.slots[plan.cast].copy_(x)
        words = plan.words.copy()
        words[: len(self.slots) + 1] = [*(slot.data_ptr() for slot in self.slots), state.numel()]
        self.jobs = words[plan.jobs]
        first = self.jobs.ctypes.data
        self.rows = range(first, first + self.jobs.nbytes, self.jobs.strides[0])
        self.flat, self.width = self.jobs.reshape(-1), self.jobs.shape[1]
        self.shape, self.stride = state.shape, state.stride()
        small = state.numel() * self.width * state.element_size() < _threaded_bytes()
        self.ordinary = small and plan.single and state.is_contiguous()
        # What the model returned in earlier runs it will return again; if not, `hot` refuses.
        known = list(plan.by_output.items())  # at once: another thread may be adding one
        self.output: torch.dtype | None = known[0][0] if known else None
        self.kernels: list[Any] = known[0][1] if known else []
        self.scratch: dict[int, torch.Tensor] = {}

    def hot(self, n: int, output: Any) -> int:
        if not (
            self.ordinary
            and output.__class__ is torch.Tensor
            and output.dtype is self.output
            and output.shape == self.shape
            and output.is_contiguous()
            and output.is_cpu
            and not output.is_neg()
        ):
            return -1
        self.flat[n * self.width + 2] = output.data_ptr()
        return self.kernels[n](self.rows[n])

    def update(self, n: int, outputs: Sequence[torch.Tensor], noises: Sequence[torch.Tensor]) -> int:
        from . import combine_numba as numba

        plan, call = self.plan, self.plan.calls[n]
        if outputs[0].dtype is not self.output:
            self.output = outputs[0].dtype
            self.kernels = plan.kernels(self.output)
        dtypes = [outputs[0].dtype] * call.models + [plan.dtypes[0]] * len(noises)
        row = self.jobs[n]
        for j, (tensor, dtype) in enumerate(zip((*outputs, *noises), dtypes, strict=True)):
            column = 2 + (j if j < call.models else j + len(call.reads))
            row[column] = self._laid_out(column, tensor, dtype).data_ptr()
        return numba.launch(self.kernels[n], self.jobs, n)

    def _laid_out(self, column: int, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """``tensor`` as it is, or copied to the layout of the state, into a buffer kept for its column."""
        if plain(tensor) and tensor.dtype is dtype:
            contiguous = tensor.is_contiguous() and self.state.is_contiguous()
            if contiguous or tensor.stride() == self.stride:
                return tensor
        if column not in self.scratch or self.scratch[column].dtype is not dtype:
            self.scratch[column] = torch.empty_like(self.state, dtype=dtype)
        return self.scratch[column].copy_(tensor)

    def first_bad(self) -> int | None:
        return None  # `hot` and `update` have said so at once


def _threaded_bytes() -> int:
    from .combine_numba import THREADED_BYTES

    return THREADED_BYTES
