"""The sequential executor: one model call and one fused update per entry of the program, nothing else."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..kernels import Seeds, registers, transformed
from .denoiser import CHANGED, Denoiser, check_output, written
from .lower import Lowered
from .noise import NoiseFunction
from .program import NoiseKey

Observe = Callable[[int, float, torch.Tensor], None]


class NonFiniteError(FloatingPointError):
    """The model returned an infinity or a NaN. ``call`` counts from 0; ``t`` is the schedule's time."""

    def __init__(self, call: int, calls: int, t: float) -> None:
        super().__init__(call, calls, t)  # what pickle calls it with again, in the parent of a worker process
        self.call, self.calls, self.t = call, calls, float(t)

    def __str__(self) -> str:
        return f"the model returned a non-finite value at call {self.call + 1} of {self.calls}, t = {self.t:.6g}"


def run(
    lowered: Lowered,
    den: Denoiser,
    x: torch.Tensor,
    *,
    noise: NoiseFunction | Seeds | None = None,
    observe: Observe | None = None,
) -> tuple[torch.Tensor, int]:
    """Run a lowered program from ``x`` (B, ...); returns the final state, at least fp32, and the NFE counted.

    noise: of programs that add some, the seeds of every sample, or noise(key, like): standard normals like ``like``.
    observe(node, t, state) is called when the state has reached a grid node; the tensor is overwritten later.
    The state handed to the model is overwritten by later steps too: a model that keeps it must clone it.
    Raises NonFiniteError, or ValueError if x itself was not finite, and what `check_output` raises with the
    call and time added.
    """
    calls, times, nodes = lowered.updates.calls, lowered.times, lowered.nodes
    memory = registers(lowered.updates, x, noise if isinstance(noise, Seeds) else None)
    told = told_times(lowered, den, x)
    model, slots, step, nfe = den.model, memory.slots, memory.step, 0
    version = written(slots[calls[0].at])
    for n, call in enumerate(calls):
        seen = slots[call.at]
        answer = model(seen, told[n])
        nfe += 1
        if not n and written(seen) != version and call.at != lowered.updates.cast:  # what it does once it does again
            raise ValueError(f"call 1 of {len(calls)}, t = {times[n]:.6g}: {CHANGED}")
        status = step(n, answer)
        if status < 0:
            outputs = _checked(answer, seen, call.models, n, len(calls), times[n])
            status = memory.update(n, outputs, _normals(noise, lowered.noises[n], seen))
        if status:
            raise not_finite(x, n, len(calls), times[n])
        if observe is not None and (node := nodes[n]) is not None:
            observe(node, lowered.grid[node], slots[0])
    if (bad := memory.first_bad()) is not None:
        raise not_finite(x, bad, len(calls), times[bad])
    return slots[0], nfe


def not_finite(x: torch.Tensor, n: int, calls: int, t: float) -> Exception:
    """Whose fault it is: x is looked at only now, as reading it before would cost a pass and stop a GPU."""
    if not bool(torch.isfinite(x).all()):
        return ValueError("x holds infinities or NaNs")
    return NonFiniteError(n, calls, t)


def told_times(lowered: Lowered, den: Denoiser, x: torch.Tensor) -> Sequence[torch.Tensor]:
    """What the model is told at each call: one tensor (B,) per call.

    Making the views costs more than a step, so a thread keeps them from run to run; their values are written
    afresh if a model has changed them in place.
    """
    told = lowered.told
    if told is None or transformed() or torch.is_grad_enabled():  # gradients keep the times they used
        if told is None:
            told = den.model_times(torch.tensor(lowered.times, dtype=torch.float64), x).unsqueeze(1)
        return told.to(x.device).repeat(1, x.shape[0]).unbind(0)
    local, shape = lowered.local, (x.shape[0], x.device)
    if getattr(local, "shape", None) != shape:
        with torch.inference_mode(False):  # else a later run outside inference mode could not write to them
            local.rows = told.to(x.device).repeat(1, x.shape[0])
            local.views, local.shape, local.version = local.rows.unbind(0), shape, local.rows._version
    if local.rows._version != local.version:
        local.rows.copy_(told)
        local.version = local.rows._version
    views: Sequence[torch.Tensor] = local.views
    return views


def _normals(noise: NoiseFunction | Seeds | None, keys: Sequence[NoiseKey], like: torch.Tensor) -> list[torch.Tensor]:
    """What the executor must be given: nothing if the registers make it."""
    if isinstance(noise, Seeds) or not keys:
        return []
    if noise is None:
        raise ValueError("this program adds noise; give seed= or noise=")
    return [noise(key, like) for key in keys]


def _checked(answer: Any, seen: torch.Tensor, models: int, n: int, total: int, t: float) -> tuple[torch.Tensor, ...]:
    answers = answer if models > 1 else (answer,)
    try:
        if len(answers) != models:
            raise ValueError(f"the model returned {len(answers)} tensors instead of {models}")
        return tuple(check_output(a, seen) for a in answers)
    except (TypeError, ValueError) as error:
        raise type(error)(f"call {n + 1} of {total}, t = {t:.6g}: {error}") from None
