"""What a model's answer on noise says of the head, the time and the direction that are claimed for it."""

import warnings
from copy import copy
from typing import Any

import numpy as np
import torch

from ...solvers.denoisers.conditions import check_rows, tensors
from ...solvers.denoisers.denoiser import Denoiser, device_of
from ...solvers.denoisers.heads import HEADS, Level, from_pair, network_rate
from ...solvers.runs.normals import randn

LAMS = (-4.0, -1.4)  # nearly noise alone, and where a model with its time the other way round takes noise for data
WRONG = 0.5  # slope of the estimated data on the noise, which is sigma alpha c / (alpha^2 c + sigma^2) of variance c
FEW = 64  # numbers, of which a slope is chance


def plain(den: Denoiser) -> Denoiser:
    """The denoiser without guidance and without a map of x0."""
    other = copy(den)
    other.guidance, other.map_x0 = None, None
    return other


def place_of(den: Denoiser, otherwise: torch.device) -> torch.device:
    """The device of the model's parameters, if it has any, else of its conditions, or ``otherwise``."""
    return device_of(den.model) or next((y.device for y in tensors(den.conditions)), otherwise)


def slopes(den: Denoiser, shape: tuple[int, ...]) -> dict[tuple[str, float], float]:
    """By head and sign of the answer: how much of the noise is in the data that it means, the worst of the levels."""
    den, sch = plain(den), den.schedule
    z = randn(shape, seed=0, dtype=torch.float32, device=place_of(den, torch.device("cpu")))
    first = float(sch.half_logsnr(sch.t_start))
    found: dict[tuple[str, float], float] = {}
    for lam in LAMS:
        t = float(sch.time(max(lam, first)))
        alpha, sigma, *_ = at = Level.at(sch, t)
        x = sigma * z
        with torch.no_grad():
            answer = den.predict(x.to(den.dtype(x)), torch.full((len(x),), t, dtype=torch.float64)).float()
        slope = float((answer * z).sum() / (z * z).sum())
        for head in HEADS:
            p, q = from_pair(head, at)
            for sign in (1.0, -1.0):
                rate = sign * network_rate(head, sch)
                value = abs((q * sigma - sigma * rate * slope) / (alpha * q - sigma * p))
                found[head, sign] = max(found.get((head, sign), 0.0), value if np.isfinite(value) else np.inf)
    return found


def look(den: Denoiser, shape: Any) -> None:
    """Warn if the answer on noise does not look like the head, time and direction that ``den`` claims.

    An estimate of the data hardly depends on noise that hides it. Raises ValueError for a shape that is none, and what
    the model raises.
    """
    shape = tuple(shape)
    if not shape or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"shape = {shape} must be that of x, (B, ...)")
    check_rows("conditions", den.conditions, shape[0])
    found = slopes(den, shape)
    claimed = found[den.prediction, 1.0]
    if claimed < WRONG or torch.Size(shape).numel() < FEW:
        return
    (head, sign), least = min(found.items(), key=lambda item: item[1])
    like = ""
    if least < WRONG / 2 and least < claimed / 4:
        like = f"; it looks like prediction={head!r}{' with the other sign' if sign < 0 else ''}, or another time"
    warnings.warn(
        f"on noise alone the model's answer, read as {den.prediction!r}, is not an estimate of clean data{like}. "
        "logsnr.check(den, x0) with a few clean samples tells head, time and direction",
        stacklevel=4,
    )
