"""Calls that need no evaluation: where the noise is far above the data's spread, the denoiser is that of a Gaussian.

Of data with mean m and variance c, with R^2 = alpha^2 c + sigma^2, Wiener's filter is

    x0 = m + alpha c (x - alpha m) / R^2,       eps = sigma (x - alpha m) / R^2,

and what other data add to x0 is smaller by a factor of order spread alpha / sigma. So the columns (x0, eps) of a call
become columns of what the call sees and of a constant, and nobody asks the model there.
"""

from collections import deque
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from ..arrays import Array
from ..bases import to_coordinates
from ..catalogue.planning import check_event
from ..catalogue.solver import Solver, check_times
from ..denoisers.answers import check_state
from ..denoisers.denoiser import Denoiser, check_denoiser
from ..planners.checks import count, nonnegative
from ..programs.call import ONE, STATE, Call
from ..programs.interpret import carry_out
from ..programs.program import FAR, Program
from ..schedules.base import Schedule, check_schedule
from .wiener import Wiener


class KnownError(NamedTuple):
    """How far a Gaussian is from a model, as parts of the Gaussian's standard deviation, root mean squares.

    answer: of x0 at the first call. result: an estimate of the end state if the program takes the Gaussian's answer
    there, and all that follows is linear, as the Gaussian says.
    """

    answer: float
    result: float


@dataclass(frozen=True)
class KnownStart:
    """The planner of `Solver.with_known`."""

    solver: Solver
    gaussian: Wiener
    calls: int = 1
    least: float = FAR
    startup: str | None = None
    prediction: str | None = None

    def __post_init__(self) -> None:
        planner = self.solver.planner
        if planner is None or hasattr(planner, "within") or hasattr(planner, "suited"):
            raise ValueError(f"{self.solver.name} has no program of its own on a grid; take Program.with_known")
        _check_gaussian(self.gaussian)
        count("calls", self.calls)
        nonnegative("least", self.least)

    @property
    def name(self) -> str:
        return f"{self.solver.name}-known"

    @property
    def stochastic(self) -> bool:
        return self.solver.stochastic

    @property
    def gauge(self) -> Any:
        return getattr(self.solver.planner, "gauge", None)

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        program = self.solver.program(schedule, grid, startup=self.startup, prediction=self.prediction)
        if len(program) <= self.calls:
            return program.renamed(self.name, f"no call is left out of so few: {len(program)}")
        return with_known(program, schedule, self.gaussian, self.calls, self.least)


def with_known(program: Program, sch: Schedule, gaussian: Wiener, calls: int, least: float) -> Program:
    """See `Program.with_known`."""
    _check(program, sch, gaussian)
    asked = [n for n, call in enumerate(program.calls) if call.asks]
    if isinstance(calls, bool) or not isinstance(calls, int) or not 0 < calls < len(asked):
        raise ValueError(f"calls must be from 1 to {len(asked) - 1}, of {len(asked)} evaluations, not {calls!r:.60}")
    nonnegative("least", least)
    table, width = list(program.calls), float(np.sqrt(gaussian.variance.max()))
    for n in asked[:calls]:
        call = table[n]
        if call.learned:
            raise ValueError(f"call {n} takes the width of its noise from the network, and cannot be left out")
        alpha, sigma = float(sch.alpha(call.t)), float(sch.sigma(call.t))
        if not sigma > 0 or sigma < least * alpha * width:
            raise ValueError(
                f"at call {n}, t = {call.t:.6g}, sigma / alpha is {sigma / alpha:.3g}, and the largest standard "
                f"deviation of the data {width:.3g}: it must be at least {least:g} times as large for the denoiser to "
                "be that of a Gaussian; leave out fewer calls, start from more noise, or say least="
            )
        table[n] = _answered(call, _filter(gaussian, alpha, sigma), len(gaussian.event))
    left_out = ", ".join(f"t = {program.calls[n].t:.4g}" for n in asked[:calls])
    note = f"no evaluation at {left_out}: the answer is that of {gaussian!r:.60}"
    name, notes = f"{program.name}-known", (*program.notes, note)
    return replace(program, name=name, calls=tuple(table), notes=notes, basis=gaussian.basis)


def known_error(den: Denoiser, x: torch.Tensor, program: Program, gaussian: Wiener) -> KnownError:
    """How wrong it is to leave out the first evaluation of ``program``, by one evaluation of the model.

    x: (B, ...), real, a few starts, as for `logsnr.sample`. The conditions and the guidance of ``den`` count. The
    ``result`` is to be compared with the error that the program has anyway.

    Raises ValueError or TypeError for what does not fit, for a program that does not ask the model first, and for a
    Gaussian whose variance is 0.
    """
    check_denoiser(den)
    sch = den.schedule
    _check(program, sch, gaussian)
    check_state(x)
    check_event(gaussian.event, x)
    if not program.calls[0].asks:
        raise ValueError(f"{program.name} does not ask the model first: take the program without known calls")
    if not gaussian.variance.any():
        raise ValueError("the variance of the Gaussian is 0: there is nothing to compare errors with")
    t = program.calls[0].t
    share, rest, _, _ = _filter(gaussian, float(sch.alpha(t)), float(sch.sigma(t)))
    with torch.no_grad():
        seen, found = (to_coordinates(gaussian.basis, y.double()).cpu().numpy() for y in (x, den.x0(x, t)))
    miss: Array = found - share * seen - rest
    size = float(np.sqrt(gaussian.variance.mean()))
    whole = miss, _weight(program, sch, gaussian) * miss
    return KnownError(*(float(np.sqrt(np.square(part).mean())) / size for part in whole))


def _check(program: Any, sch: Any, gaussian: Any) -> None:
    if not isinstance(program, Program):
        raise TypeError(f"program must be a logsnr.Program, not {type(program).__name__}")
    check_schedule(sch)
    _check_gaussian(gaussian)
    lifts = program.basis is None and not program.event and not program.noises  # numbers are the same in every basis
    if gaussian.basis != program.basis and not lifts:
        raise ValueError(
            f"gaussian is in the basis {gaussian.basis}, and the program in {program.basis}, with its own "
            "coefficients by element, or noise"
        )
    check_times(sch, program)
    try:
        np.broadcast_shapes(program.event, gaussian.event)
    except ValueError:
        raise ValueError(
            f"gaussian is of samples of shape {gaussian.event}, and the coefficients of the program {program.event}"
        ) from None


def _check_gaussian(gaussian: Any) -> None:
    if not isinstance(gaussian, Wiener):
        raise TypeError(f"gaussian must be a logsnr.Wiener, not {type(gaussian).__name__}")


def _filter(gaussian: Wiener, alpha: float, sigma: float) -> tuple[Array, Array, Array, Array]:
    """(p, q, r, s), each of the Gaussian's shape: ``x0 = p x + q`` and ``eps = r x + s``."""
    m, c = gaussian.mean, gaussian.variance
    spread = alpha * alpha * c + sigma * sigma
    return alpha * c / spread, m * sigma * sigma / spread, sigma / spread, -alpha * sigma * m / spread


def _answered(call: Call, linear: tuple[Array, Array, Array, Array], dims: int) -> Call:
    """The same call with columns of what it sees, and of a constant, in place of (x0, eps). dims: of the filter."""
    dims = max(dims, len(call.event))
    matrix = call.matrix.reshape(*call.matrix.shape[:2], *[1] * (dims - len(call.event)), *call.event)
    x0, eps, *columns = np.moveaxis(matrix, 1, 0)
    p, q, r, s = linear
    given = {call.at: x0 * p + eps * r, ONE: x0 * q + eps * s}
    reads = dict(zip(call.reads, columns, strict=False))
    reads = {slot: reads.get(slot, 0.0) + given.get(slot, 0.0) for slot in dict.fromkeys((*reads, *given))}
    rest = [0 * x0, 0 * eps, *reads.values(), *columns[len(call.reads) :]]
    return replace(call, reads=tuple(reads), matrix=np.stack(np.broadcast_arrays(*rest), axis=1))


def _weight(program: Program, sch: Schedule, gaussian: Wiener) -> Array:
    """How the end state follows the x0 of the first call, eps being (x - alpha x0) / sigma there, if all other answers
    are the Gaussian's."""
    first = iter([True])

    def model(x: Any, t: float) -> tuple[Any, Any]:
        alpha, sigma = float(sch.alpha(t)), float(sch.sigma(t))
        if next(first, False):
            return x + 1.0, (x - alpha) / sigma
        p, _, r, _ = _filter(gaussian, alpha, sigma)
        return p * x, r * x

    zero = np.zeros(np.broadcast_shapes(program.event, gaussian.event))
    slots = {STATE: zero, ONE: zero}
    deque(carry_out(program, slots, model, dict.fromkeys(program.noises, zero)), 0)
    return slots[STATE]
