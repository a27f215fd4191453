"""What the tests of LogSNRScheduler share: the loop of a pipeline, with a network that is one line."""

from typing import Any

import torch
from diffusers import schedulers as D

import logsnr

TABLE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = (4, 8, 8)


def network(x: torch.Tensor, t: Any) -> torch.Tensor:
    return torch.sin(1.3 * x + 0.01 * torch.as_tensor(t).to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))) * 0.8 + 0.1 * x


def noise(batch: int = 2) -> torch.Tensor:
    return logsnr.randn((batch, *SHAPE), seed=0)


def loop(scheduler: Any, x: torch.Tensor, begin: int = 0, edit: Any = None, **step: Any) -> torch.Tensor:
    if begin and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    for t in scheduler.timesteps[begin:]:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(network(seen, t), t, x, return_dict=False, **step)[0]
        x = edit(x) if edit else x
    return x


def sampled(
    scheduler: Any, n: Any = 8, dtype: torch.dtype = torch.float32, batch: int = 2, **given: Any
) -> torch.Tensor:
    scheduler.set_timesteps(n, **given)
    return loop(scheduler, (noise(batch) * float(getattr(scheduler, "init_noise_sigma", 1.0))).to(dtype))


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def ddim(**options: Any) -> Any:
    return D.DDIMScheduler(**TABLE, clip_sample=False, **options)


def dpm(**options: Any) -> Any:
    return D.DPMSolverMultistepScheduler(**{**TABLE, **options})


def label(value: Any) -> str:
    return type(value).__name__.replace("Scheduler", "") if hasattr(value, "config") else ""
