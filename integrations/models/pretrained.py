"""Networks of diffusers with the config of their scheduler, which says what they mean. diffusers is not imported."""

from collections.abc import Mapping
from functools import partial
from inspect import Parameter, signature
from typing import Any

from ...solvers.denoisers.denoiser import Denoiser
from ...solvers.schedules.straight import FlowMatching
from ..schedulers.configs import HEADS, is_flow
from ..schedulers.tables import discrete, table_of
from .forms import denoiser, edm_raw, score_sde
from .network import Network, OneMinus, Times, angle, quarter_log

# Flow models by the beginning of their class: what they are told where that is not 1000 t.
TOLD_T = ("Flux", "QwenImage", "Chroma", "AuraFlow", "LongCatImage", "OvisImage", "Lumina2", "ZImage")
DATA_AT_1 = ("Lumina2", "ZImage", "Mochi", "OmniGen", "HiDream")  # they return x0 - eps
TOLD_NOISE = ("HiDream",)  # and yet they are told 1000 t of the noise
FORMS = "edm, edm_raw, flow, score_sde, guided_diffusion, from_k_diffusion, azula, lucidrains or from_diffusers"


def config_of(config: Any) -> dict[str, Any]:
    """The config of a scheduler, or one given as a mapping, as a dictionary. TypeError for neither."""
    found = config if isinstance(config, Mapping) else getattr(config, "config", None)
    if not isinstance(found, Mapping):
        raise TypeError(f"config must be a scheduler, its config or a dictionary, not {type(config).__name__}")
    name = None if isinstance(config, Mapping) else type(config).__name__
    return {"_class_name": name, **{k: v for k, v in found.items() if v is not None}}


def from_diffusers(net: Any, config: Any, *, shape: Any = None, **options: Any) -> Denoiser:
    """A UNet, DiT or transformer of diffusers, with its scheduler or the scheduler's config.

    config: of a table of betas (made again in float64, with exact zero terminal SNR), of a flow model, or with
    sigma_data (EDM). Its prediction_type is the head. Grids, shifts and ends are not the model's: give them to `solve`.

    ``net`` gets x, ``timestep=`` and the conditions. Tables: the index, between entries too. Flow models: 1000 t, or t
    for those classes that diffusers tells it (Flux, Qwen-Image, ...); Lumina 2, Z-Image, Mochi and HiDream have data at
    t = 1. ``time=`` replaces that. What all samples share is bound: ``functools.partial(net, img_ids=...)``.

    Raises ValueError for a config that says none of this, and names what is missing.
    """
    if not callable(net):
        raise TypeError(f"from_diffusers: the model must be a callable, not {type(net).__name__}")
    values = config_of(config)
    if "snr" in values and "sampling_eps" in values:
        ends = {name: values[name] for name in ("sigma_min", "sigma_max")}
        return score_sde(_named(net), "ve", **ends, shape=shape, **options)
    table = "beta_start" in values or "trained_betas" in values
    if is_flow(values) and (not table or "shift" in values or values.get("use_flow_sigmas")):
        return _flow(net, values, shape, options)
    if table:
        return _table(net, values, shape, options)
    if "sigma_data" in values and "clip_denoised" not in values:
        return _edm(net, values, shape, options)
    raise ValueError(
        f"config with {', '.join(sorted(k for k in values if k[0] != '_')) or 'nothing'} has neither beta_start and "
        "beta_end or trained_betas (a table), nor shift (a flow model), nor sigma_data (EDM): the explicit form is "
        f"{FORMS} of logsnr.integrations, or logsnr.Denoiser(model, schedule, prediction)"
    )


def _named(net: Any) -> Network:
    """A network whose time is ``timestep``, wherever it stands, or the second argument."""
    inner = _inner(net)
    try:
        parameters = signature(getattr(inner, "forward", inner)).parameters
    except (TypeError, ValueError):
        return Network(net)
    named = parameters.get("timestep")
    return Network(net, keyword="timestep" if named and named.kind is not Parameter.POSITIONAL_ONLY else None)


def _inner(net: Any) -> Any:
    """The network itself, of one that torch.compile has wrapped or that has keywords bound."""
    net = net.func if isinstance(net, partial) else net
    return getattr(net, "_orig_mod", net)


def _head(values: Mapping[str, Any], default: str) -> str:
    kind = values.get("prediction_type", default)
    if kind not in HEADS:
        raise ValueError(f"prediction_type = {kind!r} is not one of {', '.join(HEADS)}")
    return HEADS[kind]


def _table(net: Any, values: Mapping[str, Any], shape: Any, options: dict[str, Any]) -> Denoiser:
    if values.get("timestep_type") == "continuous":  # Stable Video Diffusion: told log(sigma) / 4, at x0 + sigma eps
        if _head(values, "epsilon") != "v":
            raise ValueError("timestep_type = 'continuous' is known with prediction_type = 'v_prediction' alone")
        return _edm(net, {**values, "sigma_data": 1.0}, shape, options)
    head = _head(values, "epsilon")
    if head == "velocity":
        raise ValueError(
            "prediction_type = 'flow_prediction' and betas disagree: give use_flow_sigmas or the true head"
        )
    return denoiser(_named(net), discrete(table_of(values)), head, "t", shape, options)


def _edm(net: Any, values: Mapping[str, Any], shape: Any, options: dict[str, Any]) -> Denoiser:
    head, cosine = (
        _head(values, "epsilon"),
        "Cosine" in str(values.get("_class_name")) or "StableAudio" in type(_inner(net)).__name__,
    )
    if head not in ("eps", "v"):
        raise ValueError(
            f"prediction_type = {values['prediction_type']!r} with sigma_data: use logsnr.integrations.edm"
        )
    given = {name: float(values[name]) for name in ("sigma_data", "sigma_min", "sigma_max") if name in values}
    sign, noise = (-1.0 if head == "v" else 1.0), (angle if cosine else quarter_log)  # there "epsilon" stands for F
    return edm_raw(_named(net), **given, sign=sign, noise=noise, shape=shape, **options)


def _flow(net: Any, values: Mapping[str, Any], shape: Any, options: dict[str, Any]) -> Denoiser:
    name = type(_inner(net)).__name__
    if _head(values, "flow_prediction") not in ("velocity", "eps"):  # of DPM-Solver's, epsilon is a default left over
        raise ValueError(f"prediction_type = {values['prediction_type']!r} and a flow config disagree")
    most = float(values.get("num_train_timesteps", 1000))
    most *= float(getattr(getattr(_inner(net), "config", None), "timestep_scale", None) or 1.0)  # Sana's
    reverse = bool(values.get("invert_sigmas")) or name.startswith(DATA_AT_1)
    factor = 1.0 if name.startswith(TOLD_T) else most
    backwards = reverse and not name.startswith(TOLD_NOISE)
    time = OneMinus(factor) if backwards else Times(factor)
    return denoiser(_named(net), FlowMatching(data_at=int(reverse)), "velocity", time, shape, options)
