"""Data that a mask says are known, and how a run takes them."""

from collections.abc import Callable
from copy import copy
from typing import Any

import torch

from ..solvers.denoisers.complex_states import map_of_parts, to_parts
from ..solvers.denoisers.guides import At, Guide, made
from ..solvers.signatures import arguments


class Known:
    """Known data and a mask of theirs."""

    def __init__(self, known: torch.Tensor, mask: torch.Tensor) -> None:
        if not isinstance(mask, torch.Tensor):
            raise TypeError(f"mask must be a torch tensor, not {type(mask).__name__}")
        if mask.dtype != torch.bool and not mask.is_floating_point():
            raise TypeError(f"mask must be of booleans, or of floating numbers from 0 to 1, not {mask.dtype}")
        shape = known.shape
        if mask.ndim > len(shape) or any(m not in (1, n) for m, n in zip(mask.shape[::-1], shape[::-1], strict=False)):
            raise ValueError(f"mask of shape {tuple(mask.shape)} does not broadcast to that of known, {tuple(shape)}")
        mask = mask.to(known.device)
        if mask.dtype != torch.bool and not bool(((mask >= 0) & (mask <= 1)).all()):
            raise ValueError("mask must be of numbers from 0 to 1, or of booleans: True, or 1, is known")
        self.mask = mask.expand(shape)
        one = self.mask if mask.dtype == torch.bool else self.mask > 0
        self.data = torch.where(one, known.detach(), 0)  # what is not known may be anything
        if not bool(self.data.isfinite().all()):
            raise ValueError("known holds infinities or NaNs where the mask says that it is known")

    def of_parts(self) -> "Known":
        """The same of the real and imaginary parts, (..., 2)."""
        parts = copy(self)
        parts.mask, parts.data = self.mask[..., None].expand(*self.mask.shape, 2), to_parts(self.data)
        return parts

    def blend(self, x: torch.Tensor, data: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        mask = self.mask if mask is None else mask
        if mask.dtype == torch.bool:
            return torch.where(mask, data.to(x), x)
        return mask.to(x) * data.to(x) + (1 - mask.to(x)) * x

    def put(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` with the data where they are known for certain."""
        return torch.where(self.mask == 1, self.data.to(x), x)

    def replaced(self, noised: Callable[..., torch.Tensor], after: Any) -> Callable[..., Any]:
        """A callback that replaces the state, before another."""

        def three(node: int, t: float, state: torch.Tensor) -> Any:
            return self.blend(state, noised(t, state))

        def both(node: int, t: float, state: torch.Tensor, *x0: torch.Tensor) -> Any:
            state.copy_(three(node, t, state))  # in place, as the other may stop the run
            return after(node, t, state, *x0)

        def four(node: int, t: float, state: torch.Tensor, x0: torch.Tensor) -> Any:
            return both(node, t, state, x0)

        if after is None or not callable(after):
            return three
        return four if arguments(after) >= 4 else lambda node, t, state: both(node, t, state)


class Filled(Guide):
    """Known data in the place of what a model makes of them, after another map."""

    def __init__(self, known: Known, before: Any) -> None:
        self.known, self.before = known, before
        self.gradients = bool(getattr(before, "gradients", False))

    def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
        if self.before is not None:
            x0 = made(self.before, x0, x, at)
        mask, data = at.rows([self.known.mask, self.known.data])
        return self.known.blend(x0, data, mask)

    def of_parts(self) -> "Filled":
        return Filled(self.known.of_parts(), map_of_parts(self.before))

    def check(self, x: torch.Tensor) -> None:
        if isinstance(self.before, Guide):
            self.before.check(x)
