"""Classes of schedulers of diffusers: which solver each is by its config, and what a config leaves to its class."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Config(dict[str, Any]):
    """A config with what its class would add, also as attributes, None where there is nothing."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


@dataclass(frozen=True)
class Kind:
    """One class of diffusers: frame, default spacing and end; solver: a name, or from a config (name, compat)."""

    solver: str | Callable[[Config], tuple[str, bool | str]]
    frame: str = "vp"
    spacing: str = "linspace"
    end: str = "zero"


def _multistep(config: Config) -> tuple[str, bool | str]:
    order, sde = int(config.solver_order or 2), str(config.algorithm_type).startswith("sde")
    if str(config.algorithm_type).endswith("dpmsolver"):
        return "ddim" if order == 1 else f"dpm-{min(order, 3)}m", False
    if order == 1:
        return "ddim-eta" if sde else "ddim", False
    name = f"{'sde-' * sde}dpmpp-{min(order, 3)}m"
    return name, order > 2 or config.solver_type != "heun"


def _unipc(config: Config) -> tuple[str, bool | str]:
    return f"unipc-{min(int(config.solver_order or 2), 4)}", "bh1" if config.solver_type == "bh1" else "bh2"


def _deis(config: Config) -> tuple[str, bool | str]:
    order = int(config.solver_order or 2)
    return ("ddim" if order == 1 else f"dpm-{min(order, 3)}m"), False


def _sa(config: Config) -> tuple[str, bool | str]:
    return f"sa-{min(int(config.predictor_order or 2), 4)}", False


KINDS = {
    "DDIM": Kind("ddim", spacing="leading"), "DDPM": Kind("ddpm", spacing="leading"),
    "PNDM": Kind("pndm", spacing="leading"), "EulerDiscrete": Kind("ddim", "ve"),
    "EulerAncestralDiscrete": Kind("euler-a", "ve"), "HeunDiscrete": Kind("heun-rho", "ve"),
    "KDPM2Discrete": Kind("dpm-2", "ve"), "KDPM2AncestralDiscrete": Kind("dpm2-a", "ve"),
    "LMSDiscrete": Kind("lms-4", "ve"), "DPMSolverMultistep": Kind(_multistep),
    "DPMSolverSinglestep": Kind("dpmpp-2s"), "DEISMultistep": Kind(_deis, end="sigma_min"),
    "UniPCMultistep": Kind(_unipc), "SASolver": Kind(_sa, end="sigma_min"),
    "DPMSolverSDE": Kind("sde-dpmpp-2s", "ve"),
    "FlowMatchEulerDiscrete": Kind("euler"), "FlowMatchHeunDiscrete": Kind("heun"),
    "EDMEuler": Kind("ddim"), "EDMDPMSolverMultistep": Kind(_multistep),
    "CosineDPMSolverMultistep": Kind("sde-dpmpp-2m"), "LCM": Kind("lcm", spacing="leading"),
    "TCD": Kind("tcd", spacing="leading"),
}  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear",
    "prediction_type": "epsilon", "lambda_min_clipped": -math.inf,
    "timestep_type": "discrete", "steps_offset": 0, "shift": 1.0, "flow_shift": 1.0, "time_shift_type": "exponential",
    "invert_sigmas": False, "sigma_schedule": "karras", "rho": 7.0, "max_shift": 1.15, "solver_order": 2,
}  # fmt: skip
