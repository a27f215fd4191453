"""`wrap`: which convention a model has, from its class, its attributes and a config."""

from collections.abc import Callable
from typing import Any

from ...solvers.denoisers.denoiser import Denoiser
from ...solvers.schedules.base import Schedule
from ..k_diffusion import is_flow
from .forms import azula, edm, flow, from_k_diffusion, guided_diffusion, lucidrains
from .pretrained import FORMS, from_diffusers

Form = Callable[..., Denoiser]


def wrap(model: Any, config: Any = None, *, shape: Any = None, **options: Any) -> Denoiser:
    """A denoiser of a pretrained model, whatever library it comes from.

    model:   a network of diffusers; a class of EDM or EDM2; a wrapper of k-diffusion or ComfyUI; a denoiser of azula; a
             diffusion of lucidrains; a ModelWrapper of flow_matching; a network of guided-diffusion.
    config:  what says what it means, where it does not itself: of diffusers, the scheduler or its config; of
             guided-diffusion, the diffusion object.
    shape:   that of x, (B, ...): the model is asked on noise, and a warning tells what looks wrong.
    options: ``time``, ``dtype``, ``conditions``, ``guidance``, ``map_x0``, as `Denoiser` takes them.

    Raises ValueError or TypeError for what is unknown, naming what is missing and the explicit forms, which are in
    ``logsnr.integrations``.
    """
    if isinstance(config, Schedule):
        raise TypeError(f"config = {config} is a schedule: logsnr.Denoiser(model, schedule, prediction) takes it")
    if isinstance(model, Denoiser):
        raise TypeError("model is a Denoiser already: logsnr.sample takes it as it is")
    if hasattr(model, "scheduler") and (hasattr(model, "unet") or hasattr(model, "transformer")):
        part = "unet" if getattr(model, "unet", None) is not None else "transformer"
        raise TypeError(f"model is a pipeline: give its network and scheduler, wrap(pipe.{part}, pipe.scheduler)")
    if config is None:
        return _by_itself(model)(model, shape=shape, **options)
    if hasattr(config, "betas") and hasattr(config, "model_mean_type"):
        return _by_diffusion(model, config, shape, options)
    return from_diffusers(model, config, shape=shape, **options)


def _by_itself(model: Any) -> Form:
    for form, fits in FITS.items():
        if fits(model):
            return form
    kind = type(model).__name__
    if not callable(model):
        raise TypeError(f"model must be a callable model(x, t), not {kind}")
    if _from(model, "diffusers"):
        raise ValueError(f"{kind} of diffusers needs its scheduler: wrap(model, pipe.scheduler), or its config")
    raise ValueError(
        f"nothing says what {kind} returns and what it is told: give the config of its scheduler, or the explicit form "
        f"{FORMS} of logsnr.integrations, or logsnr.Denoiser(model, schedule, prediction)"
    )


def _from(model: Any, library: str) -> bool:
    """Whether the model's class, or one above it, is of a library."""
    return any(c.__module__.split(".")[0] == library for c in type(model).__mro__)


def _is_edm(model: Any) -> bool:
    name = type(model).__name__
    return hasattr(model, "round_sigma") or (name.endswith("Precond") and hasattr(model, "sigma_data"))


def _is_k_diffusion(model: Any) -> bool:
    return is_flow(model) or (callable(model) and hasattr(model, "inner_model"))


def _is_lucidrains(model: Any) -> bool:
    gaussian = hasattr(model, "objective") and hasattr(model, "alphas_cumprod")
    return gaussian or hasattr(model, "preconditioned_network_forward")


FITS: dict[Form, Callable[[Any], bool]] = {
    edm: _is_edm,
    from_k_diffusion: _is_k_diffusion,
    lucidrains: _is_lucidrains,
    azula: lambda model: _from(model, "azula") and callable(getattr(model, "schedule", None)),
    lambda model, **given: flow(model, data_at=1, **given): lambda model: _from(model, "flow_matching"),
}


def _by_diffusion(model: Any, diffusion: Any, shape: Any, options: dict[str, Any]) -> Denoiser:
    """With a GaussianDiffusion of guided-diffusion, respaced or not."""
    mean = getattr(diffusion.model_mean_type, "name", str(diffusion.model_mean_type))
    heads = {"EPSILON": "eps", "START_X": "x0"}
    if mean not in heads:
        raise ValueError(f"model_mean_type = {mean}: of guided-diffusion only {', '.join(heads)} can be wrapped")
    kept = getattr(diffusion, "timestep_map", None)
    return guided_diffusion(
        model,
        diffusion.betas,
        steps=int(getattr(diffusion, "original_num_steps", None) or len(diffusion.betas)),
        prediction=heads[mean],
        rescale_timesteps=bool(getattr(diffusion, "rescale_timesteps", False)),
        timestep_map=kept or None,
        shape=shape,
        **options,
    )
