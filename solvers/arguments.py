"""What a run is given beside its plan, and the checks that need none."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from .denoisers.answers import check_state
from .denoisers.denoiser import check_denoiser
from .denoisers.guides import check_map
from .parallel.settings import Picard, Rounds
from .planners.checks import choice, count
from .programs.lower import Lowered
from .signatures import fits

CALLBACK = "callback(node, t, state), or callback(node, t, state, x0)"


class How(NamedTuple):
    """What `solve` is to do beside its steps: its arguments of these names. keep: whether ``on_nan`` is "keep"."""

    parallel: Any
    progress: bool
    callback: Callable[..., Any] | None
    trajectory: bool
    grad: bool
    checkpoint: int | None
    keep: bool


def check_arguments(den: Any, x: Any, parallel: Any, callback: Any, on_nan: Any, checkpoint: Any, **flags: Any) -> None:
    """Raise TypeError or ValueError for a denoiser, a start and helpers that are none or do not fit."""
    check_denoiser(den)
    check_state(x, complex_too=True)
    if isinstance(den.model, torch.nn.Module):
        parameter = next(den.model.parameters(), x)
        if parameter.device != x.device:
            raise ValueError(f"x is on {x.device}, but the model's parameters are on {parameter.device}")
    if den.map_x0 is not None and not x.is_complex():
        check_map(den.map_x0, x.to(den.dtype(x)))
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a callable {CALLBACK}, not {type(callback).__name__}")
    if callback is not None and not fits(callback, 3) and not fits(callback, 4):
        raise TypeError(f"callback must take {CALLBACK}, not the arguments of {callback!r:.80}")
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r:.60}")
    choice("on_nan", on_nan, ("raise", "keep"))
    if checkpoint is not None and not flags["grad"]:
        raise ValueError(f"checkpoint = {checkpoint!r:.60} is for runs with grad = True")
    if checkpoint is not None:
        count("checkpoint", checkpoint)
    if parallel is not None and flags["grad"]:
        raise ValueError("grad = True does not go with parallel=, which records no gradients")
    if parallel is not None and not isinstance(parallel, (Picard, Rounds)):
        raise TypeError(f"parallel must be a logsnr.Picard or a logsnr.Rounds, not {type(parallel).__name__}")


def check_times_given(x: torch.Tensor, grad: bool, **times: Any) -> None:
    """ValueError for times to which gradients are wanted of a run that records them."""
    for name, given in times.items():
        if isinstance(given, torch.Tensor) and given.requires_grad and (grad or x.requires_grad):
            raise ValueError(
                f"{name} requires gradients, but a plan is made of plain numbers, and none come back to its times: "
                f"give {name}.detach(), or steps from logsnr.control.step, which records them"
            )


def check_together(lowered: Lowered, parallel: Any, starts: Any, checkpoint: Any) -> None:
    """Raise ValueError for what a plan shows not to go together."""
    if lowered.learned and parallel is not None:
        raise ValueError("variance = 'learned' runs one call after the other: leave out parallel=, or take a variance")
    if starts is not None and lowered.learned:
        raise ValueError(
            "variance = 'learned' does not go with a t_start of every sample: give one number, or a variance"
        )
    if starts is not None and isinstance(parallel, Rounds):
        raise ValueError("parallel = Rounds() does not go with a t_start of every sample: give one number, or a Picard")
    if starts is not None and checkpoint is not None:
        raise ValueError("checkpoint does not go with a t_start of every sample: give one number")
