"""What the kinds of registers share: the memory of their tensors, and the flags of their calls."""

from collections.abc import Sequence

import torch


def first_true(flags: torch.Tensor) -> int | None:
    """The index of the first row with a flag set, (n, ...), unless none can be looked at: it stops a GPU, once."""
    if flags.is_cuda and torch.cuda.is_current_stream_capturing():
        return None
    found = flags.cpu()
    return int(found.reshape(len(found), -1).any(1).nonzero()[0]) if bool(found.any()) else None


def replace_slot(slots: Sequence[torch.Tensor], x: torch.Tensor, slot: int, cast: int | None) -> None:
    """Write ``x`` to a slot, and to that of the cast that the model reads."""
    if x is not slots[slot]:
        slots[slot].copy_(x)
    if cast is not None:
        slots[cast].copy_(x)


class Owned:
    """The tensors of slots, None where there is none, and their memory, whatever models and observers do to them."""

    def __init__(self, slots: Sequence[torch.Tensor | None]) -> None:
        self.slots = slots
        self.memory = [None if slot is None else slot.detach() for slot in slots]
        self.addresses = [0 if slot is None else slot.data_ptr() for slot in slots]

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
