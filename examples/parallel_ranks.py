"""What several processes can share: one long run, and a batch.

    torchrun --nproc-per-node 2 examples/parallel_ranks.py

On a machine with GPUs every process takes one, otherwise all run on the CPU.
"""

import os
from datetime import timedelta

import torch
from torch import distributed

import logsnr
from logsnr.bench.digits_net import PREDICTION, SCHEDULE, load_digits_net

EACH = 16  # samples of a rank


def main() -> None:
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if gpu else "gloo", timeout=timedelta(seconds=60))
    den = logsnr.Denoiser(load_digits_net().to(device), SCHEDULE, PREDICTION)
    share_a_run(den, device)
    share_a_batch(den, device)
    distributed.destroy_process_group()


def share_a_run(den: logsnr.Denoiser, device: torch.device) -> None:
    """All ranks make the same call, and have the same answer; each evaluates its part of every window."""
    x = logsnr.randn((1, 1, 8, 8), seed=0, device=device)
    how = logsnr.Picard(window=64, ranks=True)
    found = logsnr.solve(den, x, solver="ddim", steps=1000, parallel=how)
    if distributed.get_rank() == 0 and found.certificate is not None:
        print(f"ddim on {distributed.get_world_size()} ranks: {found.rounds} rounds, {found.nfe} evaluations")
        print(f"about {found.certificate.distance.max():.0e} or less from the sequential answer")


def share_a_batch(den: logsnr.Denoiser, device: torch.device) -> None:
    """Each rank draws its own samples: with their ids, they are those that one process draws."""
    rank, ranks = distributed.get_rank(), distributed.get_world_size()

    def draw(ids: range, solver: str) -> torch.Tensor:
        x = logsnr.randn((len(ids), 1, 8, 8), seed=0, sample_ids=ids, device=device)
        return logsnr.sample(den, x, solver=solver, steps=20, seed=0, sample_ids=ids)

    for solver in ("dpmpp-2m", "sde-dpmpp-2m"):
        mine = draw(range(EACH * rank, EACH * (rank + 1)), solver)
        parts = [torch.empty_like(mine) for _ in range(ranks)]
        distributed.all_gather(parts, mine)
        if rank == 0:
            off = (torch.cat(parts) - draw(range(EACH * ranks), solver)).abs().max()
            print(f"{solver}: {EACH * ranks} samples of {ranks} ranks, {off:.0e} from those of one")


if __name__ == "__main__":
    main()
