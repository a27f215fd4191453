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

from ..kernels import Recurrence, advance, recurrence, scan
from ..solvers.catalogue import Solver
from ..solvers.gauges import Array
from ..solvers.lower import lower
from ..solvers.multistep import Startup
from ..solvers.parallel_plan import Pair, still
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
    data = _Data.of(program, sch, stds)
    rec, stds, alpha, sigma = data.rec, data.stds, data.alpha, data.sigma
    window = slice(0, len(rec))
    start, pair = data.start()
    nodes = data.guess(start, pair, window)
    ends, changes = [], []
    for _ in range(max(sweeps, 1) + len(rec)):
        new, _ = data.sweep(start, nodes, window)
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


def picard_work(
    solver: str | Solver | Program, sch: Schedule, stds: Any, windows: Any, tol: float, **options: Any
) -> tuple[Array, Array]:
    """At most how many rounds and evaluations of the model ``logsnr.Picard(window, tol, accelerate=None)`` takes,
    (M, N) each, for M windows and Gaussian data of N standard deviations: those of a window that moves on only when
    all its calls have converged, by exact sweeps in float64. One that moves on with every call takes 0.6 to 1 times as
    many rounds; a round more where a program adds noise and hardly takes more than one a window.

    windows: (M,) or a number, at least 1. tol: positive. Other options are as in `picard_sweeps`, and raise what they
    do.
    """
    program = plan_program(solver, sch, **options)
    data, sizes = _Data.of(program, sch, stds), np.atleast_1d(windows)
    if not (sizes.dtype.kind == "i" and (sizes >= 1).all()):
        raise ValueError(f"windows must be integers of at least 1, not {windows}")
    if not tol > 0:
        raise ValueError(f"tol = {tol!r} must be positive")
    sizes = np.minimum(sizes, len(program))
    rounds = np.array([_rounds(data, int(size), tol) for size in sizes])
    return rounds, rounds * sizes[:, None]


def _rounds(data: "_Data", size: int, tol: float) -> np.ndarray:
    slots, pair = data.start()
    total = np.zeros(len(data.stds), dtype=np.int64)
    for first in range(0, len(data.rec), size):
        window = slice(first, min(first + size, len(data.rec)))
        nodes, changing = data.guess(slots, pair, window), np.ones(len(data.stds), dtype=bool)
        while changing.any():
            total += changing
            new, outputs = data.sweep(slots, nodes, window)
            # What follows on nodes that no longer change is right, changed or not.
            changing &= (new[:-1] / nodes[:-1] - 1).abs().numpy().max(axis=(0, 1), initial=0.0) > tol
            nodes = new
        pair = data.pair(window.stop - 1, nodes[-2] if len(nodes) > 1 else data.seen(slots, first), outputs[-1])
        advance(slots, [outputs], data.rec, first=first, noises=data.quiet(nodes), out=slots)
    return total


@dataclass(frozen=True, eq=False)
class _Data:
    """Gaussian data of N standard deviations ``stds``, and the calls of a program. alpha, sigma: (calls + 1, 1), when
    they are made and at the end; slopes: (calls, 1, N), x0 of what they see."""

    rec: Recurrence
    stds: Array
    alpha: Array
    sigma: Array
    slopes: torch.Tensor

    @classmethod
    def of(cls, program: Program, sch: Schedule, stds: Any) -> "_Data":
        stds = positive("stds", np.atleast_1d(stds))
        rec = recurrence(lower(program, sch, "x0", state=torch.float64, model=torch.float64).updates.calls)
        times = np.array([*(call.t for call in program), program.grid[-1]])
        alpha, sigma = np.asarray(sch.alpha(times))[:, None], np.asarray(sch.sigma(times))[:, None]
        slopes = torch.from_numpy((alpha * stds**2 / (alpha**2 * stds**2 + sigma**2))[:-1, None])
        return cls(rec, stds, alpha, sigma, slopes)

    def start(self) -> tuple[torch.Tensor, Pair]:
        """The slots before the first call, (S, 1, N), and the (x0, eps) that nodes are first made of."""
        slots = torch.ones(self.rec.slots, 1, len(self.stds), dtype=torch.float64)
        (x0, _), (eps, _) = still(self.alpha[0], self.sigma[0])
        return slots, (float(x0[0]) * slots[0], float(eps[0]) * slots[0])

    def guess(self, slots: torch.Tensor, pair: Pair, window: slice) -> torch.Tensor:
        """The first nodes of a window, (W, 1, N), as the executor has them."""
        (x0, eps), after = pair, slice(window.start + 1, window.stop + 1)
        alpha, sigma = (torch.from_numpy(level[after, None]) for level in (self.alpha, self.sigma))
        nodes = alpha * x0 + sigma * eps
        if self.rec.noises:  # as the executor adds it to its guess
            nodes, _ = self._scan(slots, x0.expand_as(nodes).contiguous(), nodes, window)
        return nodes

    def sweep(self, slots: torch.Tensor, nodes: torch.Tensor, window: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """New nodes, and the model's answers for the old ones."""
        outputs = self.slopes[window] * torch.cat([self.seen(slots, window.start)[None], nodes[:-1]])
        return self._scan(slots, outputs, nodes, window)[0], outputs

    def seen(self, slots: torch.Tensor, n: int) -> torch.Tensor:
        return slots[int(self.rec.at[n])]

    def pair(self, n: int, seen: torch.Tensor, x0: torch.Tensor) -> Pair:
        return x0, (seen - float(self.alpha[n, 0]) * x0) / float(self.sigma[n, 0])

    def quiet(self, nodes: torch.Tensor) -> list[torch.Tensor]:
        return [torch.zeros_like(nodes)] * self.rec.noises

    def _scan(
        self, slots: torch.Tensor, outputs: torch.Tensor, nodes: torch.Tensor, window: slice
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return scan(slots, [outputs], nodes, self.rec, first=window.start, noises=self.quiet(nodes))


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
