"""How Picard iteration converges on Gaussian data, exactly, and how many rounds a parallel run needs.

For x0 ~ N(0, c) the denoiser is linear, E[x0 | x] = (alpha c / R^2) x with R^2 = alpha^2 c + sigma^2, and so is a
sweep. With u = x / sigma and x0 frozen, as `logsnr.Picard` does it without acceleration, a PF-ODE's sweep is

    u_new(lam) = u(lam_0) + int e^lam x0 dlam = u(lam_0) + int K u dlam,      K = c e^(2 lam) / (1 + c e^(2 lam)).

Its fixed point grows like e^G, G(lam) = int K dlam = log (R / sigma) - log (R_0 / sigma_0). From the guess x0 = 0
sweeps add the terms G^j / j! of the Taylor series of e^G one by one: after k sweeps the share that is missing is the
tail of a Poisson law of mean G,

    1 - e^-G sum_(j <= k) G^j / j! = P(k + 1, G),

the regularised incomplete gamma function. So rounds depend on how far the data rises above the noise at the end, and
hardly on the number of steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..kernels import Recurrence, recurrence, scan
from ..solvers.catalogue import Solver
from ..solvers.lower import lower
from ..solvers.parallel.picard import Acceleration, Picard, picard
from ..solvers.parallel.plan import still
from ..solvers.picard_memory import window_bytes
from ..solvers.planners.gauges import Array
from ..solvers.planners.multistep import Startup
from ..solvers.planning import plan_program
from ..solvers.program import Program
from ..solvers.schedules.base import Schedule
from .gaussian import Gaussian
from .rounding import positive


@dataclass(frozen=True, eq=False)
class Sweeps:
    """What sweeps over a whole grid do, for Gaussian data of N standard deviations.

    stds: (N,). growth: (N,), G of the PF-ODE from the first to the last time of the grid.
    errors: (K, N), the relative distance of the end from the fixed point after 1, 2, ... sweeps. changes: (K, N), by
    how much, relative to the new, a sweep changes the node that it changes most. tails: (K, N), P(k + 1, G): what
    errors are for many steps of an ODE solver from the guess x0 = 0. program: the table.
    """

    stds: Array
    growth: Array
    errors: Array
    changes: Array
    tails: Array
    program: Program = field(repr=False)

    def rounds(self, tol: float) -> Array:
        """(N,): the sweeps of a run with the window open over the grid: until all changes are at most ``tol``.

        Raises ValueError if not all are within the sweeps made.
        """
        enough = self.changes <= tol
        if not enough.any(axis=0).all():
            raise ValueError(f"tol = {tol:g} takes more than the {len(enough)} sweeps made")
        return np.asarray(enough.argmax(axis=0) + 1)


def picard_sweeps(
    solver: str | Solver | Program,
    sch: Schedule,
    stds: Any,
    *,
    sweeps: int = 30,
    steps: int | None = None,
    nfe: int | None = None,
    grid: str | Any = "logsnr",
    t_start: float | None = None,
    t_end: float | None = None,
    startup: Startup = "ramp",
) -> Sweeps:
    """Sweeps of ``logsnr.Picard(accelerate=None)`` over all calls of a program, exactly, in float64, from the first
    guess of that: the line of constant (x0, eps), or what a program that adds noise makes of its x0.

    stds: (N,) or a number, positive. Other options are as in `logsnr.solve`; a `Program` is taken as it is. The start
    and the noises are independent normals, and norms are root mean squares over them: those of a sample of many
    elements, from which those of few scatter. (Without noise they are the same for every sample.)
    Raises ValueError for options that do not fit, and what `recurrence` raises.
    """
    program = plan_program(solver, sch, steps=steps, nfe=nfe, grid=grid, t_start=t_start, t_end=t_end, startup=startup)
    data = _Data.of(program, sch, stds)
    stds, alpha, sigma, nodes = data.stds, data.alpha, data.sigma, data.guess()
    ends, changes = [], []
    for _ in range(max(sweeps, 1) + len(nodes)):
        new = data.sweep(nodes)
        ends.append(new[-1])
        changes.append(_changes(new, nodes).max(axis=0))
        if torch.equal(new, nodes):
            break
        nodes = new
    first, last = (np.log(np.hypot(alpha[k] * stds, sigma[k]) / sigma[k]) for k in (0, -1))
    growth, k = last - first, np.arange(1, sweeps + 1)[:, None]
    from scipy.special import gammainc  # a third of a second, for those who need it

    reached = torch.stack(ends)
    errors = _changes(ends[-1].expand_as(reached), reached)
    return Sweeps(
        stds,
        growth,
        errors[:sweeps],
        np.array(changes)[:sweeps],
        np.array(gammainc(k + 1, growth), dtype=np.float64),
        program,
    )


def picard_work(
    solver: str | Solver | Program, sch: Schedule, stds: Any, windows: Any, tol: float, **options: Any
) -> tuple[Array, Array]:
    """How many rounds and evaluations of the model ``logsnr.Picard(window, tol, accelerate=None)`` takes, (M, N) each,
    for M windows and Gaussian data of N standard deviations.

    A run is linear in the normals that it starts from and adds, so the executor itself is run in float64 on their
    coefficients: norms are then root mean squares over the normals, those of a sample of many elements.

    windows: (M,) or a number, at least 1. tol: positive. Other options are as in `picard_sweeps`, and raise what they
    do.
    """
    program = plan_program(solver, sch, **options)
    stds, sizes = positive("stds", np.atleast_1d(stds)), np.atleast_1d(windows)
    if not (sizes.dtype.kind == "i" and (sizes >= 1).all()):
        raise ValueError(f"windows must be integers of at least 1, not {windows}")
    if not tol > 0:
        raise ValueError(f"tol = {tol!r} must be positive")
    lowered = lower(program, sch, "x0", state=torch.float64, model=torch.float64)
    number = {key: n for n, key in enumerate(program.noises, start=1)}

    def unit(n: int) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([n]), 1 + len(number)).double()

    def counts(size: int, std: float) -> tuple[int, int]:
        den = Gaussian(0.0, std**2).denoiser(sch)
        start = math.hypot(sch.alpha(program.grid[0]) * std, sch.sigma(program.grid[0])) * unit(0)
        how = Picard(window=min(size, len(program)), tol=tol, accelerate=None)
        found = picard(lowered, den, start, how, noise=lambda key, like: unit(number[key]))
        return found.rounds, found.nfe

    found = np.array([[counts(size, std) for std in stds.tolist()] for size in sizes.tolist()])
    return found[..., 0], found[..., 1]


def _changes(new: torch.Tensor, old: torch.Tensor) -> Array:
    """(W, N): how much rows (W, N, normals) have changed, relative to the new."""
    return np.asarray(torch.linalg.vector_norm(new - old, dim=2) / torch.linalg.vector_norm(new, dim=2))


@dataclass(frozen=True, eq=False)
class _Data:
    """Gaussian data of N standard deviations ``stds``, and the calls of a program. All is linear in independent
    normals, the first of which makes the start and the others are the program's noises: values are their coefficients,
    (N, normals). alpha, sigma: (calls + 1, 1), when calls are made and at the end; slopes: (calls, N, 1), x0 of what
    they see; start: the slots before the first call, (S, N, normals); noises: what calls add, (calls, N, normals) for
    every column."""

    rec: Recurrence
    stds: Array
    alpha: Array
    sigma: Array
    slopes: torch.Tensor
    start: torch.Tensor
    noises: list[torch.Tensor]

    @classmethod
    def of(cls, program: Program, sch: Schedule, stds: Any) -> "_Data":
        stds = positive("stds", np.atleast_1d(stds))
        lowered = lower(program, sch, "x0", state=torch.float64, model=torch.float64)
        rec = recurrence(lowered.updates)
        times = np.array([*lowered.times, program.grid[-1]])
        alpha, sigma = np.asarray(sch.alpha(times))[:, None], np.asarray(sch.sigma(times))[:, None]
        slopes = torch.from_numpy((alpha * stds**2 / (alpha**2 * stds**2 + sigma**2))[:-1, :, None])
        values = torch.zeros(rec.slots, len(stds), 1 + len(program.noises), dtype=torch.float64)
        start, noises = values.clone(), values.new_zeros(rec.noises, len(rec), *values.shape[1:])
        start[..., 0] = torch.from_numpy(np.hypot(alpha[0] * stds, sigma[0]))
        for n, keys in enumerate(lowered.noises):
            for column, key in enumerate(keys):
                noises[column, n, :, 1 + program.noises.index(key)] = 1.0
        return cls(rec, stds, alpha, sigma, slopes, start, list(noises))

    def guess(self) -> torch.Tensor:
        """The first nodes, (calls, N, normals), as the executor has them."""
        (x0, _), (eps, _) = still(self.alpha[0], self.sigma[0])
        alpha, sigma = (torch.from_numpy(level[1:, None]) for level in (self.alpha, self.sigma))
        nodes = (alpha * float(x0[0]) + sigma * float(eps[0])) * self.start[0]
        if self.noises:  # as the executor adds it to its guess
            nodes = self._scan((float(x0[0]) * self.start[0]).expand_as(nodes).contiguous(), nodes)
        return nodes

    def sweep(self, nodes: torch.Tensor) -> torch.Tensor:
        """New nodes."""
        seen = self.start[int(self.rec.at[0])]
        return self._scan(self.slopes * torch.cat([seen[None], nodes[:-1]]), nodes)

    def _scan(self, outputs: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
        return scan(self.start, [outputs], nodes, self.rec, noises=self.noises)[0]


def picard_bytes(
    solver: str | Solver | Program,
    sch: Schedule,
    shape: Sequence[int],
    windows: Any,
    *,
    dtype: torch.dtype = torch.float32,
    accelerate: Acceleration | None = "secant",
    **options: Any,
) -> Array:
    """(N,): the bytes that windows of N sizes take for states of ``shape`` (B, ...), what the model needs for itself
    left out: what ``logsnr.Picard(window="auto")`` reckons with, see `solvers.picard_memory`.

    dtype: of the model. accelerate: as of `Picard`; other options are as in `picard_sweeps`, and raise what they do.
    """
    program = plan_program(solver, sch, **options)
    x = torch.empty(tuple(shape), dtype=dtype, device="meta")
    lowered = lower(program, sch, "v", state=torch.promote_types(dtype, torch.float32), model=dtype)
    anderson = accelerate == "anderson"
    sizes = np.minimum(np.atleast_1d(windows), len(program)).tolist()
    return np.array([window_bytes(lowered, x, size, anderson=anderson) for size in sizes])
