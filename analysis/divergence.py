"""The trace of the Jacobian of a map, exact or by random probes, from products with its transpose.

Hutchinson (1990): E[v^T J v] = tr J for random signs v. Hutch++ (Meyer et al. 2021, algorithm 1): the trace within
the span Q of J^T S, S random, is taken as it is, and probes see only what Q leaves: for Jacobians of a few large
eigenvalues the variance is much less. Q depends on S alone, so the estimate is unbiased, and the probes tell its error.
What Q leaves of a probe is given the length that it should have (Epperly et al. 2024, XTrace): a multiple of the
identity, which Jacobians are nearly where there is little noise, is then exact too.
"""

from collections.abc import Callable
from typing import Protocol

import torch

from ..solvers.runs.normals import randn

METHODS = ("exact", "hutchinson", "hutch++")
ENOUGH = 8  # estimates, to tell their error: of 4, a third of 12 probes, intervals of 95 % cover 92 %
Transposed = Callable[[torch.Tensor], torch.Tensor]  # v (B, D) -> J^T v


class Trace(Protocol):
    """``rows``: how many independent estimates are made."""

    rows: int

    def __call__(self, product: Transposed) -> torch.Tensor:
        """(rows, B), float64."""


def trace(method: str, x: torch.Tensor, probes: int, seed: int) -> Trace:
    """The estimator for states like ``x`` (B, ...). Its ``probes`` are products with J^T at every evaluation; they are
    addressed by the number of the sample, so that it has the same ones in any batch, and stay for the whole path."""
    size = x.shape[1:].numel()
    if method == "exact":
        return Exact(x.new_zeros(len(x), size, dtype=torch.float64))
    normals = randn((len(x), probes, size), seed=seed, dtype=torch.float64, device=x.device)
    signs = torch.where(normals < 0, -1.0, 1.0).double().movedim(1, 0)
    if method == "hutchinson" or not size:
        return Hutchinson(signs)
    rank = min(probes // 3, max((probes - ENOUGH) // 2, 1))
    return HutchPlusPlus(signs[: min(rank, size)], normals[:, rank : probes - rank].movedim(1, 0))


class Exact:
    """One product for every element of a sample."""

    rows = 1

    def __init__(self, zero: torch.Tensor) -> None:
        self.zero = zero

    def __call__(self, product: Transposed) -> torch.Tensor:
        total = self.zero[:, :1].sum(1)
        for i in range(self.zero.shape[1]):
            unit = self.zero.clone()
            unit[:, i] = 1.0
            total = total + product(unit)[:, i]
        return total[None]


class Hutchinson:
    """signs: (P, B, D)."""

    def __init__(self, signs: torch.Tensor) -> None:
        self.signs, self.rows = signs, len(signs)

    def __call__(self, product: Transposed) -> torch.Tensor:
        return torch.stack([(v * product(v)).sum(1) for v in self.signs])


class HutchPlusPlus:
    """sketch: (K, B, D), K <= D. normals: (P, B, D), independent of it."""

    def __init__(self, sketch: torch.Tensor, normals: torch.Tensor) -> None:
        self.sketch, self.normals, self.rows = sketch, normals, len(normals)

    def __call__(self, product: Transposed) -> torch.Tensor:
        basis = torch.linalg.qr(torch.stack([product(v) for v in self.sketch], 2)).Q  # (B, D, K)
        within = sum((q * product(q)).sum(1) for q in basis.unbind(2))
        return torch.stack([within + self._left(basis, v, product) for v in self.normals])

    def _left(self, basis: torch.Tensor, v: torch.Tensor, product: Transposed) -> torch.Tensor:
        """v^T J v of the part of v across the basis, of the length sqrt(D - K)."""
        size, rank = basis.shape[1:]
        for _ in range(2):  # once more for what rounding leaves
            v = v - (basis @ (basis.mT @ v[:, :, None]))[:, :, 0]
        square = v.square().sum(1).clamp_min(torch.finfo(v.dtype).tiny)
        return (size - rank) * (v * product(v)).sum(1) / square
