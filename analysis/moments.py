"""What a program makes of Gaussian data, exactly: all slots are affine functions of the start and the noises.

For x0 ~ N(m, C) the exact E[x0 | x] is affine in x and diagonal in the eigenbasis of C, so along every
eigenvector (a *mode* of variance c) a linear solver is a recursion of a few numbers. With R^2 = alpha^2 c +
sigma^2, a slot a m + g (x_start - alpha_start m) + sum_k n_k xi_k has

    E[x0 | slot] = m + (alpha c / R^2) (slot - alpha m),    E[eps | slot] = (sigma / R^2) (slot - alpha m),

so the numbers (a, g, n_1, n_2, ...) depend on c alone, and a sampler costs as much as its table is long.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from ..solvers.arrays import Array
from ..solvers.catalogue import Solver
from ..solvers.planners.multistep import Startup
from ..solvers.planning import plan_program
from ..solvers.program import STATE, Program
from ..solvers.schedules.base import Schedule
from .gaussian import Gaussian
from .metrics import kl_gaussian, w2_gaussian


@dataclass(frozen=True, eq=False)
class Moments:
    """The distribution N(mean, cov) of what a sampler generates from Gaussian data.

    mean: event-shaped, float64. cov: a number, event-shaped variances or a matrix (D, D), as the data's was.
    w2, kl: the 2-Wasserstein distance to, and KL(generated || exact) from, the exact marginal at the end of
    the grid, over the whole event. nfe: model evaluations per sample. program: the table.
    """

    mean: torch.Tensor
    cov: torch.Tensor
    w2: float
    kl: float
    nfe: int
    program: Program = field(repr=False)


class Affine(NamedTuple):
    """An end state mean m + start (x_start - alpha_start m) + noise . xi along N modes, of data mean m.

    mean, start: (N,). noise: (K, N), one row per standard normal that the program adds, `xi` independent.
    """

    mean: Array
    start: Array
    noise: Array

    def variance(self, start: Array) -> Array:
        """The variances of the end state for starts of the variances ``start``."""
        total: Array = self.start**2 * start + (self.noise**2).sum(axis=0)
        return total


def sampler_moments(
    solver: str | Solver | Program,
    gaussian: Gaussian,
    sch: Schedule,
    *,
    steps: int | None = None,
    nfe: int | None = None,
    grid: str | Any = "logsnr",
    t_start: float | None = None,
    t_end: float | None = None,
    startup: Startup = "ramp",
) -> Moments:
    """The exact mean and covariance of what ``solver`` generates, without samples and without a network.

    The start is the exact marginal N(alpha m, alpha^2 cov + sigma^2 I) at the first time of the grid, the
    denoiser that of ``gaussian``. All else is as in `logsnr.solve`; a `Program` is taken as it is. Noises
    with different keys are independent, those with the same key are the same.

    Raises TypeError for other data, ValueError for options that do not fit, and for per-element coefficients that
    are not of the event's shape or do not commute with the covariance (a full one).
    """
    if not isinstance(gaussian, Gaussian):
        raise TypeError(f"gaussian must be a Gaussian of logsnr.analysis, not {type(gaussian).__name__}")
    program = plan_program(solver, sch, steps=steps, nfe=nfe, grid=grid, t_start=t_start, t_end=t_end, startup=startup)
    shaped = _per_element(program, gaussian)
    c = gaussian.cov if gaussian.cov.ndim == 0 and not shaped else gaussian.variances  # one mode, or many
    start, exact = (sch.alpha(t) ** 2 * c + sch.sigma(t) ** 2 for t in (program.grid[0], program.grid[-1]))
    end = propagate(program, sch, c.numpy().reshape(-1))
    variance = torch.from_numpy(end.variance(start.numpy().reshape(-1))).reshape(c.shape)
    basis = gaussian.basis
    m = gaussian.mean if basis is None else basis.mT @ gaussian.mean.reshape(-1)
    mean, exact_mean = torch.from_numpy(end.mean).reshape(c.shape) * m, sch.alpha(program.grid[-1]) * m
    w2, kl = (distance(mean, variance, exact_mean, exact) for distance in (w2_gaussian, kl_gaussian))
    if basis is not None:
        mean, variance = (basis @ mean).reshape(gaussian.mean.shape), (basis * variance) @ basis.mT
    return Moments(mean, variance, w2, kl, len(program), program)


def propagate(
    program: Program, sch: Schedule, variances: Array, *, lift: Callable[[Array], Array] = np.asarray
) -> Affine:
    """The end state of ``program`` along modes of the data with ``variances`` (N,), nonnegative.

    ``lift`` turns float64 arrays into arrays of the numbers to compute with: another type of real numbers
    runs the same table, on the same alpha and sigma, in its own precision.
    """
    *_, end = after_each_call(program, sch, variances, lift=lift)
    return end


def at_nodes(program: Program, sch: Schedule, variances: Array) -> list[Affine]:
    """The state at every node of the grid but the first, as `propagate` gives it at the last."""
    states = after_each_call(program, sch, variances)
    return [state for call, state in zip(program, states, strict=True) if call.node is not None]


def after_each_call(
    program: Program, sch: Schedule, variances: Array, *, lift: Callable[[Array], Array] = np.asarray
) -> Iterator[Affine]:
    """The state, slot 0, after every call; arguments as of `propagate`."""
    row = {key: 2 + k for k, key in enumerate(program.noises)}
    times = np.array([call.t for call in program])
    alphas, sigmas, c = (lift(np.asarray(a)) for a in (sch.alpha(times), sch.sigma(times), variances))
    zero = lift(np.zeros((2 + len(row), len(variances))))
    slots = {STATE: _unit(zero, 1)}
    slots[STATE][0] += lift(np.array([sch.alpha(program.grid[0])]))[0]
    alphas, sigmas = alphas[:, None], sigmas[:, None]
    r2 = alphas * alphas * c + sigmas * sigmas
    r2 = np.where(r2 > 0, r2, 1)  # R = 0: nothing deviates, and x says nothing about eps
    for call, whole, share, scaled, sigma in zip(program, r2, alphas / r2, alphas * c, sigmas, strict=True):
        d = slots[call.at] / whole
        d[0] -= share
        x0 = scaled * d
        x0[0] += 1
        noises = (_unit(zero, row[key]) for key in call.noises)
        read = np.array([x0, sigma * d, *(slots[k] for k in call.reads), *noises])
        matrix = lift(call.matrix)
        matrix = matrix.reshape(*matrix.shape[:2], -1) if matrix.ndim > 2 else matrix
        slots.update(zip(call.writes, np.einsum("rc...,cf...->rf...", matrix, read), strict=True))
        form = slots[STATE]
        yield Affine(form[0], form[1], form[2:])


def _unit(zero: Array, row: int) -> Array:
    form: Array = zero.copy()
    form[row] += 1
    return form


def _per_element(program: Program, gaussian: Gaussian) -> bool:
    """Whether there are per-element coefficients; ValueError unless they are diagonal in the eigenbasis."""
    shapes = {call.matrix.shape[2:] for call in program if call.matrix.ndim > 2}
    for shape in shapes:
        if gaussian.basis is not None:
            raise ValueError(
                f"the coefficients of {program.name} differ between elements, so they do not commute with "
                "a full covariance; give cov as a number or as variances"
            )
        if shape != tuple(gaussian.event_shape):
            raise ValueError(
                f"the coefficients of {program.name} have the event shape {shape}, but gaussian "
                f"{tuple(gaussian.event_shape)}"
            )
    return bool(shapes)
