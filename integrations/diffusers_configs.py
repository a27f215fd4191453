"""What configs of diffusers' schedulers say without saying it: their kind, by the keys that they have."""

from collections.abc import Mapping
from typing import Any

DEFAULTS = (
    "_use_default_values"  # diffusers' list of the keys that nobody has set, which other classes do not take over
)
MARKS = {"predict_x0": "unipc", "algorithm_type": "dpm"}  # what a config has of its class alone
TABLE = ("beta_start", "trained_betas", "beta_schedule")


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether it is a flow model's. Only configs from files name their class; the others have a shift and no betas."""
    name = str(config.get("_class_name", ""))
    if config.get("prediction_type") == "flow_prediction" or config.get("use_flow_sigmas"):
        return True
    return name.startswith("FlowMatch") or ("shift" in config and not any(key in config for key in TABLE))


def with_own_keys(config: Mapping[str, Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what it says only to its own class. ValueError for EDM's, whose data has another scale."""
    config = dict(config)
    if "sigma_data" in config and "solver" not in config:
        raise ValueError("a config with sigma_data (EDM) is not for this scheduler; use logsnr.sample with logsnr.EDM")
    own: dict[str, Any] = {}
    if is_flow(config) and "prediction_type" not in kwargs:
        own["prediction_type"] = "flow_prediction"
        own["shift"] = config.get("shift", 1.0)
    if "convention" not in config:
        own |= next(({"convention": told} for key, told in MARKS.items() if key in config), {})
    if DEFAULTS in config:
        config[DEFAULTS] = [key for key in config[DEFAULTS] if key not in own]
    return config | own
