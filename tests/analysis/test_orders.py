"""Every named solver has the order it declares, measured; every mutant is caught."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from mutants import altered

import logsnr
from logsnr.analysis.gaussian import Gaussian
from logsnr.analysis.orders import convergence_order, local_order, two_gaussians, warped_grid
from logsnr.solvers.call import Call

SCH = logsnr.VPLinear()
MIXTURE = two_gaussians()
FIXED = [n for n in logsnr.solver_names() if logsnr.solver(n).planner and not logsnr.solver(n).stochastic]


@pytest.mark.parametrize("name", FIXED)
def test_declared_order(name: str) -> None:
    """The measured order is the declared one within 0.1, on a nonlinear problem and a non-uniform grid."""
    enough = 400 if logsnr.solver(name).order <= 3 else 1000  # evaluations, for slopes to settle
    measured = convergence_order(name, MIXTURE, SCH, max_nfe=enough)
    assert measured.order == pytest.approx(measured.declared, abs=0.1), measured


@pytest.mark.parametrize("name", ["deis-4", "dpmpp-3m"])
def test_ramp_start_caps_the_order_at_2(name: str) -> None:
    """With the ramp the same methods are second order."""
    measured = convergence_order(name, MIXTURE, SCH, max_nfe=1600, startup="ramp")
    assert measured.order == pytest.approx(2, abs=0.1), measured


@pytest.mark.parametrize("name", ["dpmpp-2m", "dpmpp-3m"])
def test_compat_formulas_have_the_order_they_declare(name: str) -> None:
    """The formulas that the field ships are second order, 3M included."""
    solver = logsnr.solver(name, compat=True)
    measured = convergence_order(solver, MIXTURE, SCH, max_nfe=400)
    assert solver.order == 2
    assert measured.order == pytest.approx(2, abs=0.1), measured


@pytest.mark.parametrize("name", FIXED)
def test_mutant_fails(name: str) -> None:
    """One weight that is off by 1e-3 at every step (1e-1 for the first order, whose errors are as large) brings the
    measured order down to 0."""
    factor = 1.1 if logsnr.solver(name).order == 1 else 1.001

    def off(call: Call) -> np.ndarray:
        matrix = np.array(call.matrix)
        if call.node is not None:
            matrix[call.writes.index(0), :2] *= factor
        return matrix

    solver = altered(logsnr.solver(name), off)
    measured = convergence_order(solver, MIXTURE, SCH, max_nfe=400)
    assert abs(measured.order - measured.declared) > 0.1, measured


@dataclass(frozen=True)
class Growing:
    """ddim on fewer steps the finer the grid is."""

    def plan(self, schedule: logsnr.Schedule, grid: np.ndarray) -> logsnr.Program:
        return logsnr.solver("ddim").program(schedule, grid[: max(2, 200 // len(grid))])


def test_slopes_keep_their_sign() -> None:
    """An error that grows under refinement is a negative slope, never a positive order."""
    measured = convergence_order(replace(logsnr.solver("ddim"), planner=Growing()), MIXTURE, SCH, max_nfe=64)
    assert min(measured.slopes) < 0


def test_grids_are_nested_and_non_uniform() -> None:
    """Every warped grid contains the coarser one, and its steps in lam vary by a factor 1.8 or more."""
    coarse, fine = warped_grid(SCH, 8), warped_grid(SCH, 16)
    np.testing.assert_allclose(fine[::2], coarse, rtol=1e-12)
    steps = np.diff(SCH.half_logsnr(fine))
    assert steps.max() / steps.min() > 1.8


def test_adaptive_methods_have_no_grid_to_refine() -> None:
    """A solver that chooses its own steps is refused, with the reason."""
    with pytest.raises(ValueError, match="chooses its own steps"):
        convergence_order("bosh3", MIXTURE, SCH)


@pytest.mark.parametrize("name", FIXED)
def test_one_step_has_one_order_more(name: str) -> None:
    """With exact values before it, the error of one step shrinks with the declared order + 1, down to 1e-10."""
    measured = local_order(name, MIXTURE, SCH)
    assert measured.order == pytest.approx(logsnr.solver(name).order + 1, abs=0.15), measured
    assert measured.window is not None
    assert measured.errors[measured.window[1] + 1] <= 1e-10


def test_limit_extrapolates_the_slopes() -> None:
    """limit is closer to the order than the last slope, in which the start still shows."""
    measured = convergence_order("deis-4", MIXTURE, SCH, max_nfe=600)
    assert measured.limit == pytest.approx(2 * measured.slopes[-1] - measured.slopes[-2])
    assert abs(measured.limit - 4) < 0.01 < abs(measured.order - 4)


def test_grids_choose_the_span() -> None:
    """Measured on the caller's grids the errors are those of his span, here one without any length to err on."""
    short = convergence_order("heun", MIXTURE, SCH, max_nfe=64, grids=lambda n: warped_grid(SCH, n, -0.01, 0.01))
    assert max(short.errors) < 1e-7 < min(convergence_order("heun", MIXTURE, SCH, max_nfe=64).errors)


def test_exact_solvers_have_no_measurable_order() -> None:
    """Where the error is round-off at once the verdict says so, instead of a slope of noise."""
    point = Gaussian(0.4, 0.0)
    measured = convergence_order("ddim", point, SCH, max_nfe=64)
    assert np.isnan(measured.order)
    assert "no order can be measured" in measured.verdict
