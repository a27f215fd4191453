"""One leaf of a tree on its way, carried out with answers from outside; and the call that all leaves share."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from ..solvers.catalogue.catalogue import Solver
from ..solvers.denoisers.answers import CHANGED, learned_variance
from ..solvers.denoisers.complex_states import from_parts, of_parts, to_parts
from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.programs.call import STATE
from ..solvers.programs.program import Program
from ..solvers.runs.execution import Execution
from ..solvers.runs.noise import noise_source
from ..solvers.runs.plans import lowered_for
from ..solvers.runs.run import timesteps, writes
from ..solvers.runs.solution import Solution, finished
from .tree_shapes import Path, matched, named, rebuilt


class Leaf:
    """A leaf's denoiser and state, of real and imaginary parts where it is complex."""

    def __init__(self, den: Denoiser, x: torch.Tensor) -> None:
        self.parts = x.is_complex()
        self.den: Denoiser = of_parts(den, x) if self.parts else den
        self.x = to_parts(x).contiguous() if self.parts else x

    def shown(self, x: torch.Tensor) -> torch.Tensor:
        return from_parts(x) if self.parts else x

    def answered(self, answer: Any) -> Any:
        return to_parts(answer, "the model's answer") if self.parts else answer

    def finished(self, found: Solution) -> Solution:
        return finished(found, self.x, False, self.parts)


class PlannedLeaf(Leaf):
    """A leaf with a program of its own."""

    def __init__(
        self, den: Denoiser, x: torch.Tensor, method: Solver | Program, layout: Any, noise: Any, grad: bool,
        trajectory: bool,
    ) -> None:  # fmt: skip
        super().__init__(den, x)
        den, x = self.den, self.x
        self.lowered = lowered_for(method, den, x, layout, False)
        self.program: Program = self.lowered.program
        self.source = noise_source(self.program, den.schedule, x, *noise)
        self.run = Execution(self.lowered, x, self.source, functional=grad)
        self.told = timesteps(self.lowered, den, x)
        self.states = [x.to(den.state_dtype(x), copy=True)] if trajectory else []

    def advance(self, answer: Any) -> None:
        reached = self.program.calls[self.run.n].node is not None
        self.run.advance(answer, learned_variance(answer, self.run.x) if self.program.learned else None)
        if reached and self.states:
            self.states.append(self.run.memory.slots[STATE].clone())

    def solution(self, **more: Any) -> Solution:
        """What a run one call after the other has found; ``more``: what another kind of run has found instead."""
        states, calls = torch.stack(self.states).to(self.x.dtype) if self.states else None, len(self.program)
        found = {"x": more.pop("x") if "x" in more else self.run.finish(), "nfe": calls, "rounds": calls, **more}
        return self.finished(Solution(times=self.program.times, trajectory=states, program=self.program, **found))


def ask(
    den: Any, form: Any, leaves: Mapping[Path, Leaf], seen: Mapping[Path, torch.Tensor],
    told: Mapping[Path, torch.Tensor], conditions: Mapping[str, Any], where: str,
) -> dict[Path, Any]:  # fmt: skip
    """The model's answers, of one call for all leaves, for a tree like ``form``."""
    shown = {path: leaf.shown(seen[path]) for path, leaf in leaves.items()}
    versions = {path: writes(x) for path, x in shown.items()}
    answers = matched("the model's answer", den.model(rebuilt(form, shown), rebuilt(form, told), **conditions), form)
    found = {}
    for path, leaf in leaves.items():
        if writes(shown[path]) != versions[path]:
            raise ValueError(f"{where}, leaf {named(path)!r}: {CHANGED}")
        with within(path):
            found[path] = leaf.answered(answers[path])
    return found


@contextmanager
def within(path: Path) -> Iterator[None]:
    """Errors say in which leaf."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        error.add_note(f"in the leaf {named(path)!r}")
        raise
