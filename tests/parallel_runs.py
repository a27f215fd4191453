"""What the tests of parallel runs share."""

from collections.abc import Callable
from typing import Any

import torch

import logsnr

F64, F32 = torch.float64, torch.float32
SOLVERS = ["ddim", "dpmpp-2m", "dpmpp-3s", "deis-3", "heun", "ddpm", "sde-dpmpp-2m", "edm-churn"]


def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Nonlinear, Lipschitz, and of operations that IEEE 754 rounds correctly: the same bits in any batch."""
    return x / (1 + x * x) - 0.3 * t.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)


def start(samples: int = 3, size: int = 50, dtype: torch.dtype = F32) -> torch.Tensor:
    return torch.randn(samples, size, generator=torch.Generator().manual_seed(1), dtype=F64).to(dtype)


def exact(**options: Any) -> logsnr.Picard:
    return logsnr.Picard(tol=0.0, **options)


def reusing(buffer: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """`model`, but it changes what it is given, and returns the same tensor every time."""

    def answer(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        buffer[: len(x)] = model(x, t)
        x.fill_(torch.nan)
        t.fill_(torch.nan)
        return buffer[: len(x)]

    return answer
