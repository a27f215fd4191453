"""Samplers of k-diffusion, which ComfyUI and A1111 took over, and of azula, as the doctor runs them.

All take x = x0 + sigma eps and any list of sigmas, so they run on the subject's; and their formula alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from ...analysis.problem import Problem
from ...integrations.doctor.names import CFG_PP, azula_class
from ...integrations.doctor.types import Subject
from ...solvers.arrays import Array
from ...solvers.names_elsewhere import ELSEWHERE
from ..peers.samplers import azula_loop, k_diffusion_sampling
from .ways import ALONE, Made, Make, Way, answer, smooth

NOISY = {  # their orders with eta = 0
    "sample_euler_ancestral": 1, "sample_dpm_2_ancestral": 2, "sample_dpmpp_2s_ancestral": 2, "sample_dpmpp_sde": 2,
    "sample_dpmpp_2m_sde": 2, "sample_dpmpp_3m_sde": 3,
}  # fmt: skip
OWN_STEPS = "sample_dpm_fast"  # takes a number of evaluations and the ends

Loop = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]  # model, x, sigmas


def k_diffusion_name(subject: Subject) -> str:
    """The function of k-diffusion. Raises ValueError where it has none."""
    sampling, first = k_diffusion_sampling(), subject.name.split()[0].removesuffix("_gpu").removesuffix(CFG_PP)
    names = [first.removesuffix("_heun") if "sde" in first else first]
    if subject.library == "A1111":
        names += [first.lower(), *ELSEWHERE["ComfyUI"].get(str(subject.solver), ())]
    found = next((f"sample_{name}" for name in names if hasattr(sampling, f"sample_{name}")), None)
    if found is None:
        raise ValueError(f"measure runs k-diffusion, which has no {first!r}; leave out --measure")
    return found


def of_k_diffusion(subject: Subject) -> list[Way]:
    """As it is run, in fp32; and its formula alone, where it adds noise with and without."""
    name, order = k_diffusion_name(subject), subject.right.order
    heun = {"solver_type": "heun"} if "sde" in name and "heun" in subject.name.lower() else {}
    noisy, loop = name in NOISY, partial(_k_diffusion, name, heun)
    told = "its formula alone, smooth grid"
    ways = [Way("as it is run, in float32", _on(subject.levels, loop, torch.float32), order, noisy)]
    if name == OWN_STEPS:
        ways = []
    elif noisy:
        ways.append(Way(told, _on(smooth, loop), order, noisy=True))
        loop, told = partial(_k_diffusion, name, heun | {"eta": 0.0}), f"{told}, eta = 0"
    order = NOISY.get(name, order)
    ways += [
        Way(f"{told}, {str(dtype).removeprefix('torch.')} sigmas", _on(smooth, loop, dtype), order)
        for dtype in (torch.float64, torch.float32)
    ]
    return ways


def of_azula(subject: Subject) -> list[Way]:
    """On the subject's grid as far as sigma > 0, and its formula alone. It counts in float64."""
    found = azula_class(subject.name)
    if found is None:
        raise ValueError(f"measure runs the multistep samplers of azula, not {subject.name!r}; leave out --measure")
    loop = partial(azula_loop, name=found[0], order=found[1])

    def positive(steps: int) -> Array:
        levels = subject.levels(steps)
        return levels[levels > 0]

    order, finest = subject.right.order, 1024 if subject.own else 256  # steps until its order is seen
    ways = (("on its grid, down to the last sigma > 0", positive), ("its formula alone, smooth grid", smooth))
    return [Way(told, _on(lay, loop), order, finest=finest) for told, lay in ways]


def _on(lay: Callable[[int], Array], loop: Loop, dtype: torch.dtype = torch.float64) -> Make:
    def make(steps: int) -> Made:
        levels = lay(steps)
        return partial(_run, loop, torch.from_numpy(levels).to(dtype)), ALONE, levels

    return make


def _run(loop: Loop, sigmas: torch.Tensor, problem: Problem, x: torch.Tensor) -> tuple[torch.Tensor, int]:
    calls = 0

    def model(seen: torch.Tensor, sigma: torch.Tensor, **_: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        level = float(sigma.flatten()[0])
        size = float(np.hypot(1, level))
        return answer(problem, seen / size, 1 / size, level / size, "x0").to(seen.dtype)

    end = loop(model, x.reshape(-1, 1, 1, 1).to(sigmas.dtype), sigmas)
    return end.double().flatten(), calls


def _k_diffusion(name: str, options: dict[str, Any], model: Any, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    sampling = k_diffusion_sampling()
    if name == OWN_STEPS:
        return sampling.sample_dpm_fast(model, x, float(sigmas[-1]), float(sigmas[0]), len(sigmas) - 1, disable=True)
    if options.get("eta") == 0:
        options = options | {"noise_sampler": lambda *_: torch.zeros_like(x)}
    elif name in NOISY:
        options = options | {"noise_sampler": _Brownian(x)}
    return getattr(sampling, name)(model, x, sigmas, disable=True, **options)


class _Brownian:
    """Increments of one Brownian motion over sigma, by their standard deviation. Some steps ask for that of their first
    part before; its own tree of k-diffusion would take minutes for so many samples."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x, self.generator = x, torch.Generator().manual_seed(0)
        self.start, self.end, self.path = 0.0, 0.0, torch.zeros_like(x)

    def __call__(self, sigma: Any, sigma_next: Any) -> torch.Tensor:
        start, end = float(sigma), float(sigma_next)
        if not (start == self.start and end <= self.end):
            self.start, self.end, self.path = start, start, torch.zeros_like(self.x)
        z = torch.randn(self.x.shape, dtype=self.x.dtype, generator=self.generator)
        self.path = self.path + (self.end - end) ** 0.5 * z
        self.end = end
        return self.path / (start - end) ** 0.5
