"""The memory of a run on a GPU: preallocated buffers, one launch a call, no word from the host in between.

Coefficients go to the device once for all runs of a program, so a run can be captured in a CUDA graph after another
has warmed it up.
"""

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .combine_triton import Launch, on_device, prepare, start
from .launch_triton import launchable, launcher, row
from .registers import Scratch, first_true, replace_state
from .tensors import plain
from .updates import STATE, Seeds, Updates

APART = 16  # flags lie 16 bytes apart: Triton compiles for pointers that are multiples of 16, and for others


class Ready(NamedTuple):
    """The launches of a program's calls for models that return ``output``: their addresses, as far as runs have made
    them, else 0. ``kept`` holds their memory."""

    output: torch.dtype
    rows: list[int]
    kept: "list[array[int]]"


class TritonRegisters:
    """A run's *frame* holds the addresses of its slots, then of the model's output, of the flags of its calls, and of
    its seeds. What one run has launched, the next ones launch again from there (`launch_triton`)."""

    def __init__(self, updates: Updates, x: torch.Tensor, seeds: Seeds | None) -> None:
        self.updates, self.seeds = updates, seeds
        state = x.to(updates.dtypes[STATE], copy=True)  # models may work in place on what they are given
        self.slots = [state, *(torch.empty_like(state, dtype=dtype) for dtype in updates.dtypes[1:])]
        if updates.cast is not None:
            self.slots[updates.cast].copy_(x)
        self.scratch = Scratch(state)
        self.flags = torch.zeros(len(updates.calls), APART, dtype=torch.bool, device=x.device)
        flag, outputs = self.flags.data_ptr(), len(self.slots)
        self.frame = array("q", [*(slot.data_ptr() for slot in self.slots), 0])
        self.frame.extend(range(flag, flag + self.flags.nbytes, APART))
        self.frame.extend(words.data_ptr() for words in seeds or ())
        self.address, self.output_word = self.frame.buffer_info()[0], outputs
        self.shape, self.index = state.shape, state.get_device()
        self.key = state.device, state.shape, seeds is not None
        made = not updates.noises if seeds is None else not any(words.data_ptr() % 16 for words in seeds)
        self.simple = made and updates.models == 1 and state.is_contiguous() and state.is_cuda and launchable()
        self.ready = updates.ready.get(self.key) if self.simple else None
        self.hot_dtype, self.rows = state.dtype, [0] * len(updates.calls)
        if self.ready is not None:
            self.hot_dtype, self.rows, _ = self.ready

    def step(self, n: int, output: Any) -> int:
        if (
            self.rows[n]
            and output.__class__ is Tensor
            and output.dtype is self.hot_dtype
            and output.shape == self.shape
            and output.is_contiguous()
            and output.get_device() == self.index
            and not output.is_neg()
            and not (address := output.data_ptr()) % 16
        ):
            self.frame[self.output_word] = address
            stream = torch._C._cuda_getCurrentRawStream(self.index)
            return -1 if launcher()(self.address, self.rows[n], stream) else 0  # Triton will say what is wrong
        return -1

    def update(self, n: int, outputs: Sequence[torch.Tensor], noises: Sequence[torch.Tensor]) -> int:
        updates, state = self.updates, self.slots[STATE]
        call, launch, words = updates.calls[n], *self._prepared(n)
        dtype, device = outputs[0].dtype, state.device.type
        inputs = [self.scratch.alike(j, output, dtype, plain(output, device)) for j, output in enumerate(outputs)]
        inputs += [self.slots[k] for k in call.reads]
        inputs += [
            self.scratch.alike(updates.models + j, noise, state.dtype, plain(noise, device))
            for j, noise in enumerate(noises)
        ]
        seeds, samples = (None, None) if words is None or self.seeds is None else self.seeds
        kernel = start(launch, inputs, [self.slots[k] for k in call.writes], self.flags[n], None, seeds, samples, words)
        if self.simple and kernel is not None:
            self._keep(n, dtype, launch, words, kernel)
        return 0  # the flag is not read here: the GPU would have to stop

    def _prepared(self, n: int) -> tuple[Launch, torch.Tensor | None]:
        """The launch of call n and the addresses of its noises, on the device since the first run."""
        state, call = self.slots[STATE], self.updates.calls[n]
        table, columns = call.table, call.noises if self.seeds is not None else ()
        key = "run", state.device, columns, state.shape[1:] if table.by_element else None
        if key not in table.kept:
            event = state.shape[1:]
            launch = prepare(table, call.dtypes, event, state.device, call.models, len(columns))
            table.kept[key] = launch, on_device(columns, torch.int64, state.device) if columns else None
        found: tuple[Launch, torch.Tensor | None] = table.kept[key]
        return found

    def _keep(self, n: int, output: torch.dtype, launch: Launch, words: torch.Tensor | None, kernel: Any) -> None:
        """Have the next runs launch the kernel of call n from their frames."""
        if self.ready is None or self.ready.output is not output:  # what the model returned then it will return again
            made, empty = self.updates.ready, Ready(output, [0] * len(self.rows), [])
            self.ready = made[self.key] = made.setdefault((*self.key, output), empty)
            self.hot_dtype, self.rows, _ = self.ready
        if self.rows[n]:
            return
        call, first = self.updates.calls[n], self.output_word
        size, blocks = launch.grid(self.slots[STATE])
        unused = launch.table.data_ptr()  # where the kernel reads nothing
        places = [first, *call.reads, *call.writes]
        seeds = [unused] * 3 if words is None else [~(len(self.frame) - 2), ~(len(self.frame) - 1), words.data_ptr()]
        found = row(kernel, blocks, [*(~k for k in places), unused, unused, ~(first + 1 + n), *seeds, size])
        if found is not None:
            self.ready.kept.append(found)
            self.rows[n] = found.buffer_info()[0]

    def replace(self, state: torch.Tensor) -> None:
        replace_state(self.slots, state, self.updates.cast)

    def first_bad(self) -> int | None:
        return first_true(self.flags)
