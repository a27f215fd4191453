"""Grids that are searched for: at a minimum, the closed form where there is one, and better than any name."""

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr import analysis as A

EDM, FLOW, VP = logsnr.EDM(), logsnr.FlowMatching(), logsnr.VPLinear()
STDS = np.geomspace(0.05, 1, 8)


def error(program: logsnr.Program, sch: logsnr.Schedule, stds: Any = STDS) -> float:
    """As `rank` measures it, from the transfer function."""
    last = program.grid[-1]
    size = (sch.alpha(last) * np.asarray(stds)) ** 2 + sch.sigma(last) ** 2
    return float(np.sqrt((size * A.transfer(program, sch, stds).error ** 2).sum() / size.sum()))


@pytest.mark.parametrize("c", [0.3, 1.0])
def test_ddim_on_one_gaussian_has_the_arctan_grid(c: float) -> None:
    """On N(0, c^2) the least error is that of the closed form."""
    found = A.optimal_grid([c], "ddim", 6, EDM)
    best = logsnr.grid(EDM, 6, "arctan", c=c)
    np.testing.assert_allclose(np.arctan(found.times / c), np.arctan(best / c), atol=0.01)
    least = error(logsnr.solver("ddim").program(EDM, best), EDM, [c])
    assert least - 1e-12 < found.error < 1.002 * least


@pytest.mark.parametrize(
    ("solver", "sch", "nfe"),
    [("deis-3", VP, 7), ("dpmpp-2m", FLOW, 6), ("heun", EDM, 8), ("sde-dpmpp-2m", VP, 6), ("ddim", VP, 5)],
)
def test_no_name_and_no_move_of_a_node_is_better(solver: str, sch: logsnr.Schedule, nfe: int) -> None:
    """Its error is the one that `transfer` measures, less than on every named grid, and least in every node."""
    found = A.optimal_grid(STDS, solver, nfe, sch)
    assert found.error == pytest.approx(error(found.program, sch), rel=1e-9)
    assert len(found.program) <= nfe
    for name, before in found.before.items():
        program = A.sampler_moments(solver, A.Gaussian(0.0, 1.0), sch, nfe=nfe, grid=name).program
        assert before == pytest.approx(error(program, sch), rel=1e-9)
        assert found.error < before
    for i in range(1, len(found) - 1):
        for step in (-0.1, 0.1):
            moved = found.times.copy()
            moved[i] = sch.time(sch.half_logsnr(moved[i]) + step)
            if moved[i - 1] > moved[i] > moved[i + 1]:
                assert error(logsnr.solver(solver).program(sch, moved), sch) > 0.97 * found.error


def test_a_grid_past_the_last_level_leaves_the_table_alone() -> None:
    """The nodes of a table stay among its entries; the last step goes on to the end."""
    table = logsnr.Discrete(np.cumprod(1 - np.linspace(1e-4, 0.02, 200)))
    for end in (-1.0, -0.5):
        found = A.optimal_grid(STDS, "dpmpp-2m", 4, table, t_end=end)
        assert found.times[0] == 199
        assert found.times[-1] == end
        assert (found.times[:-1] >= -1e-9).all()


def test_it_is_a_grid() -> None:
    """It goes wherever an array of times goes, and its program through JSON."""
    found = A.optimal_grid(STDS, "ddim", 4, VP)
    x = logsnr.start(VP, (4, 3), seed=0)
    den = A.Gaussian(0.0, 0.5).denoiser(VP)
    a, b = (logsnr.sample(den, x, **kw) for kw in ({"solver": "ddim", "grid": found}, {"solver": found.program}))
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert list(found) == found.times.tolist() == list(np.asarray(found))
    assert logsnr.Program.from_json(found.program.to_json()) == found.program
    assert A.optimal_grid(STDS, "ddim", 1, VP).times.tolist() == [VP.t_start, VP.t_end]


def test_many_modes_are_summed_up() -> None:
    """A spectrum of a thousand numbers has nearly the grid of its quantiles; weights of 0 leave modes out."""
    many = np.geomspace(0.05, 1, 1000)
    found = A.optimal_grid(many, "ddim", 4, VP)
    assert found.error == pytest.approx(error(found.program, VP, many), rel=1e-3)
    weights = [1.0] + [0.0] * 7
    alone, among = A.optimal_grid(STDS[:1], "ddim", 4, VP), A.optimal_grid(STDS, "ddim", 4, VP, weights=weights)
    np.testing.assert_allclose(alone.times, among.times, rtol=0.02)
    assert alone.error == pytest.approx(among.error, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], "ddim", 4, VP), "stds"),
        (([1.0, -1.0], "ddim", 4, VP), "stds"),
        (([1.0], "ddim", 0, VP), "nfe must be a whole number from 1 to 100, not 0"),
        (([1.0], "ddim", 4.0, VP), "nfe must be a whole number"),
        (([1.0], "ddim", 101, VP), "not 101"),
        (([1.0], "heun", 1, VP), "nfe = 1 is impossible"),
        (([1.0], "bosh3", 8, VP), "chooses its own steps"),
        (([1.0], "dim", 8, VP), "did you mean"),
    ],
)
def test_bad_requests(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        A.optimal_grid(*arguments)
    with pytest.raises(ValueError, match="weights must be 1 nonnegative"):
        A.optimal_grid([1.0], "ddim", 4, VP, weights=[-1.0])
    with pytest.raises(TypeError, match="schedule must be"):
        A.optimal_grid([1.0], "ddim", 4, "vp")  # type: ignore[arg-type]


def mixture() -> A.GaussianMixture:
    return A.GaussianMixture(np.random.default_rng(0).normal(size=(4, 3)), 0.04)


@pytest.mark.parametrize(("sch", "head"), [(EDM, "x0"), (FLOW, "velocity"), (VP, "eps")])
@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "deis-3"])
def test_steps_between_candidates_are_the_solvers(sch: logsnr.Schedule, head: str, solver: str) -> None:
    """A search among as many candidates as steps has one path: the state that it reaches is the solver's own."""
    from logsnr.analysis.trajectory_grid import _path, _Search

    den = mixture().denoiser(sch, head)
    x = logsnr.start(sch, (5, 3), seed=0, dtype=torch.float64)
    times = logsnr.grid(sch, 5)
    run = logsnr.solve(den, x, solver=solver, grid=times, trajectory=True)
    assert run.trajectory is not None
    reached: list[torch.Tensor] = []

    class Watched(_Search):
        def pair(self, x: torch.Tensor, i: int) -> Any:
            reached.append(x)
            return super().pair(x, i)

    assert _path(Watched(den, logsnr.solver(solver), times, run.trajectory), 5) == (0, 1, 2, 3, 4, 5)
    torch.testing.assert_close(torch.stack(reached), run.trajectory[:-1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", ["ddim", "deis-3"])
def test_the_search_beats_the_names(solver: str) -> None:
    """On the samples of the search, and on others against the exact ends."""
    den = mixture().denoiser(EDM)
    x, y = (logsnr.start(EDM, (64, 3), seed=seed, dtype=torch.float64) for seed in (0, 1))
    found = A.trajectory_grid(den, x, solver, 6, candidates=20)
    assert found.error < min(found.before.values())
    exact = mixture().reference(y, EDM, EDM.t_start, EDM.t_end)

    def median(**layout: Any) -> float:
        return float((logsnr.sample(den, y, **layout) - exact).square().mean(1).median())

    assert median(solver=found.program) < min(median(solver=solver, nfe=6, grid=g) for g in ("logsnr", "karras"))


@pytest.mark.parametrize(("sch", "head"), [(EDM, "x0"), (FLOW, "velocity")])
def test_the_local_search_is_the_shortest_path(sch: logsnr.Schedule, head: str) -> None:
    """Against all paths, for the sum of the errors of single DDIM steps in x / alpha."""
    den = mixture().denoiser(sch, head)
    x = logsnr.start(sch, (16, 3), seed=0, dtype=torch.float64)
    times = logsnr.grid(sch, 6)
    states = logsnr.solve(den, x, solver="deis-3", grid=times, trajectory=True).trajectory
    assert states is not None

    def cost(i: int, j: int) -> float:
        far = logsnr.sample(den, states[i], solver="ddim", grid=times[[i, j]]) - states[j]
        return float(far.square().mean(1).sqrt().mean()) / float(sch.alpha(times[j]))

    paths = [(0, *inner, 6) for inner in combinations(range(1, 6), 2)]
    best = min(paths, key=lambda path: sum(cost(i, j) for i, j in pairwise(path)))
    found = A.trajectory_grid(den, x, "dpmpp-2m", 3, objective="local", candidates=6)
    np.testing.assert_allclose(found.times, times[list(best)])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("heun", 4), {}, "heun must take one evaluation a step"),
        (("ddpm", 4), {}, "and add no noise"),
        (("ddim", 9), {"candidates": 8}, "candidates = 8 are too few for 9 steps"),
        (("ddim", 4), {"objective": "oss"}, "objective must be 'global' or 'local'"),
        (("ddim", 0), {}, "nfe must be"),
    ],
)
def test_bad_searches(arguments: Any, options: Any, message: str) -> None:
    den = mixture().denoiser(EDM)
    with pytest.raises(ValueError, match=message):
        A.trajectory_grid(den, torch.zeros(4, 3), *arguments, **options)
