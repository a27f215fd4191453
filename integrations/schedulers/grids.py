"""The grids of diffusers' schedulers, in float64, from their configs: what the model is told, and levels of noise.

A level is sigma / alpha, for flow models sigma. Everything here takes a config, whose keys are those of diffusers, and
gives ``told``, (n,), and ``levels``, (n + 1,), from noisy to clean.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...solvers.arrays import Array
from ...solvers.grids.grids import grid as make_grid
from ...solvers.grids.levels import Shift
from ...solvers.schedules.straight import FlowMatching
from .configs import CONVENTION
from .tables import discrete

Grid = tuple[Array, Array]


def _karras(first: float, last: float, n: int, rho: float = 7.0) -> Array:
    return np.asarray(np.linspace(first ** (1 / rho), last ** (1 / rho), n) ** rho)


def _exponential(first: float, last: float, n: int) -> Array:
    return np.asarray(np.exp(np.linspace(math.log(first), math.log(last), n)))


def _beta(first: float, last: float, n: int) -> Array:
    from scipy.special import betaincinv

    return np.asarray(last + (first - last) * betaincinv(0.6, 0.6, 1 - np.linspace(0, 1, n)))


# By flag of the config: the levels between two ends, and how DPM-Solver's scheduler makes integers of what is told.
SPREADS: dict[str, tuple[Callable[[float, float, int], Array], Callable[..., Any]]] = {
    "use_karras_sigmas": (_karras, np.rint),
    "use_lu_lambdas": (_exponential, np.rint),
    "use_exponential_sigmas": (_exponential, np.trunc),
    "use_beta_sigmas": (_beta, np.trunc),
}
SPACINGS = ("linspace", "leading", "trailing")


def spread_of(config: Any) -> str | None:
    """The flag that is set. ValueError for several."""
    flags = [name for name in SPREADS if config.get(name)]
    if len(flags) > 1 or (flags and config.get("grid")):
        raise ValueError(f"{' and '.join([*flags, *(['grid'] if config.get('grid') else [])])} exclude each other")
    return flags[0] if flags else None


def table_grid(config: Any, bars: Array, table: Array, n: int, timesteps: Any, sigmas: Any) -> Grid:
    """Of a model with a table of betas. bars: alpha^2 at its entries; table: its levels."""
    ends = {"zero": 0.0, "sigma_min": float(table[0])}
    last, spread = ends[config.final_sigmas_type], spread_of(config)
    if sigmas is not None:  # with the end, as the Euler scheduler of diffusers takes them
        levels, last = sigmas[:-1], sigmas[-1]
        return _told(config, _index(table, levels), levels), np.append(levels, last)
    if timesteps is not None:
        levels = level_at(table, timesteps)
        return _told(config, timesteps, levels), np.append(levels, last)
    if config.grid is not None:
        return _named(config, bars, n, last)
    told = _spaced(config, table, n)
    levels = level_at(table, told)
    if spread is not None:
        whole = (levels[0], levels[-1]) if config.frame == "ve" else (table[-1], table[0])
        first, end = (w if e is None else e for w, e in zip(whole, (config.sigma_max, config.sigma_min), strict=True))
        if not first < math.inf:
            raise ValueError(f"{spread} needs a finite sigma, and a table with zero terminal SNR has none: sigma_max=")
        lay, whole_number = SPREADS[spread]
        levels = lay(float(first), float(end), n)
        told = _index(table, levels)
        if config.frame == "vp" and not (whole_number is np.rint and config.beta_schedule == "squaredcos_cap_v2"):
            told = whole_number(told + 1e-9)
    return _told(config, told, levels), np.append(levels, last)


def _named(config: Any, bars: Array, n: int, last: float) -> Grid:
    sch = discrete(bars)
    times = make_grid(sch, n, config.grid, t_end=0.0 if last else None, **dict(config.grid_options or {}))
    with np.errstate(divide="ignore"):
        levels = np.asarray(sch.sigma(times)) / np.asarray(sch.alpha(times))
    return _told(config, np.clip(times[:-1], 0, None), levels[:-1]), levels


def _spaced(config: Any, table: Array, n: int) -> Array:
    """The entries of the table. "ve" stands for the Euler scheduler and its relatives; the others differ in whether
    they count the end, as DPM-Solver's does."""
    total = len(table)
    if n > total:
        raise ValueError(f"num_inference_steps = {n} is more than the {total} steps that the model was trained with")
    dpm = config.get(CONVENTION) in ("dpm", "unipc")
    used = total
    if config.frame == "vp" and config.lambda_min_clipped > -math.inf:
        used = int((table <= math.exp(-config.lambda_min_clipped)).sum())
    if config.timestep_spacing == "leading":
        stride = used // (n + 1) if dpm else total // n
        return (np.arange(n)[::-1] + dpm) * float(stride) + config.steps_offset
    if config.timestep_spacing == "trailing":
        return np.asarray(np.rint(np.arange(used, 0, -total / n)) - 1)
    if config.frame == "ve":
        return np.linspace(0, total - 1, n)[::-1]
    return np.asarray(np.rint(np.linspace(0, used - 1, n + 1))[::-1][:-1])


def level_at(table: Array, told: Array) -> Array:
    """Straight lines between the entries, and nothing but the entries at them: the last may be infinite."""
    if not ((told >= 0) & (told <= len(table) - 1)).all():
        raise ValueError(f"timesteps must lie between 0 and {len(table) - 1}, not be {told.tolist()!s:.80}")
    low = np.floor(told).astype(np.int64)
    part = told - low
    with np.errstate(invalid="ignore"):
        between = (1 - part) * table[low] + part * table[np.minimum(low + 1, len(table) - 1)]
    return np.where(part == 0, table[low], between)


def _index(table: Array, levels: Array) -> Array:
    """Where the table has the levels, straight lines between logarithms; those beyond its ends are at them."""
    with np.errstate(divide="ignore"):
        return np.interp(np.log(levels), np.log(table), np.arange(float(len(table))))


def _told(config: Any, told: Array, levels: Array) -> Array:
    return 0.25 * np.log(levels) if config.timestep_type == "continuous" else told


def edm_grid(config: Any, n: int, timesteps: Any, sigmas: Any) -> Grid:
    """Of a model whose data has the standard deviation sigma_data: its levels are of the data brought to 1."""
    if timesteps is not None:
        raise ValueError("a model with sigma_data takes sigmas, not timesteps")
    last = config.sigma_min if config.final_sigmas_type == "sigma_min" else 0.0
    if sigmas is not None:
        levels = sigmas
    elif config.sigma_schedule == "karras":
        levels = np.append(_karras(config.sigma_max, config.sigma_min, n, config.rho), last)
    else:
        levels = np.append(_exponential(config.sigma_max, config.sigma_min, n), last)
    levels = levels / config.sigma_data
    return np.array([told_between(config, None, level) for level in levels[:-1].tolist()]), levels


def told_between(config: Any, table: Array | None, level: float) -> float:
    """What a model is told at a level that is not of the grid."""
    if config.sigma_data is not None:
        sigma = max(level * config.sigma_data, 1e-5)
        return 2 / math.pi * math.atan(sigma) if config.timestep_type == "cosine" else 0.25 * math.log(sigma)
    if table is None:
        level = 1 - level if config.invert_sigmas else level
        told = level * config.num_train_timesteps
        return math.trunc(told) if config.use_flow_sigmas else told
    if config.timestep_type == "continuous":
        return 0.25 * math.log(max(level, 1e-5))
    return float(_index(table, np.array([max(level, 1e-10)]))[0])


def flow_grid(config: Any, n: int, timesteps: Any, sigmas: Any, mu: float | None) -> Grid:
    """Of a flow model. ``sigmas`` are shifted, as diffusers does."""
    total = config.num_train_timesteps
    if config.use_dynamic_shifting and mu is None:
        raise ValueError("use_dynamic_shifting needs set_timesteps(..., mu=), by the number of tokens")
    shift = _dynamic(config, float(mu)) if config.use_dynamic_shifting and mu is not None else config.shift
    if config.grid is not None and sigmas is None and timesteps is None:
        by = Shift(shift, config.shift_terminal or None)
        levels = make_grid(FlowMatching(), n, config.grid, shift=by, **dict(config.grid_options or {}))
        return _flow_told(config, levels[:-1]), levels
    if config.use_flow_sigmas:
        shift = shift if config.use_dynamic_shifting else config.flow_shift
    if sigmas is not None:
        levels = sigmas
    elif timesteps is not None:
        levels = timesteps / total
    elif config.use_flow_sigmas:
        part = np.linspace(1, 1 / total, n + 1)
        levels = part[:-1] if config.get(CONVENTION) == "unipc" else (1 - part)[:0:-1]
    else:  # the ends are shifted already where the shift is static
        low = 1 / total if config.use_dynamic_shifting else float(_shifted(np.array(1 / total), config.shift))
        levels = np.linspace(1.0, low, n)
    levels = _shifted(levels, shift)
    if config.shift_terminal:
        levels = 1 - (1 - levels) * (1 - config.shift_terminal) / (1 - levels[-1])
    spread = spread_of(config)
    if spread is not None:
        first, end = float(config.sigma_max or levels[0]), float(config.sigma_min or levels[-1])
        levels = SPREADS[spread][0](first, end, len(levels))
    if config.use_flow_sigmas:
        levels = np.minimum(levels, 1 - 1e-6)  # UniPC's: what is told is below num_train_timesteps
    told = _flow_told(config, levels) if timesteps is None else timesteps
    return np.trunc(told) if config.use_flow_sigmas else told, np.append(levels, 0.0)


def _flow_told(config: Any, levels: Array) -> Array:
    return np.asarray((1 - levels if config.invert_sigmas else levels) * config.num_train_timesteps)


def _dynamic(config: Any, mu: float) -> float:
    return Shift.dynamic(mu).factor if config.time_shift_type == "exponential" else mu


def _shifted(levels: Array, factor: float) -> Array:
    return np.asarray(factor * levels / (1 + (factor - 1) * levels))
