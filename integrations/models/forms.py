"""Models of other libraries as denoisers: one function for each convention, which says what it assumes.

All take ``shape=``, the shape (B, ...) of x: the model is then asked on noise, twice, and a warning comes if its
answer looks like another head's, or like that at another time. All hand ``time``, ``dtype``, ``conditions``,
``guidance`` and ``map_x0`` on to `Denoiser`; ``time`` replaces what the form assumes. `logsnr.check` says more, from a
few clean samples.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...solvers.denoisers.denoiser import Denoiser
from ...solvers.names import nearest
from ...solvers.schedules.base import Schedule
from ...solvers.schedules.custom import Custom
from ...solvers.schedules.formulas import EDM, VE, FlowMatching, SubVP, VPLinear
from ...solvers.schedules.tabulated import Discrete
from ..k_diffusion import is_flow
from ..schedulers.tables import BETAS
from .network import HALF, Entries, Network, Preconditioned, Times, dtype_of, quarter_log
from .selfcheck import look


def denoiser(model: Any, schedule: Schedule, head: str, time: Any, shape: Any, options: dict[str, Any]) -> Denoiser:
    """The denoiser of a form, which has looked at itself if ``shape`` is given."""
    den = Denoiser(model, schedule, head, **{"time": time, **options})
    if shape is not None:
        look(den, shape)
    return den


def _called(net: Any, form: str) -> Any:
    if not callable(net):
        raise TypeError(f"{form}: the model must be a callable model(x, t), not {type(net).__name__}")
    return net


def _sigmas(net: Any, low: float | None, high: float | None) -> EDM:
    """What is given, else the network's own range, within [0.002, 80] where it has no end."""
    own = [float(getattr(net, name, math.nan)) for name in ("sigma_min", "sigma_max")]
    if low is None:
        low = own[0] if own[0] > 0 else 0.002
    if high is None:
        high = own[1] if own[1] < math.inf else 80.0
    return EDM(float(low), float(high))


def edm(
    net: Any, *, sigma_min: float | None = None, sigma_max: float | None = None, shape: Any = None, **options: Any
) -> Denoiser:
    """D(x, sigma) = x0 with its preconditioning inside, x = x0 + sigma eps: the classes of EDM and EDM2.

    sigma_min, sigma_max: by default the network's own, or 0.002 and 80. The start has standard deviation sigma_max.
    """
    return denoiser(Network(_called(net, "edm")), _sigmas(net, sigma_min, sigma_max), "x0", "sigma", shape, options)


def edm_raw(
    net: Any,
    sigma_data: float = 0.5,
    *,
    sign: float = 1.0,
    noise: Any = quarter_log,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    shape: Any = None,
    **options: Any,
) -> Denoiser:
    """F(c_in x, log(sigma) / 4), the network inside D = c_skip x + c_out F of EDM.

    sigma_data: with which it was trained. sign: -1 where the network returns -F ("v-prediction" of Stable Video
    Diffusion, sigma_data = 1). noise: what F is told, a function of sigma. D is made in fp32 at least, whatever the
    network's dtype. Raises ValueError unless sigma_data is positive.
    """
    if not 0 < sigma_data < math.inf:
        raise ValueError(f"sigma_data = {sigma_data} must be positive: the data's standard deviation in training")
    if dtype_of(net) in HALF:
        options = {"dtype": torch.float32, **options}
    whole = Preconditioned(_called(net, "edm_raw"), sigma_data, sign, noise)
    return denoiser(whole, _sigmas(net, sigma_min, sigma_max), "x0", "sigma", shape, options)


@dataclass(frozen=True)
class _Sine:
    factor: float

    def __call__(self, t: torch.Tensor) -> torch.Tensor:
        return self.factor * torch.sin(t)


def trigflow(
    net: Any,
    sigma_data: float = 1.0,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    shape: Any = None,
    **options: Any,
) -> Denoiser:
    """F(x / sigma_data, t), x = cos(t) x0 + sin(t) sigma_data eps, dx/dt = sigma_data F: TrigFlow, arXiv:2410.11081.

    sigma_min, sigma_max: the ends, t = arctan(sigma / sigma_data). Times and states are the paper's.
    """
    ends = dict(t_start=math.atan(sigma_max / sigma_data), t_end=math.atan(sigma_min / sigma_data))
    sch = Custom(torch.cos, _Sine(sigma_data), **ends, domain=(0.0, math.pi / 2))
    return denoiser(Network(_called(net, "trigflow"), scale=sigma_data), sch, "velocity", "t", shape, options)


def flow(net: Any, *, data_at: int, shape: Any = None, **options: Any) -> Denoiser:
    """u(x, t), the velocity dx/dt of a straight path on [0, 1].

    data_at: the network's time at the data. 1: x = t data + (1 - t) noise, u = data - noise, as rectified flow,
    flow_matching, torchcfm (whose u(t, x) takes ``lambda x, t: u(t, x)``), Lumina 2. 0: u = noise - data, as Stable
    Diffusion 3 and Flux. There is no default: the wrong one fails silently.
    time: "t" (default) or "1000t", of the network's own time; a callable is given the schedule's, noise at t = 1.
    """
    return denoiser(Network(_called(net, "flow")), FlowMatching(data_at=data_at), "velocity", "t", shape, options)


def score_sde(net: Any, kind: str = "vp", *, shape: Any = None, **options: Any) -> Denoiser:
    """Networks of Song et al., arXiv:2011.13456, trained with continuous times.

    kind: "vp" or "subvp", told 999 t, which return eps (their score is -net / sigma), with beta_min = 0.1 and
    beta_max = 20; "ve", told sigma, which return the score, with sigma_min = 0.01 and sigma_max = 50. These four may be
    given. Raises ValueError for another kind.
    """
    if kind not in ("vp", "subvp", "ve"):
        raise ValueError(f"score_sde: kind = {kind!r} is not one{nearest(kind, ('vp', 'subvp', 've'))}")
    names = ("sigma_min", "sigma_max") if kind == "ve" else ("beta_min", "beta_max")
    given = {name: float(options.pop(name)) for name in names if name in options}
    model = Network(_called(net, "score_sde"))
    if kind == "ve":
        return denoiser(model, VE(**given), "score", "sigma", shape, options)
    sch = VPLinear(**given) if kind == "vp" else SubVP(**given)
    return denoiser(model, sch, "eps", Times(999.0), shape, options)


def guided_diffusion(
    net: Any,
    betas: str | Sequence[float] | np.ndarray = "linear",
    *,
    steps: int = 1000,
    prediction: str = "eps",
    rescale_timesteps: bool = False,
    timestep_map: Sequence[int] | None = None,
    shape: Any = None,
    **options: Any,
) -> Denoiser:
    """Networks of guided-diffusion, improved-diffusion and DiT: told the index of a table, they return eps.

    betas: "linear" (1e-4 to 0.02 for 1000 ``steps``), "cosine", or the numbers. prediction: "x0" if it was trained with
    predict_xstart. rescale_timesteps: told 1000 / steps of the index. timestep_map: of a respaced diffusion, whose
    betas are given, the original indices. Twice the channels are fine: the second half is a learned variance, which
    ``solver="ddpm", variance="learned"`` uses and all others leave out.
    """
    if isinstance(betas, str):
        if betas not in ("linear", "cosine"):
            raise ValueError(f"guided_diffusion: betas = {betas!r} must be 'linear', 'cosine' or numbers")
        kind = "squaredcos_cap_v2" if betas == "cosine" else "linear"
        betas = BETAS[kind](0.1 / steps, 20 / steps, steps)
    values = np.asarray(betas, dtype=np.float64)
    if timestep_map is None:
        timestep_map = range(len(values))
    if len(timestep_map) != len(values):
        raise ValueError(
            f"timestep_map has {len(timestep_map)} entries, but betas {len(values)}: give the respaced ones"
        )
    told = Entries(tuple(map(float, timestep_map)), 1000 / steps if rescale_timesteps else 1.0)
    sch = Discrete(np.cumprod(1 - values))
    return denoiser(Network(_called(net, "guided_diffusion")), sch, prediction, told, shape, options)


def from_k_diffusion(model: Any, *, shape: Any = None, **options: Any) -> Denoiser:
    """model(x, sigma, **extra_args) = x0, of k-diffusion's wrappers and ComfyUI.

    x = x0 + sigma eps, with the model's own sigma_min and sigma_max where it has them; ``sigma_min=`` and
    ``sigma_max=`` replace them. A run ends at sigma_min: ``t_end=0`` goes on to 0, as samplers there do. Flow models of
    ComfyUI have x = (1 - sigma) x0 + sigma eps.
    """
    if is_flow(model):
        return denoiser(Network(model), FlowMatching(), "x0", "sigma", shape, options)
    given = {name: options.pop(name, None) for name in ("sigma_min", "sigma_max")}
    inner, depth = model, 0
    while not hasattr(inner, "sigma_max") and depth < 4:
        inner = getattr(inner, "model_sampling", None) or getattr(inner, "inner_model", None)
        depth += 1
    sch = _sigmas(inner, given["sigma_min"], given["sigma_max"])
    return denoiser(Network(_called(model, "from_k_diffusion")), sch, "x0", "sigma", shape, options)


@dataclass(frozen=True)
class _Part:
    """alpha or sigma of a schedule of azula."""

    schedule: Any
    part: int

    def __call__(self, t: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.schedule(t)[self.part]
        return found.to(torch.float64)


def azula(model: Any, *, shape: Any = None, **options: Any) -> Denoiser:
    """A denoiser of azula: model(x, t).mean is x0, and model.schedule(t) is (alpha, sigma) on [0, 1]."""
    schedule = getattr(model, "schedule", None)
    if not callable(schedule):
        raise TypeError(f"azula: {type(model).__name__} has no schedule, a callable t -> (alpha, sigma)")
    sch = Custom(_Part(schedule, 0), _Part(schedule, 1), t_start=1.0, t_end=0.0)
    return denoiser(Network(_called(model, "azula")), sch, "x0", "t", shape, options)


OBJECTIVES = {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}


def lucidrains(diffusion: Any, *, shape: Any = None, **options: Any) -> Denoiser:
    """A GaussianDiffusion (its network, table and objective) or an ElucidatedDiffusion, on its own x, in [-1, 1].

    Self-conditioning is left out: those networks are trained without it half of the time. A warning says so.
    """
    if getattr(diffusion, "self_condition", False):
        warnings.warn("lucidrains: the network runs without its self-conditioning", stacklevel=2)
    if hasattr(diffusion, "sigma_data") and hasattr(diffusion, "net"):
        given = {name: float(getattr(diffusion, name)) for name in ("sigma_data", "sigma_min", "sigma_max")}
        return edm_raw(diffusion.net, **given, shape=shape, **options)
    objective = getattr(diffusion, "objective", None)
    if objective not in OBJECTIVES or not hasattr(diffusion, "alphas_cumprod"):
        raise TypeError(
            f"lucidrains: {type(diffusion).__name__} has no alphas_cumprod with an objective "
            f"of {', '.join(OBJECTIVES)}, "
            "nor a net with sigma_data; a network alone is edm_raw(net, sigma_data), or logsnr.Denoiser"
        )
    sch = Discrete(diffusion.alphas_cumprod)
    return denoiser(Network(_called(diffusion.model, "lucidrains")), sch, OBJECTIVES[objective], "t", shape, options)
