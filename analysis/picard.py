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

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..kernels import recurrence, scan
from ..solvers.catalogue import Solver
from ..solvers.gauges import Array
from ..solvers.lower import lower
from ..solvers.multistep import Startup
from ..solvers.parallel_plan import still
from ..solvers.picard import Acceleration
from ..solvers.picard_memory import window_bytes
from ..solvers.planning import plan_program
from ..solvers.program import Program
from ..solvers.schedule import Schedule
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

    stds: (N,) or a number, positive. Other options are as in `logsnr.solve`; a `Program` is taken as it is. Noise is
    left out: it does not change the distance between two iterates.
    Raises ValueError for options that do not fit, and what `recurrence` raises.
    """
    program = plan_program(solver, sch, steps=steps, nfe=nfe, grid=grid, t_start=t_start, t_end=t_end, startup=startup)
    stds = positive("stds", np.atleast_1d(stds))
    rec = recurrence(lower(program, sch, "x0", state=torch.float64, model=torch.float64).updates.calls)
    times = np.array([*(call.t for call in program), program.grid[-1]])
    alpha, sigma = np.asarray(sch.alpha(times))[:, None], np.asarray(sch.sigma(times))[:, None]
    slopes = torch.from_numpy((alpha * stds**2 / (alpha**2 * stds**2 + sigma**2))[:-1, None])
    (x0, _), (eps, _) = still(alpha[0], sigma[0])
    guess = torch.from_numpy(np.broadcast_to(x0, (len(rec), len(stds)))[:, None].copy())
    nodes = torch.from_numpy(np.broadcast_to(alpha[1:] * x0 + sigma[1:] * eps, (len(rec), len(stds)))[:, None].copy())
    start = torch.ones(rec.slots, 1, len(stds), dtype=torch.float64)
    quiet = [torch.zeros_like(nodes)] * rec.noises
    if quiet:  # as the executor adds it to its guess
        nodes, _ = scan(start, [guess], nodes, rec, noises=quiet)
    ends, changes = [], []
    for _ in range(max(sweeps, 1) + len(rec)):
        outputs = slopes * torch.cat([start[:1], nodes[:-1]])
        new, _ = scan(start, [outputs], nodes, rec, noises=quiet)
        ends.append(new[-1, 0].numpy())
        changes.append((new / nodes - 1).abs().amax((0, 1)).numpy())
        if torch.equal(new, nodes):
            break
        nodes = new
    first, last = (np.log(np.hypot(alpha[k] * stds, sigma[k]) / sigma[k]) for k in (0, -1))
    growth, k = last - first, np.arange(1, sweeps + 1)[:, None]
    from scipy.special import gammainc  # a third of a second, for those who need it

    errors = np.abs(np.array(ends) / ends[-1] - 1)
    return Sweeps(
        stds,
        growth,
        errors[:sweeps],
        np.array(changes)[:sweeps],
        np.array(gammainc(k + 1, growth), dtype=np.float64),
        program,
    )


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
