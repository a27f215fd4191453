"""Running a stochastic program and a loop written by hand with the same normals; shared by tests of samplers."""

from collections.abc import Callable

import numpy as np
import pytest

import logsnr
from logsnr.solvers.programs.program import NoiseKey, Program

SCHEDULES = [logsnr.VPLinear(), logsnr.EDM(), logsnr.SubVP(), logsnr.FlowMatching(), logsnr.VPCosine()]
X = np.linspace(-2, 2, 7)
by_schedule = pytest.mark.parametrize("sch", SCHEDULES, ids=lambda s: type(s).__name__)


def net(x: np.ndarray, t: float) -> np.ndarray:
    """Some smooth x0: the equalities must hold for any model."""
    return np.sin(2 * x + t) + 0.3 * x


def inside(sch: logsnr.Schedule, steps: int = 6) -> np.ndarray:
    """A non-uniform grid with finite log-SNR at both ends."""
    x = np.linspace(0, 1, steps + 1)
    return np.asarray(sch.time(-1.5 + 3.5 * (x + 0.2 * np.sin(3 * x))))


def normals(program: Program) -> dict[NoiseKey, np.ndarray]:
    rng = np.random.default_rng(0)
    return {key: rng.normal(size=len(X)) for key in program.noises}


def play(program: Program, sch: logsnr.Schedule, noises: dict[NoiseKey, np.ndarray]) -> np.ndarray:
    """The table carried out entry by entry, with the x0 of `net`."""

    def model(x: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
        x0 = net(x, t)
        return x0, (x - sch.alpha(t) * x0) / sch.sigma(t)

    return program.interpret(X, model, noises)


def check(name: str | logsnr.Solver, sch: logsnr.Schedule, loop: Callable, *, tol: float = 1e-12) -> Program:
    """The solver is ``loop(grid, xi)``, where xi(s, t, stream=0) are the same normals as the program's."""
    grid = inside(sch)
    program = logsnr.solver(name).program(sch, grid)
    noises = normals(program)
    want = loop(grid.tolist(), lambda s, t, stream=0: noises[NoiseKey(s, t, stream)])
    assert np.abs(play(program, sch, noises) - want).max() < tol * np.abs(want).max()
    return program


def levels(sch: logsnr.Schedule, t: float) -> tuple[float, float, float]:
    return float(sch.alpha(t)), float(sch.sigma(t)), float(sch.half_logsnr(t))


def eps_of(x: np.ndarray, t: float, sch: logsnr.Schedule) -> np.ndarray:
    """The eps of the x0 of `net`."""
    alpha, sigma, _ = levels(sch, t)
    return (x - alpha * net(x, t)) / sigma


def same(solver: object, sch: logsnr.Schedule, loop: Callable, tol: float = 1e-11) -> None:
    """Deterministic: the solver's table gives what ``loop(grid)`` gives."""
    grid = inside(sch, 7)
    program = logsnr.solver(solver).program(sch, grid)  # type: ignore[arg-type]
    want = loop(grid.tolist())
    assert np.abs(play(program, sch, {}) - want).max() < tol * np.abs(want).max()
