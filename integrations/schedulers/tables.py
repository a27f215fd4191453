"""The tables of alpha^2 that configs of diffusers describe, in float64, with an exact zero terminal SNR."""

from functools import lru_cache
from typing import Any

import numpy as np

from ...solvers.arrays import Array
from ...solvers.schedules.tables import linear_betas, root_linear_betas
from ...solvers.schedules.tabulated import Discrete

MAX_BETA = 0.999


def _cosine_betas(first: float, last: float, count: int) -> Array:
    """Nichol and Dhariwal, arXiv:2102.09672, eq. 17, beta at most 0.999; the ends are not used."""
    bars = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.asarray(np.minimum(1 - bars[1:] / bars[:-1], MAX_BETA))


BETAS = {"linear": linear_betas, "scaled_linear": root_linear_betas, "squaredcos_cap_v2": _cosine_betas}


def table_of(config: Any) -> Array:
    """alphas_cumprod, (num_train_timesteps,). ValueError for an unknown beta_schedule and betas outside (0, 1)."""
    trained = config.get("trained_betas")
    if trained is not None:
        trained = tuple(np.asarray(trained, dtype=np.float64).ravel().tolist())
    numbers = config.get("beta_start", 1e-4), config.get("beta_end", 0.02), config.get("num_train_timesteps", 1000)
    scale = float(config.get("snr_shift_scale") or 1.0)
    kind = config.get("beta_schedule", "linear")
    return _table(kind, *numbers, trained, bool(config.get("rescale_betas_zero_snr")), scale)


@lru_cache(maxsize=64)
def _table(
    kind: str, start: float, end: float, count: int, trained: tuple[float, ...] | None, rescaled: bool, scale: float
) -> Array:
    if trained is None and kind not in BETAS:
        raise ValueError(f"beta_schedule = {kind!r} is not one of {', '.join(BETAS)}; or give trained_betas")
    betas = BETAS[kind](start, end, count) if trained is None else np.array(trained)
    if not ((betas > 0) & (betas < 1)).all():
        raise ValueError(f"betas must lie between 0 and 1, but go from {betas.min():.6g} to {betas.max():.6g}")
    bars = np.asarray(np.cumprod(1 - betas))
    bars = bars / (scale + (1 - scale) * bars)  # an SNR that many times smaller, of CogVideoX
    if rescaled:  # Lin et al., arXiv:2305.08891, algorithm 1
        root = np.sqrt(bars)
        bars = np.square((root - root[-1]) * root[0] / (root[0] - root[-1]))
    bars.setflags(write=False)
    return bars


@lru_cache(maxsize=64)
def _discrete(table: bytes) -> Discrete:
    return Discrete(np.frombuffer(table))


def discrete(bars: Array) -> Discrete:
    """The table made continuous, the same object for the same numbers."""
    return _discrete(bars.tobytes())


def levels_of(bars: Array) -> Array:
    """sigma / alpha at the entries, inf where alpha = 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.sqrt((1 - bars) / bars))
