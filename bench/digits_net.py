"""A real trained network, small enough to ship: it generates handwritten digits of 8 x 8 pixels on a CPU."""

import math
from importlib import resources

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from ..solvers.schedules.formulas import VPLinear

SCHEDULE = VPLinear()
PREDICTION = "v"

CHANNELS = 32  # at 8 x 8
INNER = 64  # at 4 x 4
EMBED = 64
FREQUENCIES = 8
GROUPS = 8
DROPOUT = 0.1


class DigitsNet(nn.Module):
    """Predicts v = alpha eps - sigma x0 on `SCHEDULE`, from x (B, 1, 8, 8) in the weights' dtype and t (B,).

    A U-Net of two levels with 246,241 weights. v is the head that loses nothing anywhere on the path:
    x0 = alpha x - sigma v and eps = sigma x + alpha v divide by nothing, and the size of v stays near 1.
    Activations and normalisations are smooth and the time enters through lam = half_logsnr(t), so the ODE in
    lam has all derivatives and high orders can be measured on it. t may be of any floating dtype.
    Raises ValueError for x of another shape.
    """

    def __init__(self) -> None:
        super().__init__()
        self.time = TimeEmbedding()
        self.into = nn.Conv2d(1, CHANNELS, 3, padding=1)
        self.place = nn.Parameter(0.1 * torch.randn(1, CHANNELS, 8, 8))
        self.fine_in = Residual(CHANNELS, CHANNELS)
        self.down = nn.Conv2d(CHANNELS, INNER, 2, stride=2)
        self.coarse = nn.ModuleList([Residual(INNER, INNER, dropout=DROPOUT) for _ in range(2)])
        self.up = nn.ConvTranspose2d(INNER, CHANNELS, 2, stride=2)
        self.fine_out = Residual(2 * CHANNELS, CHANNELS)
        self.norm = nn.GroupNorm(GROUPS, CHANNELS)
        self.out = nn.Conv2d(CHANNELS, 1, 3, padding=1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1:] != (1, 8, 8):
            raise ValueError(f"x has shape {tuple(x.shape)}; this network takes (B, 1, 8, 8)")
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


def load_digits_net() -> DigitsNet:
    """The trained network in float32 on the CPU, in eval mode, without gradients of its weights.

    Wrap it as Denoiser(net, SCHEDULE, prediction=PREDICTION), which are VPLinear() and "v". `.double()` makes
    it the float64 model that references are integrated with. `python -m logsnr.bench.train_digits` trains it;
    the data and their licence are those of `logsnr.analysis.digits`.
    """
    weights = resources.files(__package__).joinpath("data", "digits_net.safetensors").read_bytes()
    net = DigitsNet()
    net.load_state_dict(load(weights))
    return net.requires_grad_(False).eval()
