"""Every stochastic solver has the weak order it declares, and the right limit; every mutant is caught."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from kolmogorov import mixture_order
from mutants import altered
from sampled import sampled

import logsnr
from logsnr.analysis import Gaussian, sampler_moments, two_gaussians, warped_grid, weak_order
from logsnr.analysis.moments import after_each_call
from logsnr.bench.orders import schedules
from logsnr.solvers.planners.stochasticity import Window
from logsnr.solvers.programs.program import Call

SCH = logsnr.VPLinear()
ORDERED = [n for n in logsnr.solver_names() if logsnr.solver(n).stochastic and logsnr.solver(n).order]
TOLERANCE = 0.15


def problem(name: str) -> tuple[Gaussian | None, logsnr.Schedule, Callable | None]:
    """Data, schedule and grids: ER-SDE's noise is so weak near the data that its third solver is of order 3 for all
    practical purposes; where the noise is, at sigma = 3 to 70, and for data as wide, the second order shows."""
    if name != "er-sde-3":
        return None, SCH, None
    sch = logsnr.EDM()
    return Gaussian([0.7, 0.3], [1000.0, 100.0]), sch, lambda n: warped_grid(sch, n, -4.3, -1.0)


def measured(method: logsnr.Solver, steps: int = 512) -> logsnr.analysis.Convergence:
    data, sch, grids = problem(method.name)
    return weak_order(method, data, sch, grids=grids, max_nfe=(steps + 9) * method.evaluations)


@pytest.mark.parametrize("name", ORDERED)
def test_declared_weak_order(name: str) -> None:
    """The distance of the generated law from the data's falls with the declared order, to 0.15."""
    found = measured(logsnr.solver(name))
    assert found.order == pytest.approx(found.declared, abs=TOLERANCE), found


@pytest.mark.parametrize(
    ("name", "eta"),
    sampled(
        ["sde-dpmpp-1", "sde-dpmpp-2s", "sde-dpmpp-2m", "sde-dpmpp-3m", "seeds-2", "euler-maruyama"],
        [0.5, 1.5],
        every=2,
    ),
)
def test_weak_order_for_other_eta(name: str, eta: float) -> None:
    """The order is the same with half the noise of the reverse SDE and with more of it (in the limit of h to 0)."""
    found = measured(logsnr.solver(name, eta=eta))
    assert found.limit == pytest.approx(found.declared, abs=TOLERANCE), found


@pytest.mark.parametrize("name", ["sde-dpmpp-2m", "sa-2", "seeds-2"])
def test_noise_in_a_window(name: str) -> None:
    """With noise only between two log-SNRs, which no grid knows of, errors still fall with the second order overall."""
    argument = {logsnr.solver(name).options[0]: Window(1.0, -1.0, 1.3)}
    found = measured(logsnr.solver(name, **argument), 256)
    assert np.log2(found.errors[0] / found.errors[-1]) / (len(found.errors) - 1) > 1.6, found


def scaled(call: Call, part: str, factor: float) -> np.ndarray:
    matrix = np.array(call.matrix)
    columns = slice(2 + len(call.reads), None) if part == "noise" else slice(0, 2)
    if call.node is not None:
        matrix[call.writes.index(0), columns] *= factor
    return matrix


@pytest.mark.parametrize(
    ("name", "part"),
    sampled([n for n in ORDERED if n not in ("restart", "edm-churn")], ["noise", "model"], every=2),
)
def test_mutant_fails(name: str, part: str) -> None:
    """A noise or a weight off by 1e-3 (1e-1 where errors are still as large) brings the measured order towards 0."""
    factor = 1.1 if logsnr.solver(name).order == 1 else 1.001
    found = measured(altered(logsnr.solver(name), partial(scaled, part=part, factor=factor)), 128)
    assert not abs(found.order - found.declared) < TOLERANCE, found


@pytest.mark.parametrize("name", ["restart", "edm-churn"])
def test_mutant_of_a_jump_fails(name: str) -> None:
    """Jumps with a tenth too much noise are of order 0: EDM's s_noise above 1 generates another law than the data's."""

    def louder(call: Call) -> np.ndarray:
        matrix = np.array(call.matrix)
        matrix[:, 2 + len(call.reads) :] *= 1.1
        return matrix

    found = measured(altered(logsnr.solver(name), louder), 128)
    assert not abs(found.order - 2) < TOLERANCE, found


@pytest.mark.parametrize("name", ["seeds-2", "seeds-3", "sde-dpmpp-2s"])
def test_a_stage_without_its_noise_fails(name: str) -> None:
    """If stages had none of the noise of their step, the single-step solvers of the SDE would be of first order."""

    def quiet(call: Call) -> np.ndarray:
        matrix = np.array(call.matrix)
        if call.node is None:
            matrix[:, 2 + len(call.reads) :] = 0
        return matrix

    found = measured(altered(logsnr.solver(name), quiet), 256)
    assert found.order == pytest.approx(1, abs=TOLERANCE), found


def whole_span(sch: logsnr.Schedule, steps: int) -> np.ndarray:
    """Uniform in lam from the schedule's start to its end; infinite ends stand behind lam = -8.5 and 8.5, where
    alpha^2 and sigma^2 are 4e-8."""
    lam = [float(sch.half_logsnr(t)) for t in (sch.t_start, sch.t_end)]
    times = np.asarray(sch.time(np.linspace(max(lam[0], -8.5), min(lam[1], 8.5), steps + 1)))
    times[[0, -1]] = sch.t_start, sch.t_end
    return times


@pytest.mark.parametrize(("name", "eta"), sampled(schedules(), [0.0, 0.5, 1.0, 1.5], every=4))
def test_the_limit_is_the_data_law(name: str, eta: float) -> None:
    """From noise to data on a fine grid the terminal mean and covariance are exact to 4e-6, for every eta and
    schedule."""
    sch, data = schedules()[name], Gaussian([0.7, -0.2], [0.25, 1.7])
    solver, steps = (logsnr.solver("seeds-2", eta=eta), 1250) if eta else (logsnr.solver("sa-3", tau=0.0), 300)
    moments = sampler_moments(solver, data, sch, grid=whole_span(sch, steps))
    mean, cov = data.marginal(sch, moments.program.grid[-1])
    np.testing.assert_allclose(moments.mean, mean, rtol=4e-6)
    np.testing.assert_allclose(moments.cov, cov, rtol=4e-6)


@pytest.mark.parametrize("name", ["sde-dpmpp-2m", "seeds-2", "sa-2", "ddpm", "restart"])
def test_the_marginal_at_every_node(name: str) -> None:
    """Not only at the end: the law at each node comes to the exact marginal as the grid is refined."""
    data, worst = Gaussian([0.7, 0.7], [0.25, 1.7]), []
    for steps in (64, 256):
        program = logsnr.solver(name).program(SCH, grid := warped_grid(SCH, steps))
        c = data.variances.numpy()
        alpha, sigma = (f(grid)[1:, None] for f in (SCH.alpha, SCH.sigma))
        after = zip(program, after_each_call(program, SCH, c), strict=True)
        states = [state for call, state in after if call.node is not None]
        assert len(states) == steps
        start = (SCH.alpha(grid[0]) ** 2 * c) + SCH.sigma(grid[0]) ** 2
        mean, variance = np.array([s.mean for s in states]), np.array([s.variance(start) for s in states])
        off = [np.abs(mean / alpha - 1).max(), np.abs(variance / (alpha**2 * c + sigma**2) - 1).max()]
        worst.append(max(off))
    assert worst[1] < worst[0] / 4 ** (logsnr.solver(name).order - 0.4)
    assert worst[1] < 0.06


@pytest.mark.parametrize("name", sampled(["ddpm", "sde-dpm-1", "dpm2-a"], every=2))
def test_weak_order_on_a_mixture(name: str) -> None:
    """Data that are not Gaussian, where the model is not linear, show the same weak order."""
    found = mixed(logsnr.solver(name))
    assert found.limit == pytest.approx(found.declared, abs=TOLERANCE), found


@pytest.mark.parametrize("name", sampled(["sde-dpmpp-2m", "sa-1", "sde-dpmpp-2s"], every=3))
def test_second_weak_order_on_a_mixture(name: str) -> None:
    """So do solvers of the SDE: the value at the last node, or at a stage, carries the noise before it."""
    found = mixed(logsnr.solver(name), 16)
    assert found.order == pytest.approx(found.declared, abs=TOLERANCE), found


def test_mutant_on_a_mixture_fails() -> None:
    """A noise off by a hundredth shows there too."""
    mutant = altered(logsnr.solver("dpm2-a"), partial(scaled, part="noise", factor=1.01))
    found = mixed(mutant)
    assert not abs(found.order - found.declared) < TOLERANCE, found


def mixed(method: logsnr.Solver, steps: int = 32) -> logsnr.analysis.Convergence:
    return mixture_order(method, SCH, max_nfe=steps * method.evaluations)


def test_solvers_with_noise_have_no_path_to_follow() -> None:
    """convergence_order and local_order refuse stochastic solvers and point to weak_order."""
    for measure in (logsnr.analysis.convergence_order, logsnr.analysis.local_order):
        with pytest.raises(ValueError, match="measure its weak_order"):
            measure("ddpm", two_gaussians(), SCH)
