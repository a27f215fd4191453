"""Parallel in time on real digits: how many rounds a sequential answer takes, and how far from it they end."""

from typing import Any

import pytest
import torch
from sampled import sampled

import logsnr
from logsnr.bench.picard import distances
from logsnr.bench.problems import BenchProblem, load_problem

SAMPLES = 8


PROBLEMS = ["digits", "digits-net"]


def median(values: torch.Tensor) -> float:
    return float(values.double().median())


def runs(problem: BenchProblem, solver: str, steps: int, how: logsnr.Picard) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """The certificate of a parallel run, its end, and that of the sequential one."""
    x = problem.start(SAMPLES, 0).to(problem.dtype)
    given: dict[str, Any] = {"solver": solver, "steps": steps, "seed": 0}
    found = logsnr.solve(problem.denoiser, x, parallel=how, **given)
    return found.certificate, found.x, logsnr.sample(problem.denoiser, x, **given)


@pytest.mark.parametrize(("name", "accelerate"), sampled(PROBLEMS, ["secant", None], every=2))
def test_a_hundred_steps(name: str, accelerate: Any) -> None:
    """With the window open over the grid half of the samples take at most 7 rounds for 100 steps of ddim, 12 with x0
    frozen, and the median distance from the sequential answer is below the median error of that."""
    problem, (tol, rounds) = load_problem(name), (1e-2, 7) if accelerate else (3e-3, 12)
    certificate, found, wanted = runs(problem, "ddim", 100, logsnr.Picard(tol=tol, accelerate=accelerate))
    exact = logsnr.sample(problem.denoiser, problem.start(SAMPLES, 0).to(problem.dtype), steps=100)
    assert median(certificate.rounds) <= rounds
    assert median(distances(found, wanted)) < median(distances(wanted, exact))


@pytest.mark.parametrize(
    ("window", "tol", "rounds"), [(100, 3e-4, 35), pytest.param(None, 1e-3, 14, marks=pytest.mark.slow)]
)
def test_a_thousand_steps(window: int | None, tol: float, rounds: int) -> None:
    """1000 steps of ddim on the digits take every sample at most 14 rounds with the window open, 35 with a window of
    100, and end nearer to the sequential answer than that is to the exact one."""
    problem = load_problem("digits")
    x = problem.start(3, 0)
    found = logsnr.solve(problem.denoiser, x, solver="ddim", steps=1000, parallel=logsnr.Picard(window, tol))
    wanted = logsnr.sample(problem.denoiser, x, solver="ddim", steps=1000)
    exact = logsnr.sample(problem.denoiser, x, steps=300)
    assert found.rounds <= rounds
    assert found.nfe <= rounds * (window or 1000)
    assert (distances(found.x, wanted) < distances(wanted, exact)).all()


ROUNDS = {"dpmpp-2m": 10, "dpmpp-3s": 10, "deis-3": 10, "ddpm": 14, "sde-dpmpp-2m": 16}


@pytest.mark.parametrize(("name", "solver"), sampled(PROBLEMS, ROUNDS, every=2))
def test_every_kind_of_solver(name: str, solver: str) -> None:
    """About 50 calls of multistep, single-step and stochastic solvers take half of the samples a fraction of the
    rounds, and end about the tolerance from the sequential answer; the certificate's estimate is no less than a
    tenth of the distance, but for a sample between two digits now and then."""
    steps = 17 if solver == "dpmpp-3s" else 50
    certificate, found, wanted = runs(load_problem(name), solver, steps, logsnr.Picard(tol=1e-3))
    far = distances(found, wanted)
    assert median(certificate.rounds) <= ROUNDS[solver]
    assert median(far) < 2e-3
    assert (certificate.distance > far / 10).double().mean() > 0.8
    assert (certificate.distance < 10e-3).all()
