"""sample and solve: steps and budgets, spans and limits, what they report, and every wrong argument."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from checks import nameless
from sampled import sampled

import logsnr
from logsnr.analysis.gaussian import Gaussian
from logsnr.solvers.planning import plan_program

SCH = logsnr.VPLinear()
PROBLEM = Gaussian(0.7, 0.25)
FIXED = [n for n in logsnr.solver_names() if logsnr.solver(n).planner and not logsnr.solver(n).stochastic]
F64, F32, F16 = torch.float64, torch.float32, torch.float16
ZERO_SNR = logsnr.Discrete(np.cos(np.linspace(0.05, np.pi / 2, 200)) ** 2 * np.linspace(1, 0, 200))
INFINITE = [logsnr.FlowMatching(), logsnr.Trigonometric(), logsnr.VPCosine(), ZERO_SNR]


def normal(*shape: int, dtype: torch.dtype = F64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=F64).to(dtype)


def v_denoiser(problem: Gaussian, sch: logsnr.Schedule) -> logsnr.Denoiser:
    """The exact posterior as a v-prediction, the head that is defined at both ends."""

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a, s = (f(t).reshape(-1, 1) for f in (sch.alpha, sch.sigma))
        x0, eps = problem.posterior(x, sch.alpha(t), sch.sigma(t))
        return a * eps - s * x0

    return logsnr.Denoiser(model, sch, "v", dtype=F64)


HIGHER = [name for name in FIXED if not name.endswith("-1")]


@pytest.mark.parametrize(("solver", "sch", "kind"), sampled(HIGHER, INFINITE, ["logsnr", "karras", "time"], every=4))
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
    torch.testing.assert_close(y, wanted, rtol=0, atol=2e-10 * float(sch.sigma(sch.t_start)))


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
    lengths = [len(plan_program(solver, SCH, steps=k, startup=startup)) for k in range(1, 14)]
    for nfe in (1, 3, 5, 7, 12, 13):
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
    solution = logsnr.solve(PROBLEM.denoiser(SCH), normal(2, 3), solver=solver, nfe=13, startup=startup)
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


@pytest.mark.parametrize("solver", FIXED)
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


DEN = logsnr.Denoiser(lambda x, t: 1 / 0, SCH)
X = torch.ones(2, 3)
WRONG = [
    ({"steps": 0}, ValueError, "at least 1, not 0"),
    ({"steps": -1}, ValueError, "at least 1, not -1"),
    ({"steps": 4.0}, ValueError, "steps must be an integer of at least 1, not 4.0"),
    ({"steps": True}, ValueError, "not True"),
    ({}, ValueError, "either steps or nfe"),
    ({"steps": 3, "nfe": 3}, ValueError, "either steps or nfe"),
    ({"nfe": 0}, ValueError, "nfe must be an integer of at least 1, not 0"),
    ({"nfe": 3.0}, ValueError, "nfe must be an integer of at least 1, not 3.0"),
    ({"nfe": 3, "solver": "rk4"}, ValueError, "rk4 needs at least 4"),
    ({"steps": 3, "solver": "dpmpp2m"}, ValueError, "unknown; did you mean 'dpmpp-2m'"),
    ({"steps": 3, "solver": None}, ValueError, "choose from ddim"),
    ({"steps": 3, "grid": "logsn"}, ValueError, "did you mean 'logsnr'"),
    ({"steps": 3, "solver": ["ddim"]}, ValueError, "unknown; did you mean 'ddim'"),
    ({"steps": 3, "grid": 3}, ValueError, "name or a 1-D array"),
    ({"grid": {1: 2}}, ValueError, "name or a 1-D array of times, not {1: 2}"),
    ({"grid": [[1.0], [0.5, 0.1]]}, ValueError, "name or a 1-D array"),
    ({"steps": 3, "t_start": "a"}, ValueError, "t_start must be a number, not 'a'"),
    ({"steps": 3, "t_start": np.array([1.0])}, ValueError, "t_start must be a number or have shape"),
    ({"steps": 3, "t_start": torch.ones(1)}, ValueError, "t_start must be a number or have shape"),
    ({"steps": 3, "t_end": [0.1]}, ValueError, "t_end must be a number, not .0.1."),
    ({"rtol": 1e-3, "solver": "dopri5", "startup": "fast"}, ValueError, "'ramp' or 'single-step', not 'fast'"),
    ({"steps": 3, "grid": [1.0, 0.5]}, ValueError, "an array of times is the whole grid"),
    ({"t_end": 0.1, "grid": [1.0, 0.5]}, ValueError, "an array of times is the whole grid"),
    ({"grid": [1.0, 0.5, 0.5]}, ValueError, "duplicate"),
    ({"grid": [1.0, 0.5, 0.6]}, ValueError, "not monotone"),
    ({"grid": [1.1, 0.5]}, ValueError, "outside"),
    ({"grid": [1.0, float("nan")]}, ValueError, "not finite"),
    ({"grid": [[1.0, 0.5]]}, ValueError, "1-D"),
    ({"steps": 3, "t_start": 2.0}, ValueError, "t_start = 2.0 to t_end = 0.001: .* outside"),
    ({"steps": 3, "t_start": 0.1, "t_end": 0.1}, ValueError, "duplicate"),
    ({"steps": 3, "startup": "fast"}, ValueError, "'ramp' or 'single-step', not 'fast'"),
    ({"steps": 3, "rtol": 1e-3}, ValueError, "rtol and atol are for adaptive solvers; auto"),
    ({"steps": [3]}, ValueError, r"steps must be an integer of at least 1, not \[3\]"),
    ({"nfe": np.array(3)}, ValueError, r"nfe must be an integer of at least 1, not array\(3\)"),
    ({"steps": 3, "solver": "pc", "snr": 1e200}, ValueError, "snr = 1e.200 must be a number from 0 to 1e100"),
    ({"steps": 3, "solver": "sde-dpmpp-2m", "tau": 1}, ValueError, "tau = 1 is not an option .* it has eta$"),
    ({"steps": 3, "callback": 3}, TypeError, "callback must be a callable"),
    ({"steps": 3, "solver": "pc", "corrections": 0}, ValueError, "corrections = 0 must be an integer of at least 1$"),
    ({"steps": 3, "solver": "ula", "step": 1e300}, ValueError, "coefficient at t = 0.001 is .*, too large for a state"),
    ({"steps": 3, "x": X.int()}, ValueError, "must be a float tensor"),
    ({"steps": 3, "x": X + 0j, "den": logsnr.Denoiser(torch.nn.Linear(3, 3).half(), SCH)}, ValueError, "complex"),
    ({"steps": 3, "x": X.numpy()}, TypeError, "must be a torch tensor, not ndarray"),
    ({"steps": 3, "x": X[0, 0]}, ValueError, "batch dimension"),
    ({"steps": 3, "x": X.to_sparse()}, ValueError, "dense"),
    ({"steps": 3, "den": lambda x, t: x}, TypeError, "must be a logsnr.Denoiser, not function"),
    ({"steps": 3, "den": logsnr.Denoiser(torch.nn.Linear(3, 3, device="meta"), SCH)}, ValueError, "on meta"),
]


@pytest.mark.parametrize("kind", [np.float32, np.array, torch.tensor])
def test_ends_may_be_any_kind_of_number(kind: Callable[[float], Any]) -> None:
    """A tensor is read at every call, so it may change between two."""
    den = logsnr.Denoiser(lambda x, t: x, SCH)
    wanted = [logsnr.sample(den, X, steps=2, t_end=t) for t in (0.5, 0.25)]
    end = kind(0.5)
    assert torch.equal(logsnr.sample(den, X, steps=2, t_end=end), wanted[0])
    end /= 2
    assert torch.equal(logsnr.sample(den, X, steps=2, t_end=end), wanted[1])


@pytest.mark.parametrize(("options", "error", "message"), WRONG, ids=nameless)
def test_wrong_arguments(options: dict, error: type[Exception], message: str) -> None:
    """Every argument that cannot work is refused before the model is called, and the message names it."""
    for _ in "ab":  # a failure is not remembered as a success, nor the other way round
        with pytest.raises(error, match=message):
            logsnr.sample(**{"den": DEN, "x": X, **options})
        logsnr.sample(logsnr.Denoiser(lambda x, t: x, SCH), X, steps=4)
        logsnr.sample(logsnr.Denoiser(lambda x, t: x, SCH), X, steps=1)
