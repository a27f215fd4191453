"""Answers of denoisers that nothing exact is known of: a fine solve, path by path and in law."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from ..solvers.denoiser import Denoiser
from ..solvers.tune_teacher import ends

TARGET, POOL = 128, 256  # ends that samples are compared with, and that exact samples are drawn from
SEED = 1 << 40  # far from those that a user would name


def fine_ends(den: Denoiser, x: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Where the PF-ODE takes the starts x, float64, and by how much that may be off: the median over the samples."""
    sch = den.schedule
    found = ends(den, x, sch.t_start, sch.t_end)
    return found.end, found.error


@dataclass(frozen=True, eq=False)
class FineLaw:
    """The law of the ends of fine solves, as `Law` has it; they are computed when they are first asked for.

    starts: from a number and a seed to pure noise.
    """

    den: Denoiser
    starts: Callable[[int, int], torch.Tensor]
    samples: int = 100
    default: bool = False
    target_told: str = f"the ends of {TARGET} fine solves from other noise"
    draw_told: str = f"drawn from the ends of {POOL} fine solves"

    @cached_property
    def target(self) -> torch.Tensor:
        return self._ends(TARGET, SEED)

    @cached_property
    def _pool(self) -> torch.Tensor:
        return self._ends(POOL, SEED + 1)

    def _ends(self, count: int, seed: int) -> torch.Tensor:
        end, _ = fine_ends(self.den, self.starts(count, seed))
        return end[torch.isfinite(end.flatten(1)).all(1)]

    def draw(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """n of the pool, none twice before all are used."""
        rounds = -(-n // len(self._pool))
        order = torch.cat([torch.randperm(len(self._pool), generator=generator) for _ in range(rounds)])
        return self._pool[order[:n]]
