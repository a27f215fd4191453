"""Steps that are repeated from the noise that they began with."""

import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from loops import X, by_schedule, check, eps_of, inside, levels, net, play
from mutants import altered

import logsnr
from logsnr.analysis import Gaussian, sampler_moments
from logsnr.control import FreeDoM, TimeTravel

VP = logsnr.VPLinear()


def ddim(sch: logsnr.Schedule, x: np.ndarray, s: float, t: float) -> np.ndarray:
    alpha, sigma, _ = levels(sch, t)
    return alpha * net(x, s) + sigma * eps_of(x, s, sch)


@by_schedule
@pytest.mark.parametrize("length", [1, 2])
def test_the_published_loop(sch: logsnr.Schedule, length: int) -> None:
    """FreeDoM's and RePaint's, with the same normals: down, back up, and down again, within an interval alone."""
    lam = [levels(sch, t)[2] for t in inside(sch).tolist()]

    def loop(grid: list[float], xi: Callable) -> np.ndarray:
        x, visit = ddim(sch, X, *grid[:2]), 0
        for first in range(1, 5, length):
            nodes = grid[first : first + length + 1]
            (a, b, _), (c, d, _) = levels(sch, nodes[-1]), levels(sch, nodes[0])
            for left in (2, 1, 0):
                for s, t in pairwise(nodes):
                    x = ddim(sch, x, s, t)
                if left:
                    visit += 1
                    up = np.sqrt(d**2 - (c / a * b) ** 2) * xi(nodes[-1], nodes[0], 1024 * visit + 1023)
                    x = c / a * x + up
        return ddim(sch, x, *grid[-2:])

    between = (lam[1] - 1e-9, lam[5] + 1e-9)
    planner = TimeTravel("ddim", repeats=3, length=length, interval=between)
    program = check(logsnr.Solver("travel", planner=planner), sch, loop, tol=1e-11)
    assert len(program) == 2 + 3 * 4
    assert [call.node for call in program if call.node is not None] == [1, 2, 3, 4, 5, 6]
    assert len(program.noises) == 2 * 4 // length


def test_passes_are_those_of_any_solver() -> None:
    """Of several calls and slots, with history and with noise of their own, planned each for itself."""
    grid = inside(VP, 4)
    for name, noises in (("heun", 4), ("dpmpp-2m", 2), ("sde-dpmpp-2m", 8)):
        length = 1 if name == "heun" else 2
        program = logsnr.solver(TimeTravel(name, length=length)).program(VP, grid)
        assert len(program.noises) == (noises if name != "sde-dpmpp-2m" else 2 + 8)
        given = {key: np.random.default_rng(k).normal(size=len(X)) for k, key in enumerate(program.noises)}
        x = X
        for visit, first in enumerate(range(0, 4, length), start=1):
            leg = grid[first : first + length + 1]
            part = logsnr.solver(name).program(VP, leg)
            (a, b, _), (c, d, _) = levels(VP, float(leg[-1])), levels(VP, float(leg[0]))
            x = piece(part, x, {k: given[k._replace(stream=visit * 1024)] for k in part.noises})
            x = c / a * x + np.sqrt(d**2 - (c / a * b) ** 2) * given[(leg[-1], leg[0], visit * 1024 + 1023)]
            x = piece(part, x, {k: given[k] for k in part.noises})
        np.testing.assert_allclose(play(program, VP, given), x, rtol=1e-10)


def piece(program: logsnr.Program, x: np.ndarray, noises: Any) -> np.ndarray:
    def model(x: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
        return net(x, t), eps_of(x, t, VP)

    return program.interpret(x, model, noises)


def test_its_law_on_a_gaussian() -> None:
    """Steps are affine and jumps add variances: the law in closed form, without the library's moments."""
    c, m, repeats = 0.3, 0.7, 4
    grid = logsnr.grid(VP, 5)
    found = sampler_moments(logsnr.solver(TimeTravel("ddim", repeats)), Gaussian(m, c), VP, grid=grid)
    alpha, sigma = VP.alpha(grid), VP.sigma(grid)
    mean, variance = alpha[0] * m, alpha[0] ** 2 * c + sigma[0] ** 2
    for n in range(5):
        a, b, d, e = alpha[n], sigma[n], alpha[n + 1], sigma[n + 1]
        gain = d * a * c / (a * a * c + b * b) + e * b / (a * a * c + b * b)  # of DDIM on centred states
        for k in range(repeats):
            mean, variance = d * m + gain * (mean - a * m), gain**2 * variance
            if k < repeats - 1:
                mean, variance = a / d * mean, (a / d) ** 2 * variance + b * b - (a / d * e) ** 2
    assert float(found.mean) == pytest.approx(mean, rel=1e-10)
    assert float(found.cov) == pytest.approx(variance, rel=1e-10)


@pytest.mark.parametrize(("name", "length"), [("ddim", 1), ("heun", 1), ("dpmpp-2m", 4)])
def test_the_order_of_its_law(name: str, length: int) -> None:
    """By exact moments, on grids that are not even; not with noise of another size."""
    solver = logsnr.solver(TimeTravel(name, length=length, startup="single-step" if length > 1 else None))

    def louder(call: logsnr.Call) -> np.ndarray:
        matrix = call.matrix.copy()
        matrix[:, call.models + len(call.reads) :] *= 1.01
        return matrix

    for one, right in ((solver, True), (altered(solver, louder), False)):
        errors = []
        for steps in (60, 120):
            x = np.linspace(0, 1, steps + 1)
            grid = VP.time(-4 + 7 * (x + 0.1 * np.sin(3 * x)) / (1 + 0.1 * np.sin(3)))
            errors.append(float(sampler_moments(one, Gaussian(0.7, 0.3), VP, grid=grid).w2))
        order = np.log2(errors[0] / errors[1])
        assert (abs(order - solver.order) < 0.1) == right


def test_errors_of_before_are_forgotten() -> None:
    """With fine steps the law is that of the data, and a start of the wrong law is repaired."""
    data, grid = Gaussian(0.0, 0.25), logsnr.grid(VP, 40)
    x = 0.5 * logsnr.randn((4000, 1), seed=0, dtype=torch.float64)  # half of the noise that there should be
    spreads = {}
    for repeats in (1, 2):
        solver = TimeTravel("heun", repeats, length=10, interval=(-3.0, 9.0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of that
            end = logsnr.sample(data.denoiser(VP), x, solver=solver, grid=grid, seed=1)
        spreads[repeats] = float(end.std())
        law = sampler_moments(logsnr.solver(solver), data, VP, grid=grid)
        assert float(law.w2) < 0.01
    assert abs(spreads[2] - 0.5) < 0.05
    assert abs(spreads[1] - 0.5) > 0.2


def test_with_a_guide_alone_in_parallel_and_in_a_batch() -> None:
    """FreeDoM on a Gaussian, whose mean has a closed form; samples have the same bits alone and in windows."""
    target, scale, repeats = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64), 0.2, 3
    guide = FreeDoM(lambda x0: (x0 - target).square().sum(1), scale)
    model = Gaussian(0.0, 1.0).denoiser(VP, "eps").model
    den = logsnr.Denoiser(model, VP, "eps", dtype=torch.float64, map_x0=guide)
    solver, grid = TimeTravel("ddim", repeats), logsnr.grid(VP, 8)
    mean = torch.zeros(3, dtype=torch.float64)
    for s, t in pairwise(grid.tolist()):
        (a, b, _), (c, d, _) = levels(VP, s), levels(VP, t)
        for left in reversed(range(repeats)):
            slope = a / (a * a + b * b)
            x0 = slope * mean
            x0 = x0 - scale * b * b / a * slope * 2 * (x0 - target)
            mean = c * x0 + d * (mean - a * x0) / b
            mean = a / c * mean if left else mean
    still = logsnr.sample(
        den, 0 * target[None], solver=solver, grid=grid, noise=lambda key, like: torch.zeros_like(like)
    )
    torch.testing.assert_close(still[0], mean, rtol=1e-10, atol=1e-10)

    x = logsnr.start(VP, (3, 3), seed=0, dtype=torch.float64)
    found = logsnr.solve(den, x, solver=solver, grid=grid, seed=3, trajectory=True)
    assert found.nfe == 8 * repeats
    alone = logsnr.sample(den, x[1:2], solver=solver, grid=grid, seed=3, sample_ids=[1])
    assert torch.equal(alone, found.x[1:2])
    parallel = logsnr.sample(den, x, solver=solver, grid=grid, seed=3, parallel=logsnr.Picard(tol=0.0))
    torch.testing.assert_close(parallel, found.x, rtol=1e-12, atol=1e-12)
    once = logsnr.sample(den, x, solver=TimeTravel("ddim", 1), grid=grid)
    assert torch.equal(once, logsnr.sample(den, x, solver="ddim", grid=grid))


@pytest.mark.parametrize("v", [0.5, 1.0])
def test_learned_variance_is_not_that_of_jumps(v: float) -> None:
    """A network that says one v everywhere, in fp32, runs as with that variance."""
    table = logsnr.Discrete(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    x, grid = logsnr.randn((3, 2, 4), seed=0, dtype=torch.float64), np.array([999.0, 700, 400, 20])

    def end(answer: Callable, variance: Any) -> torch.Tensor:
        solver = TimeTravel(logsnr.solver("ddpm", variance=variance), 2)
        return logsnr.sample(logsnr.Denoiser(answer, table, "eps"), x, solver=solver, grid=grid, seed=1)

    found = end(lambda x, t: torch.cat([torch.sin(x), torch.full_like(x, v)], dim=1), "learned")
    torch.testing.assert_close(found, end(lambda x, t: torch.sin(x), (1 + v) / 2), rtol=1e-5, atol=1e-5)


GAUSSIAN = logsnr.Wiener(0.3, 0.5)


def test_known_calls_are_left_out_of_the_whole() -> None:
    """All visits of the first step, whose answers the Gaussian gives exactly here."""
    sch = logsnr.EDM()
    den, x = Gaussian(0.3, 0.5).denoiser(sch), logsnr.start(sch, (2, 3), seed=0, dtype=torch.float64)
    solver = logsnr.solver(TimeTravel("ddim", repeats=3))
    both = solver, solver.with_known(GAUSSIAN, 3)
    asked, known = (logsnr.solve(den, x, solver=one, steps=5, seed=1) for one in both)
    assert (asked.nfe, known.nfe) == (15, 12)
    torch.testing.assert_close(known.x, asked.x, rtol=1e-12, atol=1e-12)


def test_what_is_refused() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"repeats": 0}, "repeats = 0 must be"),
        ({"length": 1.5}, "length = 1.5 must be"),
        ({"interval": (1.0, 1.0)}, r"interval = \(1.0, 1.0\) must be \(lo, hi\) in lam"),
        ({"interval": 3}, "interval = 3 must be"),
        ({"solver": "dopri8"}, "dopri8 chooses its own steps"),
        ({"solver": "nonsense"}, "nonsense"),
        ({"solver": logsnr.solver("ddim").with_known(GAUSSIAN)}, "ddim-known leaves out the first calls of a run"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            TimeTravel(**options)
    in_basis = logsnr.solver("wiener-1", gaussian=logsnr.Wiener(np.zeros(4), 1.0, basis="dct"))
    with pytest.raises(ValueError, match="is in the basis dct"):
        logsnr.solver(TimeTravel(in_basis)).program(VP, logsnr.grid(VP, 3))
    assert TimeTravel("dpmpp-2m").global_order == 1
    assert TimeTravel("heun").global_order == 2
    assert hash(TimeTravel("heun")) == hash(TimeTravel("heun"))
