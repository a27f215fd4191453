"""Rounds of a parallel run shared by the ranks of torch.distributed: each evaluates its part of the nodes."""

from typing import Any

import torch
from torch import distributed

from ...kernels import Seeds
from .common import Evaluate


def check_ranks(x: torch.Tensor, noise: Any) -> None:
    """Raise ValueError unless there are ranks and all have come with the same start and seeds: they carry the program
    out each for itself, and must agree on every window."""
    if not (distributed.is_available() and distributed.is_initialized()):
        raise ValueError(
            "ranks = True needs ranks: call torch.distributed.init_process_group first, as torchrun expects"
        )
    seeds = [column.tolist() for column in noise] if isinstance(noise, Seeds) else None
    mine = tuple(x.shape), str(x.dtype), float(x.double().sum()), float(x.double().square().sum()), seeds
    all_of_them: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(all_of_them, mine)
    if any(other != all_of_them[0] for other in all_of_them):
        raise ValueError("all ranks must run from the same x and with the same seed; give seed=")


def shared(evaluate: Evaluate) -> Evaluate:
    """The same answers, of which each rank computes its share. The last shares are filled up with the last node."""

    def evaluate_shares(nodes: torch.Tensor, calls: torch.Tensor, samples: torch.Tensor) -> list[torch.Tensor]:
        ranks, rank, count = distributed.get_world_size(), distributed.get_rank(), len(nodes)
        share = -(-count // ranks)
        mine = torch.arange(rank * share, (rank + 1) * share, device="cpu").clamp(max=count - 1)
        results = []
        for rows in evaluate(nodes[mine.to(nodes.device)], calls[mine], samples[mine]):
            parts = [torch.empty_like(rows) for _ in range(ranks)]
            distributed.all_gather(parts, rows)
            results.append(torch.cat(parts)[:count].contiguous())
        return results

    return evaluate_shares
