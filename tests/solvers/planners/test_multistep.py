"""Start-up, notes and infinite ends of the multistep planner."""

import numpy as np
import pytest
from sampled import sampled

import logsnr

SCH = logsnr.VPLinear()
MULTISTEP = [n for n in logsnr.solver_names() if n.startswith(("deis", "dpmpp")) and n[-1] not in "sa"]


@pytest.mark.parametrize("name", MULTISTEP)
@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_startup_costs_what_it_says(name: str, steps: int) -> None:
    """The ramp costs one evaluation a step; "single-step" replaces the first p - 1 steps by p - 1 stages each."""
    solver = logsnr.solver(name)
    grid = logsnr.grid(SCH, steps)
    ramp, single = (solver.program(SCH, grid, startup=s) for s in ("ramp", "single-step"))
    p = solver.order
    assert len(ramp) == steps
    assert len(single) == steps + min(p - 1, steps) * (p - 2) * (p > 2)
    assert any("global order to 2" in note for note in ramp.notes) == (p > 2)
    left, *more = single.notes
    assert (left,) == ("noise of sigma = 0.0105 is left at t = 0.001",) == ramp.notes[-1:]
    assert all(steps == 1 and note.startswith("too few steps") for note in more)


def test_unknown_startup() -> None:
    """A start-up that does not exist is named in the error."""
    with pytest.raises(ValueError, match="'warm'"):
        logsnr.solver("deis-3").program(SCH, logsnr.grid(SCH, 4), startup="warm")  # type: ignore[arg-type]


SINGLE_STEP = ["dpm-2", "dpm-3", "dpmpp-2s", "dpmpp-3s", "heun", "rk4", "dopri5"]
INFINITE = [logsnr.FlowMatching(), logsnr.Trigonometric(), logsnr.VPCosine()]


@pytest.mark.parametrize(
    ("name", "sch", "startup"), sampled([*MULTISTEP, *SINGLE_STEP], INFINITE, ["ramp", "single-step"], every=3)
)
def test_infinite_ends_are_ddim_steps(name: str, sch: logsnr.Schedule, startup: str) -> None:
    """A step to sigma = 0 is x = x0 / 1, whatever the order, and the program says so."""
    grid = logsnr.grid(sch, 6, t_end=0.0)
    program = logsnr.solver(name).program(sch, grid, startup=startup)  # type: ignore[arg-type]
    last = program.calls[-1]
    np.testing.assert_array_equal(last.matrix, [[1.0, 0.0]])
    assert not last.reads
    assert any("step 6 ends at sigma = 0" in note for note in program.notes)
    assert all(call.t > 0 for call in program)


def test_history_skips_a_node_at_infinite_noise() -> None:
    """After a start at alpha = 0 a method in lam has no past value to use; one in t has."""
    sch = logsnr.FlowMatching()
    grid = np.array([1.0, 0.8, 0.6, 0.4])
    lam = logsnr.solver("dpmpp-2m").program(sch, grid)
    t = logsnr.solver("deis-2").program(sch, grid)
    assert [len(call.reads) for call in lam] == [0, 1, 2]
    assert [len(call.reads) for call in t] == [0, 2, 2]


@pytest.mark.parametrize("name", MULTISTEP)
def test_constant_predictions_are_integrated_exactly(name: str) -> None:
    """The weights of a step add up to the closed form of a constant N, to round-off, on a wild grid."""
    grid = SCH.time(np.array([-4.0, -3.9999, -1.0, -0.9, 3.0, 3.0001, 4.4]))
    program = logsnr.solver(name).program(SCH, grid)
    eps = name.startswith("deis")
    for n, call in enumerate(program):
        s, t = grid[n], grid[n + 1]
        total = call.matrix[0, :2].sum() + call.matrix[0, 3:].sum()
        a, b = (SCH.sigma, SCH.alpha) if eps else (SCH.alpha, SCH.sigma)
        assert total == pytest.approx(a(t) - a(s) * b(t) / b(s), rel=1e-9, abs=1e-12)


def test_coefficients_survive_a_thousand_steps() -> None:
    """Weights of order 4 on 5,000 uniform steps are the classical ones times h, to 1e-9: nothing blows up."""
    grid = logsnr.grid(logsnr.VE(), 5000)
    program = logsnr.solver("deis-rho-4").program(logsnr.VE(), grid)
    row = program.calls[2500].matrix[0]
    weights = np.array([row[1], *row[3:]]) / (logsnr.VE().sigma(grid[2501]) - logsnr.VE().sigma(grid[2500]))
    np.testing.assert_allclose(weights, [55 / 24, -59 / 24, 37 / 24, -9 / 24], rtol=1e-2)
    assert weights.sum() == pytest.approx(1, rel=1e-12)
