"""The memory of a run on the CPU: preallocated buffers, and compiled loops that are called by address."""

from array import array
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .buffers import Owned, Scratch
from .combine_cpu import copy, prepare
from .pool import THREADED_BYTES, Loop, launch
from .tensors import plain
from .updates import STATE, Seeds, Updates


class Calls(NamedTuple):
    """What the runs of a program share, for models that return ``output``: of each call the loop, the address of its
    row and the bytes that an element takes. ``kept`` holds what the rows point to."""

    output: torch.dtype
    loops: list[Loop]
    rows: list[int]
    sizes: list[int]
    kept: list[Any]


class CpuRegisters(Owned):
    """A run's *frame* holds the addresses of its slots, then of a call's model outputs and noises, then what loops that
    count by sample need: see `combine_cpu.prepare`."""

    def __init__(self, updates: Updates, x: torch.Tensor, seeds: Seeds | None) -> None:
        super().__init__(updates, x, seeds)
        self.outputs = len(updates.dtypes)  # where the frame holds the model outputs
        self.noises = self.outputs + updates.models
        self.samples = self.noises + updates.noises
        for k in updates.begun:  # copies, as models may work in place on what they are given
            # Not by torch: its threads do not survive a fork, and spin for 10 ms after they have worked.
            copy(x, self.slots[k])
        state = self.slots[STATE]
        self.count, self.shape, self.event = state.numel(), state.shape, state.shape[1:]
        self.frame = array("q", self.addresses)
        words = (0, 0) if seeds is None else (seeds.seeds.data_ptr(), seeds.samples.data_ptr())
        self.frame.extend([*[0] * (self.samples - self.outputs), max(prod(self.event), 1), *words])
        self.address = self.frame.buffer_info()[0]
        self.key = seeds is not None and updates.noises > 0, tuple(self.event) if updates.by_element else None
        # What the model returned in the last run it will return again.
        self.calls: Calls | None = updates.kept.get(self.key)
        self.dtype = None
        if self.calls and updates.models == 1 and state.is_contiguous() and (seeds is not None or not updates.noises):
            self.dtype, self.loops, self.rows, sizes, _ = self.calls
            if self.count * max(sizes) >= THREADED_BYTES:
                self.dtype = None  # several threads may be worth it
            # Where the tensor is that the model has seen, and where it should be.
            seen = {STATE, *(call.at for call in updates.calls)}
            where = {k: (self.slots[k].data_ptr, self.frame[k]) for k in seen}
            self.where = [where[call.at] for call in updates.calls]
            self.state = None if len(seen) == 1 else where[STATE]
        self.scratch = Scratch(state)

    def step(self, n: int, output: Any) -> int:
        if (
            output.__class__ is Tensor
            and output.dtype is self.dtype
            and output.shape == self.shape
            and output.is_contiguous()
            and output.is_cpu
            and not output.is_neg()
            and (seen := self.where[n])[0]() == seen[1]
            and ((state := self.state) is None or state[0]() == state[1])
        ):
            self.frame[self.outputs] = output.data_ptr()
            return self.loops[n](self.address, self.rows[n], 0, self.count)
        return -1

    def update(self, n: int, outputs: Sequence[torch.Tensor], noises: Sequence[torch.Tensor]) -> int:
        dtype, calls = outputs[0].dtype, self.calls
        self.restore()
        if calls is None or calls.output is not dtype:
            calls = self.calls = self._prepared(dtype)
        for j, output in enumerate(outputs):
            self._place(self.outputs + j, output, dtype)
        for j, noise in enumerate(noises):
            self._place(self.noises + j, noise, self.updates.dtypes[STATE])
        return launch(calls.loops[n], self.address, calls.rows[n], self.count, calls.sizes[n])

    def _prepared(self, output: torch.dtype) -> Calls:
        """The loop of every call, for a model that returns ``output``."""
        updates = self.updates

        def make() -> Calls:
            made = []
            for n, call in enumerate(updates.calls):
                addressed = call.noises if self.seeds is not None else ()
                given = 0 if addressed else len(call.noises)
                read = updates.read(n, output) + [updates.dtypes[STATE]] * given
                places = [*range(self.outputs, self.outputs + call.models), *call.reads]
                places += range(self.noises, self.noises + given)
                where = places, call.writes, self.samples
                made.append(prepare(read, call.dtypes, call.table, call.checked, addressed, self.event, *where))
            rows = [one.row.buffer_info()[0] for one in made]
            return Calls(output, [one.loop for one in made], rows, [one.size for one in made], made)

        found: Calls = updates.kept.made((output, *self.key), make)
        updates.kept[self.key] = found
        return found

    def _place(self, word: int, tensor: torch.Tensor, dtype: torch.dtype) -> None:
        """Write the address of ``tensor`` to the frame."""
        self.frame[word] = self.scratch.alike(word, tensor, dtype, plain(tensor)).data_ptr()
