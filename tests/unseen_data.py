"""Data that no universal table was fitted to, and how far samples of them are from where they should end."""

from collections.abc import Sequence
from typing import Any

import torch

import logsnr
from logsnr.analysis.mixture import GaussianMixture


def unseen(dim: int = 16) -> GaussianMixture:
    """Not of the family: another law of means and variances, and another seed."""
    g = torch.Generator().manual_seed(3)
    mu, s2, odds = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((8, dim), (8, dim), (8,)))
    return GaussianMixture(0.5 * mu, torch.exp(0.7 * s2 - 3), torch.softmax(odds, 0))


def median(den: logsnr.Denoiser, end: torch.Tensor, x: torch.Tensor, **options: Any) -> float:
    found = logsnr.sample(den, x, **options)
    return float((found - end).flatten(1).square().mean(1).sqrt().median())


def best_of(names: Sequence[str], *problem: Any, nfe: int, grids: Sequence[str] = ("logsnr", "karras")) -> float:
    """The least median of these solvers, on these grids."""
    return min(median(*problem, solver=name, nfe=nfe, grid=grid) for name in names for grid in grids)
