"""Expectations of what a sampler generates from one-dimensional data that are not Gaussian, without samples: the tests'
tool for weak orders where the model is not linear.

The recursion of Kolmogorov's backward equation: with v_n(z) the expectation of f(x_end) given what is in memory at node
n, ``v_n(z) = E v_{n+1}(step_n(z, xi))``. Memory is the state and at most one value of history; v is a polynomial in
Chebyshev's points, the mean over a normal a Gauss-Hermite sum. Both converge exponentially where steps are short beside
the data's structure, so a weak order is read from these numbers as if they were exact; where they are not, two
resolutions differ.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from logsnr.analysis import Convergence, GaussianMixture, two_gaussians, warped_grid
from logsnr.analysis.orders import fixed_step, refine
from logsnr.analysis.stability import by_step
from logsnr.solvers.arrays import Array
from logsnr.solvers.catalogue.catalogue import Solver
from logsnr.solvers.programs.interpret import carry_out
from logsnr.solvers.programs.program import STATE, Call, NoiseKey, Program
from logsnr.solvers.schedules.base import Schedule


class Resolution(NamedTuple):
    """reach: standard deviations of the widest marginal beyond which the state counts as at the border. sizes:
    interpolation points for a memory of one and of two numbers. normals: Gauss-Hermite points of each normal, by how
    many a step has. start: those for each component of the start."""

    reach: float
    sizes: tuple[tuple[int, ...], ...]
    normals: tuple[int, ...]
    start: int


FINE = Resolution(5.5, ((400,), (128, 24)), (1, 16, 12, 8), 128)
ROUGH = Resolution(5.0, ((280,), (90, 17)), (1, 11, 8, 6), 96)
APART = 0.01  # by so much they may differ, relative to 1 + the value

Slots = dict[int, Array]
Box = dict[int, tuple[float, float]]


def expectation(program: Program, mixture: GaussianMixture, sch: Schedule, f: Callable[[Array], Array]) -> Array:
    """The expectation of f(x_end), where ``program`` runs with the exact model of ``mixture`` from its exact marginal
    at the first time of the grid.

    mixture: of event shape (). f: from states (N,) to values (N, J), smooth. Result (J,). Raises ValueError for data of
    other shapes, programs that keep more than one value of history over a node, or add more than 3 normals in a step,
    and where the result is not to be trusted: steps so long that what comes after them is not resolved, or states that
    leave the range of the data's law, as those of unstable solvers do.
    """
    fine, rough = (backward(program, mixture, sch, f, at) for at in (FINE, ROUGH))
    apart = np.abs(fine - rough)
    if not (apart <= APART * (1 + np.abs(fine))).all():
        raise ValueError(
            f"the expectation of {program.name} in {program.steps} steps is not resolved: two resolutions differ by "
            f"{apart.max():.1e}; take more steps"
        )
    return fine


def backward(
    program: Program, mixture: GaussianMixture, sch: Schedule, f: Callable[[Array], Array], at: Resolution = FINE
) -> Array:
    """`expectation` by one resolution, whether that is enough or not."""
    if tuple(mixture.event_shape):
        raise ValueError(f"expectations are for one-dimensional data, not of the shape {tuple(mixture.event_shape)}")
    steps = by_step(program)
    live = _live(steps)
    means, stds, weights = marginal(mixture, sch, program.grid[0])
    ends = (marginal(mixture, sch, t) for t in (program.grid[0], program.grid[-1]))
    radius = max(float((np.abs(m) + at.reach * s).max()) for m, s, _ in ends)
    boxes = _boxes(steps, live, radius, mixture, sch)
    after: Callable[[Slots], Array] = lambda slots: f(slots[STATE].ravel()).reshape(*slots[STATE].shape, -1)  # noqa: E731
    for calls, alive, box in reversed(list(zip(steps, live, boxes, strict=False))):
        after = _interpolant(_mean_after(calls, after, mixture, sch, at.normals), alive, box, at.sizes)
    x, w = np.polynomial.hermite_e.hermegauss(at.start)
    values = after({STATE: means[:, None] + stds[:, None] * x})
    result: Array = np.einsum("k,q,kqj->j", weights, w / w.sum(), values)
    return result


def _mean_after(
    calls: Sequence[Call],
    after: Callable[[Slots], Array],
    mixture: GaussianMixture,
    sch: Schedule,
    normals: Sequence[int],
) -> Callable[[Slots], Array]:
    """The map from memory before a step, slots of values (P,), to the mean of ``after`` over its noise, (P, J)."""
    keys = list(dict.fromkeys(key for call in calls for key in call.noises))
    if len(keys) >= len(normals):
        raise ValueError(f"a step adds {len(keys)} normals; at most {len(normals) - 1} can be integrated over")
    x, w = np.polynomial.hermite_e.hermegauss(normals[len(keys)])
    count = len(x) ** len(keys)
    points = np.stack(np.meshgrid(*[x] * len(keys), indexing="ij")).reshape(len(keys), count) if keys else np.empty(0)
    weights = np.ones(1)
    for _ in keys:
        weights = np.outer(weights, w / w.sum()).ravel()

    def mean(slots: Slots) -> Array:
        wide = {k: np.repeat(v[:, None], count, axis=1) for k, v in slots.items()}
        ended = _advance(calls, wide, dict(zip(keys, points, strict=True)), mixture, sch)
        result: Array = np.einsum("q,pqj->pj", weights, after(ended))
        return result

    return mean


def _advance(
    calls: Sequence[Call], slots: Slots, noises: dict[NoiseKey, Array], mixture: GaussianMixture, sch: Schedule
) -> Slots:
    posterior, slots = mixture.pair(sch), dict(slots)

    def model(x: Array, t: float) -> tuple[Array, Array]:
        x0, eps = posterior(torch.from_numpy(x), t)
        return x0.numpy(), eps.numpy()

    deque(carry_out(calls, slots, model, noises), 0)
    return slots


def _interpolant(
    f: Callable[[Slots], Array], alive: tuple[int, ...], box: Box, all_sizes: Sequence[tuple[int, ...]]
) -> Callable[[Slots], Array]:
    """The polynomial that equals f at Chebyshev points of the box; arguments outside count as on its border."""
    if len(alive) > len(all_sizes):
        raise ValueError(
            f"this program keeps {len(alive) - 1} values of history over a node; at most 1 can be followed"
        )
    sizes = all_sizes[len(alive) - 1]
    middle = {k: (sum(box[k]) / 2, (box[k][1] - box[k][0]) / 2) for k in alive}
    angles = [np.pi * (np.arange(n) + 0.5) / n for n in sizes]
    axes = [middle[k][0] + middle[k][1] * np.cos(a) for k, a in zip(alive, angles, strict=True)]
    values = f({k: a.ravel() for k, a in zip(alive, np.meshgrid(*axes, indexing="ij"), strict=True)})
    c = values.reshape(*sizes, -1)
    for axis, (n, angle) in enumerate(zip(sizes, angles, strict=True)):
        transform = np.cos(np.outer(np.arange(n), angle)) * (2 - (np.arange(n) == 0))[:, None] / n
        c = np.moveaxis(np.tensordot(transform, c, axes=(1, axis)), 0, axis)

    def polynomial(slots: Slots) -> Array:
        shape = slots[alive[0]].shape
        unit = [np.clip((slots[k].ravel() - middle[k][0]) / middle[k][1], -1, 1) for k in alive]
        bases: list[Any] = [np.polynomial.chebyshev.chebvander(u, n - 1) for u, n in zip(unit, sizes, strict=True)]
        result: Any = bases[0] @ c.reshape(sizes[0], -1)
        if len(alive) > 1:
            result = np.einsum("pkj,pk->pj", result.reshape(len(result), sizes[1], -1), bases[1])
        values: Array = result.reshape(*shape, -1)
        return values

    return polynomial


def _boxes(
    steps: Sequence[Sequence[Call]],
    live: Sequence[tuple[int, ...]],
    radius: float,
    mixture: GaussianMixture,
    sch: Schedule,
) -> list[Box]:
    """What the memory before each step can hold: history is as large as what it is made of makes it."""
    states = {call.at for calls in steps for call in calls}
    boxes: list[Box] = [{STATE: (-radius, radius)}]
    for calls, alive, after in zip(steps, live, live[1:], strict=False):
        box = boxes[-1]
        axes = np.meshgrid(*[np.linspace(*box[k], 9 if k else 501) for k in alive], indexing="ij")
        zero = {key: np.zeros(()) for call in calls for key in call.noises}
        ended = _advance(calls, {k: a.ravel() for k, a in zip(alive, axes, strict=True)}, zero, mixture, sch)
        ends = {k: (float(ended[k].min()), float(ended[k].max())) for k in after}
        wider = {k: (a - 0.02 * (b - a), b + 0.02 * (b - a)) for k, (a, b) in ends.items()}
        boxes.append(wider | {k: (-radius, radius) for k in states.intersection(after)})
    return boxes


def _live(steps: Sequence[Sequence[Call]]) -> list[tuple[int, ...]]:
    """The slots that are read after each node before they are written, the first node included."""
    need = {STATE}
    live: list[tuple[int, ...]] = [()]
    for calls in reversed(steps):
        for call in reversed(calls):
            need = (need - set(call.writes)) | set(call.reads) | {call.at}
        live.append(tuple(sorted(need)))
    return live[::-1]


def marginal(mixture: GaussianMixture, sch: Schedule, t: float) -> tuple[Array, Array, Array]:
    """Means, standard deviations and weights of the components at time t."""
    alpha, sigma = sch.alpha(t), sch.sigma(t)
    means, variances = mixture.means.numpy().ravel(), mixture.covs.numpy().ravel()
    return alpha * means, np.sqrt(alpha**2 * variances + sigma**2), mixture.weights.numpy()


FREQUENCIES = np.array([1.0, 2.0])  # of the waves whose expectations are compared


def mixture_order(method: Solver, sch: Schedule, *, max_nfe: int) -> Convergence:
    """The weak order of ``method`` on `two_gaussians`, from lam = -0.8 to 0.8: the error is the root mean square of
    those of the expectations of cos x, sin x, cos 2x and sin 2x. 64 evaluations take seconds."""
    data, grids = two_gaussians(), partial(warped_grid, sch, lam_start=-0.8, lam_end=0.8)

    def run(steps: int) -> tuple[int, float]:
        program = fixed_step(method).program(sch, grids(steps), startup="single-step")
        means, stds, weights = marginal(data, sch, program.grid[-1])
        exact = weights @ (np.exp(-np.square(np.outer(stds, np.tile(FREQUENCIES, 2))) / 2) * _waves(means))
        return len(program), float(np.sqrt(np.square(backward(program, data, sch, _waves) - exact).mean()))

    return refine(run, method.name, method.order, "single-step", max_nfe)


def _waves(x: Array) -> Array:
    """(N,) -> (N, 4)."""
    phase = np.outer(x, FREQUENCIES)
    return np.concatenate([np.cos(phase), np.sin(phase)], axis=1)
