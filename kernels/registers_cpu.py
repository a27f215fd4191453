"""The memory of a run on the CPU: preallocated buffers, and compiled loops that are called by address."""

from array import array
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .combine_cpu import kernel, launch_combine
from .pool import THREADED_BYTES, Loop, launch, shared
from .registers import Scratch, replace_state
from .signature import signature
from .table import ONE
from .tensors import accumulation_dtype, plain
from .updates import STATE, Seeds, Updates


class Compiled(NamedTuple):
    """The loops of a program's calls for models that return ``output``; what each costs per element, and
    whether it counts by sample. Rows are what the loops are told of their calls; ``words`` keeps their memory."""

    output: torch.dtype
    loops: list[Loop]
    sizes: list[int]
    by_sample: list[bool]
    rows: list[int]
    words: list[Any]
    most: int


class CpuPlan:
    """What every run of the same program shares: coefficients, kernels, and which slots each call touches.

    A run's *frame* holds the addresses of its slots, then of a call's model outputs and noises, then what loops that
    count by sample need. A call's *row* says which words of the frame its inputs and outputs are.
    """

    def __init__(self, updates: Updates) -> None:
        self.updates, self.dtypes, self.cast = updates, updates.dtypes, updates.cast
        self.outputs = len(self.dtypes)  # where the frame holds the model outputs
        self.noises = self.outputs + updates.models
        self.samples = self.noises + updates.noises
        # Slots that a model or an observer sees are tensors; the others are parts of one block of memory.
        seen = {call.at for call in updates.calls}
        self.seen = sorted({STATE, *seen, *([] if self.cast is None else [self.cast])})
        self.hidden = [k for k in range(len(self.dtypes)) if k not in self.seen]
        self.simple = updates.models == 1
        self.compiled: dict[tuple[Any, ...], Compiled] = {}
        self.latest: dict[tuple[Any, ...], Compiled] = {}  # what the model returned then it will return again

    def kernels(self, output: torch.dtype, addressed: bool, event: Sequence[int]) -> Compiled:
        """The loop of every call, for a model that returns ``output``; ``addressed``: noises are made, not read."""
        run = self.key(addressed, event)
        key = output, *run
        if key not in self.compiled:
            updates, loops, sizes, samples, words = self.updates, [], [], [], []
            for n, call in enumerate(updates.calls):
                columns, written = call.noises, call.dtypes
                read = updates.read(n, output) + [self.dtypes[STATE]] * (0 if addressed else len(columns))
                sig = signature(read, written, call.table, call.models)
                loops.append(kernel(sig))
                sizes.append(sig.cost)
                samples.append(sig.by_sample)
                # Each call sums in the dtype that its own outputs ask for, which need not be the widest of all slots.
                matrix = call.table.rounded(accumulation_dtype(written), event)
                places = [*range(self.outputs, self.outputs + call.models), *call.reads]
                places += range(self.noises, self.noises + len(read) - len(places))
                by_sample = [self.samples, *(word for column in columns if addressed for word in column)]
                words.append((array("q", [matrix.ctypes.data, 0, *places, *call.writes, *by_sample]), matrix))
            rows = [row.buffer_info()[0] for row, _ in words]
            self.compiled[key] = Compiled(output, loops, sizes, samples, rows, words, max(sizes))
        self.latest[run] = self.compiled[key]
        return self.compiled[key]

    def key(self, addressed: bool, event: Sequence[int]) -> tuple[Any, ...]:
        return addressed and self.updates.noises > 0, tuple(event) if self.updates.by_element else None


def _copy(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``x`` in new memory, laid out alike. Large ones are not left to torch, whose threads stay on the processors for
    10 ms after they have worked: the first steps would take twice as long."""
    if x.nbytes < THREADED_BYTES:
        return x.to(dtype, copy=True)
    state = torch.empty_like(x, dtype=dtype)
    launch_combine([x], ONE, [state], 0, None, None)
    return state


class CpuRegisters:
    def __init__(self, updates: Updates, x: torch.Tensor, seeds: Seeds | None) -> None:
        plan = self.plan = updates.plan
        # Copies, as models may work in place on what they are given.
        self.slots: list[Any] = [None] * len(plan.dtypes)
        for k in plan.seen:
            given = k in (STATE, plan.cast)
            self.slots[k] = _copy(x, plan.dtypes[k]) if given else torch.empty_like(x, dtype=plan.dtypes[k])
        state = self.slots[STATE]
        self.count = state.numel()
        self.frame = array("q", [0] * (plan.samples + 3))
        for k in plan.seen:
            self.frame[k] = self.slots[k].data_ptr()
        if plan.hidden:
            stride = -(-self.count // 16) * 16  # whole cache lines
            self.block = torch.empty(len(plan.hidden) * stride, dtype=state.dtype)
            first, step = self.block.data_ptr(), stride * state.element_size()
            for i, k in enumerate(plan.hidden):
                self.frame[k] = first + i * step
        self.shape, self.seeds = state.shape, seeds  # whose words the frame points to
        self.addressed, self.event = seeds is not None, state.shape[1:]
        self.period = max(prod(self.event), 1)  # which loops divide by
        self.frame[plan.samples] = self.period
        if seeds is not None:
            self.frame[plan.samples + 1], self.frame[plan.samples + 2] = (words.data_ptr() for words in seeds)
        self.address, self.output_word = self.frame.buffer_info()[0], plan.outputs
        self.compiled = known = plan.latest.get(plan.key(self.addressed, self.event))
        self.hot_dtype, self.loops, self.rows = None, [], []
        if known and plan.simple and (self.addressed or not updates.noises) and state.is_contiguous():
            self.hot_dtype, self.loops, self.rows = known.output, known.loops, known.rows
            if self.count * known.most >= THREADED_BYTES:
                kinds = [*zip(known.loops, known.sizes, known.by_sample, strict=True)]
                loops = {
                    kind: shared(kind[0], self.count, kind[1], period=self.period if kind[2] else None)
                    for kind in set(kinds)
                }
                self.loops = [loops[kind] for kind in kinds]
        self.scratch = Scratch(state)

    def step(self, n: int, output: Any) -> int:
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
            self.compiled = plan.kernels(dtype, self.addressed, self.event)
        for j, output in enumerate(outputs):
            self._place(plan.outputs + j, output, dtype)
        for j, noise in enumerate(noises):
            self._place(plan.noises + j, noise, plan.dtypes[STATE])
        found = self.compiled
        period = self.period if found.by_sample[n] else None
        return launch(found.loops[n], self.address, found.rows[n], self.count, found.sizes[n], period=period)

    def _place(self, word: int, tensor: torch.Tensor, dtype: torch.dtype) -> None:
        """Write the address of ``tensor`` to the frame."""
        self.frame[word] = self.scratch.alike(word, tensor, dtype, plain(tensor)).data_ptr()

    def replace(self, state: torch.Tensor) -> None:
        replace_state(self.slots, state, self.plan.cast)

    def first_bad(self) -> int | None:
        return None  # `hot` and `update` have said so at once
