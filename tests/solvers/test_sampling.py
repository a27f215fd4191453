"""sample and solve: steps and budgets, spans and limits, and what they report."""

import re

import numpy as np
import pytest
import torch
from sampled import sampled

import logsnr
from logsnr.analysis.gaussian import Gaussian
from logsnr.bench.orders import methods
from logsnr.solvers.catalogue.planning import plan_program

SCH = logsnr.VPLinear()
PROBLEM = Gaussian(0.7, 0.25)
FIXED = [method.name for method in methods()]  # of equal planners the first name
F64, F32, F16 = torch.float64, torch.float32, torch.float16
ZERO_SNR = logsnr.Discrete(np.cos(np.linspace(0.05, np.pi / 2, 200)) ** 2 * np.linspace(1, 0, 200))
INFINITE = [logsnr.FlowMatching(), logsnr.Trigonometric(), logsnr.VPCosine(), ZERO_SNR]


def normal(*shape: int, dtype: torch.dtype = F64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=F64).to(dtype)


def v_denoiser(problem: Gaussian, sch: logsnr.Schedule) -> logsnr.Denoiser:
    """The exact posterior as a v-prediction, the head that is defined at both ends."""

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = sch.alpha(t), sch.sigma(t)
        x0, eps = problem.posterior(x, alpha, sigma)
        return alpha.reshape(-1, 1) * eps - sigma.reshape(-1, 1) * x0

    return logsnr.Denoiser(model, sch, "v", dtype=F64)


HIGHER = [name for name in FIXED if not name.endswith("-1")]


@pytest.mark.parametrize(("solver", "sch", "kind"), sampled(HIGHER, INFINITE, ["logsnr", "karras", "time"], every=6))
def test_infinite_ends(solver: str, sch: logsnr.Schedule, kind: str) -> None:
    """From alpha = 0, and down to sigma = 0 where the schedule ends there, every solver on every grid is
    finite and near the closed-form flow."""
    x = normal(32, 2)
    y = logsnr.sample(v_denoiser(PROBLEM, sch), x, solver=solver, steps=64, grid=kind)
    wanted = PROBLEM.flow(x, sch, sch.t_start, sch.t_end)
    tolerance = 0.15 if logsnr.solver(solver).order == 1 else 0.04
    assert (y - wanted).abs().max() < tolerance


EXPONENTIAL = [name for name in FIXED if name not in ("euler", "heun", "rk4", "dopri5")]


@pytest.mark.parametrize(
    ("solver", "sch", "steps"), sampled(EXPONENTIAL, [*INFINITE, SCH, logsnr.EDM()], [1, 2, 7], every=6)
)
def test_point_masses_are_exact(solver: str, sch: logsnr.Schedule, steps: int) -> None:
    """Where the data is one point, x0 and eps are constant along the flow and every exponential method is
    exact with any number of steps, infinite ends included."""
    problem = Gaussian(0.7, 0.0)
    x = float(sch.sigma(sch.t_start)) * normal(8, 2) + float(sch.alpha(sch.t_start)) * 0.7
    y = logsnr.sample(v_denoiser(problem, sch), x, solver=solver, steps=steps)
    wanted = problem.flow(x, sch, sch.t_start, sch.t_end)
    # Stages at the end of a step divide what they round by the sigma there, and take that times the whole step.
    rounding = {"pndm": 1e-6, "heun-rho": 2e-9}.get(solver, 2e-10)
    torch.testing.assert_close(y, wanted, rtol=0, atol=rounding * float(sch.sigma(sch.t_start)))


def test_limits_that_the_head_does_not_determine() -> None:
    """An eps model cannot start at alpha = 0: the error says so before the first call and names the time."""
    den = logsnr.Denoiser(lambda x, t: 1 / 0, logsnr.FlowMatching(), "eps")
    with pytest.raises(ValueError, match=r"'eps' does not determine x0 at t = 1, where alpha = 0"):
        logsnr.sample(den, normal(2, 3), steps=4)
    with pytest.raises(ZeroDivisionError):
        logsnr.sample(den, normal(2, 3), steps=4, t_start=0.99)


STARTED = [name for name in FIXED if hasattr(logsnr.solver(name).planner, "startup")]


@pytest.mark.parametrize(
    ("solver", "startup"), [*((name, "ramp") for name in FIXED), *((name, "single-step") for name in STARTED)]
)
def test_budgets(solver: str, startup: str) -> None:
    """nfe=N runs the largest program of at most N calls; below the least possible the error says that
    number."""
    lengths = [len(plan_program(solver, SCH, steps=k, startup=startup)) for k in range(1, 9)]
    for nfe in (1, 3, 5, 7, 8):
        fitting = [k + 1 for k, length in enumerate(lengths) if length <= nfe]
        if not fitting:
            with pytest.raises(ValueError, match=f"nfe = {nfe} is impossible.* at least {lengths[0]} "):
                plan_program(solver, SCH, nfe=nfe, startup=startup)
            continue
        program = plan_program(solver, SCH, nfe=nfe, startup=startup)
        if hasattr(logsnr.solver(solver).planner, "within"):  # it fills the budget
            assert len(program) == nfe
            continue
        assert len(program) == lengths[fitting[-1] - 1] <= nfe
        assert program.steps == fitting[-1]
    solution = logsnr.solve(PROBLEM.denoiser(SCH), normal(2, 3), solver=solver, nfe=8, startup=startup)
    assert solution.program == program
    assert solution.nfe == len(program)


def test_solution_reports_what_was_done() -> None:
    """times is the grid, nfe and rounds count the calls, the program is the one that ran, the trajectory
    starts at x and ends at the answer, in x's dtype; callback and trajectory agree."""
    count = [0]
    exact = PROBLEM.denoiser(SCH)

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        return exact.x0(x, t)

    den = logsnr.Denoiser(model, SCH, "x0")
    x = normal(3, 2, dtype=F32)
    for solver in ("dpmpp-2m", "dpm-3", "heun"):
        seen: list[tuple[int, float, torch.Tensor]] = []
        count[0] = 0
        solution = logsnr.solve(
            den,
            x,
            solver=solver,
            steps=5,
            trajectory=True,
            callback=lambda n, t, y: seen.append((n, t, y.clone())),  # noqa: B023
        )
        assert solution.nfe == solution.rounds == count[0] == len(solution.program or ())
        np.testing.assert_array_equal(solution.times, logsnr.grid(SCH, 5))
        assert solution.trajectory is not None
        assert solution.trajectory.shape == (6, 3, 2)
        assert solution.trajectory.dtype == x.dtype
        assert torch.equal(solution.trajectory[0], x)
        assert torch.equal(solution.trajectory[-1], solution.x)
        assert [n for n, _, _ in seen] == [1, 2, 3, 4, 5]
        assert [t for _, t, _ in seen] == list(solution.times[1:])
        assert all(type(t) is float for _, t, _ in seen)
        assert all(torch.equal(y, solution.trajectory[n]) for n, _, y in seen)
        assert torch.equal(solution.x, logsnr.sample(den, x, solver=solver, steps=5))
        assert logsnr.solve(den, x, solver=solver, steps=5).trajectory is None


def test_progress_and_seed(capsys: pytest.CaptureFixture[str]) -> None:
    """A progress bar and a seed do not change the answer of a deterministic solver, nor the random state."""
    den, x = PROBLEM.denoiser(SCH), normal(3, 2)
    wanted, state = logsnr.sample(den, x, solver="dpmpp-2m", steps=5), torch.get_rng_state()
    assert torch.equal(logsnr.sample(den, x, solver="dpmpp-2m", steps=5, progress=True), wanted)
    shown = capsys.readouterr()
    assert "dpmpp-2m: 100%" in shown.err
    assert "5/5" in shown.err
    assert not shown.out
    adaptive = logsnr.sample(den, x, solver="dopri5", rtol=1e-3)
    assert torch.equal(logsnr.sample(den, x, solver="dopri5", rtol=1e-3, progress=True), adaptive)
    assert re.search(r"dopri5, evaluations: \d+it", capsys.readouterr().err)
    logsnr.sample(den, x, solver="dpmpp-2m", steps=5)
    assert capsys.readouterr() == ("", "")
    for seed in (7, [1, 2, 3]):
        assert torch.equal(logsnr.sample(den, x, solver="dpmpp-2m", steps=5, seed=seed), wanted)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("sch", [SCH, logsnr.FlowMatching(), logsnr.EDM(), logsnr.VE()], ids=str)
def test_partial_spans(sch: logsnr.Schedule) -> None:
    """t_start and t_end inside run the part in between, as an array of the same times does."""
    low, high = sch.domain
    start, end = low + 0.6 * (high - low), low + 0.05 * (high - low)
    x = sch.alpha(start) * 0.7 + sch.sigma(start) * normal(16, 2)
    den = PROBLEM.denoiser(sch)
    y = logsnr.sample(den, x, solver="dpmpp-3s", steps=20, t_start=start, t_end=end)
    wanted = PROBLEM.flow(x, sch, start, end)
    assert (y - wanted).abs().max() < 1e-4 * wanted.abs().max()
    times = logsnr.grid(sch, 20, t_start=start, t_end=end)
    for grid in (times, times.tolist(), torch.from_numpy(times)):
        assert torch.equal(logsnr.sample(den, x, solver="dpmpp-3s", grid=grid), y)
    rounded = logsnr.sample(den, x, solver="dpmpp-3s", grid=torch.from_numpy(times).float())
    torch.testing.assert_close(rounded, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("solver", sampled(FIXED, every=3))
def test_encoding_and_decoding(solver: str) -> None:
    """A grid run backwards encodes, and decoding that gives the data back within the solver's error."""
    sch, den = logsnr.VPCosine(), v_denoiser(PROBLEM, logsnr.VPCosine())
    x = 0.7 + 0.5 * normal(16, 2)
    code = logsnr.sample(den, x, solver=solver, nfe=110, t_start=0.02, t_end=0.95)
    flow = PROBLEM.flow(x, sch, 0.02, 0.95)
    back = logsnr.sample(den, code, solver=solver, nfe=110, t_start=0.95, t_end=0.02)
    tolerance = 0.05 if logsnr.solver(solver).order == 1 else 5e-3
    assert (code - flow).abs().max() < tolerance
    assert (back - x).abs().max() < tolerance
