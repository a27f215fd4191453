"""What two ranks draw of one batch, each its own ids; picard_rank.py runs it."""

from collections.abc import Iterable

import torch
from torch import distributed

import logsnr

SAMPLES = 10
SOLVERS = ("dpmpp-2m", "sde-dpmpp-2m")


def draw(ids: Iterable[int], solver: str) -> torch.Tensor:
    """These samples, by a model whose answers do not depend on the batch."""
    den = logsnr.Denoiser(lambda x, t: x / (1 + x * x) - 0.3 * t.reshape(-1, 1), logsnr.VPLinear(), "eps")
    ids = list(ids)
    x = logsnr.randn((len(ids), 6), seed=3, sample_ids=ids)
    return logsnr.sample(den, x, solver=solver, steps=8, seed=3, sample_ids=ids)


def shared(rank: int) -> list[torch.Tensor]:
    """What each solver draws on both ranks, as this one knows it."""
    mine = torch.arange(SAMPLES).tensor_split(2)[rank].tolist()
    parts: list[list[torch.Tensor]] = [[], []]
    distributed.all_gather_object(parts, [draw(mine, solver) for solver in SOLVERS])
    return [torch.cat(part) for part in zip(*parts, strict=True)]
