"""The bias of training-free guidance where the posterior is known: python -m logsnr.bench.posteriors

Data are Gaussian images, so that y = A x + noise leaves a Gaussian posterior, and every method here (MMPS once its
conjugate gradients have converged) is an affine map of the noise: D + 1 starts give the mean and the covariance of what
it generates, without samples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
import typer

from ..analysis import Gaussian, w2_gaussian
from ..control import (
    DPS,
    MGPD,
    MMPS,
    Classifier,
    Guide,
    Linear,
    LinearProblem,
    PiGDM,
    Projection,
    blur,
    mask,
    superresolution,
)
from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.runs.run import NonFiniteError
from ..solvers.sampling import sample
from ..solvers.schedules.base import Schedule
from ..solvers.schedules.formulas import EDM
from .command import run_command

SCHEDULE, SOLVER = EDM(), "dpmpp-2m"
TOO_FAR = 100.0  # standard deviations of the posterior


def images(size: int = 8, width: float = 2.0) -> Gaussian:
    """Smooth images (1, size, size) of variance 1: exp(-d^2 / (2 width^2)), and 1 % of white noise."""
    place = torch.cartesian_prod(*[torch.arange(size, dtype=torch.float64)] * 2)
    smooth = torch.exp(-torch.cdist(place, place).square() / (2 * width**2))
    return Gaussian(torch.zeros(1, size, size), 0.99 * smooth + 0.01 * torch.eye(size**2, dtype=torch.float64))


def operators(size: int = 8) -> dict[str, Linear]:
    """By name."""
    some = torch.rand(size, size, generator=torch.Generator().manual_seed(1)) < 0.5
    binomial = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    return {
        "mask": mask(some.double()),
        "superresolution": superresolution(2),
        "blur": blur(torch.outer(binomial, binomial)),
    }


def posterior(data: Gaussian, problem: LinearProblem) -> Gaussian:
    """Of data with a full covariance, given one y: m + C A^T S^+ (y - A m) and C - C A^T S^+ A C, with
    S = A C A^T + std^2."""
    a, c = dense(problem.A, data), data.cov
    s = a @ c @ a.mT + problem.std**2 * torch.eye(len(a), dtype=torch.float64)
    gain = c @ a.mT @ torch.linalg.pinv(s, hermitian=True, rtol=1e-13)
    mean = data.mean.reshape(-1)
    mean = mean + gain @ (problem.y.reshape(-1) - a @ mean)
    cov = c - gain @ a @ c
    return Gaussian(mean.reshape(data.mean.shape), (cov + cov.mT) / 2)


def dense(A: Linear, data: Gaussian) -> torch.Tensor:
    """The matrix (M, D) of an operator on the data's event."""
    basis = torch.eye(data.mean.numel(), dtype=torch.float64).reshape(-1, *data.event_shape)
    return A(basis).reshape(len(basis), -1).mT


def exact_log_prob(data: Gaussian, problem: LinearProblem, sch: Schedule) -> Callable[..., torch.Tensor]:
    """log p(y | x_t) up to a constant of x: that of N(A E[x0 | x], std^2 + A V A^T)."""
    den, a, eye = data.denoiser(sch), dense(problem.A, data), torch.eye(len(data.cov), dtype=torch.float64)

    def log_prob(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = float(sch.alpha(float(t[0]))), float(sch.sigma(float(t[0])))
        v = data.cov @ torch.linalg.inv(alpha**2 * data.cov + sigma**2 * eye) * sigma**2
        s = a @ v @ a.mT + problem.std**2 * torch.eye(len(a), dtype=torch.float64)
        r = (problem.y - problem.A(den.x0(x, t))).reshape(len(x), -1)
        return -(r * torch.linalg.solve(s, r.mT).mT).sum(1) / 2

    return log_prob


def methods(data: Gaussian, problem: LinearProblem) -> dict[str, Guide | None]:
    """By name; None is the exact conditional denoiser."""

    def misfit(x0: torch.Tensor) -> torch.Tensor:
        return (problem.y - problem.A(x0)).square().reshape(len(x0), -1).sum(1) / 2

    return {
        "exact denoiser": None,
        "classifier": Classifier(exact_log_prob(data, problem, SCHEDULE)),
        "MMPS": MMPS(problem, iterations=data.mean.numel()),
        "PiGDM": PiGDM(problem),
        "DPS": DPS(problem),
        "MGPD": MGPD(misfit),
        "projection": Projection(problem),
    }


@dataclass(frozen=True)
class Bias:
    """In standard deviations of the posterior, sqrt(tr C): the distance of the means, the ratio of the deviations, and
    the 2-Wasserstein distance."""

    mean: float
    spread: float
    w2: float

    def __str__(self) -> str:
        if not self.w2 < TOO_FAR:
            return "diverges"
        return f"{_short(self.mean)} / {self.spread:.2f} / {_short(self.w2)}"


def generated(den: Denoiser, steps: int, event: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (D,) and covariance (D, D) of what an affine sampler makes of pure noise."""
    size = math.prod(event)
    length = float(SCHEDULE.sigma(SCHEDULE.t_start)) * math.sqrt(size)  # that of noise, for what is not quite affine
    starts = torch.cat([torch.zeros(1, size, dtype=torch.float64), length * torch.eye(size, dtype=torch.float64)])
    ends = sample(den, starts.reshape(-1, *event), solver=SOLVER, steps=steps).reshape(size + 1, size)
    factor = (ends[1:] - ends[0]) / math.sqrt(size)
    return ends[0], factor.mT @ factor


def guided(data: Gaussian, guide: Guide) -> Denoiser:
    """The data's exact denoiser with a guide."""
    return Denoiser(data.denoiser(SCHEDULE).model, SCHEDULE, "x0", dtype=torch.float64, map_x0=guide)


def bias(data: Gaussian, problem: LinearProblem, guide: Guide | None, steps: int) -> Bias:
    """Of a method with so many steps; NaN if the run does not stay finite."""
    exact = posterior(data, problem)
    den = exact.denoiser(SCHEDULE) if guide is None else guided(data, guide)
    try:
        mean, cov = generated(den, steps, data.event_shape)
    except NonFiniteError:
        return Bias(math.nan, math.nan, math.nan)
    size, wanted = math.sqrt(float(exact.cov.trace())), exact.mean.reshape(-1)
    distance = w2_gaussian(mean, cov, wanted, exact.cov)
    return Bias(float((mean - wanted).norm()) / size, math.sqrt(float(cov.trace())) / size, distance / size)


def report(noises: list[float], steps: list[int], names: list[str] | None = None, size: int = 8) -> str:
    """The tables in Markdown, one for every operator."""
    data, lines = images(size), list[str]()
    draw = torch.Generator().manual_seed(0)
    truth = data.sample(1, generator=draw)
    for name, A in operators(size).items():
        if names and name not in names:
            continue
        heads = [f"std {std:g}, {n} steps" for std in noises for n in steps]
        lines += [f"**{name}**", "", f"| method | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
        measured = A(truth)
        noise = torch.randn(measured.shape, generator=draw, dtype=torch.float64)
        problems = [LinearProblem(A, measured + std * noise, std) for std in noises]
        for method in methods(data, problems[0]):
            cells = [str(bias(data, p, methods(data, p)[method], n)) for p in problems for n in steps]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main(
    std: Annotated[list[float] | None, typer.Option(help="Of the noise; 1, 0.3 and 0.1 if none.")] = None,
    steps: Annotated[list[int] | None, typer.Option(help="20 and 100 if none.")] = None,
    operator: Annotated[list[str] | None, typer.Option(help="mask, superresolution, blur; all if none.")] = None,
) -> None:
    """Bias of training-free guidance on Gaussian posteriors: mean / spread / W2, in deviations of the posterior."""
    if unknown := set(operator or ()) - set(operators()):
        raise ValueError(f"operator must be one of {', '.join(operators())}, not {', '.join(sorted(unknown))}")
    print(report(std or [1.0, 0.3, 0.1], steps or [20, 100], operator))


def _short(value: float) -> str:
    """Three digits at most."""
    return f"{value:.2g}" if value < 1 else f"{value:.3g}"


if __name__ == "__main__":
    run_command(main)
