"""Embedded pairs, step by step: the same bits in any batch, errors near the tolerance, and clear about the rest."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sampled import sampled

import logsnr
from logsnr.analysis.gaussian import Gaussian
from logsnr.analysis.mixture import GaussianMixture
from logsnr.solvers.planners.multistep import Adams
from logsnr.solvers.planners.pairs import AdamsPair, Pair

PAIRS = [name for name in logsnr.solver_names() if isinstance(logsnr.solver(name).adaptive, Pair)]
F64, F32, F16 = torch.float64, torch.float32, torch.float16
TABLE = logsnr.Discrete(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
SCHEDULES = [logsnr.VPLinear(), logsnr.EDM(), logsnr.FlowMatching(), TABLE, logsnr.VPCosine(), logsnr.Trigonometric()]
GAUSS = Gaussian(0.7, 0.25)
TWO = logsnr.analysis.two_gaussians()


def start(sch: logsnr.Schedule, *shape: int, dtype: torch.dtype = F64) -> torch.Tensor:
    return logsnr.start(sch, shape, seed=0, dtype=dtype)


def smooth(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A model whose answers depend on the sample alone, nonlinear."""
    at = t.reshape(-1, *[1] * (x.dim() - 1)).to(x.dtype)
    return x / (1 + at * at) + x * x * x / (10 + 10 * x * x)


def denoiser(problem: Any, sch: logsnr.Schedule) -> logsnr.Denoiser:
    """The exact denoiser; of flow matching the velocity, which is known at both ends."""
    if not isinstance(sch, logsnr.FlowMatching):
        return problem.denoiser(sch)

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        x0, eps = problem.posterior(x, sch.alpha(t), sch.sigma(t))
        return eps - x0

    return logsnr.Denoiser(velocity, sch, "velocity")


@pytest.mark.parametrize(("name", "sch", "dtype"), sampled(PAIRS, SCHEDULES, [F64, F32, F16], every=7))
def test_the_same_bits_alone_and_in_any_batch(name: str, sch: logsnr.Schedule, dtype: torch.dtype) -> None:
    """State, steps and evaluations of a sample are those that it has alone, or in another order."""
    den = logsnr.Denoiser(smooth, sch, "v", time="t" if sch.half_logsnr(sch.t_end) == np.inf else "c_noise")
    x = start(sch, 5, 3, 7, dtype=dtype)
    options: dict[str, Any] = {"solver": name, "rtol": 1e-2, "atol": 1e-2}
    whole = logsnr.solve(den, x, **options)
    for rows in ([0], [3], [4, 1, 2]):
        some = logsnr.solve(den, x[rows], **options)
        assert torch.equal(some.x, whole.x[rows])
        for field in ("accepted", "rejected", "nfe_per_sample"):
            assert torch.equal(getattr(some, field), getattr(whole, field)[rows])
        for i, grid in zip(rows, some.grids, strict=True):
            assert np.array_equal(grid, whole.grids[i])


def problems() -> list[tuple[str, Any, tuple[int, ...]]]:
    g = torch.Generator().manual_seed(0)
    means = torch.randn(8, 16, generator=g)
    return [
        ("two", TWO, ()),
        ("gauss", Gaussian(torch.full((16,), 0.3), torch.linspace(0.02, 0.25, 16)), (16,)),
        ("mixture", GaussianMixture(means, torch.full((8,), 0.05)), (16,)),
    ]


@pytest.mark.parametrize(
    ("problem", "sch"),
    sampled([p[0] for p in problems()], [logsnr.VPLinear(), logsnr.EDM(), logsnr.FlowMatching()], every=3),
)
def test_errors_are_near_the_tolerance_and_evaluations_few(problem: str, sch: logsnr.Schedule) -> None:
    """At 1e-2 and 1e-3 the median error is within three tolerances, and the Adams pairs need fewer evaluations than
    dopri5, which is further off."""
    known, shape = next((p, event) for name, p, event in problems() if name == problem)
    den, x = denoiser(known, sch), start(sch, 16, *shape)
    exact = logsnr.solve(den, x, solver="adams-34", rtol=1e-5, atol=1e-5).x
    if not shape:
        torch.testing.assert_close(exact, known.reference(x, sch, sch.t_start, sch.t_end), rtol=1e-4, atol=1e-4)
    for tol in (1e-2, 1e-3):
        boxed = logsnr.solve(den, x, solver="dopri5", rtol=tol, atol=tol)
        for name in PAIRS:
            found = logsnr.solve(den, x, solver=name, rtol=tol, atol=tol)
            off = ((found.x - exact) / (tol + tol * exact.abs())).reshape(len(x), -1).square().mean(1).sqrt()
            assert off.median() < 3
            assert found.nfe_per_sample is not None
            if name in ("adams-23", "adams-34"):
                assert found.nfe_per_sample.double().mean() < boxed.nfe


@pytest.mark.parametrize(
    ("name", "order", "digits"),
    [
        ("dpm-12", 2, (3, 4)),
        ("dpm-23", 3, (4, 5)),
        pytest.param("adams-12", 2, (4, 6), marks=pytest.mark.slow),
        ("adams-23", 3, (5, 7)),
    ],
)
def test_errors_fall_with_the_order(name: str, order: int, digits: tuple[int, int]) -> None:
    """Error against evaluations, as the tolerance falls, for Adams pairs further; it falls with the tolerance."""
    sch, x = logsnr.VPLinear(), torch.linspace(-2, 2, 9, dtype=F64)
    exact = TWO.reference(x, sch, 0.9, 0.05)
    found = []
    for tol in (10.0**-n for n in digits):
        run = logsnr.solve(TWO.denoiser(sch), x, solver=name, rtol=tol, atol=tol, t_start=0.9, t_end=0.05)
        found.append([run.nfe_per_sample.double().mean(), (run.x - exact).abs().mean()])  # type: ignore[union-attr]
        assert found[-1][1] < 3 * tol
    nfe, error = np.log(found[1]) - np.log(found[0])
    assert -error / nfe == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(
    ("name", "planner"),
    [
        ("dpm-12", "dpm-2"),
        ("dpm-23", "dpm-3"),
        ("adams-12", Adams("x0", 1, corrector=True)),
        ("adams-23", Adams("x0", 2, corrector=True)),
    ],
)
def test_runs_are_the_fixed_program_on_the_grid_that_they_found(name: str, planner: Any) -> None:
    """`Solution.grids` is a grid: the same numbers as by a table. A table ends with the predicted state, on which the
    last evaluation of an Adams pair is made."""
    sch, seen = logsnr.VPLinear(), []
    exact = TWO.denoiser(sch)

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return exact.model(x, t)

    x = start(sch, 1)
    found = logsnr.solve(logsnr.Denoiser(model, sch, exact.prediction), x, solver=name, rtol=1e-3, atol=1e-3)
    assert found.rejected is not None
    table = logsnr.sample(exact, x, solver=planner, grid=found.grids[0])
    carries = isinstance(logsnr.solver(name).adaptive, AdamsPair)
    torch.testing.assert_close(seen[-1] if carries else found.x, table, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", PAIRS)
def test_the_report(name: str) -> None:
    """Evaluations are counted per sample, and the model is always shown the whole batch; a harder sample takes more."""
    sch, shown = logsnr.VPLinear(), []
    exact = TWO.denoiser(sch)

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        shown.append((len(x), t.shape))
        return exact.model(x, t)

    x = torch.tensor([3.0, 0.2, -0.01])
    found = logsnr.solve(logsnr.Denoiser(model, sch, exact.prediction), x, solver=name, rtol=1e-3, atol=1e-3)
    assert found.accepted is not None
    assert found.rejected is not None
    assert found.nfe_per_sample is not None
    pair: Any = logsnr.solver(name).adaptive
    tries = found.accepted * pair.evaluations + found.rejected * (pair.stages - 1)
    assert torch.equal(found.nfe_per_sample, tries + isinstance(pair, AdamsPair))
    assert found.nfe == found.rounds == len(shown) == int(found.nfe_per_sample.max())
    assert set(shown) == {(3, torch.Size([3]))}
    assert [len(grid) - 1 for grid in found.grids] == found.accepted.tolist()
    assert all(g[0] == sch.t_start and g[-1] == sch.t_end and (np.diff(g) < 0).all() for g in found.grids)
    assert len(set(found.accepted.tolist())) > 1


@pytest.mark.parametrize(
    ("name", "sch"), sampled(PAIRS, [logsnr.FlowMatching(), logsnr.Trigonometric(), TABLE], every=3)
)
def test_runs_reach_sigma_0_and_back(name: str, sch: logsnr.Schedule) -> None:
    """From pure noise to clean data and back to the same noise, with the end's denoising counted."""
    den, x = denoiser(GAUSS, sch) if sch != TABLE else GAUSS.denoiser(sch), start(sch, 4, 3)
    if isinstance(sch, logsnr.Trigonometric):
        den = logsnr.Denoiser(_v(sch), sch, "v")
    options: dict[str, Any] = {"solver": name, "rtol": 1e-3, "atol": 1e-3}
    found = logsnr.solve(den, x, **options)
    wanted = GAUSS.flow(x, sch, sch.t_start, sch.t_end)
    assert float((found.x - wanted).abs().max()) < (0.03 if sch == TABLE else 0.01)  # sigma at its first entry is 0.01
    assert found.nfe_per_sample is not None
    assert found.times.tolist() == [sch.t_start, sch.t_end]
    if sch != TABLE:
        back = logsnr.sample(den, found.x, t_start=sch.t_end, t_end=sch.t_start, **options)
        assert float((back - x).abs().max()) < 0.05


def _v(sch: logsnr.Schedule) -> Callable[..., torch.Tensor]:
    def v(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (a.reshape(-1, *[1] * (x.dim() - 1)) for a in (sch.alpha(t), sch.sigma(t)))
        x0, eps = GAUSS.posterior(x, sch.alpha(t), sch.sigma(t))
        return alpha * eps - sigma * x0

    return v


@pytest.mark.parametrize("name", PAIRS)
def test_trajectory_callback_and_direction(name: str) -> None:
    """States at every time of an array, from noise to data and back; the callback sees them all."""
    sch, seen, times = logsnr.VPLinear(), [], [0.9, 0.5, 0.3, 0.1]
    den, x = GAUSS.denoiser(sch), start(sch, 4, 3)
    for t in (times, times[::-1]):
        found = logsnr.solve(
            den, x, solver=name, rtol=1e-4, atol=1e-4, grid=t, trajectory=True,
            callback=lambda node, time, state: seen.append((node, time, state.clone())),
        )  # fmt: skip
        assert found.trajectory is not None
        for node, u in enumerate(t):
            wanted = GAUSS.flow(x, sch, t[0], u)
            torch.testing.assert_close(found.trajectory[node], wanted, rtol=5e-4, atol=5e-4)
        assert torch.equal(found.x, found.trajectory[-1])
        assert all(set(t) <= set(grid.tolist()) for grid in found.grids)
    assert [(node, u) for node, u, _ in seen[:3]] == [(1, 0.5), (2, 0.3), (3, 0.1)]
    assert torch.equal(seen[-1][2], found.x)


@pytest.mark.parametrize("name", PAIRS)
def test_half_precision_models_one_sample_and_none(name: str) -> None:
    """A model in fp16 gets a state in fp32; one sample of one number, and no sample, are batches too."""
    sch = logsnr.VPLinear()
    den = logsnr.Denoiser(smooth, sch, "v", dtype=F16)
    found = logsnr.solve(den, start(sch, 3, 4, dtype=F32), solver=name, rtol=1e-2, atol=1e-2)
    exact = logsnr.sample(logsnr.Denoiser(smooth, sch, "v"), start(sch, 3, 4), solver="dpm-4m", steps=100)
    assert found.x.dtype == F32
    assert float((found.x - exact).abs().max()) < 0.05
    one = logsnr.solve(TWO.denoiser(sch), start(sch, 1), solver=name)
    assert one.x.shape == (1,)
    for shape in ((0, 3), (2, 0)):
        none = logsnr.solve(den, torch.ones(shape), solver=name, trajectory=True)
        assert none.x.shape == shape
        assert none.nfe == 0
        assert none.nfe_per_sample is not None
        assert none.nfe_per_sample.tolist() == [0] * shape[0]


def test_gradients_flow_through_the_steps() -> None:
    sch = logsnr.VPLinear()
    x = start(sch, 4, 3).requires_grad_()
    y = logsnr.sample(GAUSS.denoiser(sch), x, solver="adams-34", rtol=1e-6, atol=1e-6)
    (slope,) = torch.autograd.grad(y.sum(), x)
    factor = np.sqrt([sch.alpha(t) ** 2 * 0.25 + sch.sigma(t) ** 2 for t in (1e-3, 1.0)])
    torch.testing.assert_close(slope, torch.full_like(x, factor[0] / factor[1]), rtol=1e-4, atol=0)
