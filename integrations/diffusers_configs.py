"""What configs of diffusers' schedulers say without saying it: their kind, by the keys that they have."""

from collections.abc import Mapping
from typing import Any

DEFAULTS = (
    "_use_default_values"  # diffusers' list of the keys that nobody has set, which other classes do not take over
)
TABLE = ("beta_start", "trained_betas", "beta_schedule")
MODEL = ("num_train_timesteps", *TABLE, "beta_end", "prediction_type", "rescale_betas_zero_snr")
EDM = ("sigma_data", "sigma_min", "sigma_max", "sigma_schedule", "rho")
MARKS = {"predict_x0": "unipc", "algorithm_type": "dpm"}  # what a config has of its class alone


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether it is a flow model's. Only configs from files name their class; the others have a shift and no betas."""
    name = str(config.get("_class_name", ""))
    if config.get("prediction_type") == "flow_prediction" or config.get("use_flow_sigmas"):
        return True
    return name.startswith("FlowMatch") or ("shift" in config and not any(key in config for key in TABLE))


def with_own_keys(config: Mapping[str, Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what it says only to its own class, and its defaults where they describe the model."""
    config = dict(config)
    edm = config.get("sigma_data") is not None
    own = {key: config[key] for key in (*MODEL, *(EDM if edm else ())) if key in config}
    if edm and "timestep_type" not in config:  # StableAudio's alone has no algorithm_type but a solver_type
        own["timestep_type"] = "cosine" if MARKS.keys().isdisjoint(config) and "solver_type" in config else "continuous"
    if is_flow(config) and "prediction_type" not in kwargs:
        own["prediction_type"] = "flow_prediction"
        own["shift"] = config.get("shift", 1.0)
    if "convention" not in config:
        own |= next(({"convention": told} for key, told in MARKS.items() if key in config), {})
    if DEFAULTS in config:
        config[DEFAULTS] = [key for key in config[DEFAULTS] if key not in own]
    return config | own
