"""Where the trajectories of a denoiser end: a fine solve, repeated with twice the steps until both agree."""

import warnings
from typing import Any, NamedTuple

import torch

from ..denoisers.denoiser import Denoiser
from ..finite import named
from ..planners.multistep import Adams
from ..sampling import solve

TEACHER = Adams("x0", 4, corrector=True, startup="single-step")  # of order 5
STEPS, DOUBLINGS = 64, 4
CLOSE, ROUGH = 1e-6, 3e-5  # of the spread: what is not worth more steps, with models in float64 and in others
AGREE = 0.9  # of the samples have to; those on a ridge between two modes never do


class Teacher(NamedTuple):
    """end: float64 (B, ...). error: the median distance of the samples from the solve with half the steps, of which the
    finer one's own error is a small part. good: (B,), whether the end is finite."""

    end: torch.Tensor
    error: float
    good: torch.Tensor


def ends(den: Denoiser, x: torch.Tensor, t_start: float, t_end: float, batch: int | None = None) -> Teacher:
    """The ends of the PF-ODE's trajectories from x (B, ...), ``batch`` of them at once, or all. ValueError where none
    is finite."""
    coarse, steps = _solved(den, x, t_start, t_end, STEPS, batch), STEPS
    close = CLOSE if den.dtype(x.double()) == torch.float64 else ROUGH
    for _ in range(DOUBLINGS):
        steps *= 2
        fine = _solved(den, x, t_start, t_end, steps, batch)
        good = torch.isfinite(fine.flatten(1)).all(1) & torch.isfinite(coarse.flatten(1)).all(1)
        if not good.any():
            raise ValueError("the model is not finite on the trajectory of any noise in x")
        apart = (fine - coarse)[good].flatten(1).square().mean(1).sqrt()
        if float(apart.quantile(AGREE)) <= close * spread(fine[good]):
            break
        coarse = fine
    return Teacher(fine, float(apart.median()), good)


def warn_of_missing(teacher: Teacher, what: str, stacklevel: int) -> None:
    """Warn of samples without an end, as what answers for them is not finite. stacklevel: of `warnings.warn`, from the
    caller on."""
    if bad := (~teacher.good).nonzero()[:, 0].tolist():
        which = named(bad, len(teacher.good), hint=False)
        warnings.warn(f"{what} is not finite for some noises, left out{which}", stacklevel=stacklevel + 1)


def spread(end: torch.Tensor) -> float:
    """The standard deviation of the samples' elements about the mean sample."""
    return max(float((end - end.mean(0)).square().mean().sqrt()), 1e-12)


def _solved(
    den: Denoiser, x: torch.Tensor, t_start: float, t_end: float, steps: int, batch: int | None
) -> torch.Tensor:
    options: dict[str, Any] = {"solver": TEACHER, "steps": steps, "t_start": t_start, "t_end": t_end, "on_nan": "keep"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the samples that are not finite, once is enough
        parts = torch.arange(len(x), device="cpu").split(batch or len(x))
        return torch.cat([solve(den.of_samples(part), x[part].double(), **options).x.double() for part in parts])
