"""Images from a network of guided-diffusion, improved-diffusion or DiT, which returns a variance as well.

net, diffusion = create_model_and_diffusion(**options)    # of guided_diffusion.script_util
net.load_state_dict(torch.load("256x256_diffusion.pt"))
"""

from typing import Any

import torch

import logsnr


def generate(net: torch.nn.Module, diffusion: Any, labels: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """labels: int64 (B,). ``diffusion`` has the table, respaced or not."""
    den = logsnr.wrap(net, diffusion, conditions={"y": labels})
    x = logsnr.start(den.schedule, shape, seed=0, device=labels.device)
    return logsnr.sample(den, x, solver="dpmpp-2m", steps=20)
