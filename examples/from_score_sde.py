"""Images from a network of score_sde_pytorch: "vp", "subvp" or "ve", trained with continuous times.

For images in [0, 1], as its "ve" models have them, nothing changes but the pictures.
"""

import torch

import logsnr
from logsnr.integrations import score_sde


def generate(net: torch.nn.Module, kind: str, shape: tuple[int, ...]) -> torch.Tensor:
    den = score_sde(net, kind)
    x = logsnr.start(den.schedule, shape, seed=0)
    return logsnr.sample(den, x, solver="dpmpp-2m", steps=20)
