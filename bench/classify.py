"""Judges generated digits with a classifier trained on real ones: are they digits, and are all ten there?

`python -m logsnr.bench.classify --out PATH` trains it again, in about ten seconds.
"""

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, TypedDict

import torch
import typer
from rich import print
from rich.progress import track
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from ..analysis.digits import load_digits

EPOCHS = 40
BATCH = 64
SHIFT = 0.25  # pixels; enough to make the classifier indifferent to where the pen was
STRETCH = 0.06


class DigitClassifier(nn.Module):
    """Images (B, 1, 8, 8), any floating dtype, in [-1, 1] -> float32 probabilities (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1), nn.SiLU(),
            nn.Conv2d(24, 48, 3, padding=1, stride=2), nn.SiLU(),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(48 * 4 * 4, 10),
        )  # fmt: skip

    def logits(self, images: Tensor) -> Tensor:
        return self.layers(images.float())

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images).softmax(dim=1)


class Verdict(TypedDict):
    """What `judge` finds. `entropy` is that of the histogram, in bits: log2(10) = 3.32 if all are equal."""

    confidence: float
    histogram: list[int]
    entropy: float


@cache
def digit_classifier() -> DigitClassifier:
    """The stored classifier, in eval mode on the CPU: images (B, 1, 8, 8) -> probabilities (B, 10)."""
    weights = resources.files(__package__).joinpath("data", "digit_classifier.safetensors").read_bytes()
    net = DigitClassifier()
    net.load_state_dict(load(weights))
    return net.requires_grad_(False).eval()


def judge(images: Tensor) -> Verdict:
    """Mean probability of the likeliest class, images per class 0..9, and the entropy of that histogram.

    `images`: (B, 1, 8, 8), any floating dtype and device, paper -1 and ink +1; values beyond are clipped.
    Held-out real digits get a confidence of 0.986. Raises ValueError for another shape or an empty batch.
    """
    if images.ndim != 4 or images.shape[1:] != (1, 8, 8) or len(images) == 0:
        raise ValueError(f"images has shape {tuple(images.shape)}; need (B, 1, 8, 8) with B >= 1")
    confidence, label = digit_classifier()(images.detach().cpu().clamp(-1, 1)).max(dim=1)
    histogram = torch.bincount(label, minlength=10)
    share = histogram / histogram.sum()
    return Verdict(
        confidence=float(confidence.mean()),
        histogram=histogram.tolist(),
        entropy=float(-torch.xlogy(share, share).sum() / torch.log(torch.tensor(2.0))),
    )


def _jitter(images: Tensor) -> Tensor:
    """Moves and stretches each image by a fraction of a pixel: 1,498 digits are soon learnt by heart."""
    n = len(images)
    maps = torch.zeros(n, 2, 3)
    maps[:, :, :2] = torch.eye(2) + STRETCH * torch.randn(n, 2, 2)
    maps[:, :, 2] = SHIFT / 4 * torch.randn(n, 2)  # the image is 2 units wide, so a pixel is 1/4
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1  # outside is 0 to grid_sample: paper


def train(*, epochs: int = EPOCHS, seed: int = 0) -> DigitClassifier:
    """Trains on `load_digits(split="train")`; the same seed and thread count give the same weights."""
    torch.manual_seed(seed)
    images, labels = load_digits(split="train")
    net = DigitClassifier()
    steps = epochs * (len(labels) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    decay = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    for _ in track(range(steps), description="training the classifier"):
        batch = torch.randint(len(labels), (BATCH,))
        loss = F.cross_entropy(net.logits(_jitter(images[batch].float())), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    return net.eval()


def main(out: Annotated[Path, typer.Option(help="where to write the weights (.safetensors)")]) -> None:
    """Trains the digit classifier and reports its accuracy on the held-out digits."""
    if not out.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {out.parent}", param_hint="--out")
    net = train()
    images, labels = load_digits(split="test")
    with torch.no_grad():
        probabilities = net(images)
    accuracy = (probabilities.argmax(dim=1) == labels).double().mean()
    print(f"held-out accuracy {accuracy:.4f}, mean confidence {probabilities.amax(dim=1).mean():.4f}")
    out.write_bytes(save(net.state_dict()))
    print(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
