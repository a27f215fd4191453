"""Images from a model in a wrapper of k-diffusion, which takes (x, sigma) and returns the denoised images.

model = K.external.CompVisDenoiser(ldm)
"""

import torch

import logsnr


def generate(model: torch.nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    den = logsnr.wrap(model)
    x = logsnr.start(den.schedule, shape, seed=0)  # of standard deviation sigma_max
    return logsnr.sample(den, x, solver="dpmpp-2m", steps=20, grid="karras", t_end=0)
