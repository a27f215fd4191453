"""A two-step method that is its own inverse: what it does to a state can be undone, but for rounding."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from ..solvers.arguments import check_arguments
from ..solvers.arrays import Array
from ..solvers.catalogue.catalogue import solver as find_solver
from ..solvers.catalogue.planning import Layout
from ..solvers.denoisers.complex_states import from_parts, of_parts, to_parts
from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.planners.checks import flag, number
from ..solvers.planners.gauge import Nodes
from ..solvers.programs.call import STATE, Call, NoiseKey
from ..solvers.programs.program import Program
from ..solvers.sampling import sample
from ..solvers.schedules.base import Schedule
from .reversible_gradients import Reversed, Walk, wanted_of

BEFORE = 1  # the slot of the state one node ago


@dataclass(frozen=True)
class Reversible:
    """Explicit, one evaluation a step, second order, and reversible in closed form.

    With the DDIM step ``D(u) = alpha_u x0 + sigma_u eps`` of the answer at node n, to any time u,

        x_{n+1} = D(t_{n+1}) + a (x_{n-1} - D(t_{n-1})),

    which is BDIA (Zhang et al. 2023) with a weight of its own at every step; x_{n-1} follows from x_n and x_{n+1} with
    1/a. The first step is DDIM's. It is of second order if and only if ``a = (h / k)^2 (1 + O(h))``, h being the step
    in lam from n, and k that before it: constant weights below 1 are of first order.

    That leaves a free factor, here ``m_{n+1} / m_{n-1}``. It decides how errors grow: what a step loses of one error it
    multiplies another by, as the map of the two states has the determinant -a, whatever the model. Here

        m = R (sigma / R)^clean (alpha / R)^noisy,   R^2 = alpha^2 + sigma^2.

    clean: from 0 to 1. At 0 rounding grows on the way to the data, along directions in which the data do not vary; at
    1, about BELM (Wang et al. 2024), truncation errors grow on the way to the noise, along those in which they do. 1/2
    is between the two. noisy: from 0 to 1; more than 0 damps errors of the way to the noise, where that ends, and
    amplifies rounding on the way back. Raises ValueError for other numbers.
    """

    clean: float = 0.5
    noisy: float = 0.25
    global_order = 2

    def __post_init__(self) -> None:
        for name in ("clean", "noisy"):
            object.__setattr__(self, name, number(name, getattr(self, name), 0.0, 1.0, "a number from 0 to 1"))

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        """The table on ``grid``, float64 times, strictly monotone, in either direction."""
        alpha, sigma = float(schedule.alpha(grid[1])), float(schedule.sigma(grid[1]))
        matrix = np.array([[alpha, sigma, 0.0], [0.0, 0.0, 1.0]])
        first = Call(grid[0], (STATE,), (STATE, BEFORE), matrix, node=1)
        return Program("reversible", 2, tuple(grid), (first, *self._steps(schedule, grid)))

    def back(self, schedule: Schedule, grid: Array) -> Program:
        """The inverse of ``plan(schedule, grid)``, from the state at its last node but one.

        The state at the last node is asked for as the noise of the interval between the two:
        ``logsnr.solve(den, x[-2], solver=program, noise=lambda key, like: x[-1])``. ValueError for a single step, whose
        way back has no evaluation: the state before it is the start.
        """
        if len(grid) < 3:
            raise ValueError("a reversible run needs at least 2 steps")
        reverse = grid[::-1]
        first, *others = self._steps(schedule, reverse)
        columns = [*range(2), 2, 3]  # x0, eps, the state, and the state before it, which no call has written
        assert first.reads == (STATE, BEFORE)
        key = NoiseKey(reverse[0], reverse[1])
        entry = Call(first.t, (STATE,), first.writes, first.matrix[:, columns], noises=(key,), node=1)
        later = (Call(c.t, c.reads, c.writes, c.matrix, node=n) for n, c in enumerate(others, start=2))
        return Program("reversible, back", 2, tuple(reverse[1:]), (entry, *later))

    def sample(
        self,
        den: Denoiser,
        x: torch.Tensor,
        *,
        grad: bool = False,
        parameters: Iterable[torch.Tensor] = (),
        **options: Any,
    ) -> torch.Tensor:
        """The end of the run from ``x`` (B, ...), in its dtype: ``logsnr.sample(den, x, solver=self, ...)``.

        grad:    record gradients to x, to the weights of the denoiser's modules, to its conditions and its guidance
                 scale, in memory that does not grow with the number of steps: the last two states are kept, those
                 before are made again by the inverse, and the model is asked once more at each. It must answer the same
                 then: a RuntimeError says so where the way back misses the start. In fp32 some roundings are left, more
                 the more steps there are; no second derivatives.
        parameters: other tensors that gradients are wanted to: those that a function has caught in a closure.
        options: as for `logsnr.sample`; with ``grad`` those that lay out the run: ``steps``, ``grid``, ``t_end``, ...

        Raises what `logsnr.sample` raises.
        """
        flag("grad", grad)
        if not grad:
            return sample(den, x, solver=self, **options)
        check_arguments(den, x, None, None, "raise", None, grad=grad)
        if other := options.keys() - {f.name for f in fields(Layout)}:
            raise ValueError(f"grad = True takes options that lay out the run, not {sorted(other)}")
        parts = x.is_complex()
        run, state = (of_parts(den, x), to_parts(x).contiguous()) if parts else (den, x)
        program = Layout(**options).program(find_solver(self), run.schedule, run.answers)
        extra = [y for y in parameters if y.requires_grad]
        start, wanted = state.to(run.state_dtype(state)), [*wanted_of(den), *extra]
        end = Reversed.apply(Walk(run, start, program, wanted), start, *wanted).to(state.dtype)
        return from_parts(end) if parts else end

    def _steps(self, sch: Schedule, grid: Array) -> Iterator[Call]:
        """The calls of all steps but the first."""
        at = Nodes.at(sch, grid)
        lam = _finite(at.lam)
        r, s = np.hypot(at.alpha, at.sigma), np.exp(-np.logaddexp(0.0, 2 * lam) / 2)  # s: sigma / R
        c = np.exp(-np.logaddexp(0.0, -2 * lam) / 2)  # alpha / R
        m = r * s**self.clean * c**self.noisy
        for n in range(1, len(grid) - 1):
            a = ((lam[n + 1] - lam[n]) / (lam[n] - lam[n - 1])) ** 2 * m[n + 1] / m[n - 1]
            ends = [y[n + 1] - a * y[n - 1] for y in (at.alpha, at.sigma)]
            matrix = np.array([[*ends, 0.0, a], [0.0, 0.0, 1.0, 0.0]])
            yield Call(grid[n], (STATE, BEFORE), (STATE, BEFORE), matrix, node=n + 1)


def _finite(lam: Array) -> Array:
    """lam with infinite ends as far out as the step before: what is done there, in closed form, is exact anyway."""
    lam = lam.copy()
    for end, near, beyond in ((0, 1, 2), (-1, -2, -3)):
        if len(lam) > 2 and not np.isfinite(lam[end]):
            step = lam[near] - lam[beyond]
            lam[end] = lam[near] + (step if np.isfinite(step) else np.sign(lam[end]))
    return lam
