"""By what measured statistics recognise the schedule and the denoiser that they belong to."""

import math
from typing import Any

import numpy as np
import torch

from ..arrays import Array
from ..schedules.base import Schedule
from .denoiser import Denoiser

TIMES, STATES, DIRECTIONS = 17, 4, 4
CLOSE = 3e-3  # relative; devices and their matrix units differ by less
CLOSE_HALF = 3e-2  # in half precision


def levels(sch: Schedule) -> Array:
    """(n, 3): times over the domain, alpha and sigma."""
    t = np.linspace(*sch.domain, TIMES)
    return np.stack([t, sch.alpha(t), sch.sigma(t)], axis=1)


def check_levels(known: Array, name: str, sch: Schedule) -> None:
    """ValueError unless ``sch`` has the ``known`` levels."""
    t, alpha, sigma = known.T
    found = np.stack([sch.alpha(t), sch.sigma(t)])
    if not np.allclose(found, [alpha, sigma], rtol=1e-6, atol=1e-9):
        raise ValueError(f"these statistics were measured on {name:.100}, not on {sch!s:.100}: calibrate again")


def fingerprint(den: Denoiser, like: torch.Tensor, span: tuple[float, float]) -> Array:
    """What a denoiser makes of eps, (16,), in fixed directions at four lam of fixed noise, in one call; (0,) where it
    is another for each sample.

    like: a state (B, ...), of which only the shape of a sample, the dtype and the device count.
    """
    if den.by_sample:
        return np.zeros(0)
    shape = tuple(like.shape[1:])
    random = np.random.default_rng(20231020)
    noise, directions = random.standard_normal((STATES, *shape)), random.standard_normal((DIRECTIONS, *shape))
    lam = np.linspace(*span, STATES + 2)[1:-1]
    t = np.asarray(den.schedule.time(lam))
    size = np.hypot(den.schedule.alpha(t), den.schedule.sigma(t)).reshape(-1, *[1] * len(shape))
    x = torch.from_numpy(size * noise).to(like.dtype).to(like.device)
    with torch.no_grad():
        eps = den.eps(x, torch.from_numpy(t)).cpu().double().numpy()
    answers: Array = (eps.reshape(STATES, -1) @ directions.reshape(DIRECTIONS, -1).T).ravel()
    return answers / math.sqrt(max(math.prod(shape), 1))


def check_fingerprint(known: Array, den: Denoiser, like: torch.Tensor, span: tuple[float, float]) -> None:
    """ValueError, naming both, unless the denoiser has the fingerprint ``known``."""
    found = fingerprint(den, like, span)
    half = torch.finfo(den.dtype(like)).bits < 32
    size = float(np.sqrt(np.mean(known**2))) or 1.0
    if known.shape != found.shape or not np.abs(found - known).max() <= (CLOSE_HALF if half else CLOSE) * size:
        raise ValueError(
            "these statistics were measured for another denoiser: to fixed noise that one answers "
            f"{_told(known)}, this one {_told(found)}; calibrate again, with its conditions if it has any"
        )


def _told(values: Any) -> str:
    return f"[{', '.join(f'{v:.4g}' for v in values[:4])}, ...]" if len(values) else "by its conditions"
