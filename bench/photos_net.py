"""A network trained on patches of two photographs, 3 x 16 x 16: data with directions far wider than a pixel.

The mean brightness of a patch varies by about 14, in the norm of the whole patch, where a pixel varies by 0.6. So the
flow bends long before it does for digits.

Photographs: "china" by danielbuechele (https://www.flickr.com/photos/danielbuechele/6061409035/) and "flower" by
vultilion (https://www.flickr.com/photos/vultilion/6056698931/), both CC BY 2.0, as scikit-learn ships them.
"""

from functools import cache
from importlib import resources

import numpy as np
import torch
from safetensors.torch import load

from .networks.network import PREDICTION, SCHEDULE, UNet

__all__ = ["PREDICTION", "SCHEDULE", "SIZE", "PhotosNet", "load_patches", "load_photos_net", "training_patches"]

SIZE = 16
STRIDE = 4  # between patches that are trained on
HELD_OUT = 96  # columns at the right edge of each photograph that are not


class PhotosNet(UNet):
    """For x (B, 3, 16, 16): 254,311 weights."""

    def __init__(self) -> None:
        super().__init__(channels=3, size=SIZE)


def training_patches() -> torch.Tensor:
    """float32 (N, 3, 16, 16) in [-1, 1]: the patches that the network is trained on. ImportError without scikit-learn
    and Pillow, which have the photographs."""
    from sklearn.datasets import load_sample_images

    return torch.cat([_cut(photo[:, :-HELD_OUT], STRIDE) for photo in load_sample_images().images])


def held_out_patches() -> torch.Tensor:
    """uint8 (N, 16, 16, 3): patches beside each other of the strips that are not trained on; see `training_patches`."""
    from sklearn.datasets import load_sample_images

    strips = [photo[:, -HELD_OUT:] for photo in load_sample_images().images]
    return torch.cat([_patches(strip, SIZE) for strip in strips])


def _patches(photo: np.ndarray, stride: int) -> torch.Tensor:
    """uint8 (N, 16, 16, 3)."""
    found = torch.from_numpy(photo.copy()).unfold(0, SIZE, stride).unfold(1, SIZE, stride)
    return found.permute(0, 1, 3, 4, 2).reshape(-1, SIZE, SIZE, 3)


def _cut(photo: np.ndarray, stride: int) -> torch.Tensor:
    return scaled(_patches(photo, stride))


def scaled(patches: torch.Tensor) -> torch.Tensor:
    """float32 (N, 3, 16, 16) in [-1, 1] of uint8 (N, 16, 16, 3)."""
    return (patches.float() / 127.5 - 1).permute(0, 3, 1, 2)


@cache
def _stored() -> torch.Tensor:
    with resources.files(__package__).joinpath("data", "patches.npz").open("rb") as file, np.load(file) as arrays:
        return torch.from_numpy(arrays["patches"])


def load_patches() -> torch.Tensor:
    """float32 (312, 3, 16, 16) in [-1, 1]: patches of the strips that the network has not seen."""
    return scaled(_stored())


def load_photos_net() -> PhotosNet:
    """The trained network in float32 on the CPU, in eval mode, without gradients of its weights.

    Wrap it as Denoiser(net, SCHEDULE, prediction=PREDICTION), which are VPLinear() and "v".
    `python -m logsnr.bench.networks.train photos` trains it.
    """
    weights = resources.files(__package__).joinpath("data", "photos_net.safetensors").read_bytes()
    net = PhotosNet()
    net.load_state_dict(load(weights))
    return net.requires_grad_(False).eval()
