"""Programs of which a call is known, on the Gaussian whose answers it takes; shared by their tests."""

from typing import Any

import numpy as np
import torch

import logsnr
from logsnr import analysis
from logsnr.solvers.programs.program import Program

EDM, VP, ZERO_SNR = logsnr.EDM(), logsnr.VPLinear(), logsnr.Trigonometric()
F64 = torch.float64
WIENER = logsnr.Wiener(np.array([0.5, -1.0, 0.0]), np.array([0.3, 1.0, 0.1]))
GAUSSIAN = analysis.Gaussian(WIENER.mean.copy(), WIENER.variance.copy())
ROUND_OFF = 1e-12


class Counted:
    """A model that counts how often it is asked."""

    def __init__(self, den: logsnr.Denoiser) -> None:
        self.den, self.asked, self.times = den, 0, list[float]()

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        self.times.append(float(t[0]))
        return self.den.model(x, t)


def counted(sch: logsnr.Schedule, head: str = "x0", problem: Any = GAUSSIAN) -> tuple[Counted, logsnr.Denoiser]:
    model = Counted(problem.denoiser(sch, head))
    return model, logsnr.Denoiser(model, sch, head)


def start(sch: logsnr.Schedule, size: int = 3, dtype: torch.dtype = F64) -> torch.Tensor:
    return logsnr.start(sch, (4, size), seed=0, dtype=dtype)


def planned(name: str, sch: logsnr.Schedule = EDM, steps: int = 6, **options: Any) -> Program:
    options = {"gaussian": WIENER} | options if name.startswith("wiener") else options
    return logsnr.solver(name, **options).program(sch, logsnr.grid(sch, steps))
