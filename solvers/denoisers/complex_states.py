"""Complex states: runs work on their real and imaginary parts, models see complex tensors.

Noise has unit power for each complex number, as ``torch.randn`` of a complex dtype has it: E |eps|^2 = 1, and the two
parts are independent with the standard deviation sqrt(1/2), ``SPREAD``. Tables are written for parts of deviation 1, so
their noise columns are multiplied by it (`lower`); all else in them is linear, and acts on both parts alike.
"""

import math
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import torch

from ..signatures import watching
from .guides import Guide, wants_gradients

SPREAD = math.sqrt(0.5)
REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def to_parts(z: Any, like: str = "x") -> torch.Tensor:
    """(..., 2), real: a view of a complex tensor where it can be. TypeError for what is none."""
    if not isinstance(z, torch.Tensor) or z.dtype not in REAL:
        found = z.dtype if isinstance(z, torch.Tensor) else type(z).__name__
        raise TypeError(f"x is complex, and so must {like} be: complex64 or complex128, not {found}")
    return torch.view_as_real(z.resolve_conj())


def from_parts(x: torch.Tensor) -> torch.Tensor:
    """The complex tensor of parts (..., 2), fp32 or fp64: a view of what is contiguous, so edits are edits of both."""
    return torch.view_as_complex(x.contiguous())


class Parts:
    """A complex model as one of parts: ``model(x, t, **conditions)``, or of two times, as a flow map's."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model = model

    def __call__(self, x: torch.Tensor, *times: torch.Tensor, **conditions: Any) -> Any:
        try:
            answer = self.model(from_parts(x), *times, **conditions)
        except RuntimeError as error:
            error.add_note(
                "x is complex, and so is what the model sees; for a model of real tensors give torch.view_as_real(x), "
                "or wrap it: lambda x, t: torch.view_as_complex(net(torch.view_as_real(x), t))"
            )
            raise
        return to_parts(answer, "the model's answer") if isinstance(answer, torch.Tensor) else answer


def of_parts(den: Any, x: torch.Tensor) -> Any:
    """The denoiser of the parts of complex states like ``x``. ValueError for models in half precision, and
    for guides, which are written for real states."""
    dtype = den.dtype(x.real)
    if dtype not in REAL.values():
        raise ValueError(f"the model is in {dtype}, and there are no complex numbers of that: x must be real for it")
    other = copy(den)
    other.model, other._dtype, other.spread = Parts(den.model), dtype, SPREAD
    if den.guidance is not None and den.guidance.model is not None:
        other.guidance = replace(den.guidance, model=Parts(den.guidance.model))
    other.map_x0 = map_of_parts(den.map_x0)
    return other


def map_of_parts(mapped: Any) -> Any:
    """A map of complex x0 as one of parts; ValueError for guides that are written for real states."""
    if mapped is None or hasattr(mapped, "of_parts"):
        return mapped and mapped.of_parts()
    if isinstance(mapped, Guide) or wants_gradients(mapped):
        raise ValueError(
            f"map_x0 is a {type(mapped).__name__}, and guides are for real states; for complex x give a function "
            "map_x0(x0, x, t) of complex tensors without gradients, or torch.view_as_real(x) and a model of these"
        )
    return lambda x0, x, t: to_parts(mapped(from_parts(x0), from_parts(x), t), "what map_x0 returns")


def run_of_parts(den: Any, x: torch.Tensor, callback: Any, noise: Any) -> tuple[Any, torch.Tensor, Any, Any]:
    """What `solve` is given for complex x, as it runs it: those who watch, and a function that makes noise, see complex
    tensors."""
    seen = callback and watching(callback, from_parts, _changed)
    return of_parts(den, x), to_parts(x).contiguous(), seen, noise and noise_of_parts(noise)


def _changed(state: torch.Tensor, call: Callable[[torch.Tensor], Any]) -> Any:
    """What a callback returns in place of the state."""
    z = from_parts(state)
    new = call(z)
    if not isinstance(new, torch.Tensor) or new is z:
        return None if new is z else new  # what is no tensor is judged as of real states
    if new.shape != z.shape:
        raise ValueError(f"the callback returned {tuple(new.shape)}; a new state must have the shape {tuple(z.shape)}")
    return to_parts(new, "a new state")


def noise_of_parts(noise: Callable[..., Any]) -> Callable[..., Any]:
    """A function that makes complex noise as one of parts, in units of `SPREAD`."""

    def asked(key: Any, like: torch.Tensor) -> torch.Tensor:
        return to_parts(noise(key, from_parts(like)), f"noise({key.s:.6g}, {key.t:.6g})") / SPREAD

    return asked
