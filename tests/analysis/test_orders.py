"""Every named solver has the order it declares, measured; every mutant is caught."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutants import altered
from sampled import sampled

import logsnr
from logsnr.analysis.gaussian import Gaussian
from logsnr.analysis.mixture import GaussianMixture
from logsnr.analysis.orders import convergence_order, local_order, two_gaussians, warped_grid
from logsnr.bench.orders import methods
from logsnr.solvers.programs.call import Call

SCH = logsnr.VPLinear()
MIXTURE = two_gaussians()
WIDE = GaussianMixture([-1.0, 0.8], [1.0, 0.5], [0.3, 0.7])  # on which order 5 shows above rounding
FIXED = [method.name for method in methods()]  # of equal planners the first name
LONG = {3: 400, 4: 1000, 5: 1000, "dpm-4m": 2000}  # evaluations for slopes to settle, by order or name; else 200
# One step of these has another order than the whole: the weights of iPNDM are right where steps change little, which
# they do not there; the last step of dpm-fast is of first order; a corrector comes with the next step.
ONE_STEP = {"ipndm-2": 2, "ipndm-3": 2, "ipndm-4": 2, "pndm": 2, "dpm-fast": 2}


@pytest.mark.parametrize("name", sampled(FIXED, every=3))  # all of them, on easier data, are in test_order_table
def test_declared_order(name: str) -> None:
    """The measured order is the declared one within 0.1, on a nonlinear problem and a non-uniform grid."""
    declared = logsnr.solver(name).order
    problem = WIDE if name == "unipc-4" else MIXTURE
    measured = convergence_order(name, problem, SCH, max_nfe=LONG.get(name, LONG.get(declared, 200)))
    assert measured.order == pytest.approx(measured.declared, abs=0.1), measured


@pytest.mark.parametrize("name", [pytest.param("deis-4", marks=pytest.mark.slow), "dpmpp-3m"])
def test_ramp_start_caps_the_order_at_2(name: str) -> None:
    """With the ramp the same methods are second order."""
    measured = convergence_order(name, MIXTURE, SCH, max_nfe=1600, startup="ramp")
    assert measured.order == pytest.approx(2, abs=0.1), measured


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({"gauge": "v", "variable": "lam", "order": 2}, 2),
        ({"gauge": "v", "variable": "clock", "order": 3}, 3),
        ({"gauge": "straight", "variable": "rho", "order": 2}, 2),
        ({"gauge": "eps", "variable": "t", "order": 2, "corrector": True}, 3),
        ({"gauge": "velocity", "variable": "t", "order": 3, "corrector": True}, 4),
        ({"gauge": "x0", "variable": "rho", "order": 1, "corrector": True, "pece": True}, 2),
        ({"gauge": "velocity-lam", "variable": "lam", "order": 2}, 2),
    ],
    ids=str,
)
def test_adams_by_its_options(options: dict[str, Any], order: int) -> None:
    """Every gauge and variable, with and without a corrector, has the order of its values, and says so."""
    solver = logsnr.solver("adams", **options)
    measured = convergence_order(solver, MIXTURE, SCH, max_nfe=400 if order < 4 else 1000)
    assert solver.order == order
    assert measured.order == pytest.approx(order, abs=0.1), measured


@pytest.mark.parametrize(
    ("name", "gauge"), [("ho4", "eps"), ("krogstad", "v"), ("res-3s", "eps"), ("exp-heun", "straight")]
)
def test_tableaux_in_other_gauges(name: str, gauge: str) -> None:
    """Tableaux keep their order in gauges that they are not written for."""
    solver = logsnr.solver(name, gauge=gauge)
    measured = convergence_order(solver, MIXTURE, SCH, max_nfe=1000 if name == "ho4" else 500)
    assert measured.order == pytest.approx(solver.order, abs=0.1), measured


@pytest.mark.parametrize(("form", "p"), [("bh1", 1), ("bh1", 2), ("bh2", 2), ("bh2", 3)])
def test_unipc_as_published_has_order_p_plus_1(form: str, p: int) -> None:
    solver = logsnr.solver(f"unipc-{p}", compat=form)
    measured = convergence_order(solver, MIXTURE, SCH, max_nfe=1000 if p == 3 else 500)
    assert solver.order == p + 1
    assert measured.order == pytest.approx(p + 1, abs=0.1), measured


@pytest.mark.parametrize("name", ["dpmpp-2m", "dpmpp-3m"])
def test_compat_formulas_have_the_order_they_declare(name: str) -> None:
    """The formulas that the field ships are second order, 3M included."""
    solver = logsnr.solver(name, compat=True)
    measured = convergence_order(solver, MIXTURE, SCH, max_nfe=400)
    assert solver.order == 2
    assert measured.order == pytest.approx(2, abs=0.1), measured


@pytest.mark.parametrize("name", sampled(FIXED, every=3))
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
    measured = convergence_order(solver, MIXTURE, SCH, max_nfe=400)  # before, own errors may be as large
    assert measured.order < 0.5, measured


@dataclass(frozen=True)
class Growing:
    """ddim on fewer steps the finer the grid is."""

    def plan(self, schedule: logsnr.Schedule, grid: np.ndarray) -> logsnr.Program:
        some = np.linspace(0, len(grid) - 1, max(2, 100 // len(grid))).round().astype(int)
        return logsnr.solver("ddim").program(schedule, grid[np.unique(some)])


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
    method = logsnr.solver(name)
    corrected = getattr(method.planner, "corrector", False)
    assert measured.order == pytest.approx(ONE_STEP.get(name, method.order + 1 - corrected), abs=0.15), measured
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


def test_a_measured_order_is_readable_and_has_a_picture(tmp_path: Path) -> None:
    """In print the verdict comes first and then the runs; the picture has the errors and the declared slope."""
    measured = convergence_order("dpmpp-2m", MIXTURE, SCH, max_nfe=200)
    lines = str(measured).splitlines()
    assert lines[0] == f"dpmpp-2m: {measured.verdict}"
    assert len(lines) == 2 + len(measured.steps)
    assert lines[3].split() == [
        str(measured.steps[1]), str(measured.nfe[1]), f"{measured.errors[1]:.3e}", f"{measured.slopes[0]:.3f}",
    ]  # fmt: skip
    figure = measured.plot(tmp_path / "order.svg")
    assert (tmp_path / "order.svg").stat().st_size > 1000
    errors, *_ = figure.axes[0].get_lines()
    assert tuple(errors.get_ydata()) == measured.errors
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels(which="both")] == [*map(str, measured.nfe)]
