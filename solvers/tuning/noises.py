"""Noises that a table is fitted to, or judged by."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

FLOOR = 1e-4  # of the data's spread


@dataclass(frozen=True)
class Noises:
    """Starts u and where they should end, (B, ...) float64 on the unit circle. unit: the data's spread. floor: errors
    below it, in this unit, count as none. share: so do those below this share of the median. samples: int64 (B,), which
    ones they are of the denoiser's batch. rows: how many in a row no fit may part. batch: how many a model is asked for
    at once, all if none."""

    u: torch.Tensor
    end: torch.Tensor
    unit: float
    floor: float = FLOOR
    samples: torch.Tensor | None = None
    rows: int = 1
    share: float = 0.0
    batch: int | None = None

    def __len__(self) -> int:
        return len(self.u)

    def part(self, which: slice) -> "Noises":
        samples = None if self.samples is None else self.samples[which]
        return replace(self, u=self.u[which], end=self.end[which], samples=samples)

    def parts(self, few: int | None = None) -> Iterator["Noises"]:
        """In their order, of ``few`` each if that is less than ``batch``, one at least."""
        most = min(len(self) if few is None else few, self.batch or len(self))
        most = max(1, most // self.rows) * self.rows
        return (self.part(slice(k, k + most)) for k in range(0, len(self), most))

    def errors(self, end: torch.Tensor) -> torch.Tensor:
        """Root-mean-square by sample (B,), in units of the data's spread; a run that diverged is infinitely far."""
        apart = (end - self.end).flatten(1).square().mean(1).sqrt() / self.unit
        return torch.nan_to_num(apart, nan=torch.inf, posinf=torch.inf)

    def near(self, errors: torch.Tensor) -> "Noises":
        """With the floor that errors as these (B,) have."""
        finite = errors[torch.isfinite(errors)]
        if not self.share or not len(finite):
            return self
        return replace(self, floor=max(self.floor, self.share * float(finite.median())))

    def weights(self, errors: torch.Tensor) -> torch.Tensor:
        """Of the residuals, by sample (B,): 1 / (e (e + floor)) for their squares makes the gradient that of the mean
        log error. A run that diverged has none."""
        weights = (1 / (errors * (errors + self.floor)).clamp_min(1e-12)).sqrt() / self.unit
        return torch.where(torch.isfinite(errors), weights, 0.0)

    def loss(self, errors: torch.Tensor) -> float:
        """The mean log error."""
        return float(torch.log(errors + self.floor).mean())
