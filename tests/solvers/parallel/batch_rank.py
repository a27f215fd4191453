"""One of four ranks: ``python batch_rank.py RANK STORE``. Rank 0 leaves STORE.pt: what two and what four share."""

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
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=4, timeout=timeout)
    try:
        whole = shared(rank)
    finally:
        distributed.destroy_process_group()  # or gloo's threads may let go of tensors when Python is gone, and abort
    if rank == 0:
        torch.save(whole, f"{store}.pt")


def shared(rank: int) -> dict[int, list[torch.Tensor]]:
    """By how many ranks shared it: what each solver draws, as this rank knows it."""
    whole = {}
    for ranks, group in [(2, distributed.new_group([0, 1])), (4, None)]:
        if rank < ranks:
            mine = torch.arange(SAMPLES).tensor_split(ranks)[rank].tolist()
            parts: list[list[torch.Tensor]] = [[]] * ranks
            distributed.all_gather_object(parts, [draw(mine, solver) for solver in SOLVERS], group)
            whole[ranks] = [torch.cat(part) for part in zip(*parts, strict=True)]
    return whole


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
