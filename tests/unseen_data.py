"""Data that no universal table was fitted to, and how far samples of them are from where they should end."""

from typing import Any

import torch

import logsnr
from logsnr.analysis.mixture import GaussianMixture


def unseen(dim: int = 16) -> GaussianMixture:
    """Not of the family: another law of means and variances, and another seed."""
    g = torch.Generator().manual_seed(3)
    mu, s2, odds = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((8, dim), (8, dim), (8,)))
    return GaussianMixture(0.5 * mu, torch.exp(0.7 * s2 - 3), torch.softmax(odds, 0))


def median(data: GaussianMixture, sch: logsnr.Schedule, end: torch.Tensor, x: torch.Tensor, **options: Any) -> float:
    found = logsnr.sample(data.denoiser(sch), x, **options)
    return float((found - end).square().mean(1).sqrt().median())


def best_of(names: tuple[str, ...], *problem: Any, nfe: int) -> float:
    """The least median of these solvers, on two grids."""
    return min(median(*problem, solver=name, nfe=nfe, grid=grid) for name in names for grid in ("logsnr", "karras"))
