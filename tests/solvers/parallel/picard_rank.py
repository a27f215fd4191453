"""One rank of a parallel run: ``python picard_rank.py RANK RANKS STORE CASE`` leaves STORE.RANK.pt, also of a
batch that the ranks share, or ends in error.

CASE: what the last rank does: "right", "other" (starts elsewhere), "dies" or "hangs" in its third call.
"""

import os
import sys
import time
from datetime import timedelta

import torch
from batch_rank import shared
from torch import distributed

import logsnr

PATIENCE = {"right": 60}  # seconds; where a rank fails, less, as the others wait so long for it


def main(rank: int, ranks: int, store: str, case: str) -> None:
    torch.set_num_threads(1)
    sizes: list[int] = []

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        if rank == ranks - 1 and len(sizes) == 3:
            if case == "dies":
                os._exit(7)
            if case == "hangs":
                time.sleep(60)
        return x / (1 + x * x) - 0.3 * t.reshape(-1, 1)

    limit = timedelta(seconds=PATIENCE.get(case, 6))
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=limit)
    x = torch.linspace(-2, 3, 30).reshape(3, 10) + (case == "other") * rank
    den = logsnr.Denoiser(model, logsnr.VPLinear(), "eps")
    how = logsnr.Picard(window=7, tol=1e-4, ranks=True)
    try:
        found = logsnr.solve(den, x, solver="sde-dpmpp-2m", steps=20, seed=5, parallel=how)
        batch = shared(rank)
    finally:
        distributed.destroy_process_group()  # or gloo's threads may let go of tensors when Python is gone, and abort
    torch.save((found.x, found.rounds, found.nfe, sizes, batch), f"{store}.{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
