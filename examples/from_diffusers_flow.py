"""Latents from a flow transformer of diffusers: Stable Diffusion 3.

c, _, pooled, _ = pipe.encode_prompt("a cat", "a cat", "a cat", do_classifier_free_guidance=False)
prompt = {"encoder_hidden_states": c, "pooled_projections": pooled}
latents = generate(pipe.transformer, pipe.scheduler, prompt, (1, 16, 64, 64))
"""

from typing import Any

import torch

import logsnr


def generate(
    transformer: torch.nn.Module, scheduler: Any, prompt: dict[str, torch.Tensor], shape: tuple[int, ...]
) -> torch.Tensor:
    """``prompt`` is what the transformer takes beside x and the time; each tensor has B rows."""
    den = logsnr.wrap(transformer, scheduler, conditions=prompt)
    x = logsnr.start(den.schedule, shape, seed=0, device=next(iter(prompt.values())).device)
    shift = scheduler.config["shift"]
    return logsnr.sample(den, x, solver="euler", steps=28, grid="time", shift=shift)
