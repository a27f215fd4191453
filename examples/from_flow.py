"""Images from a flow model: torchcfm, flow_matching, rectified flow. The data are at its t = 1.

Noise alone cannot tell the direction; a few of the training images can: `logsnr.check`.
"""

import torch

import logsnr
from logsnr.integrations import flow


def generate(net: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """As many images as are given, which are the net's training data, (B, ...)."""
    den = flow(lambda x, t: net(t, x), data_at=1)  # torchcfm's networks take t first
    found = logsnr.check(den, images)
    print(found)
    x = logsnr.start(den.schedule, tuple(images.shape), seed=0, device=images.device)
    return logsnr.sample(den, x, solver="deis-3", steps=10, grid="time")
