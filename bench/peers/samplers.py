"""The deterministic samplers of diffusers, k-diffusion and azula, each on any grid, behind one interface.

All take x = x0 + sigma eps and a model that answers x0 for (x, sigma), sigma () or (B,), both float64. Where a library
makes its own grid, or keeps another state (x / sqrt(1 + sigma^2) in most of diffusers), that is replaced or converted
outside of its formulas. What is left out: the samplers of diffusers that are those of k-diffusion again (Euler, Heun,
DPM2, LMS), those SDE samplers of k-diffusion that without noise are others of the list (DPM++ SDE, 2M SDE), and PNDM,
which has only discrete times.
"""

import importlib
import importlib.util
import io
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import torch

from ..work_precision import Counted

Model = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Loop = Callable[..., torch.Tensor]


@dataclass(frozen=True, eq=False)
class Sampler:
    """A sampler of another library: ``sampler(model, x, sigmas)`` goes from sigmas[0] to sigmas[-1], float64 (n + 1,).

    own_grid: whether it chooses the nodes between the ends itself.
    """

    package: str
    name: str
    loop: Loop
    options: dict[str, Any] = field(default_factory=dict)
    own_grid: bool = False

    def __call__(self, model: Model, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        with redirect_stderr(io.StringIO()):  # what some libraries say of their own future, at every construction
            return self.loop(model, x, sigmas, **self.options)

    def grids(self, kinds: Sequence[str]) -> Sequence[str]:
        """On which of these grids it is to run: one that has its own needs no more than the ends of the first."""
        return kinds[:1] if self.own_grid else kinds


def largest_within(sampler: Sampler, nfe: int) -> int | None:
    """The most steps that take at most ``nfe`` model calls, counted on a model that does nothing; None if none do."""
    for steps in range(nfe, 0, -1):
        counted = Counted(lambda x, sigma: torch.zeros_like(x))
        try:
            sampler(
                counted, torch.ones(1, 1, dtype=torch.float64), torch.logspace(1, -2, steps + 1, dtype=torch.float64)
            )
        except (ValueError, IndexError, RuntimeError):  # numbers of steps that some cannot take
            continue
        if counted.samples <= nfe:
            return steps
    return None


def missing(package: str) -> str | None:
    """Why the package cannot be used, or None if it can."""
    try:
        version(package)
        if package == "k-diffusion":
            k_diffusion_sampling()
        else:
            importlib.import_module(package)
    except (ImportError, AttributeError, PackageNotFoundError) as error:
        return str(error)
    return None


def k_diffusion_sampling() -> ModuleType:
    """`k_diffusion.sampling` without the package around it, which loads what training and image metrics need, and
    fails where one of those no longer works with what else is installed."""
    name = "k_diffusion.sampling"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None:
        raise ModuleNotFoundError("No module named 'k_diffusion'")
    package = ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations or [])
    images = ("torchvision", "torchvision.transforms")  # samplers make none
    others = {module: MagicMock() for module in images if module not in sys.modules}
    sys.modules.update({"k_diffusion": package, **others})
    try:
        return importlib.import_module(name)
    finally:
        for module in ("k_diffusion", *others):
            del sys.modules[module]


def _diffusers(model: Model, x: torch.Tensor, sigmas: torch.Tensor, *, kind: str, **options: Any) -> torch.Tensor:
    """A scheduler whose state is y = x / sqrt(1 + sigma^2)."""
    scheduler, n = getattr(importlib.import_module("diffusers"), kind)(prediction_type="sample", **options), len(sigmas)
    scheduler.set_timesteps(n - 1)
    scheduler.sigmas = sigmas  # in float64, which its own are not
    scheduler.timesteps = torch.arange(n - 1)  # two may round to one, and such are dropped
    scheduler.num_inference_steps = n - 1
    scheduler.set_begin_index(0)  # else it looks for its place among its own times
    scale = (1 + sigmas**2).sqrt()
    y = x / scale[0]
    for i, t in enumerate(scheduler.timesteps):
        y = scheduler.step(model(y * scale[i], sigmas[i]), t, y, return_dict=False)[0]
    return y * scale[-1]


def _singlestep(model: Model, x: torch.Tensor, sigmas: torch.Tensor, **options: Any) -> torch.Tensor:
    """Its singlestep solver ends with a step of whatever order is left: the list of orders is part of its grid."""
    return _diffusers(model, x, sigmas, kind="DPMSolverSinglestepScheduler", **options)


def _ipndm(model: Model, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """iPNDM asks for v = alpha eps - sigma x0 and has its levels in ``alphas`` and ``betas``."""
    scheduler = importlib.import_module("diffusers").IPNDMScheduler()
    scheduler.set_timesteps(len(sigmas) - 1)
    scale = (1 + sigmas**2).sqrt()
    scheduler.alphas, scheduler.betas = 1 / scale, sigmas / scale
    scheduler._begin_index = 0
    y = x / scale[0]
    for i, t in enumerate(scheduler.timesteps):
        x0 = model(y * scale[i], sigmas[i])
        eps = (y * scale[i] - x0) / sigmas[i]
        y = scheduler.step((eps - sigmas[i] * x0) / scale[i], t, y, return_dict=False)[0]
    return y * scale[-1]


def _k_diffusion(model: Model, x: torch.Tensor, sigmas: torch.Tensor, *, name: str, **options: Any) -> torch.Tensor:
    if options.get("eta") == 0:
        options["noise_sampler"] = lambda *_: torch.zeros_like(x)  # else a Brownian tree is grown in vain
    return getattr(k_diffusion_sampling(), name)(model, x, sigmas, disable=True, **options)


def _fast(model: Model, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """DPM-Solver-Fast takes a number of calls and lays out its own steps, uniform in log sigma."""
    ends = float(sigmas[-1]), float(sigmas[0])
    return k_diffusion_sampling().sample_dpm_fast(model, x, *ends, len(sigmas) - 1, disable=True)


def azula_loop(model: Model, x: torch.Tensor, sigmas: torch.Tensor, *, name: str, **options: Any) -> torch.Tensor:
    """Its steps are uniform in the schedule's time, so the schedule is a list of levels."""
    azula, steps = importlib.import_module("azula"), len(sigmas) - 1

    class Levels(azula.noise.Schedule):  # type: ignore[name-defined]
        def __call__(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = sigmas[((1 - t) * steps).round().long()]
            return torch.ones_like(found), found

    class Wrapped(azula.denoise.Denoiser):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.schedule = Levels()

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> Any:
            return azula.denoise.DiracPosterior(mean=model(x, self.schedule(t)[1]))

    sampler = getattr(azula.sample, name)(Wrapped(), steps=steps, silent=True, dtype=torch.float64, **options)
    return sampler(x)


def _of_diffusers() -> list[Sampler]:
    def entry(name: str, kind: str, **options: Any) -> Sampler:
        return Sampler("diffusers", name, _diffusers, {"kind": kind, **options})

    found = []
    for final in (True, False):  # lower_order_final
        tail = "" if final else ", full order at the end"
        last: Any = {"lower_order_final": final}
        ends: Any = {**last, "final_sigmas_type": "sigma_min"}
        for p in (2, 3):
            multistep = "DPMSolverMultistepScheduler"
            found += [
                entry(f"DPM++ {p}M{tail}", multistep, solver_order=p, **ends),
                entry(f"DPM {p}M{tail}", multistep, solver_order=p, algorithm_type="dpmsolver", **ends),
                entry(f"DEIS {p}{tail}", "DEISMultistepScheduler", solver_order=p, **last),
            ]
            found += [
                entry(
                    f"UniPC {p} {kind} {'x0' if x0 else 'eps'}{tail}", "UniPCMultistepScheduler",
                    solver_order=p, solver_type=kind, predict_x0=x0, **ends,
                )
                for kind in ("bh1", "bh2") for x0 in (True, False)
            ]  # fmt: skip
    found += [
        Sampler("diffusers", f"DPM++ {p}S", _singlestep, {"solver_order": p, "final_sigmas_type": "sigma_min"})
        for p in (2, 3)
    ]
    return [
        *found,
        entry("DPM++ 2M heun", "DPMSolverMultistepScheduler", solver_type="heun", final_sigmas_type="sigma_min"),
        *(
            entry(
                f"SA-Solver {p}/{p}, tau 0", "SASolverScheduler", predictor_order=p, corrector_order=p, tau_func=_zero
            )
            for p in (2, 3)
        ),
        Sampler("diffusers", "iPNDM", _ipndm),
    ]


def _zero(t: Any) -> float:
    return 0.0


def _of_k_diffusion() -> list[Sampler]:
    def entry(name: str, function: str, **options: Any) -> Sampler:
        return Sampler("k-diffusion", name, _k_diffusion, {"name": f"sample_{function}", **options})

    return [
        entry("Heun", "heun"),
        entry("DPM2", "dpm_2"),
        *(entry(f"LMS {p}", "lms", order=p) for p in (2, 3, 4)),
        entry("DPM++ 2M", "dpmpp_2m"),
        entry("DPM++ 2S, eta 0", "dpmpp_2s_ancestral", eta=0.0),
        entry("DPM++ 3M SDE, eta 0", "dpmpp_3m_sde", eta=0.0),
        Sampler("k-diffusion", "DPM fast", _fast, own_grid=True),
    ]


def _of_azula() -> list[Sampler]:
    multistep = [(kind, p) for kind in ("zAB", "vAB", "zEAB", "xEAB") for p in (2, 3, 4)]
    return [
        Sampler("azula", "DDIM", azula_loop, {"name": "DDIMSampler"}),
        *(Sampler("azula", f"{kind} {p}", azula_loop, {"name": f"{kind}Sampler", "order": p}) for kind, p in multistep),
        *(Sampler("azula", f"REAB {p}", azula_loop, {"name": "REABSampler", "order": p}) for p in (1, 3)),
    ]


PACKAGES: dict[str, Callable[[], list[Sampler]]] = {
    "diffusers": _of_diffusers,
    "k-diffusion": _of_k_diffusion,
    "azula": _of_azula,
}
