"""Latents from a UNet of diffusers, guided, with the table of its scheduler.

pipe = StableDiffusionPipeline.from_pretrained(...)
cond, uncond = pipe.encode_prompt(["a cat"] * 4, "cuda", 1, True)
latents = generate(pipe.unet, pipe.scheduler, cond, uncond, (4, 4, 64, 64))
images = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
"""

from typing import Any

import torch

import logsnr


def generate(
    unet: torch.nn.Module, scheduler: Any, cond: torch.Tensor, uncond: torch.Tensor, shape: tuple[int, ...]
) -> torch.Tensor:
    den = logsnr.wrap(
        unet,
        scheduler,
        conditions={"encoder_hidden_states": cond},
        guidance=logsnr.Guidance(7.5, uncond={"encoder_hidden_states": uncond}),
    )
    x = logsnr.start(den.schedule, shape, seed=0, device=cond.device)
    return logsnr.sample(den, x, solver="dpmpp-2m", steps=20, grid="karras")
