"""Calls that need no evaluation: where the noise is far above the data's spread, the denoiser is that of a Gaussian.

Of data with mean m and variance c, with R^2 = alpha^2 c + sigma^2, Wiener's filter is

    x0 = m + alpha c (x - alpha m) / R^2,       eps = sigma (x - alpha m) / R^2,

and what other data add to x0 is smaller by a factor of order spread alpha / sigma. So the columns (x0, eps) of a call
become columns of what the call sees and of a constant, and nobody asks the model there.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Array
from ..planners.checks import nonnegative
from ..schedules.base import Schedule, check_schedule
from ..statistics.wiener import Wiener
from .call import ONE, Call
from .checks import check_times

if TYPE_CHECKING:
    from .program import Program

FAR = 10.0  # sigma / alpha, in units of the spread of the data, from which on a denoiser is that of a Gaussian


def with_known(program: "Program", sch: Schedule, gaussian: Wiener, calls: int, least: float) -> "Program":
    """See `Program.with_known`."""
    check_known(program, sch, gaussian)
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
        table[n] = _answered(call, wiener_filter(gaussian, alpha, sigma), len(gaussian.event))
    left_out = ", ".join(f"t = {program.calls[n].t:.4g}" for n in asked[:calls])
    note = f"no evaluation at {left_out}: the answer is that of {gaussian!r:.60}"
    name, notes = f"{program.name}-known", (*program.notes, note)
    return replace(program, name=name, calls=tuple(table), notes=notes, basis=gaussian.basis)


def check_known(program: "Program", sch: Any, gaussian: Any) -> None:
    """Raises what `Program.with_known` raises for a Gaussian that does not fit."""
    check_schedule(sch)
    check_gaussian(gaussian)
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


def check_gaussian(gaussian: Any) -> None:
    """TypeError for what is no `Wiener`."""
    if not isinstance(gaussian, Wiener):
        raise TypeError(f"gaussian must be a logsnr.Wiener, not {type(gaussian).__name__}")


def wiener_filter(gaussian: Wiener, alpha: float, sigma: float) -> tuple[Array, Array, Array, Array]:
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
