"""One rank of a parallel run: ``python picard_rank.py RANK RANKS STORE CASE`` ends in error.

CASE: what the last rank does: "other" (starts elsewhere), "dies" or "hangs" in its third call. Before it dies all have
made a right run, and one of a batch that they share, and leave both in STORE.RANK.pt.
"""

import os
import sys
import time
from datetime import timedelta

import torch
from batch_rank import shared
from torch import distributed

import logsnr

PATIENCE = {"dies": 60}  # seconds; else less, as the others wait so long for a rank that fails
HOW = logsnr.Picard(window=7, tol=1e-4, ranks=True)


def main(rank: int, ranks: int, store: str, case: str) -> None:
    torch.set_num_threads(1)
    sizes: list[int] = []

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return x / (1 + x * x) - 0.3 * t.reshape(-1, 1)

    def failing(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if rank == ranks - 1 and len(sizes) == 2:
            if case == "dies":
                os._exit(7)
            if case == "hangs":
                time.sleep(60)
        return model(x, t)

    limit = timedelta(seconds=PATIENCE.get(case, 6))
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=limit)
    x = torch.linspace(-2, 3, 30).reshape(3, 10) + (case == "other") * rank
    right, wrong = (logsnr.Denoiser(asked, logsnr.VPLinear(), "eps") for asked in (model, failing))
    given = dict(solver="sde-dpmpp-2m", steps=20, seed=5, parallel=HOW)
    try:
        if case == "dies":
            found = logsnr.solve(right, x, **given)
            torch.save((found.x, found.rounds, found.nfe, sizes, shared(rank)), f"{store}.{rank}.pt")
            sizes.clear()
        logsnr.solve(wrong, x, **given)
    finally:
        distributed.destroy_process_group()  # or gloo's threads may let go of tensors when Python is gone, and abort


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
