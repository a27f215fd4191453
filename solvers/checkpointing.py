"""Runs that record gradients and keep little for them: groups of calls whose insides are made again, backwards.

Chen et al. 2016, "Training deep nets with sublinear memory cost": kept are the slots between groups; one group at a
time is carried out again when its gradients are wanted. Nothing in it is drawn, so the numbers are the same.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint as recomputed

from ..kernels import Seeds
from ..kernels.registers import TorchRegisters
from .asking import Asking
from .denoiser import CHANGED, Denoiser
from .execution import Execution, added
from .lower import Lowered
from .noise import NoiseFunction
from .run import Observe, shown, timesteps, writes


def run_in_groups(
    lowered: Lowered,
    den: Denoiser,
    x: torch.Tensor,
    size: int,
    *,
    noise: NoiseFunction | Seeds | None = None,
    observe: Observe | None = None,
    keep: bool = False,
) -> tuple[torch.Tensor, int]:
    """`run.run` with gradients, ``size`` calls made again at a time; where somebody watches, groups end at nodes."""
    rows, execution = lowered.program.calls, Execution(lowered, x, noise, functional=True, keep=keep)
    learned = lowered.learned
    asking = den.asking(lowered.times, len(x), columns=lowered.guided, learned=learned)
    told = timesteps(lowered, den, x)
    memory, nfe = execution.memory, 0
    assert isinstance(memory, TorchRegisters)
    for group in _groups([observe is not None and row.node is not None for row in rows], size):
        part = copy(execution)
        if not isinstance(noise, Seeds):  # a function is asked once: what it gave is kept
            made = {
                k: z for n in group for k, z in zip(rows[n].noises, added(noise, rows[n].noises, part.x), strict=True)
            }
            part.noise = lambda key, like, made=made: made[key]
        *slots, flags, x0 = recomputed(_carried, part, asking, told, group, observe, *memory.slots, use_reentrant=False)
        memory.slots = slots
        memory.flags += flags
        execution.n, n = group.stop, group.stop - 1
        nfe += sum(asking.cost[k] for k in group if lowered.asks[k])
        if observe is not None and rows[n].node is not None:
            shown(observe, lowered, execution, n, x0)
            if observe.stopped is not None:
                break
    return execution.finish(), nfe


def _carried(
    part: Execution, asking: Asking, told: Sequence[torch.Tensor], group: range, observe: Observe | None, *slots: Any
) -> tuple[Any, ...]:
    """The slots after a group of calls, whether answers were finite, and the last x0 if it is wanted. Nothing that is
    given is changed: it is called again."""
    part, x0 = copy(part), None
    part.memory = memory = copy(part.memory)
    assert isinstance(memory, TorchRegisters)
    memory.slots, memory.flags = list(slots), []
    for n in group:
        part.n, wanted = n, n == group.stop - 1 and observe is not None and observe.wants_x0
        if not part.asks[n]:
            part.advance()
            x0 = None
            continue
        seen, version = part.x, writes(part.x)
        answer = asking.call(seen, told[n], n)
        if writes(seen) != version:
            raise ValueError(f"call {n + 1}, t = {part.rows[n].t:.6g}: {CHANGED}")
        x0 = asking.estimate(seen, answer, n) if wanted else None
        part.advance(answer, asking.variance)
    return *memory.slots, memory.flags, x0


def _groups(ends: Sequence[bool], size: int) -> list[range]:
    """Calls in groups of at most ``size``; some calls end theirs."""
    groups, first = [], 0
    for n, end in enumerate(ends):
        if end or n + 1 - first == size or n + 1 == len(ends):
            groups.append(range(first, n + 1))
            first = n + 1
    return groups
