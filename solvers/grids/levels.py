"""Noise levels as users write them: lists of sigma or lam, and the shift of flow models."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..arrays import Array
from ..schedules.base import Schedule

# How far, in lam, a level may lie beyond the schedule: the rounding of a number written with four digits.
ROUNDING = 1e-3


@dataclass(frozen=True)
class Shift:
    """The shift of a flow model's grid to more noise: t becomes k t / (1 + (k - 1) t), that is lam - log k.

    factor:   k > 0. Esser et al., arXiv:2403.03206, eq. 23; Stable Diffusion 3 has 3.
    terminal: sigma at the last call, in (0, 1): the times before the end are stretched so that it is there.

    Raises ValueError for other numbers.
    """

    factor: float = 1.0
    terminal: float | None = None

    def __post_init__(self) -> None:
        k, end = self.factor, self.terminal
        if isinstance(k, bool) or not isinstance(k, (int, float, np.number)) or not 0 < k < math.inf:
            raise ValueError(f"shift = {k!r:.60} must be a positive number, 1 for none")
        if end is not None and (isinstance(end, bool) or not isinstance(end, (int, float)) or not 0 < end < 1):
            raise ValueError(f"terminal = {end!r:.60} must be a sigma between 0 and 1, or None")

    @classmethod
    def dynamic(cls, mu: float, terminal: float | None = None) -> "Shift":
        """The factor e^mu, as Flux has it ("exponential" elsewhere; with "linear" mu is the factor itself)."""
        if isinstance(mu, bool) or not isinstance(mu, (int, float, np.number)) or not abs(mu) < 700:
            raise ValueError(f"mu = {mu!r:.60} must be a number, such as 0.5 to 1.15")
        return cls(math.exp(mu), terminal)

    @classmethod
    def of_tokens(
        cls,
        count: int,
        *,
        base: float = 0.5,
        top: float = 1.15,
        low: int = 256,
        high: int = 4096,
        terminal: float | None = None,
    ) -> "Shift":
        """Dynamic, with mu on the straight line from ``base`` at ``low`` tokens to ``top`` at ``high``."""
        return cls.dynamic(base + (top - base) * (count - low) / (high - low), terminal)

    def moved(self, sch: Schedule, times: Array, *, back: bool = False) -> Array:
        """The times with the shift, or, ``back``, those that have it before they have it."""
        turn = math.log(self.factor) * (-1 if back else 1)
        return np.asarray(sch.time(np.asarray(sch.half_logsnr(times)) - turn))

    def stretched(self, sch: Schedule, times: Array) -> Array:
        """The times with ``terminal`` before the end, at sigma = 0. ValueError for grids that end elsewhere."""
        if self.terminal is None:
            return times
        sigma = np.asarray(sch.sigma(times))
        if sigma[-1] != 0 or not sigma[0] > self.terminal:
            raise ValueError(
                f"terminal = {self.terminal:.6g} is the last sigma before 0, but the grid goes from sigma = "
                f"{sigma[0]:.6g} to {sigma[-1]:.6g}"
            )
        if len(times) == 2:  # one step: nothing between the ends
            return times
        inner = sigma[:-1]
        inner = inner[0] + (inner - inner[0]) * (self.terminal - inner[0]) / (inner[-1] - inner[0])
        return np.append(level_times(sch, "sigmas", inner), times[-1])


def as_shift(value: Any) -> Shift | None:
    """``shift=`` as users give it: None, a number or a `Shift`. ValueError for anything else."""
    return value if value is None or isinstance(value, Shift) else Shift(value)


@lru_cache(maxsize=64)
def is_straight(sch: Schedule) -> bool:
    """Whether alpha + sigma = 1, as on flow matching's path."""
    times = np.linspace(*sch.domain, 5)
    return bool((np.abs(sch.alpha(times) + sch.sigma(times) - 1) < 1e-9).all())


def numbers(told: str, values: Any) -> Array:
    """``values`` as a float64 array, a copy. ValueError, which begins with ``told``, for what is none."""
    if isinstance(values, torch.Tensor):
        values = values.detach().resolve_conj().cpu()
        values = values.numpy() if values.is_complex() else values.double().numpy()
    try:
        if np.iscomplexobj(values):
            raise TypeError  # numpy and torch would leave out what is imaginary
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{told}, not {values!s:.60}") from None


def check_monotone(told: str, name: str, values: Array) -> None:
    """ValueError, which begins with ``told``, unless the entries of the list ``name`` rise or fall strictly."""
    wrong = ~((values[1:] > values[:-1]) if values[-1] > values[0] else (values[1:] < values[:-1]))
    if wrong.any():
        i = int(np.argmax(wrong))
        what = "a duplicate" if values[i] == values[i + 1] else "not monotone"
        pair = f"{name}[{i}] = {values[i]:.6g}, {name}[{i + 1}] = {values[i + 1]:.6g}"
        raise ValueError(f"{told} must be strictly monotone; {pair} is {what}")


def level_times(sch: Schedule, name: str, values: Any) -> Array:
    """The times at which the schedule has the levels ``values``, from noisy to clean or back.

    name: "lams", or "sigmas": sigma as the field writes it. That is sigma / alpha, but sigma itself on a path with
    alpha + sigma = 1. So it is the noise level of EDM, VE and k-diffusion, and the time of flow matching. 0 is legal.

    A level beyond the schedule by no more than a rounding (0.001 in lam) is moved to its end. Raises ValueError for
    others, saying by how much, and for lists that are not 1-D, strictly monotone, of at least 2 levels.
    """
    levels = numbers(f"{name} must be numbers", values)
    if levels.ndim != 1 or len(levels) < 2:
        raise ValueError(f"{name} must be a 1-D list of at least 2 levels, not an array of shape {levels.shape}")
    wrong = np.isnan(levels) if name == "lams" else ~((levels >= 0) & (levels < np.inf))
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(f"{name}[{i}] = {levels[i]:.6g} is not a level of noise")
    check_monotone(name, name, levels)
    if name == "lams":
        return _reached(sch, levels, lambda i: f"lams[{i}] = {levels[i]:.6g}", lambda lam: lam)
    straight = is_straight(sch)
    rest = 1 - levels if straight else np.ones_like(levels)
    with np.errstate(divide="ignore", invalid="ignore"):
        lams = np.where(rest > 0, np.log(rest / levels), -np.inf)
    if straight and levels.max() > 1 + ROUNDING:
        i = int(np.argmax(levels))
        raise ValueError(f"sigmas[{i}] = {levels[i]:.6g} is above the largest of {sch}, 1, by {levels[i] - 1:.3g}")
    return _reached(sch, lams, lambda i: f"sigmas[{i}] = {levels[i]:.6g}", _flow_sigma if straight else _sigma)


def check_noisiest(sch: Schedule, name: str, lam: float) -> None:
    """ValueError, as of `level_times`, for a list of sigma / alpha that begins at ``lam``, above the schedule."""
    _reached(sch, np.array([lam]), lambda _: f"{name} begins at sigma / alpha = {_sigma(lam):.6g}, which", _sigma)


def _sigma(lam: float) -> float:
    return math.exp(-lam)


def _flow_sigma(lam: float) -> float:
    return 1 / (1 + math.exp(lam))


def _reached(sch: Schedule, lams: Array, tell: Callable[[int], str], level: Callable[[float], float]) -> Array:
    """The times of ``lams``, with roundings moved to the ends. tell, level: for the error, how the user wrote them."""
    clean, noisy = (float(sch.half_logsnr(t)) for t in sch.domain)
    for sign, end, words in ((-1, noisy, ("above the largest", "below the smallest")),
                             (1, clean, ("below the smallest", "above the largest"))):  # fmt: skip
        where = words[level(1.0) > level(0.0)]  # whether they are lams, which fall where sigma rises
        with np.errstate(invalid="ignore"):  # inf - inf
            over = sign * (lams - end)
        if (over > ROUNDING).any():
            i = int(np.nanargmax(over))
            far = abs(level(float(lams[i])) - level(end))
            raise ValueError(f"{tell(i)} is {where} of {sch}, {level(end):.6g}, by {far:.3g}")
    return np.asarray(sch.time(np.clip(lams, noisy, clean)))
