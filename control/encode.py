"""From data to the noise that a sampler makes it of, and back: the probability-flow ODE in both directions."""

from typing import Any

import torch

from ..solvers.denoisers.denoiser import Denoiser, check_denoiser
from ..solvers.programs.call import NoiseKey
from ..solvers.programs.program import Program
from ..solvers.sampling import solve


def encode(den: Denoiser, x0: torch.Tensor, **options: Any) -> torch.Tensor:
    """The latent of data: the state at t_start from which the flow of ``den`` comes to ``x0``, the state at t_end.

    x0:      (B, ...), floating. options: as for `logsnr.solve`: ``solver``, ``steps``, ``rtol``, ...; ``t_start`` and
             ``t_end`` are the ends of the span that `decode` then runs, from noise to data.

    The round trip is as exact as the solver. Raises ValueError for solvers that add noise, and what `solve` raises.
    """
    if isinstance(options.get("solver"), Program):
        raise ValueError("a program has its own direction: name its solver here, or run it by logsnr.sample")
    first, last = options.pop("t_start", None), options.pop("t_end", None)
    check_denoiser(den)
    if getattr(first, "ndim", 0):
        raise ValueError(f"t_start must be one number for all samples that are encoded, not {first!r:.60}")
    sch = den.schedule
    first, last = sch.t_start if first is None else first, sch.t_end if last is None else last
    return _flow(den, x0, t_start=last, t_end=first, **options)


def decode(den: Denoiser, latent: torch.Tensor, **options: Any) -> torch.Tensor:
    """The data that comes of a latent: `logsnr.sample` without noise, over the span of `encode`."""
    return _flow(den, latent, **options)


def _flow(den: Denoiser, x: torch.Tensor, **options: Any) -> torch.Tensor:
    return solve(den, x, noise=_refused, **options).x


def _refused(key: NoiseKey, like: torch.Tensor) -> torch.Tensor:
    raise ValueError("this solver adds noise, and many latents lead to the same data: take one without, as dpmpp-2m")
