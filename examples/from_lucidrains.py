"""Images from a GaussianDiffusion or an ElucidatedDiffusion of denoising-diffusion-pytorch."""

from typing import Any

import torch

import logsnr


def generate(diffusion: Any, shape: tuple[int, ...]) -> torch.Tensor:
    """Images in [0, 1], as its own ``sample`` returns them."""
    den = logsnr.wrap(diffusion, map_x0=lambda x0, x, t: x0.clamp(-1, 1))
    x = logsnr.start(den.schedule, shape, seed=0)
    return (logsnr.sample(den, x, solver="dpmpp-2m", steps=20) + 1) / 2
