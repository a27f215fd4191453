"""Linear stability: what a step of a solver does to a mode of the data, over the step and the mode.

The test equation is the PF-ODE of a Gaussian mode of standard deviation c, frozen at one time. With its
share of signal kappa = alpha^2 c^2 / (alpha^2 c^2 + sigma^2) = 1 / (1 + e^{-2 (lam + log c)}) held constant,

    x0 = kappa x / alpha,    eps = (1 - kappa) x / sigma,    d(x / alpha) / dlam = -(1 - kappa) (x / alpha)

for every schedule. No gauge takes all of it out: eps leaves -(1 - kappa), x0, whose variable is x / sigma,
leaves kappa, and explicit methods tolerate only so much of that per step. (Frozen coefficients are how
exponential multistep methods are judged, Hochbruck and Ostermann 2010, 2.7; book 6.3.4 on stiffness.) A true
mode passes from kappa = 0 to 1 within a few units of lam, so growth that lasts for a step or two is harmless.
"""

import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..solvers.arrays import Array
from ..solvers.catalogue.catalogue import Solver
from ..solvers.catalogue.catalogue import solver as find_solver
from ..solvers.programs.checks import check_elements
from ..solvers.programs.interpret import carry_out
from ..solvers.programs.program import ONE, STATE, Call, Program
from ..solvers.schedules.formulas import EDM
from .problem import parameter
from .rounding import positive

LONGEST = 20.0  # steps: from one end of most schedules to the other
SETTLED = 1e-9  # growth that is rounding
DEPTH = 8  # more steps than any solver's history needs before it is in its stride, and to repeat itself


@dataclass(frozen=True, eq=False)
class Stability:
    """Growth per step of x / alpha under the frozen test equation.

    steps: (H,), lengths h in lam. modes: (M,), lam + log c. growth: (H, M), the spectral radius of the step
    with its history; the solver is stable where it is at most 1. exact: (H, M), e^{-(1 - kappa) h} <= 1, of the PF-ODE.
    """

    solver: str
    steps: Array
    modes: Array
    growth: Array
    exact: Array

    @property
    def limit(self) -> float:
        """The longest of ``steps`` up to which every mode is stable; 0 if there is none."""
        stable = (self.growth <= 1 + SETTLED).all(axis=1)
        return float(np.max(self.steps[np.logical_and.accumulate(stable)], initial=0.0))

    def plot(self, path: str | Path) -> None:
        """Save a map of growth / exact, in the format of the path's suffix, with the border of stability."""
        from .plots import saved
        from .plots import stability as drawn

        saved(drawn(self), path)


def stability(solver: str | Solver, *, steps: Any = None, modes: Any = None) -> Stability:
    """The growth of every mode in one step of ``solver``, in a long run of equal steps in lam.

    steps: (H,), positive and increasing, by default 50 from 0.1 to 5. modes: (M,), by default 81, -4 to 4.

    Solvers that know the schedule's time (on dx/dt, and DEIS in t) are shown for t = sigma / alpha, as on
    EDM's schedule; the others do not depend on the schedule. Stochastic solvers are shown without their
    noise. Raises ValueError for solvers without fixed steps, for those that do more than step along the grid (churn,
    restarts, Langevin dynamics), and for steps longer than 20.
    """
    method = find_solver(solver)
    h = positive("steps", np.linspace(0.1, 5.0, 50) if steps is None else steps)
    if h.max() > LONGEST or (np.diff(h) <= 0).any():
        raise ValueError(f"steps must increase and not exceed 20, not run from {h[0]:g} to {h.max():g}")
    m: Array = parameter("modes", np.linspace(-4.0, 4.0, 81) if modes is None else modes).numpy()
    if m.ndim != 1 or not m.size:
        raise ValueError(f"modes must be a 1-D array, not of shape {m.shape}")
    growth = np.stack([_growth(method, step, 1 / (1 + np.exp(-2 * m))) for step in h.tolist()])
    return Stability(method.name, h, m, growth, np.exp(-h[:, None] / (1 + np.exp(2 * m))))


def stable_step(solver: str | Solver) -> float:
    """The longest step in lam, to 1 %, up to which no mode grows; 20, the longest looked at, if none ever does.

    Raises ValueError for solvers without fixed steps.
    """
    low = 0.0
    for high in np.geomspace(0.2, LONGEST, 16).tolist():
        if not stability(solver, steps=[high]).limit:
            break
        low = high
    if low in (0.0, LONGEST):
        return low
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if stability(solver, steps=[middle]).limit else (low, middle)
    return low


def _growth(method: Solver, h: float, kappa: Array) -> Array:
    """Spectral radius per step (M,), from the table on a long grid of steps h."""
    if getattr(getattr(method.planner, "gauge", None), "own", "lam") == "clock":
        raise ValueError(f"the steps of {method.name} depend on the level of noise: there is no growth per step")
    lam = h * np.arange(-DEPTH, 2 * DEPTH + 1)
    sch = EDM(sigma_min=math.exp(-lam[-1]), sigma_max=math.exp(-lam[0]))
    program = method.program(sch, np.exp(-lam))
    check_elements(program)
    if any(key.stream for key in program.noises):
        raise ValueError(f"{method.name} does more than step along its grid: there is no growth per step")
    steps = by_step(program)
    # History is a ring of slots: only after a few steps has every slot its old part again.
    layout = [[(call.at, call.reads, call.writes) for call in step] for step in steps]
    period = next(p for p in range(1, DEPTH) if layout[DEPTH] == layout[DEPTH + p])

    def model(x: Array, t: float) -> tuple[Array, Array]:
        return kappa * x, (1 - kappa) / t * x

    def sized(x: Array, t: float) -> tuple[Array, Array]:  # along the exact solution
        return t ** (1 - kappa), t ** (1 - kappa) / t

    quiet = dict.fromkeys(program.noises, 0.0)
    slots = range(program.slots)
    sizes = {k: program.grid[0] ** (1 - kappa) for k in slots} | {ONE: 0 * kappa}  # constants do not grow
    before: Array = np.empty(0)
    memory: dict[int, Array] = {}
    for n in range(DEPTH + period):
        if n == DEPTH:
            before = np.stack([sizes[k] for k in slots])
            memory = {k: unit[:, None] * np.ones_like(kappa) for k, unit in enumerate(np.eye(program.slots))}
            memory[ONE] = sizes[ONE]
        if memory:
            deque(carry_out(steps[n], memory, model, quiet), 0)
        deque(carry_out(steps[n], sizes, sized, quiet, [np.abs(call.matrix).tolist() for call in steps[n]]), 0)
        sizes[STATE] = program.grid[n + 1] ** (1 - kappa)
    # In units of these sizes the exact solution does not change, and steps with equal coefficients are equal.
    after, step = np.stack([sizes[k] for k in slots]), np.stack([memory[k] for k in slots])
    step = np.moveaxis(step * before / after[:, None], -1, 0)
    radius: Array = np.abs(np.linalg.eigvals(step)).max(axis=1) ** (1 / period)
    return radius * np.exp(-(1 - kappa) * h)


def by_step(program: Program) -> list[list[Call]]:
    """The calls of each step of the grid: the last of a step is the one that reaches its node."""
    steps: list[list[Call]] = [[]]
    for call in program:
        steps[-1].append(call)
        if call.node is not None:
            steps.append([])
    return steps[:-1]
