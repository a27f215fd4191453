"""The memory of a running program: slots, and the update of one call as one fused `combine`.

Three kinds of the same thing, chosen once per run by `registers`. On a CPU and on a GPU there are compiled ones that
own preallocated buffers: nothing is allocated after the start. `TorchRegisters` is functional, so that it can be
differentiated, transformed, traced and run on any device.
"""

from collections.abc import Sequence
from copy import copy

import torch

from .backends import choose
from .buffers import Registers, by_sample, first_true
from .combine import combine
from .normals import Noise
from .tensors import cpu_refuses, dense, triton_refuses, vmapped
from .updates import STATE, Seeds, Updates


def registers(
    updates: Updates,
    x: torch.Tensor,
    seeds: Seeds | None = None,
    *,
    functional: bool = False,
    twice: Sequence[bool] = (),
) -> Registers:
    """Memory for one run that starts from ``x``, dense or not: compiled where tensors are plain, torch elsewhere.

    seeds: the noises of the calls are then made as they are added; without, `Registers.update` is given them.
    functional: nothing is overwritten, as gradients want it. LOGSNR_BACKEND chooses as for `combine`.
    twice: by call, whether the model sees its slot twice over, see `Registers.both`; by default at none.
    """
    if functional or torch.compiler.is_compiling():  # `combine` is one operator then, which chooses when it runs
        return TorchRegisters(updates, x, seeds)
    if torch.is_inference_mode_enabled():  # whose tensors do not count how often models write to them
        with torch.inference_mode(False), torch.no_grad():
            return registers(updates, x, seeds, twice=twice)
    in_order = updates.by_element or seeds is not None
    if not dense(x) or (in_order and not x.is_contiguous()):
        x = x.contiguous()
    kind = choose(None, x.device, {"cpu": lambda: cpu_refuses([x]), "triton": lambda: triton_refuses([x])})
    if kind == "torch":
        return TorchRegisters(updates, x, seeds)
    if any(twice) and by_sample(x):
        updates = updates.doubled(tuple(twice))
    if kind == "cpu":
        from .registers_cpu import CpuRegisters  # loads the compiler

        return CpuRegisters(updates, x, seeds)
    from .registers_triton import TritonRegisters  # loads Triton

    return TritonRegisters(updates, x, seeds)


class TorchRegisters(Registers):
    def __init__(self, updates: Updates, x: torch.Tensor, seeds: Seeds | None) -> None:
        super().__init__(updates, seeds)
        self.slots[0] = x.to(updates.dtypes[0], copy=True)  # models may work in place on what they are given
        if updates.cast is not None:
            self.slots[updates.cast] = x.to(updates.dtypes[updates.cast])
        if updates.one is not None:
            self.slots[updates.one] = torch.ones_like(self.slots[0])
        self.flags: list[torch.Tensor] = []

    def ahead(self) -> "TorchRegisters":
        """The same memory, to look ahead in: what is done there is not done here."""
        other = copy(self)
        other.slots, other.flags = [*self.slots], [*self.flags]
        return other

    def update(self, n: int, outputs: Sequence[torch.Tensor], noises: Sequence[torch.Tensor]) -> int:
        call = self.updates.calls[n]
        inputs = [*outputs, *(self.slots[k] for k in call.reads), *noises]
        noise = Noise(*self.seeds, call.noises) if self.seeds is not None and call.noises else None
        results, bad = combine(inputs, call.table, dtypes=call.dtypes, checked=call.checked, noise=noise)
        for k, result in zip(call.writes, results, strict=True):
            self.slots[k] = result
        self.flags.append(bad)
        return 0  # the flag is not read here: a GPU would have to stop

    def replace(self, x: torch.Tensor, slot: int = STATE) -> None:
        self.slots[slot] = x.to(self.updates.dtypes[slot], copy=True)
        if self.updates.cast is not None:
            self.slots[self.updates.cast] = x.to(self.updates.dtypes[self.updates.cast])

    def first_bad(self) -> int | None:
        return None if torch.compiler.is_compiling() or vmapped() else first_true(torch.stack(self.flags))
