"""What configs of diffusers' schedulers say without saying it: their kind, by the keys that they have."""

from collections.abc import Mapping
from typing import Any

DEFAULTS = (
    "_use_default_values"  # diffusers' list of the keys that nobody has set, which other classes do not take over
)
HEADS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v", "flow_prediction": "velocity"}  # by prediction_type
TABLE = ("beta_start", "trained_betas", "beta_schedule")
EDM = ("prediction_type", "sigma_data", "sigma_min", "sigma_max", "sigma_schedule", "rho")
CONVENTION = "_convention"  # a key that no class takes for its own, and all keep
MARKS = {"predict_x0": "unipc", "algorithm_type": "dpm"}  # what a config has of its class alone


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether it is a flow model's. Only configs from files name their class; the others have a shift and no betas."""
    if config.get("prediction_type") == "flow_prediction" or config.get("use_flow_sigmas"):
        return True
    named = "FlowMatch" in str(config.get("_class_name"))
    return named or ("shift" in config and not any(key in config for key in TABLE))


def with_own_keys(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what it says only to its own class, and that class's defaults where they describe the model.

    defaults: of our scheduler, which are not written down, so that configs come back as they went.
    """
    config = dict(config)
    edm = config.get("sigma_data") is not None and not (is_flow(config) or any(key in config for key in TABLE))
    own = {key: config[key] for key in (*TABLE, "beta_end", "snr_shift_scale", *(EDM if edm else ())) if key in config}
    if edm and "timestep_type" not in config:  # StableAudio's alone has no algorithm_type but a solver_type
        own["timestep_type"] = "cosine" if MARKS.keys().isdisjoint(config) and "solver_type" in config else "continuous"
    if is_flow(config):
        head = config.get("prediction_type") or "flow_prediction"
        if head not in ("flow_prediction", "epsilon"):  # the latter is a default left over
            raise ValueError(f"prediction_type = {head!r} and a flow config disagree: it is 'flow_prediction' there")
        own |= {"prediction_type": "flow_prediction", "shift": config.get("shift", 1.0)}
    own = {key: value for key, value in own.items() if value != defaults[key]}
    if CONVENTION not in config:
        own |= next(({CONVENTION: told} for key, told in MARKS.items() if key in config), {})
    if DEFAULTS in config:
        config[DEFAULTS] = [key for key in config[DEFAULTS] if key not in own]
    return config | own
