"""A perceptron that says eps, trained in seconds as DDPM's networks are: what a first network of one's own is like.

Its answers are worse than those of the package's other networks where it matters: an error of eps is one of x0 that is
sigma / alpha times as large, 160 times at the noisy end of these levels, and its embedding of time is rough.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from ...solvers.denoisers.denoiser import Denoiser
from ...solvers.schedules.tabulated import Discrete

LEVELS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)  # alpha^2 (Ho et al. 2020)
WIDTH, FREQUENCIES = 128, 32
STEPS, BATCH, RATE = 8000, 512, 1e-3


class Perceptron(nn.Module):
    """eps of x (B, D) and the index t (B,) of a level."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        sizes = [dim + 2 * FREQUENCIES, WIDTH, WIDTH, WIDTH, dim]
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*layers[:-1])
        self.rates = nn.Buffer(torch.exp(-math.log(1e4) * torch.arange(FREQUENCIES) / FREQUENCIES))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = t.to(x.dtype)[:, None] * self.rates
        return self.layers(torch.cat([x, torch.sin(angle), torch.cos(angle)], 1))


def trained_perceptron(data: Tensor, steps: int = STEPS, seed: int = 0) -> Denoiser:
    """The denoiser of a network that is trained on points (N, D), a float64 model on DDPM's levels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, x0 = Perceptron(data.shape[1]), data.float()
        optimiser = torch.optim.Adam(net.parameters(), RATE)
        for _ in range(steps):
            t = torch.randint(len(LEVELS), (BATCH,))
            alpha, eps = LEVELS[t].float().sqrt()[:, None], torch.randn(BATCH, data.shape[1])
            x = alpha * x0[torch.randint(len(x0), (BATCH,))] + (1 - alpha * alpha).sqrt() * eps
            loss = (net(x, t) - eps).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return Denoiser(net.requires_grad_(False).eval().double(), Discrete(LEVELS.numpy()), "eps")
