"""What a program makes of Gaussian data, exactly: all slots are affine functions of the start and the noises.

For x0 ~ N(m, C) the exact E[x0 | x] is affine in x and diagonal in the eigenbasis of C, so along every
eigenvector (a *mode* of variance c) a linear solver is a recursion of a few numbers. With R^2 = alpha^2 c +
sigma^2, a slot a m + g (x_start - alpha_start m) + sum_k n_k xi_k + b has

    E[x0 | slot] = m + (alpha c / R^2) (slot - alpha m),    E[eps | slot] = (sigma / R^2) (slot - alpha m),

so the numbers (a, g, n_1, n_2, ..., b) depend on c alone, and a sampler costs as much as its table is long.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Unpack

import numpy as np
import torch

from ..solvers.arrays import Array
from ..solvers.catalogue.catalogue import Solver
from ..solvers.catalogue.planning import plan_program
from ..solvers.programs.checks import check_elements
from ..solvers.programs.interpret import PairModel, carry_out
from ..solvers.programs.program import ONE, STATE, NoiseKey, Program
from ..solvers.schedules.base import Schedule
from .gaussian import Gaussian
from .layout import LayoutOptions
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
    """An end state mean m + start (x_start - alpha_start m) + noise . xi + constant along N modes, of data mean m.

    mean, start, constant: (N,). noise: (K, N), one row per standard normal that the program adds, `xi` independent.
    """

    mean: Array
    start: Array
    noise: Array
    constant: Array

    def variance(self, start: Array) -> Array:
        """The variances of the end state for starts of the variances ``start``."""
        total: Array = self.start**2 * start + (self.noise**2).sum(axis=0)
        return total


def sampler_moments(
    solver: str | Solver | Program,
    gaussian: Gaussian,
    sch: Schedule,
    **layout: Unpack[LayoutOptions],
) -> Moments:
    """The exact mean and covariance of what ``solver`` generates, without samples and without a network.

    The start is the exact marginal N(alpha m, alpha^2 cov + sigma^2 I) at the first time of the grid, the
    denoiser that of ``gaussian``. layout: steps, nfe, grid, t_start, t_end and startup, as in `logsnr.solve`; a
    `Program` is taken as it is. Noises with different keys are independent, those with the same key are the same.

    Raises TypeError for other data, ValueError for options that do not fit, and for constants and per-element
    coefficients that are not of the event's shape or do not commute with the covariance (a full one).
    """
    if not isinstance(gaussian, Gaussian):
        raise TypeError(f"gaussian must be a Gaussian of logsnr.analysis, not {type(gaussian).__name__}")
    program = plan_program(solver, sch, **layout)
    check_elements(program)
    shaped = _per_element(program, gaussian)
    c = gaussian.cov if gaussian.cov.ndim == 0 and not shaped else gaussian.variances  # one mode, or many
    start, exact = (sch.alpha(t) ** 2 * c + sch.sigma(t) ** 2 for t in (program.grid[0], program.grid[-1]))
    end = propagate(program, sch, c.numpy().reshape(-1))
    variance = torch.from_numpy(end.variance(start.numpy().reshape(-1))).reshape(c.shape)
    basis = gaussian.basis
    m = gaussian.mean if basis is None else basis.mT @ gaussian.mean.reshape(-1)
    mean, exact_mean = torch.from_numpy(end.mean).reshape(c.shape) * m, sch.alpha(program.grid[-1]) * m
    mean = mean + torch.from_numpy(end.constant).reshape(c.shape)
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


def after_each_call(
    program: Program, sch: Schedule, variances: Array, *, lift: Callable[[Array], Array] = np.asarray
) -> Iterator[Affine]:
    """The state, slot 0, after every call; arguments as of `propagate`."""
    units = Units(program, lift(np.zeros((3 + len(program.noises), len(variances)))))
    start = units.at(1)
    start[0] += lift(np.array([sch.alpha(program.grid[0])]))[0]
    slots = {STATE: start, ONE: units.at(-1)}
    matrices = [lift(call.matrix.reshape(*call.matrix.shape[:2], *[-1] * (call.matrix.ndim > 2))) for call in program]
    for _ in carry_out(program, slots, _exact_model(program, sch, variances, lift), units, matrices):
        form = slots[STATE]
        yield Affine(form[0], form[1], form[2:-1], form[-1])


class Units(Mapping[NoiseKey, Array]):
    """Slots that hold one noise alone, by its key, (3 + noises, N): row 0 is for the mean, row 1 for the start and
    the last for constants. Each is made when it is asked for: all are as many numbers as there are noises, squared."""

    def __init__(self, program: Program, zero: Array) -> None:
        self.rows, self.zero = {key: 2 + k for k, key in enumerate(program.noises)}, zero

    def __getitem__(self, key: NoiseKey) -> Array:
        return self.at(self.rows[key])

    def __iter__(self) -> Iterator[NoiseKey]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, row: int) -> Array:
        form: Array = self.zero.copy()
        form[row] += 1
        return form


def _exact_model(program: Program, sch: Schedule, variances: Array, lift: Callable[[Array], Array]) -> PairModel:
    """The exact (x0, eps) of a slot (rows, N) at a time of the program, see the head of this module."""
    times = np.array([call.t for call in program])
    alphas, sigmas, c = (lift(np.asarray(a)) for a in (sch.alpha(times), sch.sigma(times), variances))
    alphas, sigmas = alphas[:, None], sigmas[:, None]
    r2 = alphas * alphas * c + sigmas * sigmas
    r2 = np.where(r2 > 0, r2, 1)  # R = 0: nothing deviates, and x says nothing about eps
    at = dict(zip(times.tolist(), zip(r2, alphas / r2, alphas * c, sigmas, strict=True), strict=True))

    def model(slot: Array, t: float) -> tuple[Array, Array]:
        whole, share, scaled, sigma = at[t]
        d = slot / whole
        d[0] -= share
        x0 = scaled * d
        x0[0] += 1
        return x0, sigma * d

    return model


def _per_element(program: Program, gaussian: Gaussian) -> bool:
    """Whether there are per-element coefficients; ValueError unless they are diagonal in the eigenbasis."""
    shapes = {call.matrix.shape[2:] for call in program if call.matrix.ndim > 2}
    if program.constant and gaussian.basis is not None:
        raise ValueError(f"{program.name} adds constants to the elements: give cov as a number or as variances")
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
