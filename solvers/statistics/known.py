"""How wrong it is to take the answer of a Gaussian's denoiser for a model's, see `programs.known`."""

from collections import deque
from typing import Any, NamedTuple

import numpy as np
import torch

from ..arrays import Array
from ..bases import to_coordinates
from ..denoisers.answers import check_state
from ..denoisers.denoiser import Denoiser, check_denoiser
from ..programs.call import ONE, STATE
from ..programs.checks import check_event
from ..programs.interpret import carry_out
from ..programs.known import check_known, wiener_filter
from ..programs.program import Program
from ..schedules.base import Schedule
from .wiener import Wiener


class KnownError(NamedTuple):
    """How far a Gaussian is from a model, as parts of the Gaussian's standard deviation, root mean squares.

    answer: of x0 at the first call. result: an estimate of the end state if the program takes the Gaussian's answer
    there, and all that follows is linear, as the Gaussian says.
    """

    answer: float
    result: float


def known_error(den: Denoiser, x: torch.Tensor, program: Program, gaussian: Wiener) -> KnownError:
    """How wrong it is to leave out the first evaluation of ``program``, by one evaluation of the model.

    x: (B, ...), real, a few starts, as for `logsnr.sample`. The conditions and the guidance of ``den`` count. The
    ``result`` is to be compared with the error that the program has anyway.

    Raises ValueError or TypeError for what does not fit, for a program that does not ask the model first, and for a
    Gaussian whose variance is 0.
    """
    check_denoiser(den)
    sch = den.schedule
    if not isinstance(program, Program):
        raise TypeError(f"program must be a logsnr.Program, not {type(program).__name__}")
    check_known(program, sch, gaussian)
    check_state(x)
    check_event(gaussian.event, x)
    if not program.calls[0].asks:
        raise ValueError(f"{program.name} does not ask the model first: take the program without known calls")
    if not gaussian.variance.any():
        raise ValueError("the variance of the Gaussian is 0: there is nothing to compare errors with")
    t = program.calls[0].t
    share, rest, _, _ = wiener_filter(gaussian, float(sch.alpha(t)), float(sch.sigma(t)))
    with torch.no_grad():
        seen, found = (to_coordinates(gaussian.basis, y.double()).cpu().numpy() for y in (x, den.x0(x, t)))
    miss: Array = found - share * seen - rest
    size = float(np.sqrt(gaussian.variance.mean()))
    whole = miss, _weight(program, sch, gaussian) * miss
    return KnownError(*(float(np.sqrt(np.square(part).mean())) / size for part in whole))


def _weight(program: Program, sch: Schedule, gaussian: Wiener) -> Array:
    """How the end state follows the x0 of the first call, eps being (x - alpha x0) / sigma there, if all other answers
    are the Gaussian's."""
    first = iter([True])

    def model(x: Any, t: float) -> tuple[Any, Any]:
        alpha, sigma = float(sch.alpha(t)), float(sch.sigma(t))
        if next(first, False):
            return x + 1.0, (x - alpha) / sigma
        p, _, r, _ = wiener_filter(gaussian, alpha, sigma)
        return p * x, r * x

    zero = np.zeros(np.broadcast_shapes(program.event, gaussian.event))
    slots = {STATE: zero, ONE: zero}
    deque(carry_out(program, slots, model, dict.fromkeys(program.noises, zero)), 0)
    return slots[STATE]
