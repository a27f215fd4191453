"""Samples from a denoiser of azula, on its own schedule.

denoiser = azula.denoise.KarrasDenoiser(backbone, azula.noise.VPSchedule())
"""

import torch

import logsnr


def generate(denoiser: torch.nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    den = logsnr.wrap(denoiser)
    x = logsnr.start(den.schedule, shape, seed=0)
    return logsnr.sample(den, x, solver="dpmpp-2m", steps=20)
