"""Trains the networks of `digits_net` and `photos_net` from scratch:
`python -m logsnr.bench.networks.train digits --out PATH`.

Five to ten minutes on two cores for the digits, some twenty for the photographs.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich import print
from rich.progress import track
from rich.table import Table
from safetensors.torch import save
from torch import Tensor

from ...analysis.digits import load_digits
from ..command import run_command
from ..digits_net import DigitsNet
from ..photos_net import PhotosNet, held_out_patches, scaled, training_patches
from .network import SCHEDULE, UNet

LEARNING_RATE = 2e-3
WARMUP = 100
EMA = 0.999
SPREAD = 1.25
LOOKED_AT = 2000  # images that the report is about
REPORT_LAMS = (-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0)


class Data(NamedTuple):
    """What a network is trained on. seen, unseen: float32 (N, C, H, W). centre: the half-log-SNR about which they take
    their shape. least: the earliest time that is trained. told: whose the data are."""

    net: Callable[[], UNet]
    seen: Callable[[], Tensor]
    unseen: Callable[[], Tensor]
    steps: int
    batch: int
    centre: float
    least: float
    told: str


DATA = {
    "digits": Data(
        DigitsNet,
        lambda: load_digits(split="train")[0].float(),
        lambda: load_digits(split="test")[0].float(),
        4000,  # 6000 lower the mean loss of the report by 2.2 % on seen digits and 0.3 % on unseen ones
        128,
        0.0,
        0.0,
        "E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI, CC BY 4.0",
    ),
    "photos": Data(
        PhotosNet,
        training_patches,
        lambda: scaled(held_out_patches()),
        5000,
        48,
        -1.0,
        SCHEDULE.t_end,
        "photographs by danielbuechele and vultilion, CC BY 2.0",
    ),
}


def v_loss(net: UNet, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of v per image, (B,): that of x0 times 1 + SNR, so neither end is neglected."""
    alpha, sigma = (f(t)[:, None, None, None] for f in (SCHEDULE.alpha, SCHEDULE.sigma))
    error = net(alpha * x0 + sigma * noise, t) - (alpha * noise - sigma * x0)
    return error.square().mean(dim=(1, 2, 3))


def draw_times(count: int, centre: float = 0.0, least: float = 0.0) -> Tensor:
    """Training times (count,): stratified, with half-log-SNR of density 1 / (3.93 cosh(0.8 (lam - centre))).

    That is the cosine schedule's, widened; half of it lies within 1.1 of the centre. None is before ``least``.
    """
    u = (torch.arange(count) + torch.rand(count, dtype=torch.float64)) / count
    lam = centre - SPREAD * torch.log(torch.tan(math.pi / 2 * u.clamp(1e-6, 1 - 1e-6)))
    return SCHEDULE.time(lam).clamp(least, SCHEDULE.t_start).float()


def train(data: Data, steps: int) -> UNet:
    """The averaged network after so many steps of AdamW; every step seeds its own randomness."""
    torch.manual_seed(0)
    images, net, average = data.seen(), data.net(), data.net().requires_grad_(False).eval()
    average.load_state_dict(net.state_dict())
    optimiser = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99))
    for step in track(range(steps), "training"):
        torch.manual_seed(step)
        warm = min(1.0, (step + 1) / WARMUP)
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * warm * (1 + math.cos(math.pi * step / steps)) / 2
        x0 = images[torch.randint(len(images), (data.batch,))]
        loss = v_loss(net, x0, draw_times(data.batch, data.centre, data.least), torch.randn_like(x0)).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        decay = min(EMA, (1 + step) / (10 + step))  # a young average should not remember the untrained weights
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), net.parameters(), strict=True):
                mean.lerp_(weight, 1 - decay)
    return average


@torch.no_grad()
def report(net: UNet, data: Data) -> None:
    """Prints the loss on images that were trained on and on others; other tests of the networks are in the tests."""
    seen, unseen = (images()[:LOOKED_AT] for images in (data.seen, data.unseen))
    torch.manual_seed(0)
    losses = Table("half log-SNR", "seen", "unseen", title="mean squared error of v")
    for lam in REPORT_LAMS:
        t = torch.tensor(SCHEDULE.time(lam))
        rows = (v_loss(net, x, t.expand(len(x)).float(), torch.randn_like(x)).mean() for x in (seen, unseen))
        losses.add_row(f"{lam:g}", *(f"{loss:.4f}" for loss in rows))
    print(losses)


def main(
    name: Annotated[str, typer.Argument(help=f"Of {', '.join(DATA)}.", metavar="DATA")],
    out: Annotated[Path, typer.Option(help="where to write the weights (.safetensors)")],
    steps: Annotated[int | None, typer.Option(min=1, help="optimiser steps")] = None,
) -> None:
    """Trains a network, writes its weights and reports how good they are."""
    if name not in DATA:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(DATA)}", param_hint="DATA")
    if not out.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {out.parent}", param_hint="--out")
    data = DATA[name]
    net = train(data, steps or data.steps)
    model = f"{type(net).__module__}.{type(net).__name__}"
    metadata = {"model": f"{model}, predicts v on {SCHEDULE}", "data": data.told}
    out.write_bytes(save(net.state_dict(), metadata=metadata))
    print(f"wrote {out}")
    report(net, data)


if __name__ == "__main__":
    run_command(main)
