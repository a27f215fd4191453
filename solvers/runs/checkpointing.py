"""Runs that record gradients and keep little for them: groups of calls whose insides are made again, backwards.

Chen et al. 2016, "Training deep nets with sublinear memory cost": kept are the slots between groups; one group at a
time is carried out again when its gradients are wanted, once. What is drawn in it is drawn again, so the numbers are
the same.
"""

import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import copy
from functools import partial
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import get_device_states, set_device_states

from ...kernels import Seeds
from ...kernels.registers import TorchRegisters
from ..denoisers.answers import CHANGED
from ..denoisers.asking import Asking
from ..denoisers.denoiser import Denoiser
from ..programs.lower import Lowered
from .execution import Execution, added
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
    memory, nfe, before = execution.memory, 0, list[Remade]()
    assert isinstance(memory, TorchRegisters)
    for group in _groups([observe is not None and row.node is not None for row in rows], size):
        part = copy(execution)
        if not isinstance(noise, Seeds):  # a function is asked once: what it gave is kept
            made = {
                k: z for n in group for k, z in zip(rows[n].noises, added(noise, rows[n].noises, part.x), strict=True)
            }
            part.noise = lambda key, like, made=made: made[key]
        carried = partial(_carried, part, asking, told, group, observe)
        *slots, flags, x0 = Remade(carried, memory.slots, before).first()
        memory.slots = slots
        memory.flags += flags
        execution.n, n = group.stop, group.stop - 1
        nfe += sum(asking.cost[k] for k in group if lowered.asks[k])
        if observe is not None and rows[n].node is not None:
            shown(observe, lowered, execution, n, x0)
            if observe.stopped is not None:
                break
    return execution.finish(), nfe


class Kept:
    """The place of a tensor that a backward pass will want."""

    __slots__ = ("__weakref__", "value")

    def __init__(self, value: torch.Tensor) -> None:
        self.value: torch.Tensor | None = value


class Remade:
    """A function of tensors whose insides are dropped when it is done, and made again when they are wanted.

    As torch.utils.checkpoint, without its repetitions where the function takes gradients itself, as guides do through
    the model: until it is done its insides are there. ``before``: of the run, which holds whose insides are there.
    """

    def __init__(
        self, function: Callable[..., Any], inputs: Sequence[torch.Tensor | None], before: list["Remade"]
    ) -> None:
        self.function, self.before = function, before
        self.given: Sequence[Any] = inputs  # later only whether there was a tensor
        tensors = [z for z in inputs if isinstance(z, torch.Tensor)]
        self.saved = _Saved.apply(torch.empty(0, requires_grad=True), *tensors).grad_fn
        self.places: list[weakref.ref[Kept]] = []
        self.random, self.devices = torch.get_rng_state(), get_device_states(*inputs)
        kinds = {"cpu"} | {z.device.type for z in inputs if isinstance(z, torch.Tensor)}
        self.kind = next(iter(sorted(kinds - {"cpu", "meta"})), "cuda")
        self.autocast = [
            (k, torch.get_autocast_dtype(k), torch.is_autocast_enabled(k)) for k in sorted(kinds - {"meta"})
        ]
        self.done = False

    def first(self) -> Any:
        """What the function returns."""
        places = list[Kept]()

        def pack(z: torch.Tensor) -> Kept:
            places.append(Kept(z.detach()))
            return places[-1]

        with saved_tensors_hooks(pack, self._unpacked):
            found = self.function(*self.given)
        self.places, self.done = [*map(weakref.ref, places)], True
        self.given = [isinstance(z, torch.Tensor) for z in self.given]
        for place in places:
            place.value = None
        return found

    def _unpacked(self, place: Kept) -> torch.Tensor:
        if place.value is None:
            for other in self.before:
                other.drop()
            self.before[:] = [self]
            self._again()
        value = place.value
        if value is None:
            raise RuntimeError(
                "the model did something else when it was called again for its gradients, as checkpoint= needs: it "
                "must be the same function of what it is given"
            )
        if self.done:
            place.value = None
        return value

    def drop(self) -> None:
        """Drop what has been made again."""
        for place in (ref() for ref in self.places):
            if place is not None:
                place.value = None

    def _again(self) -> None:
        rest = iter(self.places)

        def pack(z: torch.Tensor) -> torch.Tensor:
            ref, value = next(rest, None), z.detach()
            place = None if ref is None else ref()
            if place is not None:
                place.value = value
            return value

        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=self.devices[0], device_type=self.kind))
            torch.set_rng_state(self.random)
            set_device_states(*self.devices)
            for kind, dtype, enabled in self.autocast:
                stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(saved_tensors_hooks(pack, lambda value: value))
            self.function(*self._inputs())

    def _inputs(self) -> list[Any]:
        """The inputs of the function, without what they were made of."""
        saved = iter(self.saved.saved_tensors)
        return [_alone(next(saved)) if there else None for there in self.given]


def _alone(z: torch.Tensor) -> torch.Tensor:
    return z.detach().requires_grad_(z.requires_grad)


class _Saved(torch.autograd.Function):
    """Keeps tensors as those of other functions are kept, so that they may be on another device meanwhile."""

    @staticmethod
    def forward(ctx: Any, like: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*tensors)
        return like.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        raise NotImplementedError


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
