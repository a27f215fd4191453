"""What all stochastic solvers have in common: options, infinite ends, budgets."""

from itertools import product

import numpy as np
import pytest
from loops import SCHEDULES
from sampled import sampled

import logsnr
from logsnr.analysis import Gaussian, sampler_moments
from logsnr.solvers.catalogue.planning import plan_program
from logsnr.solvers.grids.grids import GRIDS
from logsnr.solvers.planners.stochasticity import er_sde

STOCHASTIC = [n for n in logsnr.solver_names() if logsnr.solver(n).stochastic]


INFINITE = [logsnr.FlowMatching(), logsnr.Trigonometric(), logsnr.VPCosine()]


@pytest.mark.parametrize(("name", "sch"), sampled(STOCHASTIC, INFINITE, every=2))
def test_infinite_ends(name: str, sch: logsnr.Schedule) -> None:
    """From pure noise (alpha = 0) to data (sigma = 0) all is finite, and the last step is x0 without noise."""
    program = logsnr.solver(name).program(sch, logsnr.grid(sch, 6, t_start=sch.domain[1], t_end=0.0))
    last = program.calls[-1]
    np.testing.assert_array_equal(last.matrix, [[1.0, 0.0]])
    assert not last.noises
    data = Gaussian(0.5, 0.0)
    moments = sampler_moments(name, data, sch, grid=program.grid)
    assert float(moments.mean) == pytest.approx(0.5, abs=1e-12)
    assert float(moments.cov) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_grids_from_data_to_noise_are_refused(name: str) -> None:
    """The reverse SDE goes from noise to data: a grid of increasing times is an error that says so."""
    with pytest.raises(ValueError, match="must go from noise to data"):
        logsnr.solver(name).program(logsnr.VPLinear(), [0.1, 0.5])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sde-dpmpp-2m", {"eta": -1}, "eta = -1 must be a number of at least 0"),
        ("sde-dpmpp-2m", {"eta": 1e200}, r"eta = 1e\+200 must be a number .* at most 1e\+150"),
        ("sde-dpmpp-2m", {"eta": 10**400}, "eta = 1000* must be a number"),
        ("sa-2", {"tau": "1"}, "^tau: eta = '1' must be a number of at least 0"),
        ("sa-2", {"eta": 1.0}, "eta = 1.0 is not an option of sa-2: it has tau"),
        ("dpmpp-2m", {"eta": 1.0}, "eta = 1.0 is not an option of dpmpp-2m: it has corrector, pece"),
        ("lcm", {"eta": 1.0}, "eta = 1.0 is not an option of lcm: it has no options"),
        ("ddim-eta", {"eta": 1.1}, "eta = 1.1 must be a number from 0"),
        ("ddpm", {"variance": "gamma"}, "variance = 'gamma' must be"),
        ("ddpm", {"data_variance": -1}, "data_variance = -1 must be a number of at least 0"),
        ("edm-churn", {"s_churn": None}, "s_churn = None must be a number of at least 0"),
        ("restart", {"intervals": [(0, 0.1, 0.2)]}, "times >= 1 and 0 < low < high"),
        ("restart", {"intervals": [(1, 0.3, 0.2)]}, "times >= 1 and 0 < low < high"),
        ("restart", {"intervals": 3}, "times >= 1 and 0 < low < high"),
        ("pc", {"corrections": 0}, "corrections = 0 must be an integer of at least 1"),
    ],
)
def test_options_that_cannot_be(name: str, options: dict[str, object], message: str) -> None:
    """Options that a solver does not have, and values that they cannot take, are named with what would be right."""
    with pytest.raises(ValueError, match=message):
        logsnr.solver(name, **options)  # type: ignore[arg-type]


def test_equal_settings_are_one_solver() -> None:
    """The same options give the same object, for which plans are kept, and the label tells them."""
    half = logsnr.solver("sde-dpmpp-2m", eta=0.5)
    assert half is logsnr.solver("sde-dpmpp-2m", eta=0.5) is logsnr.solver(logsnr.solver("sde-dpmpp-2m"), eta=0.5)
    assert half.name == "sde-dpmpp-2m (eta=0.5)"
    assert half != logsnr.solver("sde-dpmpp-2m", eta=0.6)
    assert "sde-dpmpp-2m (eta=er_sde)" in str(
        logsnr.solver("sde-dpmpp-2m", eta=er_sde).program(SCHEDULES[0], [0.9, 0.5])
    )
    assert logsnr.solver("sde-dpmpp-2m", eta=1).order == logsnr.solver("sde-dpmpp-2m").order == 2


@pytest.mark.parametrize("name", STOCHASTIC)
def test_budgets_are_kept(name: str) -> None:
    """nfe=41 is the largest program within 41 evaluations, whatever a solver's steps cost; one step more is not."""
    sch = logsnr.VPLinear()
    program = plan_program(name, sch, nfe=41)
    assert len(program) <= 41 < len(plan_program(name, sch, steps=program.steps + 1))


ANY = [logsnr.EDM(), logsnr.VE(), logsnr.FlowMatching(), logsnr.VPLinear()]


@pytest.mark.parametrize(("name", "sch"), sampled(STOCHASTIC, ANY, every=4))
def test_every_grid_has_a_plan(name: str, sch: logsnr.Schedule) -> None:
    """From one step on, on grids of every kind and from every start, coefficients are finite and noises disjoint."""
    for k, (steps, kind) in enumerate(product((1, 2, 3, 20), GRIDS)):
        startup = ("ramp", "single-step")[k % 2]
        program = logsnr.solver(name).program(sch, logsnr.grid(sch, steps, kind), startup=startup)  # type: ignore[arg-type]
        assert [call.node for call in program if call.node is not None] == list(range(1, steps + 1))
