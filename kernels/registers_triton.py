"""The memory of a run on a GPU: preallocated buffers, one launch a call, no word from the host in between.

Coefficients go to the device once for all runs of a program, so a run can be captured in a CUDA graph after another
has warmed it up.
"""

from collections.abc import Sequence
from typing import Any

import torch

from .combine_triton import Launch, on_device, prepare, start
from .registers import Scratch, first_true
from .tensors import plain
from .updates import STATE, Seeds, Updates

APART = 16  # flags lie 16 bytes apart: Triton compiles for pointers that are multiples of 16, and for others


class TritonRegisters:
    def __init__(self, updates: Updates, x: torch.Tensor, seeds: Seeds | None) -> None:
        self.updates, self.seeds = updates, seeds
        state = x.to(updates.dtypes[STATE], copy=True)  # models may work in place on what they are given
        self.slots = [state, *(torch.empty_like(state, dtype=dtype) for dtype in updates.dtypes[1:])]
        if updates.cast is not None:
            self.slots[updates.cast].copy_(x)
        self.scratch = Scratch(state)
        self.flags = torch.zeros(len(updates.calls), APART, dtype=torch.bool, device=x.device)

    def hot(self, n: int, output: Any) -> int:
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
        start(launch, inputs, [self.slots[k] for k in call.writes], self.flags[n], None, seeds, samples, words)
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

    def first_bad(self) -> int | None:
        return first_true(self.flags[:, 0])
