"""The memory of a running program: slots, and the update of one call as one fused `combine`.

Two kinds of the same thing, chosen once per run by `registers`. `CpuRegisters` owns preallocated buffers and
calls compiled code by address: nothing is allocated after the start. `TorchRegisters` is functional, so that
it can be differentiated, transformed and run on any device.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from .combine import combine, in_accumulation_dtype
from .pool import THREADED_BYTES, Loop, launch
from .tensors import cpu_refuses, plain, vmapped

STATE = 0  # the slot of the state


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
    def tabled(self) -> bool:
        """Whether the coefficients of a call vary over the elements: that decides for the whole run."""
        return any(call.matrix.ndim > 2 for call in self.calls)

    @cached_property
    def plan(self) -> "CpuPlan":
        return CpuPlan(self)


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
    functional = updates.tabled or cpu_refuses([x]) is not None
    return TorchRegisters(updates, x) if functional else CpuRegisters(updates, x)


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


class CpuPlan:
    """What every run of the same program shares: coefficients, kernels, and which slots each call touches.

    A run's *frame* holds the addresses of its slots, then of a call's model outputs and noises. A call's *row*
    says which words of the frame its inputs and outputs are.
    """

    def __init__(self, updates: Updates) -> None:
        self.calls, self.dtypes, self.cast = updates.calls, updates.dtypes, updates.cast
        # Each call sums in the dtype that its own outputs ask for, which need not be the widest of all slots.
        self.coefs = [in_accumulation_dtype(call.matrix, self.written(call)) for call in self.calls]
        self.models = max(call.models for call in self.calls)
        self.noises = max(_noises(call) for call in self.calls)
        self.outputs = len(self.dtypes)  # where the frame holds the model outputs
        self.words = [self._row(call, matrix) for call, matrix in zip(self.calls, self.coefs, strict=True)]
        self.rows = [row.buffer_info()[0] for row in self.words]
        # Slots that a model or an observer sees are tensors; the others are parts of one block of memory.
        self.seen = sorted({STATE, *(call.at for call in self.calls), *([] if self.cast is None else [self.cast])})
        self.hidden = [k for k in range(len(self.dtypes)) if k not in self.seen]
        self.compiled: dict[torch.dtype, Compiled] = {}

    def _row(self, call: Update, matrix: np.ndarray) -> "array[int]":
        first_noise = self.outputs + self.models
        inputs = (
            *range(self.outputs, self.outputs + call.models),
            *call.reads,
            *range(first_noise, first_noise + _noises(call)),
        )
        return array("q", [matrix.ctypes.data, 0, *inputs, *call.writes])

    def written(self, call: Update) -> list[torch.dtype]:
        return [self.dtypes[k] for k in call.writes]

    def kernels(self, output: torch.dtype) -> "Compiled":
        """The loop of every call, for a model that returns ``output``."""
        from .combine_cpu import kernel, signature  # loads the compiler

        if output not in self.compiled:
            loops, sizes = [], []
            for call, matrix in zip(self.calls, self.coefs, strict=True):
                read = [self.dtypes[k] for k in call.reads] + [self.dtypes[STATE]] * _noises(call)
                inputs, outputs = [output] * call.models + read, self.written(call)
                loops.append(kernel(signature(inputs, outputs, matrix, call.models)))
                sizes.append(sum(dtype.itemsize for dtype in (*inputs, *outputs)))
            self.compiled[output] = Compiled(output, loops, sizes, max(sizes))
        return self.compiled[output]


class Compiled(NamedTuple):
    """The loops of a program's calls for models that return ``output``; the bytes that each moves per element."""

    output: torch.dtype
    loops: list[Loop]
    sizes: list[int]
    most: int


def _noises(call: Update) -> int:
    return call.matrix.shape[1] - call.models - len(call.reads)


class CpuRegisters:
    def __init__(self, updates: Updates, x: torch.Tensor) -> None:
        plan = self.plan = updates.plan
        # A copy, as models may work in place on what they are given.
        state = self.state = x.clone() if x.dtype is plan.dtypes[STATE] else x.to(plan.dtypes[STATE])
        self.slots: list[Any] = [None] * len(plan.dtypes)
        self.slots[STATE] = state
        for k in plan.seen[1:]:
            self.slots[k] = torch.empty_like(state, dtype=plan.dtypes[k])
        if plan.cast is not None:
            self.slots[plan.cast].copy_(x)
        self.count = state.numel()
        self.frame = array("q", [0] * (plan.outputs + plan.models + plan.noises))
        for k in plan.seen:
            self.frame[k] = self.slots[k].data_ptr()
        if plan.hidden:
            stride = -(-self.count // 16) * 16  # whole cache lines
            self.block = torch.empty(len(plan.hidden) * stride, dtype=state.dtype)
            first, step = self.block.data_ptr(), stride * state.element_size()
            for i, k in enumerate(plan.hidden):
                self.frame[k] = first + i * step
        self.address, self.output_word = self.frame.buffer_info()[0], plan.outputs
        self.shape, self.stride, self.rows = state.shape, state.stride(), plan.rows
        # What the model returned in earlier runs it will return again; if not, `hot` refuses.
        known = list(plan.compiled.values())  # at once: another thread may be adding one
        self.compiled: Compiled | None = known[0] if known else None
        simple = plan.models == 1 and not plan.noises and state.is_contiguous()
        self.hot_dtype, self.loops = None, []
        if known and simple and self.count * known[0].most < THREADED_BYTES:
            self.hot_dtype, self.loops = known[0].output, known[0].loops
        self.scratch: dict[int, torch.Tensor] = {}

    def hot(self, n: int, output: Any) -> int:
        if (
            output.__class__ is Tensor
            and output.dtype is self.hot_dtype
            and output.shape == self.shape
            and output.is_contiguous()
            and output.is_cpu
            and not output.is_neg()
        ):
            self.frame[self.output_word] = output.data_ptr()
            return self.loops[n](self.address, self.rows[n], 0, self.count)
        return -1

    def update(self, n: int, outputs: Sequence[torch.Tensor], noises: Sequence[torch.Tensor]) -> int:
        plan, dtype = self.plan, outputs[0].dtype
        if self.compiled is None or self.compiled.output is not dtype:
            self.compiled = plan.kernels(dtype)
        for j, output in enumerate(outputs):
            self._place(plan.outputs + j, output, dtype)
        for j, noise in enumerate(noises):
            self._place(plan.outputs + plan.models + j, noise, plan.dtypes[STATE])
        loop, size = self.compiled.loops[n], self.compiled.sizes[n]
        return launch(loop, self.address, plan.rows[n], self.count, size)

    def _place(self, word: int, tensor: torch.Tensor, dtype: torch.dtype) -> None:
        """Write the address of ``tensor`` to the frame: as it is, or copied to the layout of the state, into a
        buffer kept for its place."""
        alike = (tensor.is_contiguous() and self.state.is_contiguous()) or tensor.stride() == self.stride
        if not (alike and plain(tensor) and tensor.dtype is dtype):
            if word not in self.scratch or self.scratch[word].dtype is not dtype:
                self.scratch[word] = torch.empty_like(self.state, dtype=dtype)
            tensor = self.scratch[word].copy_(tensor)
        self.frame[word] = tensor.data_ptr()

    def first_bad(self) -> int | None:
        return None  # `hot` and `update` have said so at once
