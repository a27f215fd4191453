"""Orders and errors of a subject on exact problems: what each part of how it is run leaves of its order.

Of deterministic solvers the error is the root mean square distance from the exact ends of the same paths, on the
mixture on which orders are stated; of stochastic ones the 2-Wasserstein distance of what they generate from Gaussian
data, without samples (`weak_order`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch

from ...analysis.moments import sampler_moments
from ...analysis.orders import Convergence, refine, two_gaussians, warped_grid
from ...analysis.weak import three_modes
from ...solvers.arrays import Array
from ...solvers.catalogue.catalogue import Solver
from ...solvers.catalogue.planning import plan_program
from ...solvers.programs.interpret import PairModel
from ...solvers.programs.program import Program
from ...solvers.schedules.base import Schedule
from ...solvers.schedules.straight import EDM
from .types import Subject

SAMPLES, FINEST, MOST = 64, 256, 1000  # paths; steps of the finest grid, and of a table
NAMED = ("dpmpp-2m", "dpm-3m", "dpmpp-3m", "unipc-2", "unipc-3")
NOISY = ("sde-dpmpp-2m", "sde-dpmpp-3m", "er-sde-3", "euler-a")
GRIDS = ("logsnr", "karras", "arctan")

Nodes = Callable[[int], tuple[Schedule, Array]]


@dataclass(frozen=True)
class Rung:
    """One way to run it: in words, and how it converges."""

    told: str
    found: Convergence


@dataclass(frozen=True)
class Choice:
    """What could be run instead: grid is None where the solver chooses that, too."""

    solver: str
    grid: str | None
    nfe: int
    error: float


@dataclass(eq=False)
class Measured:
    """What is measured of a subject, when it is asked for. The starts are the same in all."""

    subject: Subject
    exact: dict[tuple[str, float, float], tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.problem, self.modes = two_gaussians(), three_modes()
        self.stochastic = self.subject.shipped.stochastic

    def ends(self, sch: Schedule, first: float, last: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Starts (64,) at the time ``first``, and where their exact paths are at ``last``."""
        key = type(sch).__name__, first, last
        if key not in self.exact:
            x = self.problem.sample_at(sch, first, SAMPLES, generator=torch.Generator().manual_seed(0))
            self.exact[key] = x, self.problem.reference(x, sch, first, last)
        return self.exact[key]

    def error(self, program: Program, sch: Schedule, model: PairModel | None = None) -> float:
        if self.stochastic:
            return sampler_moments(program, self.modes, sch).w2
        x, end = self.ends(sch, program.grid[0], program.grid[-1])
        difference = program.interpret(x, model or self.problem.pair(sch)) - end
        return float(difference.square().mean().sqrt())

    def convergence(self, method: Solver, nodes: Nodes, startup: str) -> Convergence:
        def run(steps: int) -> tuple[int, float]:
            sch, times = nodes(steps)
            program = method.program(sch, times, startup=startup)
            return len(program), self.error(program, sch)

        return refine(run, method.name, method.order, startup, FINEST * method.evaluations)

    @cached_property
    def rungs(self) -> list[Rung]:
        """From the bare formula to how it is run; a rung that changes nothing is left out."""
        subject, sch = self.subject, EDM()

        def warped(n: int) -> tuple[Schedule, Array]:
            return sch, warped_grid(sch, n)

        ways: list[tuple[str, Solver, Nodes, str]] = []
        if subject.right.order > subject.shipped.order:
            ways.append((f"{subject.right.name}, the formula as it should be", subject.right, warped, "single-step"))
        ways.append(("its formula, exact start, smooth grid", subject.shipped, warped, "single-step"))
        if hasattr(subject.shipped.planner, "startup") and subject.shipped.order > 2:
            ways.append(("+ its own start, lower orders first", subject.shipped, warped, "ramp"))
        positive = partial(self._cut, to_zero=False)
        ways.append(("+ its grid, down to the last sigma > 0", subject.shipped, positive, "ramp"))
        if subject.levels()[-1] == 0:
            ways.append(("+ its last step, to sigma = 0", subject.shipped, self._cut, "ramp"))
        return [Rung(told, self.convergence(method, nodes, startup)) for told, method, nodes, startup in ways]

    def _cut(self, steps: int, to_zero: bool = True) -> tuple[Schedule, Array]:
        sch, times = self.subject.nodes(steps)
        if not to_zero and times[-1] == 0:
            times = times[:-1]
        return sch, times

    @cached_property
    def program(self) -> Program:
        """The subject's own run."""
        sch, times = self.subject.nodes()
        return self.subject.shipped.program(sch, times, startup="ramp")

    @cached_property
    def own(self) -> float:
        """Its error with its number of steps."""
        return self.error(self.program, self.subject.nodes()[0])

    @cached_property
    def told_otherwise(self) -> float | None:
        """Its error where the model is told other levels than the solver has; None if it is told the same."""
        if self.subject.asked is None or self.stochastic:
            return None
        sch, asked = self.subject.nodes()[0], self.subject.asked(self.subject.steps)
        told = dict(zip(self.subject.levels()[:-1].tolist(), asked.tolist(), strict=True))

        def model(x: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor]:
            level = told.get(t, t)
            size, other = float(np.hypot(1, t)), float(np.hypot(1, level))
            x0, eps = self.problem.posterior(x / size, 1 / other, level / other)  # the network sees x of variance 1
            if self.subject.head == "x0":
                return x0, (x - x0) / t
            if self.subject.head == "v":
                v = eps / other - level / other * x0
                return (x / size - t * v) / size, (t * x / size + v) / size
            return x - t * eps, eps

        return self.error(self.program, sch, model)

    @cached_property
    def floors(self) -> dict[str, float]:
        """By dtype, what the state and the model's answers in it add to the end, rounded after every step."""
        sch = self.subject.nodes()[0]
        x, _ = self.ends(sch, self.program.grid[0], self.program.grid[-1])
        exact, model = self.program.interpret(x, self.problem.pair(sch)), self.problem.pair(sch)

        def added(dtype: torch.dtype) -> float:
            def rounded(seen: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor]:
                x0, eps = model(seen.double(), t)
                return x0.to(dtype), eps.to(dtype)

            end = self.program.interpret(x.to(dtype), rounded)
            return float((end.double() - exact).square().mean().sqrt())

        return {name: added(getattr(torch, name)) for name in ("float32", "float16", "bfloat16")}

    @cached_property
    def choices(self) -> list[Choice]:
        """What else takes as many evaluations from the same start to the same end, by error; the first is auto unless
        the subject adds noise."""
        nfe, (sch, times) = len(self.program), self.subject.nodes()
        if isinstance(sch, EDM):  # down to the least level that there is, which few steps may not reach
            most = self.subject.levels(MOST)
            sch = EDM(min(sch.sigma_min, float(most[most > 0][-1])), sch.sigma_max)
        ends = {"t_start": float(times[0]), "t_end": float(times[-1])}
        ways: list[tuple[str, str | None]] = [] if self.stochastic else [("auto", None)]
        ways += [(name, grid) for name in (NOISY if self.stochastic else NAMED) for grid in GRIDS]
        found = []
        for name, grid in ways:
            try:
                program = plan_program(name, sch, nfe=nfe, grid=grid, **ends)
                found.append(Choice(name, grid, len(program), self.error(program, sch)))
            except ValueError:  # a budget that is too small for it
                continue
        return sorted(found, key=lambda choice: (choice.solver != "auto", choice.error))
