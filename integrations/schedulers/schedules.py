"""The schedule and the grid of a scheduler of diffusers, for runs without a pipeline."""

from typing import Any

import numpy as np

from ...solvers.arrays import Array
from ...solvers.grids.grids import check_grid
from ...solvers.schedules.base import Schedule
from ...solvers.schedules.formulas import EDM, Trigonometric
from ...solvers.schedules.straight import FlowMatching
from ...solvers.schedules.tabulated import Discrete
from .configs import TABLE, is_flow
from .tables import discrete, table_of

SNAP = 1e-3  # how far an index may be from a whole number by the rounding of a level to float32


def schedule(scheduler: Any) -> Schedule:
    """The schedule of the model that a scheduler, or its config, is made for.

    A `Discrete` table from its betas, in float64, on the model's clock, the index; `FlowMatching`; `Trigonometric` of
    continuous v models (Stable Video Diffusion), told log(sigma / alpha) / 4; `EDM` of configs with a sigma_data.
    Raises TypeError for what has no config, ValueError for configs of none of these.
    """
    config = getattr(scheduler, "config", scheduler)
    if not hasattr(config, "get"):
        raise TypeError(f"scheduler must be a scheduler of diffusers or its config, not {type(scheduler).__name__}")
    if is_flow(config):
        return FlowMatching(data_at=1) if config.get("invert_sigmas") else FlowMatching()
    if config.get("sigma_data") is not None:
        return EDM(config["sigma_min"], config["sigma_max"])
    if config.get("timestep_type") == "continuous":
        return Trigonometric()
    if not any(key in config for key in TABLE):
        raise ValueError("the config has neither betas nor a shift; choose a schedule of logsnr for it, such as EDM")
    return discrete(table_of(config))


def grid(scheduler: Any) -> Array:
    """The times of `schedule` at which a scheduler steps, (n + 1,), after its ``set_timesteps``.

    Steps of length 0 are left out, and levels beyond a table are moved to its end. Raises ValueError before
    ``set_timesteps``.
    """
    sch = schedule(scheduler)
    if getattr(scheduler, "num_inference_steps", None) is None:
        raise ValueError("call scheduler.set_timesteps(n) first")
    plan = getattr(scheduler, "_plan", None)
    sigmas = getattr(scheduler, "sigmas", None)
    if plan is not None:
        times = _times(sch, plan.nodes * (scheduler.config.sigma_data or 1.0))
    elif sigmas is not None:
        levels = np.asarray([float(s) for s in sigmas])
        times = _times(sch, 1 - levels if getattr(sch, "data_at", 0) else levels)
    else:
        times = np.asarray(scheduler.timesteps.cpu().double())
        final = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
        times = np.append(times, -1.0 if final == 1 else 0.0)
    return check_grid(sch, times[np.append(np.diff(times) < 0, True)])


def _times(sch: Schedule, levels: Array) -> Array:
    if isinstance(sch, FlowMatching):
        return levels
    low, high = (float(sch.half_logsnr(t)) for t in sch.domain[::-1])
    with np.errstate(divide="ignore"):
        times = np.asarray(sch.time(np.clip(-np.log(levels), low, high)))
    if not isinstance(sch, Discrete):
        return times
    whole = np.rint(times)
    return np.where(np.abs(times - whole) < SNAP, whole, times)
