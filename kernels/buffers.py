"""What the kinds of registers share: the memory of their tensors, and the flags of their calls."""

from collections.abc import Iterable
from typing import Any

import torch

from .updates import STATE, Updates


def first_true(flags: torch.Tensor) -> int | None:
    """The index of the first row with a flag set, (n, ...), unless none can be looked at: it stops a GPU, once."""
    if flags.is_cuda and torch.cuda.is_current_stream_capturing():
        return None
    found = flags.cpu()
    return int(found.reshape(len(found), -1).any(1).nonzero()[0]) if bool(found.any()) else None


def by_sample(x: torch.Tensor) -> bool:
    """Whether the samples of a dense tensor lie one after the other."""
    return x.numel() > 0 and (len(x) == 1 or x.stride(0) == x.numel() // len(x))


class Owned:
    """The tensors of slots, like ``x``, None for other slots, and their memory, whatever models and observers do to
    them. A twin lies behind its slot: ``pairs`` are the batches of both, (2B, ...)."""

    def __init__(self, updates: Updates, x: torch.Tensor, slots: Iterable[int]) -> None:
        self.updates = updates
        self.slots: list[Any] = [None] * len(updates.dtypes)
        self.pairs = dict[int, torch.Tensor]()
        for k in slots:
            dtype, twin = updates.dtypes[k], updates.twins.get(k)
            if twin is not None:
                shape, strides = (2 * len(x), *x.shape[1:]), (x.numel() // len(x), *x.stride()[1:])
                pair = self.pairs[k] = torch.empty_strided(shape, strides, dtype=dtype, device=x.device)
                self.slots[k], self.slots[twin] = pair[: len(x)], pair[len(x) :]
            elif self.slots[k] is None:
                self.slots[k] = torch.empty_like(x, dtype=dtype)
        self.memory = [None if slot is None else slot.detach() for slot in self.slots]
        self.addresses = [0 if slot is None else slot.data_ptr() for slot in self.slots]

    def both(self, x: torch.Tensor) -> torch.Tensor | None:
        """The pair of the slot that ``x`` is, as another tensor each time: a model may give it other memory."""
        return next((pair.detach() for k, pair in self.pairs.items() if self.slots[k] is x), None)

    def replace(self, x: torch.Tensor, slot: int) -> None:
        """Write ``x`` to a slot, to that of the cast that the model reads, and to their twins."""
        self.restore()
        cast, twins = self.updates.cast, self.updates.twins
        for k in dict.fromkeys([slot] if cast is None else [slot, cast]):
            target, twin = self.slots[k], self.slots[twins[k]] if k in twins else None
            if target is not x:
                target.copy_(x)
            if twin is not None:
                twin.copy_(target)

    def result(self) -> torch.Tensor:
        """The state, with memory of its own."""
        state: torch.Tensor = self.slots[STATE]
        return state.clone() if STATE in self.pairs else state

    def restore(self) -> None:
        """Give slots that have other memory their own again, with what is in them now.

        Raises RuntimeError where their own is no longer there, or what is in them does not fit.
        """
        for slot, mine, address in zip(self.slots, self.memory, self.addresses, strict=True):
            if slot is None or mine is None or slot.data_ptr() == address:
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
