"""How wide data are, read off a denoiser's first answers: what `auto` and universal tables go by."""

import math

import torch

from ..denoisers.answers import check_state
from ..denoisers.denoiser import Denoiser, check_denoiser
from ..programs.provenance import widest
from ..runs.run import recording

FEWEST = 8
NOISY = 10.0, 100.0  # sigma / alpha where pure noise stands for states, if the start has more


def data_width(den: Denoiser, x: torch.Tensor) -> float:
    """The standard deviation of the data's widest direction, of one call of the model, or of two if that is above 5.

    x: (B, ...), at least 8 noises, as `solve` takes them at the schedule's t_start; 64 are a good number, and larger x
    need more memory, nothing else. Conditions are those of the denoiser, B rows.

    Far above the data, at sigma / alpha = v, every denoiser is that of a Gaussian: in the direction whose variance is c
    the answers x0 have the standard deviation c / sqrt(c + v^2). Of the largest one, c follows. So the number is right
    where v is above sqrt(c), and rough for few noises. But of networks, errors grow with v: those of eps by v times. So
    v is 10, and where that finds more than 5, 100. Use it as ``sample(den, x, width=...)``.

    Raises TypeError and ValueError for a denoiser or noises that are none, and where the answers are not finite.
    """
    check_denoiser(den)
    check_state(x)
    if len(x) < FEWEST:
        raise ValueError(f"x holds {len(x)} noises; a width needs at least {FEWEST}, and 64 are a good number")
    sch = den.schedule
    for noisy in NOISY:
        begins = float(sch.half_logsnr(sch.t_start)) >= -math.log(noisy)
        width = _width_at(den, x, sch.t_start if begins else float(sch.time(-math.log(noisy))))
        if begins or width <= noisy / 2:
            break
    return width


def _width_at(den: Denoiser, x: torch.Tensor, t: float) -> float:
    """As `data_width`, of the answers at the time t."""
    sch = den.schedule
    v = float(sch.sigma(t)) / float(sch.alpha(t))
    seen = x * (float(sch.sigma(t)) / float(sch.sigma(sch.t_start)))
    with recording(x, False):
        answers = den.x0(seen, t)
    if not torch.isfinite(answers).all():
        raise ValueError(f"the model's answers at t = {t:.6g} are not finite")
    spread = widest(answers)
    return math.sqrt((spread * spread + spread * math.hypot(spread, 2 * v)) / 2)
