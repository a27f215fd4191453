"""What is looked at in the program that a planner returns: its times, its budget, and how wide its results are."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import logsnr
from logsnr.integrations.schedulers.tables import BETAS
from logsnr.solvers import Program
from logsnr.solvers.schedules.base import Schedule

SCH = logsnr.VPLinear()
DEN = logsnr.Denoiser(lambda x, t: torch.tanh(x), SCH, "x0")
X = torch.linspace(-1, 1, 6).reshape(2, 3)
COSINE = logsnr.Discrete(np.cumprod(1 - BETAS["squaredcos_cap_v2"](0.0, 0.0, 1000)))  # a last beta of 0.999


@dataclass(frozen=True)
class Elsewhere:
    """DDIM that tells the model the time ``told`` at its last call."""

    told: float

    def plan(self, schedule: Schedule, grid: np.ndarray) -> Program:
        program = logsnr.solver("ddim").planner.plan(schedule, grid)  # type: ignore[union-attr]
        return replace(program, calls=(*program.calls[:-1], replace(program.calls[-1], t=self.told)))

    def within(self, nfe: int) -> None:
        """Forgets to return."""


def test_a_planner_tells_times_of_the_schedule() -> None:
    assert logsnr.solve(DEN, X, solver=Elsewhere(0.5), steps=3).nfe == 3
    message = r"has the time 7, outside the times of VPLinear.*, 0 to 1: the planner of Elsewhere tells it"
    with pytest.raises(ValueError, match=message):
        logsnr.solve(DEN, X, solver=Elsewhere(7.0), steps=3)


def test_a_planner_that_fills_budgets_says_how() -> None:
    with pytest.raises(TypeError, match=r"within\(5\) of Elsewhere must return \(planner, steps\), not None"):
        logsnr.solve(DEN, X, solver=Elsewhere(0.5), nfe=5)


def wide(solver: str, sch: Schedule, steps: int) -> list[str]:
    program = logsnr.solver(solver).program(sch, logsnr.grid(sch, steps))
    return [note for note in program.notes if note.startswith("too few steps for this method here: normal data come")]


@pytest.mark.parametrize("solver", ["seeds-1", "seeds-2", "seeds-3", "sde-dpm-1", "euler-maruyama", "deis-4"])
def test_results_that_blow_up_are_noted(solver: str) -> None:
    assert wide(solver, COSINE, 8)
    assert "note: too few steps" in str(logsnr.solver(solver).program(COSINE, logsnr.grid(COSINE, 8)))
    assert not wide(solver, COSINE, 50)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "unipc-3", "sde-dpmpp-2m", "heun", "ddpm"])
def test_others_are_not(solver: str) -> None:
    for sch in (COSINE, SCH, logsnr.EDM(), logsnr.FlowMatching(), logsnr.VE()):
        assert not wide(solver, sch, 8)


def test_the_noted_width_is_that_of_samples() -> None:
    """Of normal data; pndm on 4 steps and seeds-1 on 8."""
    den = logsnr.analysis.Gaussian(0.0, 1.0).denoiser(COSINE)
    x = logsnr.start(COSINE, (20_000,), seed=0, dtype=torch.float64)
    for solver, steps in (("pndm", 4), ("seeds-1", 8)):
        (note,) = wide(solver, COSINE, steps)
        end = logsnr.sample(den, x, solver=solver, steps=steps, seed=1)
        assert float(end.std()) == pytest.approx(float(note.split()[-4]), rel=0.05)
