"""What may change the x0 of a model: a function of x0, or a `Guide`, which sees the schedule and the rows of its data,
and may want the gradients of x0.

Given x, the pair (x0, eps) is fixed by either: a change of the score by G is one of x0 by sigma^2/alpha G (Tweedie),
of eps by -sigma G, and a map that wants another eps returns the x0 of it, (x - sigma eps)/alpha.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ...kernels import transformed
from ..arrays import Array
from ..schedules.base import Schedule
from .conditions import column, mapped

CUT_OFF = (
    "the gradient of the model's answer with respect to x, which map_x0 takes, is cut off: the model or its weights "
    "were made in, or run under, torch.no_grad or torch.inference_mode, or the answer does not depend on x"
)


@dataclass(frozen=True, eq=False)
class At:
    """Where rows are asked: ``times`` (N,), or (1,) for all, the schedule's; ``samples``, int64 (N,), whose rows they
    are, None where they are the batch itself. ``recorded``: whether the caller records gradients of the result."""

    schedule: Schedule
    times: Array
    like: torch.Tensor
    samples: torch.Tensor | None = None
    recorded: bool = False

    @cached_property
    def t(self) -> torch.Tensor:
        """(N,), in the dtype of x0."""
        return column(self.times, self.like).reshape(-1).expand(len(self.like))

    @cached_property
    def alpha(self) -> torch.Tensor:
        """(N, 1, ...) or (1, 1, ...), in the dtype of x0, as the others are."""
        return column(self.schedule.alpha(self.times), self.like)

    @cached_property
    def sigma(self) -> torch.Tensor:
        return column(self.schedule.sigma(self.times), self.like)

    @cached_property
    def gain(self) -> torch.Tensor:
        """sigma^2/alpha: what a change of the score by 1 makes of x0. 0 where alpha = 0: there x says nothing of x0."""
        alpha, sigma = (np.asarray(f(self.times)) for f in (self.schedule.alpha, self.schedule.sigma))
        return column(np.divide(sigma**2, alpha, out=np.zeros_like(alpha), where=alpha > 0), self.like)

    def scale(self, given: float | Callable[[Array], Any]) -> torch.Tensor:
        """A number, or a function of lam, float64 arrays in and out, as it is here."""
        value = given(np.asarray(self.schedule.half_logsnr(self.times))) if callable(given) else given
        return column(np.broadcast_to(np.asarray(value, dtype=np.float64), self.times.shape), self.like)

    def rows(self, y: Any) -> Any:
        """The rows of a tensor, or of all in a dictionary, list or tuple; one row alone is for all samples."""
        samples = self.samples

        def taken(y: torch.Tensor) -> torch.Tensor:
            one = y.ndim == 0 or len(y) == 1
            return usual((y if one or samples is None else y[samples.to(y.device)]).to(self.like.device))

        return mapped(y, taken)

    def pulled_back(self, x0: torch.Tensor, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """J^T v for J = dx0/dx and v (N, ...), by one backward pass. v is scaled to a largest element of 1 meanwhile:
        networks in half precision neither lose nor overflow what it is made of."""
        v = v if self.recorded else v.detach()
        size = v.detach().abs().reshape(len(v), math.prod(v.shape[1:])).amax(1).reshape(-1, *[1] * (v.ndim - 1))
        size = torch.where(size > 0, size, 1.0)
        (found,) = torch.autograd.grad(x0, x, v / size, retain_graph=True, create_graph=self.recorded)
        return found * size


class Guide(ABC):
    """Changes a model's x0: ``map_x0=`` of a `Denoiser`. Guides hold no state: threads may share one.

    gradients: whether ``guide`` takes gradients through the model. The model is then called with gradients recorded to
               x, and only then; what ``guide`` returns is detached, unless the caller of the run records gradients.
    """

    gradients: bool = False

    @abstractmethod
    def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
        """What is taken for x0. x0 and x: (N, ...), fp32 at least; x0 depends on x where ``gradients`` says so."""

    def check(self, x: torch.Tensor) -> None:  # noqa: B027 - most fit all states
        """Raise ValueError for a state (B, ...) that this does not fit. Called before a run, in the dtype of x0."""


MapX0 = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] | Guide


def check_map(map_x0: Any, x: torch.Tensor | None = None) -> None:
    """TypeError unless it may be ``map_x0=``; ValueError for a guide that does not fit the state ``x``."""
    if x is not None and isinstance(map_x0, Guide):
        map_x0.check(x.to(torch.promote_types(x.dtype, torch.float32)))
    if map_x0 is not None and not (callable(map_x0) or isinstance(map_x0, Guide)):
        raise TypeError(
            f"map_x0 must be a callable map_x0(x0, x, t) or a logsnr.control.Guide, not {type(map_x0).__name__}"
        )


def made(map_x0: MapX0, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
    """What a map makes of x0."""
    if isinstance(map_x0, Guide):
        return map_x0.guide(x0, x.to(x0.dtype), at)
    return map_x0(x0, x, at.t)


def applied(map_x0: MapX0, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
    """What a denoiser's map makes of x0, without the gradients that it has needed."""
    new = made(map_x0, x0, x, at)
    return new.detach() if wants_gradients(map_x0) and not at.recorded and isinstance(new, torch.Tensor) else new


def wants_gradients(map_x0: Any) -> bool:
    return bool(getattr(map_x0, "gradients", False))


@contextmanager
def recording(map_x0: MapX0, x: torch.Tensor, timesteps: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """``x`` and ``timesteps`` as the model sees them; where the map takes gradients, they are recorded to that x, fp32
    at least. This holds in inference mode too, as far as the model's weights allow it."""
    if not wants_gradients(map_x0):
        yield x, timesteps
        return
    if transformed():
        raise ValueError("map_x0 takes gradients, which torch.compile and torch.func transforms cannot run")
    outer = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        seen = x.to(torch.promote_types(x.dtype, torch.float32))
        if not (outer and seen.requires_grad):
            seen = seen.detach().clone().requires_grad_()
        try:
            yield seen, usual(timesteps)
        except RuntimeError as error:
            if "nference tensor" not in str(error):
                raise
            raise ValueError(CUT_OFF) from error


def check_recorded(map_x0: MapX0, answer: torch.Tensor) -> None:
    """ValueError where the map takes gradients that the model does not give."""
    if wants_gradients(map_x0) and not answer.requires_grad:
        raise ValueError(CUT_OFF)


def usual(x: torch.Tensor) -> torch.Tensor:
    """``x``, or where it was made in inference mode and that is off, a copy: autograd can save it."""
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x
