"""One of two ranks: ``python batch_rank.py RANK STORE``. Rank 0 leaves STORE.pt: what both have drawn."""

import sys
from collections.abc import Iterable
from datetime import timedelta

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


def main(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    timeout = timedelta(seconds=30)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timeout)
    try:
        whole = shared(rank)
    finally:
        distributed.destroy_process_group()  # or gloo's threads may let go of tensors when Python is gone, and abort
    if rank == 0:
        torch.save(whole, f"{store}.pt")


def shared(rank: int) -> list[torch.Tensor]:
    """What each solver draws on both ranks, as this one knows it."""
    mine = torch.arange(SAMPLES).tensor_split(2)[rank].tolist()
    parts: list[list[torch.Tensor]] = [[], []]
    distributed.all_gather_object(parts, [draw(mine, solver) for solver in SOLVERS])
    return [torch.cat(part) for part in zip(*parts, strict=True)]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
