"""A loop that tests run on a GPU and on the CPU."""

from typing import Any

import torch
from checks import F32

import logsnr

DEVICE = "cuda"
SCH = logsnr.VPLinear()
SHAPE = (4, 3, 16, 16)


def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Exact operations."""
    return x.clamp(-1, 1) * 0.5


def loop(x: torch.Tensor, model: torch.dtype = F32, **options: Any) -> torch.Tensor:
    return logsnr.sample(logsnr.Denoiser(net, SCH, dtype=model), x, **{"steps": 8, "seed": 3} | options)
