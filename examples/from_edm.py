"""Images from a checkpoint of EDM or EDM2, with classes.

python examples/from_edm.py edm-cifar10-32x32-cond-vp.pkl    # from a checkout of NVlabs/edm, which defines the class
"""

import pickle
import sys

import torch

import logsnr


def generate(net: torch.nn.Module, labels: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """x of ``shape`` (B, ...); labels (B, classes), one-hot."""
    den = logsnr.wrap(net, conditions={"class_labels": labels}, shape=shape)
    x = logsnr.start(den.schedule, shape, seed=0, device=labels.device)
    return logsnr.sample(den, x, solver="dpmpp-3m", steps=18, grid="karras")


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        net = pickle.load(file)["ema"].eval()
    labels = torch.eye(net.label_dim)[:8]
    print(generate(net, labels, (8, net.img_channels, net.img_resolution, net.img_resolution)).std())
