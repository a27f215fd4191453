"""What registers are, and what their kinds share: the memory of their tensors, and the flags of their calls."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from .updates import STATE, Seeds, Updates


def first_true(flags: torch.Tensor) -> int | None:
    """The index of the first row with a flag set, (n, ...), unless none can be looked at: it stops a GPU, once."""
    if flags.is_cuda and torch.cuda.is_current_stream_capturing():
        return None
    found = flags.cpu()
    return int(found.reshape(len(found), -1).any(1).nonzero()[0]) if bool(found.any()) else None


def by_sample(x: torch.Tensor) -> bool:
    """Whether the samples of a dense tensor lie one after the other."""
    return x.numel() > 0 and (len(x) == 1 or x.stride(0) == x.numel() // len(x))


class Registers(ABC):
    """``slots[k]`` is the current tensor of slot k."""

    def __init__(self, updates: Updates, seeds: Seeds | None) -> None:
        self.updates, self.seeds = updates, seeds
        self.slots: list[Any] = [None] * len(updates.dtypes)

    def step(self, n: int, output: Any) -> int:
        """Carry out call n if the model's output is an ordinary tensor laid out like the state: one compiled
        call. Returns 0, 1 if the output was not finite, or -1 if nothing was done and `update` is needed."""
        return -1

    @abstractmethod
    def update(self, n: int, outputs: Sequence[torch.Tensor], noises: Sequence[torch.Tensor]) -> int:
        """Carry out call n for any outputs of the state's shape; 1 if one is known not to be finite, else 0.
        ``noises``: what a call adds, where no seeds say it; else empty."""

    @abstractmethod
    def replace(self, x: torch.Tensor, slot: int = STATE) -> None:
        """Go on from another state, or another stage that the next call sees."""

    def both(self, x: torch.Tensor) -> torch.Tensor | None:
        """The slot ``x`` twice over, as one batch (2B, ...), where memory has that."""
        return None

    def result(self) -> torch.Tensor:
        """The state at the end, which nothing will write to any more."""
        return self.slots[STATE]

    def first_bad(self) -> int | None:
        """At the end: the first call whose output was not finite, if any, and if nobody could say so at once. Nobody
        can know under vmap, under torch.compile and while a CUDA graph is captured, where no value can be looked at."""
        return None


class Owned(Registers):
    """Memory that is a run's own: slots like ``x``, whatever models and observers do to them. A twin lies behind its
    slot: ``pairs`` are the batches of both, (2B, ...)."""

    def __init__(self, updates: Updates, x: torch.Tensor, seeds: Seeds | None) -> None:
        super().__init__(updates, seeds)
        self.pairs = dict[int, torch.Tensor]()
        for k, dtype in enumerate(updates.dtypes):
            twin = updates.twins.get(k)
            if twin is not None:
                shape, strides = (2 * len(x), *x.shape[1:]), (x.numel() // len(x), *x.stride()[1:])
                pair = self.pairs[k] = torch.empty_strided(shape, strides, dtype=dtype, device=x.device)
                self.slots[k], self.slots[twin] = pair[: len(x)], pair[len(x) :]
            elif self.slots[k] is None:
                self.slots[k] = torch.empty_like(x, dtype=dtype)
        if updates.one is not None:
            self.slots[updates.one].fill_(1.0)
        self.memory = [slot.detach() for slot in self.slots]
        self.addresses = [slot.data_ptr() for slot in self.slots]

    def both(self, x: torch.Tensor) -> torch.Tensor | None:
        # another tensor each time: a model may give it other memory
        return next((pair.detach() for k, pair in self.pairs.items() if self.slots[k] is x), None)

    def replace(self, x: torch.Tensor, slot: int = STATE) -> None:
        self.restore()
        cast, twins = self.updates.cast, self.updates.twins
        for k in dict.fromkeys([slot] if cast is None else [slot, cast]):
            target, twin = self.slots[k], self.slots[twins[k]] if k in twins else None
            if target is not x:
                target.copy_(x)
            if twin is not None:
                twin.copy_(target)

    def result(self) -> torch.Tensor:
        state: torch.Tensor = self.slots[STATE]
        return state.clone() if STATE in self.pairs else state

    def restore(self) -> None:
        """Give slots that have other memory their own again, with what is in them now.

        Raises RuntimeError where their own is no longer there, or what is in them does not fit.
        """
        for slot, mine, address in zip(self.slots, self.memory, self.addresses, strict=True):
            if slot.data_ptr() == address:
                continue
            if mine.data_ptr() != address:
                raise RuntimeError("the model or callback has freed or resized the memory of the state")
            if (slot.shape, slot.dtype, slot.device) != (mine.shape, mine.dtype, mine.device):
                raise RuntimeError(
                    f"the model or callback has replaced the state, {mine.dtype} of shape {tuple(mine.shape)}, by "
                    f"{slot.dtype} of shape {tuple(slot.shape)} on {slot.device}"
                )
            mine.copy_(slot)
            slot.data = mine


class Scratch:
    """Buffers for tensors that a kernel cannot take as they are, one for every place."""

    def __init__(self, state: torch.Tensor) -> None:
        self.state, self.buffers = state, dict[int, torch.Tensor]()

    def alike(self, place: int, tensor: torch.Tensor, dtype: torch.dtype, plain: bool) -> torch.Tensor:
        """``tensor`` if it is ``plain``, of ``dtype`` and laid out like the state, or else a copy that is."""
        state = self.state
        same = (tensor.is_contiguous() and state.is_contiguous()) or tensor.stride() == state.stride()
        if same and plain and tensor.dtype is dtype:
            return tensor
        if place not in self.buffers or self.buffers[place].dtype is not dtype:
            self.buffers[place] = torch.empty_like(state, dtype=dtype)
        return self.buffers[place].copy_(tensor)
