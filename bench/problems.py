"""The problems of the bench: what is solved, where it starts, and what the answer is."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..analysis.digits import load_digits
from ..analysis.empirical import Empirical
from ..analysis.gaussian import Gaussian
from ..analysis.mixture import GaussianMixture
from ..analysis.problem import Problem
from ..analysis.reference import reference_flow
from ..solvers.denoiser import Denoiser
from ..solvers.names import nearest
from ..solvers.schedules import VPLinear
from .digits_net import PREDICTION, SCHEDULE, load_digits_net

SMOOTHING = 0.05  # of the digits, whose grey levels are 0.125 apart
NET_TOL = 1e-8  # of the network's reference, which takes a minute; errors in float32 stay above 1e-7


@dataclass(frozen=True)
class BenchProblem:
    """A denoiser, where to start, and the answer.

    denoiser: what the solvers are given. precise: the same in float64, for references and their check.
    exact: from x at the schedule's t_start, float64, to the PF-ODE's endpoint at its t_end.
    dtype: of the state. samples: how many by default; the dearer the reference, the fewer.
    images: whether the samples are digits, to be looked at and judged by a classifier.
    """

    name: str
    summary: str
    denoiser: Denoiser
    precise: Denoiser
    exact: Callable[[torch.Tensor], torch.Tensor]
    event_shape: tuple[int, ...]
    samples: int
    dtype: torch.dtype = torch.float64
    images: bool = False

    def start(self, samples: int, seed: int) -> torch.Tensor:
        """sigma(t_start) times standard normals, (samples, *event_shape): float64, rounded to `dtype`."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(samples, *self.event_shape, dtype=torch.float64, generator=generator)
        sch = self.denoiser.schedule
        return (sch.sigma(sch.t_start) * noise).to(self.dtype).double()


def digits() -> BenchProblem:
    points, _ = load_digits()
    summary = f"{len(points)} real 8 x 8 digits, each smoothed by {SMOOTHING}, and their exact denoiser"
    return _known("digits", summary, Empirical(points, SMOOTHING), samples=64, images=True)


def digits_net() -> BenchProblem:
    summary = "A network trained on the digits, run in float32; the reference runs it in float64"
    precise = Denoiser(load_digits_net().double(), SCHEDULE, PREDICTION)

    def exact(x: torch.Tensor) -> torch.Tensor:
        return reference_flow(precise, x, SCHEDULE, SCHEDULE.t_start, SCHEDULE.t_end, tol=NET_TOL).x

    den = Denoiser(load_digits_net(), SCHEDULE, PREDICTION)
    return BenchProblem("digits-net", summary, den, precise, exact, (1, 8, 8), 48, torch.float32, images=True)


def mixture() -> BenchProblem:
    summary = "Three Gaussians on the line; the reference keeps each sample's quantile"
    data = GaussianMixture(means=[-1.5, 0.2, 1.0], covs=[0.04, 0.01, 0.0225], weights=[0.3, 0.2, 0.5])
    return _known("mixture", summary, data, samples=1000)


def gaussian() -> BenchProblem:
    points = load_digits()[0].flatten(1)
    data = Gaussian(points.mean(0), torch.cov(points.mT))
    summary = "A Gaussian with the mean and covariance of the digits, whose flow has a closed form"
    return _known("gaussian", summary, data, samples=256)


PROBLEMS: dict[str, Callable[[], BenchProblem]] = {
    "digits": digits,
    "digits-net": digits_net,
    "mixture": mixture,
    "gaussian": gaussian,
}


def load_problem(name: str) -> BenchProblem:
    """The problem of that name; ValueError with the nearest names if there is none."""
    if name not in PROBLEMS:
        raise ValueError(f"problem = {name!r} is unknown{nearest(name, PROBLEMS)}")
    return PROBLEMS[name]()


def _known(name: str, summary: str, data: Problem, *, samples: int, images: bool = False) -> BenchProblem:
    sch = VPLinear()
    den = data.denoiser(sch)

    def exact(x: torch.Tensor) -> torch.Tensor:
        return data.reference(x, sch, sch.t_start, sch.t_end)

    event_shape = tuple(data.event_shape) or (1,)  # () describes coordinates; the bench takes one per sample
    return BenchProblem(name, summary, den, den, exact, event_shape, samples, images=images)
