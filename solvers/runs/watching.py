"""Those who watch a run: progress bars, trajectories, callbacks."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..denoisers.answers import written
from ..programs.program import Program
from ..signatures import takes_x0
from .solution import Solution

Callback = Callable[..., Any]  # callback(node, t, state) or callback(node, t, state, x0)


class StopSampling(Exception):
    """Raised by a callback, it ends the run at the node that it was called for: `Solution.x` is then the state of that
    node, with what the callback has written to it before."""


class Bar:
    """A progress bar of tqdm, on stderr or in a notebook, if it is wanted; without a total it counts."""

    def __init__(self, wanted: bool, name: str, total: int | None) -> None:
        self.bar: Any = None
        if wanted:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=total, desc=name, dynamic_ncols=True)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, done: int, name: str | None = None) -> None:
        if self.bar is None:
            return
        if name is not None:
            self.bar.set_description(name, refresh=False)
        self.bar.update(done - self.bar.n)


class Observer:
    """Trajectory, progress bar and callback, all fed by the executor at grid nodes.

    start: the first state of the trajectory, if one is wanted. changes: whether a callback may change the state. Raises
    ValueError for a program whose calls do not say when the state has reached a node.
    """

    def __init__(
        self,
        program: Program,
        state: torch.dtype,
        start: torch.Tensor | None,
        bar: Bar,
        callback: Callback | None,
        changes: bool = True,
    ) -> None:
        reached = sum(call.node is not None for call in program)
        if reached < program.steps and (start is not None or callback):
            raise ValueError(
                f"{program.name} reaches {reached} of the {program.steps} nodes of its grid (its calls say node=); "
                "trajectory and callback need all"
            )
        self.states = None if start is None else [start.to(state, copy=True)]
        self.bar, self.callback, self.changes = bar, callback, changes
        self.wants_x0 = callback is not None and takes_x0(callback)
        self.stopped: int | None = None  # the node at which the callback has stopped the run

    def node(self, node: int, t: float, state: torch.Tensor, x0: torch.Tensor | None) -> torch.Tensor | None:
        """Show the state to the callback; what it makes of it is kept in the trajectory."""
        self.bar.show(node)
        new = None
        try:
            if self.callback:
                new = called(self.callback, node, t, state, x0, self.changes, self.wants_x0)
        except StopSampling:
            self.stopped = node
        if self.states is not None:
            self.states.append((state if new is None else new).to(self.states[0].dtype, copy=True))
        return new

    def calls(self, program: Program) -> int:
        """How many the run has made of the model."""
        last = None if self.stopped is None else [call.node for call in program].index(self.stopped) + 1
        return sum(call.asks for call in program.calls[:last])

    def seen(self, found: Solution, dtype: torch.dtype) -> Solution:
        """What a run has found, up to the node at which it was stopped, and its trajectory in this dtype."""
        if self.stopped is not None:
            found = replace(found, times=found.times[: self.stopped + 1], stopped=True)
        return found if self.states is None else replace(found, trajectory=torch.stack(self.states).to(dtype))


def called(
    callback: Callback, node: int, t: float, state: torch.Tensor, x0: torch.Tensor | None, changes: bool,
    wants_x0: bool = False,
) -> torch.Tensor | None:  # fmt: skip
    """The state that a callback returns, or None. ValueError for one that does not fit, and, where ``changes`` is
    False, for a callback that changes the state in any way; StopSampling where the callback raises it."""
    version, stopped, new = written(state), None, None
    try:
        new = callback(node, t, state, x0) if wants_x0 else callback(node, t, state)
    except StopSampling as stop:
        stopped = stop
    if isinstance(new, (np.ndarray, Mapping, list, tuple)):
        raise TypeError(f"the callback returned {type(new).__name__} at node {node}: a new state is a tensor")
    new = new if isinstance(new, torch.Tensor) and new is not state else None
    if new is not None and not (new.shape == state.shape and new.device == state.device and new.is_floating_point()):
        raise ValueError(
            f"the callback returned {tuple(new.shape)}, {new.dtype}, on {new.device} at node {node}; a new state must "
            f"have the shape {tuple(state.shape)} and be floating, as {state.dtype}, on {state.device}"
        )
    if not changes and (new is not None or written(state) != version):
        raise ValueError(
            "the callback has changed the state, which parallel and adaptive runs cannot take over; run with fixed "
            "steps, one after the other, or let it work on a clone"
        )
    if stopped is not None:
        raise stopped
    return new
