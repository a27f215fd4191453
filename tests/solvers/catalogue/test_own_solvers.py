"""Solvers of the user's: a planner, a gauge or a Solver of one's own goes wherever a name goes."""

import pickle
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr.analysis import convergence_order, two_gaussians
from logsnr.kernels import Seeds
from logsnr.solvers import Call, Nodes, Program, Solver, Window
from logsnr.solvers.catalogue.planning import plan_program
from logsnr.solvers.planners.multistep import Startup
from logsnr.solvers.runs.brownian import BrownianNoise
from logsnr.solvers.schedules.base import Schedule

SCH = logsnr.VPLinear()
DEN = logsnr.Denoiser(lambda x, t: torch.tanh(x), SCH, "x0")
X = torch.linspace(-1, 1, 6).reshape(2, 3)


@dataclass(frozen=True)
class Two:
    """Two evaluations a step: x0 as a line in lam through the start and the DDIM end, with ``slope`` of its slope."""

    slope: float = 1.0
    startup: Startup = "ramp"
    global_order = 2
    evaluations = 2

    def plan(self, schedule: Schedule, grid: np.ndarray) -> Program:
        at = Nodes.at(schedule, grid)
        calls = []
        for n, (s, t) in enumerate(pairwise(grid.tolist()), 1):
            h = at.lam[n] - at.lam[n - 1]
            kept, first = at.sigma[n] / at.sigma[n - 1], -at.alpha[n] * np.expm1(-h)
            second = self.slope * at.alpha[n] * (1 + np.expm1(-h) / h)
            calls.append(Call(s, (0,), (1, 2), [[first, 0, kept], [1, 0, 0]]))
            calls.append(Call(t, (1, 2), (0,), [[second, 0, 1, -second]], at=1, node=n))
        return Program("two", 2, tuple(grid), tuple(calls), (self.startup,))


@dataclass(frozen=True)
class Noisy:
    """x0 and fresh noise at every node, on the clock of an eta of its own."""

    eta: float = 2.0

    def plan(self, schedule: Schedule, grid: np.ndarray) -> Program:
        at, calls = Nodes.at(schedule, grid), []
        for n, (s, t) in enumerate(pairwise(grid.tolist()), 1):
            calls.append(Call(s, (), (0,), [[at.alpha[n], 0, at.sigma[n]]], noises=[(s, t)], node=n))
        return Program("noisy", 1, tuple(grid), tuple(calls), eta=Window(self.eta))


def test_a_planner_is_a_solver() -> None:
    """It runs with steps, a budget, a grid, in windows and from JSON; the program has its class's name, its fields are
    options, and it is told the startup if it has one."""
    found = logsnr.solve(DEN, X, solver=Two(), steps=8)
    assert (found.nfe, found.program.name, found.program.order) == (16, "Two", 2)
    assert found.program.notes == ("ramp", "noise of sigma = 0.0105 is left at t = 0.001")
    assert logsnr.solve(DEN, X, solver=Two(), nfe=9).nfe == 8
    assert torch.equal(logsnr.sample(DEN, X, solver=Two(), grid=logsnr.grid(SCH, 8)), found.x)
    assert torch.equal(logsnr.sample(DEN, X, solver=Two(), steps=8, parallel=logsnr.Picard(tol=0)), found.x)
    assert torch.equal(logsnr.sample(DEN, X, solver=Program.from_json(found.program.to_json())), found.x)
    assert plan_program(Two(), SCH, steps=3, startup="single-step").notes[0] == "single-step"
    assert not torch.equal(logsnr.sample(DEN, X, solver=Two(0.9), steps=8), found.x)
    named = logsnr.solver(Two())
    assert (named.name, named.order, named.evaluations, named.stochastic, named.options) == ("Two", 2, 2, False, ())
    assert named is logsnr.solver(Two())


def test_its_order_is_measured() -> None:
    """Two is of second order, as it says; with another slope it is not."""
    assert convergence_order(Two(), two_gaussians(), SCH, max_nfe=600).order == pytest.approx(2, abs=0.1)
    faulty = convergence_order(Two(0.9), two_gaussians(), SCH, max_nfe=600)
    assert faulty.declared == 2
    assert faulty.order < 1.5


def test_its_fields_are_options_of_a_solver_that_says_so() -> None:
    """Options are the fields that `Solver.options` names; wrong ones are refused by name, and settings are labelled."""
    mine = Solver("mine", "with a slope", Two(), options=("slope",))
    half = logsnr.solver(mine, slope=0.5)
    assert (half.name, half.planner, half.order, half.evaluations) == ("mine (slope=0.5)", Two(0.5), 2, 2)
    assert torch.equal(
        logsnr.sample(DEN, X, solver=mine, steps=4, slope=0.5), logsnr.sample(DEN, X, solver=Two(0.5), steps=4)
    )
    for wrong in ({"startup": "ramp"}, {"eta": 1.0}):
        with pytest.raises(ValueError, match="is not an option of mine: it has slope"):
            logsnr.solver(mine, **wrong)
    assert Solver("other", planner=Two(), order=5, evaluations=3).order == 5
    with pytest.raises(ValueError, match="bosh3 chooses its own steps and has no program"):
        logsnr.solver("bosh3").program(SCH, [1.0, 0.5])


@pytest.mark.parametrize("name", ["sde-dpmpp-2m", "sa-3", "edm-churn", "restart", "ald", "ddpm"])
def test_solvers_with_options_are_values(name: str) -> None:
    """With any option set they compare and hash by what they are, and survive pickle."""
    plain = logsnr.solver(name)
    value = {"variance": "beta", "intervals": ((1, 0.1, 1.0),)}.get(plain.options[0], 0.25)
    made = logsnr.solver(name, **{plain.options[0]: value})
    again = pickle.loads(pickle.dumps(made))
    assert (again, hash(again)) == (made, hash(made))
    assert made != plain
    assert again.program(SCH, logsnr.grid(SCH, 4)) == made.program(SCH, logsnr.grid(SCH, 4))
    assert made is logsnr.solver(name, **{plain.options[0]: value})


def test_a_path_runs_on_the_clock_of_the_planner_s_program() -> None:
    """brownian=True drives a program with an eta of its own on that eta's clock."""
    program = Noisy().plan(SCH, logsnr.grid(SCH, 6, t_start=0.3, t_end=1e-2))
    found = logsnr.sample(DEN, X, solver=Noisy(), grid=program.grid, seed=3, brownian=True)
    seeds = Seeds(torch.full((2,), 3), torch.arange(2))
    ends = [logsnr.sample(DEN, X, solver=program, noise=BrownianNoise(SCH, Window(eta), seeds)) for eta in (2.0, 1.0)]
    torch.testing.assert_close(found, ends[0])
    assert (found - ends[1]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="Noisy adds noise: its grid must go from noise to data"):
        logsnr.sample(DEN, X, solver=Noisy(), grid=[0.1, 0.5], seed=0)


class Plain:
    """No dataclass, and no program either."""

    def plan(self, schedule: Schedule, grid: np.ndarray) -> Any:
        return list(grid)


@dataclass
class Changeable:
    """A planner that is not frozen."""

    power: object = 1

    def plan(self, schedule: Schedule, grid: np.ndarray) -> Program:
        return logsnr.solver("ddim").program(schedule, grid)


@dataclass(frozen=True)
class Listed:
    """A frozen one with a list in it."""

    powers: object = (1,)

    def plan(self, schedule: Schedule, grid: np.ndarray) -> Program:
        return logsnr.solver("ddim").program(schedule, grid)


class Unhashable(logsnr.VPLinear):
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable)


def test_what_has_no_hash_is_refused() -> None:
    """Plans are kept by planner and schedule; the error names the one, and what would be right."""
    x, den = torch.zeros(2, 3), logsnr.Denoiser(lambda x, t: x, logsnr.VPLinear())
    frozen = "planner must be hashable, as a frozen dataclass of hashable fields is, not "
    for planner in (Changeable(), Listed([1, 2])):
        for use in (
            logsnr.solver,
            lambda p: Solver("own", planner=p),
            lambda p: logsnr.sample(den, x, solver=p, steps=3),
        ):
            with pytest.raises(TypeError, match=f"{frozen}{type(planner).__name__}"):
                use(planner)
    assert logsnr.sample(den, x, solver=Listed((1, 2)), steps=3).shape == (2, 3)
    with pytest.raises(TypeError, match="schedule must be hashable, as plans are kept by it, and Unhashable is not"):
        logsnr.Denoiser(lambda x, t: x, Unhashable())


def test_what_is_no_planner_is_refused() -> None:
    """Classes for their objects, objects without a plan, and plans that return something else."""
    with pytest.raises(TypeError, match="planner of Plain must return a Program, not list"):
        logsnr.sample(DEN, X, solver=Plain(), steps=3)
    with pytest.raises(ValueError, match="is unknown"):
        logsnr.sample(DEN, X, solver=Two, steps=3)
    with pytest.raises(TypeError, match=r"planner must have a method plan\(schedule, grid\), not be 3"):
        Solver("three", planner=3)  # type: ignore[arg-type]


def test_a_planner_in_another_s_place_is_refused() -> None:
    """The second place is that of the summary; and a solver needs something that chooses its steps."""
    with pytest.raises(TypeError, match=r"summary must be a line of text, not Two\(.*; a planner is given as planner="):
        Solver("mine", Two())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"name must be a line of text, not 3$"):
        Solver(3, planner=Two())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the solver 'mine' needs a planner"):
        Solver("mine")
    assert Solver("mine", planner=Two()).summary == ""


@dataclass(frozen=True)
class Fixed:
    """One step from the first node to the last, or as far on the way there as ``share``, whatever the grid."""

    share: float = 1.0

    def plan(self, schedule: Schedule, grid: np.ndarray) -> Program:
        ends = np.array([grid[0], grid[0] + self.share * (grid[-1] - grid[0])])
        return logsnr.solver("ddim").planner.plan(schedule, ends)  # type: ignore[union-attr]


def test_a_planner_may_have_nodes_of_its_own_but_not_ends() -> None:
    """A budget that it does not fill ends the search for more steps."""
    for budget in ({"steps": 5}, {"nfe": 5}):
        assert logsnr.solve(DEN, X, solver=Fixed(), **budget).nfe == 1
    with pytest.raises(ValueError, match=r"planner of Fixed must go from t = 1 to 0\.001 as its grid"):
        logsnr.solve(DEN, X, solver=Fixed(0.9), steps=5)
