"""What log-likelihoods are asked of: numbers that fit, a span, and data that the model knows."""

import math
import warnings
from typing import Any

import numpy as np
import torch

from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.grids.grids import end_time
from ..solvers.planners.checks import choice
from ..solvers.programs.call import integer
from ..solvers.programs.program import Program
from .divergence import METHODS

RK4 = "rk4"
LEAST = {"exact": 1, "hutchinson": 2, "hutch++": 6}  # probes: two estimates, which tell an error
SIGNAL = 0.5  # alpha x / sigma at the noisy end, of which pure noise is no model
FAR = 20.0  # of the mean square of a latent, in deviations of that of pure noise


def check_numbers(method: Any, steps: Any, probes: Any) -> None:
    choice("method", method, METHODS)
    for name, number, low in (("steps", steps, 1), ("probes", probes, LEAST[method])):
        if number is not None:
            integer(name, number, low, 1_000_000)


def span(den: Denoiser, t_start: Any, t_end: Any, solver: Any) -> tuple[float, float]:
    """t_start and t_end; ValueError where lam is infinite or runs the wrong way, and for a solver in a basis."""
    sch = den.schedule
    gauge = getattr(getattr(solver, "planner", None), "gauge", None)
    if getattr(solver, "basis", None) is not None or getattr(gauge, "basis", None) is not None:
        raise ValueError(
            "solver is in a basis of samples, but a likelihood is solved for along with them; take another"
        )
    if isinstance(solver, Program):
        t_end, t_start = solver.grid[0], solver.grid[-1]
    given = end_time("t_start", t_start), end_time("t_end", t_end)
    first, last = (default if t is None else t for t, default in zip(given, (sch.t_start, sch.t_end), strict=True))
    noisy, clean = np.asarray(sch.half_logsnr(np.array([first, last]))).tolist()
    if noisy >= clean:
        raise ValueError(
            f"t_start must be noisier than t_end, but lam is {noisy:.4g} at {first:.6g}, {clean:.4g} at {last:.6g}"
        )
    if not math.isfinite(clean) or (solver == RK4 and not math.isfinite(noisy)):
        raise ValueError(
            f"lam must be finite at both ends, not {noisy:.4g} and {clean:.4g}: give t_start, t_end inside"
        )
    return first, last


def check_range(den: Denoiser, x: torch.Tensor, first: float, last: float) -> None:
    """ValueError for data of which too much is left at the noisy end."""
    if not x.numel():
        return
    largest = float(x.reshape(len(x), x.shape[1:].numel()).square().mean(1).max().sqrt())
    left, sigma = (
        largest * float(den.schedule.alpha(first) / den.schedule.alpha(last)),
        float(den.schedule.sigma(first)),
    )
    if left > SIGNAL * sigma:
        raise ValueError(
            f"x has a root mean square of {largest:.3g}, of which {left:.3g} is left at t_start = {first:.6g}, beside "
            f"noise of {sigma:.3g}: pure noise is no model of that. Scale x as the model's training data, or give "
            "prior=, or a noisier t_start"
        )


def warn_of_latent(latent: torch.Tensor) -> None:
    """Warn where a latent, in units of sigma, is not as large as pure noise."""
    square = latent.reshape(len(latent), latent.shape[1:].numel()).square().mean(1)
    far = (square > 1 + FAR * math.sqrt(2 / max(latent.shape[1:].numel(), 1))).nonzero().flatten().tolist()
    if far:
        warnings.warn(
            f"the latent of {len(far)} of {len(latent)} samples, the first being {far[0]}, has a root mean square of "
            f"{float(square[far[0]].sqrt()):.3g} in units of pure noise: x is far from what the model generates. Is it "
            "scaled as the training data?",
            stacklevel=3,
        )
