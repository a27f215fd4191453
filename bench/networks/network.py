"""A U-Net of two levels, small enough to train on a CPU and to ship with its weights."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...solvers.schedules.formulas import VPLinear

SCHEDULE = VPLinear()
PREDICTION = "v"

WIDTH = 32  # channels at full size
INNER = 64  # at half of it
EMBED = 64
FREQUENCIES = 8
GROUPS = 8
DROPOUT = 0.1


class UNet(nn.Module):
    """Predicts v = alpha eps - sigma x0 on `SCHEDULE`, from x (B, channels, size, size) in the weights' dtype and t
    (B,).

    v is the head that loses nothing anywhere on the path: x0 = alpha x - sigma v and eps = sigma x + alpha v divide by
    nothing, and the size of v stays near 1. Activations and normalisations are smooth and the time enters through
    lam = half_logsnr(t), so the ODE in lam has all derivatives and high orders can be measured on it. t may be of any
    floating dtype. Raises ValueError for x of another shape.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.event = channels, size, size
        self.time = TimeEmbedding()
        self.into = nn.Conv2d(channels, WIDTH, 3, padding=1)
        self.place = nn.Parameter(0.1 * torch.randn(1, WIDTH, size, size))
        self.fine_in = Residual(WIDTH, WIDTH)
        self.down = nn.Conv2d(WIDTH, INNER, 2, stride=2)
        self.coarse = nn.ModuleList([Residual(INNER, INNER, dropout=DROPOUT) for _ in range(2)])
        self.up = nn.ConvTranspose2d(INNER, WIDTH, 2, stride=2)
        self.fine_out = Residual(2 * WIDTH, WIDTH)
        self.norm = nn.GroupNorm(GROUPS, WIDTH)
        self.out = nn.Conv2d(WIDTH, channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1:] != self.event:
            raise ValueError(f"x has shape {tuple(x.shape)}; this network takes (B, {', '.join(map(str, self.event))})")
        time = self.time(t)
        fine = self.fine_in(self.into(x) + self.place, time)
        h = self.down(fine)
        for block in self.coarse:
            h = block(h, time)
        h = self.fine_out(torch.cat([self.up(h), fine], dim=1), time)
        return self.out(F.silu(self.norm(h)))


class Residual(nn.Module):
    """x + f(x, time): two 3 x 3 convolutions, the second normalisation scaled and shifted by the time."""

    def __init__(self, channels: int, out_channels: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.modulate = nn.Linear(EMBED, 2 * out_channels)
        self.norm2 = nn.GroupNorm(GROUPS, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulate(time)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(self.norm2(h) * (1 + scale) + shift)
        return self.skip(x) + self.conv2(self.dropout(h))


class TimeEmbedding(nn.Module):
    """t (B,) -> features (B, EMBED), smooth in lam = half_logsnr(t) and finite at its infinite ends.

    u = tanh(lam / 8) runs from -0.56 to 0.52 between t_start and t_end, where the fastest sinusoid has little
    more than two periods. Float64 up to the sinusoids, so that they are exact for a float64 network.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * FREQUENCIES, EMBED), nn.SiLU(), nn.Linear(EMBED, EMBED), nn.SiLU())

    def forward(self, t: Tensor) -> Tensor:
        u = torch.tanh(SCHEDULE.half_logsnr(t.double()) / 8)
        angles = u[:, None] * torch.arange(1, FREQUENCIES + 1, dtype=u.dtype, device=u.device) * (math.pi / 2)
        features = torch.cat([angles.sin(), angles.cos()], dim=1)
        return self.mlp(features.to(next(self.mlp.parameters()).dtype))
