"""Those who watch a run: progress bars, trajectories, callbacks."""

from collections.abc import Callable
from typing import Any

import torch

from .program import Program

Callback = Callable[[int, float, torch.Tensor], Any]


class Bar:
    """A progress bar if it is wanted; without a total it counts."""

    def __init__(self, wanted: bool, name: str, total: int | None) -> None:
        self.bar: Any = None
        if wanted:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self.bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
            )
            self.task = self.bar.add_task(name, total=total)

    def __enter__(self) -> "Bar":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, done: int) -> None:
        if self.bar:
            self.bar.update(self.task, completed=done)


class Observer:
    """Trajectory, progress bar and callback, all fed by the executor at grid nodes.

    start: the first state of the trajectory, if one is wanted. Raises ValueError for a program whose calls do not say
    when the state has reached a node.
    """

    def __init__(
        self, program: Program, state: torch.dtype, start: torch.Tensor | None, bar: Bar, callback: Callback | None
    ) -> None:
        reached = sum(call.node is not None for call in program)
        if reached < program.steps and (start is not None or callback):
            raise ValueError(
                f"{program.name} reaches {reached} of the {program.steps} nodes of its grid (its calls say node=); "
                "trajectory and callback need all"
            )
        self.states = None if start is None else [start.to(state, copy=True)]
        self.bar, self.callback = bar, callback

    def node(self, node: int, t: float, state: torch.Tensor) -> None:
        if self.states is not None:
            self.states.append(state.clone())
        self.bar.show(node)
        if self.callback:
            self.callback(node, float(t), state)

    def stacked(self, dtype: torch.dtype) -> torch.Tensor | None:
        return None if self.states is None else torch.stack(self.states).to(dtype)
