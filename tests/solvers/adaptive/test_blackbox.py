"""Black-box solvers: accurate, counted, inside the span; and clear about what they cannot do."""

import numpy as np
import pytest
import torch
from sampled import sampled

import logsnr
from logsnr.analysis.gaussian import Gaussian

METHODS = [n for n in logsnr.solver_names() if isinstance(logsnr.solver(n).adaptive, str)]
PROBLEM = Gaussian(0.7, 0.25)
F64, F32, F16 = torch.float64, torch.float32, torch.float16


def noise(sch: logsnr.Schedule, dtype: torch.dtype = F64) -> torch.Tensor:
    return (sch.sigma(sch.t_start) * torch.randn(4, 3, dtype=F64)).to(dtype)


@pytest.mark.parametrize(
    ("method", "sch"), sampled(METHODS, [logsnr.VPLinear(), logsnr.VE(0.01, 10.0), logsnr.VPCosine()], every=2)
)
def test_accuracy_count_and_span(method: str, sch: logsnr.Schedule) -> None:
    """Every method is within 100 tolerances of the exact Gaussian flow; .nfe counts the model calls; no time
    outside the span is ever asked for."""
    asked: list[float] = []
    exact = PROBLEM.denoiser(sch)

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(float(t[0]))
        return exact.x0(x, t)

    den = logsnr.Denoiser(model, sch, "x0")
    x = noise(sch)
    solution = logsnr.solve(den, x, solver=method, rtol=1e-4, atol=1e-4)
    wanted = PROBLEM.flow(x, sch, sch.t_start, sch.t_end)
    assert (solution.x - wanted).abs().max() < 1e-2 * (1 + wanted.abs().max())
    assert solution.nfe == solution.rounds == len(asked)
    assert solution.times.tolist() == [sch.t_start, sch.t_end]
    assert min(asked) >= sch.t_end
    assert max(asked) <= sch.t_start


@pytest.mark.parametrize("dtype", [F64, F32, F16])
def test_tighter_is_better_and_dtype_is_kept(dtype: torch.dtype) -> None:
    """The error falls with the tolerance down to the dtype's rounding; the state is fp32 at least
    meanwhile."""
    sch = logsnr.VPLinear()
    x = noise(sch, dtype)
    wanted = PROBLEM.flow(x.double(), sch, 1.0, 1e-3)
    rounding = torch.finfo(dtype).eps * float(wanted.abs().max())
    for tol in (1e-3, 1e-5):
        solution = logsnr.solve(PROBLEM.denoiser(sch), x, solver="dopri5", rtol=tol, atol=tol)
        assert solution.x.dtype == dtype
        assert (solution.x.double() - wanted).abs().max() < 30 * tol + rounding


def test_dopri5_is_a_table_with_steps_and_adaptive_with_tolerances() -> None:
    """steps=, nfe= or an array of times give dopri5 a program of six evaluations a step; it is adaptive with one
    tolerance, and without any of these; both together are refused."""
    sch = logsnr.VPLinear()
    den, x = PROBLEM.denoiser(sch), noise(sch)
    fixed = logsnr.solve(den, x, solver="dopri5", steps=3)
    assert fixed.nfe == 18
    assert logsnr.solve(den, x, solver="dopri5", grid=[0.9, 0.5, 0.1]).nfe == 12
    assert fixed.program is not None
    for options in ({}, {"rtol": 1e-3}, {"atol": 1e-3}):
        assert logsnr.solve(den, x, solver="dopri5", **options).program is None
    for options in ({"steps": 3}, {"nfe": 30}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} = .* does not go with an adaptive run of dopri5"):
            logsnr.solve(den, x, solver="dopri5", rtol=1e-3, **options)


def test_trajectory_grid_callback_and_direction() -> None:
    """States at every time of an array, exact ones, also from clean to noisy; the callback sees them all."""
    sch = logsnr.VPLinear()
    den, x, seen = PROBLEM.denoiser(sch), noise(sch), []
    times = [0.9, 0.5, 0.3, 0.1]
    for t in (times, times[::-1]):
        solution = logsnr.solve(
            den,
            x,
            solver="dopri5",
            rtol=1e-8,
            atol=1e-8,
            grid=t,
            trajectory=True,
            callback=lambda node, time, state: seen.append((node, time, state.clone())),
        )
        assert solution.times.tolist() == t
        assert solution.trajectory is not None
        for node, u in enumerate(t):
            torch.testing.assert_close(solution.trajectory[node], PROBLEM.flow(x, sch, t[0], u), rtol=0, atol=1e-5)
        assert torch.equal(solution.x, solution.trajectory[-1])
    assert [(node, u) for node, u, _ in seen[:3]] == [(1, 0.5), (2, 0.3), (3, 0.1)]
    assert torch.equal(seen[-1][2], solution.x)


@pytest.mark.parametrize(("method", "sch"), sampled(METHODS, [logsnr.VPCosine(), logsnr.VPLinear()], every=2))
def test_inner_states_are_as_exact_as_the_end(method: str, sch: logsnr.Schedule) -> None:
    """Steps end at the times asked for: an interpolation between them was up to 1000 times worse."""
    x, times = noise(sch), [0.95, 0.5, 0.3, 0.05]
    solution = logsnr.solve(
        PROBLEM.denoiser(sch), x, solver=method, rtol=1e-6, atol=1e-6, grid=times, trajectory=True
    )  # fmt: skip
    assert solution.trajectory is not None
    for state, t in zip(solution.trajectory, times, strict=True):
        assert float((state - PROBLEM.flow(x, sch, times[0], t)).abs().max()) < 2e-5
    assert not solution.times.flags.writeable


@pytest.mark.parametrize(
    ("sch", "prediction", "t"),
    [
        (logsnr.FlowMatching(), "x0", 0),
        (logsnr.FlowMatching(), "eps", 1),
        (logsnr.FlowMatching(), "score", 1),
        (logsnr.VPCosine(), "eps", 1),
        (logsnr.Trigonometric(), "x0", 0),
    ],
)
def test_undetermined_ends(sch: logsnr.Schedule, prediction: str, t: float) -> None:
    """Where the head says nothing about dx/dt at an end of the span the run is refused before the first call,
    and a span inside is not."""
    den = logsnr.Denoiser(lambda x, t: 1 / 0, sch, prediction)
    with pytest.raises(ValueError, match=f"{prediction!r} does not determine dx/dt at t = {t}"):
        logsnr.solve(den, torch.ones(2, 3), solver="dopri5", rtol=1e-3)
    with pytest.raises(ZeroDivisionError):
        logsnr.solve(den, torch.ones(2, 3), solver="dopri5", rtol=1e-3, t_start=0.9, t_end=0.1)


def test_velocity_models_reach_both_ends() -> None:
    """A velocity model needs no conversion: flow matching from t = 1 to t = 0."""
    sch = logsnr.FlowMatching()
    exact = PROBLEM.posterior

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        x0, eps = exact(x, sch.alpha(t), sch.sigma(t))
        return eps - x0

    x = torch.randn(4, 3, dtype=F64)
    y = logsnr.sample(logsnr.Denoiser(velocity, sch, "velocity"), x, solver="dopri5", rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(y, PROBLEM.flow(x, sch, 1.0, 0.0), rtol=0, atol=1e-6)


def test_bad_input() -> None:
    """Tolerances, grids and states that cannot work are refused; a model that breaks is named with its
    time."""
    sch = logsnr.VPLinear()
    den, x = PROBLEM.denoiser(sch), noise(sch)
    for options, message in [
        ({"rtol": 0.0}, "rtol must be positive, not 0.0"),
        ({"atol": -1.0}, "atol must be positive, not -1.0"),
        ({"rtol": float("nan")}, "rtol must be positive"),
        ({"rtol": "fine"}, "rtol must be positive, not 'fine'"),
        ({"rtol": 1e-20}, "below the precision of the state"),
        ({"rtol": 1e-3, "grid": "karras"}, "grid = 'karras' does not go with an adaptive run"),
        ({"rtol": 1e-3, "grid": [1.0, 0.5], "t_end": 0.2}, "leave out t_end"),
        ({"rtol": 1e-3, "grid": [1.0, 0.5, 0.5]}, "duplicate"),
        ({"rtol": 1e-3, "t_end": -1.0}, "outside"),
    ]:
        with pytest.raises(ValueError, match=message):
            logsnr.solve(den, x, solver="dopri5", **options)
    for options, message in [
        ({"rtol": 1e-3}, r"Picard\(.*: leave it out, or leave out rtol and atol for fixed steps$"),
        ({}, r"Picard\(.*: leave it out, or give steps or nfe for fixed steps$"),
    ]:
        with pytest.raises(ValueError, match=message):
            logsnr.solve(den, x, solver="dopri5", parallel=logsnr.Picard(), **options)
    with pytest.raises(ValueError, match="rk4 takes fixed steps"):
        logsnr.solve(den, x, solver="rk4", steps=3, rtol=1e-3)
    with pytest.raises(ValueError, match="steps = 3 does not go with an adaptive run of bosh3"):
        logsnr.solve(den, x, solver="bosh3", steps=3)
    with pytest.raises(ValueError, match="x holds infinities"):
        logsnr.solve(den, x * float("inf"), solver="bosh3")
    with pytest.raises(ValueError, match="returned shape") as caught:
        logsnr.solve(logsnr.Denoiser(lambda x, t: x[:1], sch), x, solver="dopri5", rtol=1e-3)
    assert caught.value.__notes__ == ["at call 1, t = 1"]
    broken = logsnr.Denoiser(lambda x, t: x * (float("nan") if float(t[0]) < 0.5 else 1.0), sch)
    with pytest.raises(logsnr.NonFiniteError, match="non-finite value at call"):
        logsnr.solve(broken, x, solver="dopri5", rtol=1e-3)


def test_empty_batch_and_gradients() -> None:
    """A batch of none is answered without a call; gradients flow through an adaptive run."""
    sch = logsnr.VPLinear()
    den = PROBLEM.denoiser(sch)
    empty = logsnr.solve(den, torch.ones(0, 3), solver="dopri5", rtol=1e-3, trajectory=True)
    assert empty.x.shape == (0, 3)
    assert empty.nfe == 0
    x = noise(sch).requires_grad_()
    y = logsnr.sample(den, x, solver="dopri5", rtol=1e-8, atol=1e-8)
    (slope,) = torch.autograd.grad(y.sum(), x)
    factor = np.sqrt([sch.alpha(t) ** 2 * 0.25 + sch.sigma(t) ** 2 for t in (1e-3, 1.0)])
    torch.testing.assert_close(slope, torch.full_like(x, factor[0] / factor[1]), rtol=1e-5, atol=0)
