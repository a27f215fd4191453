"""The memory of a run on a GPU: preallocated buffers, one launch a call, no word from the host in between.

Coefficients go to the device once for all runs of a program, so a run can be captured in a CUDA graph after another
has warmed it up.
"""

from collections.abc import Sequence

import torch

from .buffers import Owned, Scratch, first_true
from .combine_triton import prepare, start
from .tensors import plain
from .updates import STATE, Seeds, Updates

APART = 16  # flags lie 16 bytes apart: Triton compiles for pointers that are multiples of 16, and for others


class TritonRegisters(Owned):
    def __init__(self, updates: Updates, x: torch.Tensor, seeds: Seeds | None) -> None:
        super().__init__(updates, x, seeds)
        for k in updates.begun:  # copies, as models may work in place on what they are given
            self.slots[k].copy_(x)
        self.scratch = Scratch(self.slots[STATE])
        self.flags = torch.zeros(len(updates.calls), APART, dtype=torch.bool, device=x.device)

    def update(self, n: int, outputs: Sequence[torch.Tensor], noises: Sequence[torch.Tensor]) -> int:
        self.restore()
        updates, state, call = self.updates, self.slots[STATE], self.updates.calls[n]
        dtype, device = outputs[0].dtype, state.device.type
        columns = call.noises if self.seeds is not None else ()
        launch = prepare(call.table, call.dtypes, state.shape[1:], state.device, call.checked, columns)
        inputs = [self.scratch.alike(j, output, dtype, plain(output, device)) for j, output in enumerate(outputs)]
        inputs += [self.slots[k] for k in call.reads]
        inputs += [
            self.scratch.alike(updates.models + j, noise, state.dtype, plain(noise, device))
            for j, noise in enumerate(noises)
        ]
        start(
            launch, inputs, [self.slots[k] for k in call.writes], self.flags[n], *(self.seeds or () if columns else ())
        )
        return 0  # the flag is not read here: the GPU would have to stop

    def first_bad(self) -> int | None:
        return first_true(self.flags)
