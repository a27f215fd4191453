"""The sequential executor: one model call, where it is asked for, and one fused update per entry of the program,
nothing else."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch

from ...kernels import Seeds, transformed
from ..denoisers.answers import CHANGED
from ..denoisers.denoiser import Denoiser
from ..finite import NonFiniteError, not_finite
from ..programs.call import STATE
from ..programs.lower import Lowered
from .execution import Execution
from .noise import NoiseFunction

__all__ = ["NonFiniteError", "Observe", "not_finite", "run", "timesteps"]


class Observe(Protocol):
    """Who watches a run. stopped: the node at which it is to end, once that is known."""

    wants_x0: bool
    stopped: int | None

    def node(self, node: int, t: Any, state: torch.Tensor, x0: torch.Tensor | None) -> torch.Tensor | None:
        """Called when the state has reached a grid node: it may edit the state, or return a new one. x0: the model's
        estimate of the clean data at the call before, if it is wanted."""


KEPT_TIMES = 1 << 18  # numbers that a run holds at once


def run(
    lowered: Lowered,
    den: Denoiser,
    x: torch.Tensor,
    *,
    noise: NoiseFunction | Seeds | None = None,
    observe: Observe | None = None,
    functional: bool = False,
    keep: bool = False,
) -> tuple[torch.Tensor, int]:
    """Run a lowered program from ``x`` (B, ...); returns the final state, at least fp32, and the NFE counted.

    noise:      of programs that add some, the seeds of every sample, or noise(key, like): standard normals.
    observe:    sees the state at every grid node, and may change it; the tensor is overwritten later.
    functional: nothing is overwritten, so that gradients are recorded.
    keep:       go on where the model's answer is not finite: its samples stay so, the others do not notice.

    The state handed to the model is overwritten by later steps too: a model that keeps it must clone it.
    Raises NonFiniteError, or ValueError if x itself was not finite, and what `check_output` raises with the
    call and time added.
    """
    rows = lowered.program.calls
    total = len(rows)
    told = timesteps(lowered, den, x)
    facts = {"columns": lowered.guided, "ordered": True, "learned": lowered.learned}
    asking = den.asking(lowered.times, len(x), **facts)
    execution = Execution(lowered, x, noise, functional=functional, keep=keep, twice=asking.doubled)
    ask, cost, asking.both = asking.call, asking.cost, execution.memory.both
    casts, nfe, watched = lowered.updates.cast, 0, not transformed()
    for n, (call, row) in enumerate(zip(lowered.updates.calls, rows, strict=True)):
        reached, x0 = observe is not None and row.node is not None, None
        if lowered.asks[n]:
            seen = execution.x
            version = writes(seen) if watched else 0
            answer = ask(seen, told[n], n)
            nfe += cost[n]
            if watched and call.at != casts and writes(seen) != version:
                raise ValueError(f"call {n + 1} of {total}, t = {row.t:.6g}: {CHANGED}")
            x0 = asking.estimate(seen, answer, n) if observe and reached and observe.wants_x0 else None
            execution.advance(answer, asking.variance)
        else:
            execution.advance()
        if observe is not None and reached:
            shown(observe, lowered, execution, n, x0)
            if observe.stopped is not None:
                break
    return execution.finish(), nfe


def recording(x: torch.Tensor, grad: bool) -> Any:
    """Gradients only where they are asked for. Half the time of no_grad, which counts: it is a third of a step."""
    if grad:
        return torch.enable_grad()
    return nullcontext() if x.requires_grad else torch.set_grad_enabled(False)


def writes(x: torch.Tensor) -> int:
    """How often torch has written to ``x``; it does not count for tensors made in inference mode."""
    return 0 if x.is_inference() else x._version


def shown(observe: Observe, lowered: Lowered, execution: Execution, n: int, x0: torch.Tensor | None) -> None:
    """Show the state that call n has reached, and take over what has become of it."""
    state, program = execution.memory.slots[STATE], lowered.program
    version = writes(state)
    node = program.calls[n].node or 0
    new = observe.node(node, program.grid[node], state, x0)
    changed = new is not None or writes(state) != version
    goes_on = n + 1 == len(program.calls) or program.calls[n + 1].at == STATE
    # Copies that the model sees follow even what torch does not count: writes by .data, and those in inference mode.
    copied = lowered.updates.cast is not None or execution.memory.both(state) is not None
    if observe.stopped is not None or not (changed or (goes_on and copied)):
        return
    if not goes_on:
        raise ValueError(f"{program.name} does not go on from the state of its nodes: a callback cannot change it")
    execution.memory.replace(state if new is None else new)


def timesteps(lowered: Lowered, den: Denoiser, x: torch.Tensor) -> Sequence[torch.Tensor]:
    """What the model is told at each call: one tensor (B,) per call, which a model may write to."""
    told, batch = lowered.timesteps, x.shape[0]
    if told is None:
        times = torch.tensor(lowered.times, dtype=torch.float64, device="cpu")
        told = den.model_times(times, x).unsqueeze(1)
    told = told.to(x.device)
    if told.numel() * batch > KEPT_TIMES:
        return LazyRows(told, batch)
    return told.repeat(1, batch).unbind(0)


class LazyRows(Sequence[torch.Tensor]):
    """Rows (B,) of one number each, made when they are asked for."""

    def __init__(self, column: torch.Tensor, batch: int) -> None:
        self.column, self.batch = column, batch

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, n: Any) -> Any:
        return self.column[n].repeat(self.batch)
