"""States of several tensors: every leaf runs as it would alone."""

from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr.control import TreeDenoiser, leaf_seed, sample_tree, solve_tree

VP, FLOW = logsnr.VPLinear(), logsnr.FlowMatching()
SCHEDULES = {"video": VP, "sounds": [FLOW, VP]}
HEADS = {"video": "v", "sounds": ["velocity", "eps"]}
SHAPES = {"video": (3, 2, 4), "sounds": [(3, 5), (3,)]}


def one(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return x / (1 + x.abs() ** 2) - 0.3 * t.reshape(-1, *[1] * (x.ndim - 1))


def apart(x: Any, t: Any) -> Any:
    """A model whose answer for a leaf depends on the leaf alone."""
    first, second = zip(x["sounds"], t["sounds"], strict=True)
    return {"sounds": [one(*first), one(*second)], "video": one(x["video"], t["video"])}


DEN = TreeDenoiser(apart, SCHEDULES, HEADS)
X = DEN.start(SHAPES, seed=0)


@pytest.mark.parametrize("solver", ["dpmpp-2m", "heun", "sde-dpmpp-2m"])
def test_leaves_run_as_they_would_alone(solver: str) -> None:
    """Bit for bit, in one call of the model for all, on schedules of their own."""
    found = solve_tree(DEN, X, solver=solver, steps=5, seed=7, trajectory=True)
    parts = {("video",): X["video"], ("sounds", 0): X["sounds"][0], ("sounds", 1): X["sounds"][1]}
    for path, x in parts.items():
        den = logsnr.Denoiser(one, DEN.leaves[path].schedule, DEN.leaves[path].prediction)
        alone = logsnr.solve(den, x, solver=solver, steps=5, seed=leaf_seed(7, path), trajectory=True)
        assert torch.equal(found.leaves[path].x, alone.x)
        assert torch.equal(found.leaves[path].trajectory, alone.trajectory)
        assert found.leaves[path].program == alone.program
        assert found.nfe == alone.nfe
    assert found.x["sounds"][1] is found.leaves["sounds", 1].x


def test_a_sample_alone() -> None:
    part = {"video": X["video"][2:], "sounds": [s[2:] for s in X["sounds"]]}
    whole = sample_tree(DEN, X, solver="ddpm", steps=4, seed=1)
    for options in ({"seed": 1, "sample_ids": [2]}, {"seed": torch.tensor([1]), "sample_ids": [2]}):
        alone = sample_tree(DEN, part, solver="ddpm", steps=4, **options)
        assert torch.equal(alone["video"], whole["video"][2:])
        assert torch.equal(alone["sounds"][0], whole["sounds"][0][2:])


def test_leaves_have_noise_of_their_own() -> None:
    """Of the same shape and schedule; a tree of one tensor has the seed itself."""
    den = TreeDenoiser(lambda x, t: [one(*pair) for pair in zip(x, t, strict=True)], [VP, VP])
    x = den.start([(3, 4), (3, 4)], seed=0)
    assert not torch.equal(*x)
    ends = sample_tree(den, [x[0], x[0]], solver="ddpm", steps=4, seed=0)
    assert not torch.equal(*ends)
    assert torch.equal(*sample_tree(den, [x[0], x[0]], solver="ddim", steps=4, seed=0))
    single = sample_tree(TreeDenoiser(one, VP), x[0], solver="ddpm", steps=4, seed=5)
    assert torch.equal(single, logsnr.sample(logsnr.Denoiser(one, VP), x[0], solver="ddpm", steps=4, seed=5))
    torch.manual_seed(3)
    drawn = sample_tree(den, x, solver="ddpm", steps=4)
    torch.manual_seed(3)
    assert torch.equal(drawn[1], sample_tree(den, x, solver="ddpm", steps=4)[1])


def test_leaves_see_each_other_and_have_gradients() -> None:
    """A model that mixes its leaves, one of them complex, with conditions; a gradient against a difference."""

    def mixed(x: Any, t: Any, y: torch.Tensor) -> Any:
        assert x["z"].is_complex()
        return {"a": 0.3 * x["a"] + x["z"].abs() + y[:, None], "z": 0.5 * x["z"] * (1 + x["a"])}

    schedules = {"a": FLOW, "z": VP}
    y = torch.tensor([0.2, -0.1], dtype=torch.float64, requires_grad=True)
    den = TreeDenoiser(mixed, schedules, {"a": "velocity", "z": "eps"}, conditions={"y": y})
    a = logsnr.start(FLOW, (2, 3), seed=0, dtype=torch.float64)
    x = {"a": a, "z": logsnr.start(VP, (2, 3), seed=0, dtype=torch.complex128)}
    options: dict[str, Any] = {"solver": "sde-dpmpp-2m", "steps": 4, "seed": 0}
    end = sample_tree(den, x, grad=True, **options)
    (slope,) = torch.autograd.grad(end["z"].abs().sum(), y)
    ends = []
    for step in (-1e-6, 1e-6):
        moved = y.detach() + torch.tensor([step, 0.0], dtype=torch.float64)
        other = TreeDenoiser(mixed, schedules, {"a": "velocity", "z": "eps"}, conditions={"y": moved})
        ends.append(sample_tree(other, x, **options)["z"].abs().sum())
    torch.testing.assert_close(slope[0], (ends[1] - ends[0]) / 2e-6, rtol=1e-6, atol=1e-8)
    assert not sample_tree(den, x, **options)["a"].requires_grad


def test_options_of_each_leaf() -> None:
    times = {"video": np.linspace(1, 0.1, 4), "sounds": [torch.linspace(1, 0, 4), np.linspace(1, 0.01, 4)]}
    solvers = {"video": "ddim", "sounds": ["euler", "ddpm"]}
    found = solve_tree(DEN, X, solver=solvers, grid=times, seed=0)
    video = logsnr.sample(logsnr.Denoiser(one, VP, "v"), X["video"], solver="ddim", grid=times["video"])
    assert torch.equal(found.x["video"], video)
    assert found.leaves["sounds", 1].program.name == "ddpm"


def test_what_is_chosen_by_the_samples_and_noise_of_the_network() -> None:
    """A solver that goes by the shape of the samples, and one whose noise the second half of an answer tells."""

    def twice(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.3 * torch.sin(x), torch.tanh(x)], 1)

    den = TreeDenoiser(lambda x, t: [twice(x[0], t[0])], [VP])
    x = den.start([(2, 3, 16, 16)], seed=0)
    for solver in ("auto", logsnr.solver("ddpm", variance="learned")):
        found = solve_tree(den, x, solver=solver, steps=8, seed=7).leaves[0,]
        alone = logsnr.solve(logsnr.Denoiser(twice, VP), x[0], solver=solver, steps=8, seed=leaf_seed(7, (0,)))
        assert found.program == alone.program
        assert torch.equal(found.x, alone.x)
    with pytest.raises(ValueError, match="needs a network that returns twice the channels"):
        solve_tree(TreeDenoiser(lambda x, t: x, [VP]), x, solver=solver, steps=2)


def bad(**options: Any) -> Any:
    return lambda: solve_tree(DEN, X, steps=3, **options)


def answers(answer: Any) -> Any:
    return lambda: solve_tree(TreeDenoiser(answer, SCHEDULES, HEADS), X, steps=3)


def in_place(x: Any, t: Any) -> Any:
    x["video"].mul_(2)
    return x


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (bad(parallel=3), r"parallel must be a logsnr\.Picard"),
        (bad(parallel=logsnr.Picard(ranks=True)), "trees run on one rank"),
        (bad(parallel=logsnr.Picard(), grad=True), "gradients do not go with parallel="),
        (bad(rtol=1e-2), "rtol and atol are for adaptive solvers; dpmpp-2m takes fixed steps"),
        (bad(solver="dpm-12", rtol=1e-2), "steps = 3 does not go with an adaptive run"),
        (bad(solver={"video": "ddim", "sounds": ["ddim", "heun"]}), "video 3, sounds/0 3, sounds/1 6"),
        (bad(solver=["ddim"]), "solver must be a tree with the leaves"),
        (bad(solver="sde-dpmpp-2s"), "video 6, sounds/0 4"),
        (lambda: solve_tree(DEN, X), "steps or nfe"),
        (lambda: solve_tree(DEN, X, solver="dopri5"), "dopri5 takes steps in one time, of which leaves"),
        (
            lambda: solve_tree(DEN, X, solver={"video": "dpm-12", "sounds": ["dpm-12", "dpm-23"]}),
            "the same adaptive solver, not video dpm-12, sounds/0 dpm-12, sounds/1 dpm-23",
        ),
        (answers(lambda x, t: x["video"]), "the model's answer must be a tree with the leaves"),
        (answers(lambda x, t: {**x, "video": x["video"][:1]}), "returned shape"),
        (answers(in_place), "leaf 'video': the model has changed x in place"),
        (lambda: solve_tree(DEN, {"video": X["video"]}, steps=3), "x must be a tree with the leaves"),
        (lambda: solve_tree(DEN, {**X, "video": X["video"][:2]}, steps=3), "one batch size"),
        (lambda: solve_tree(DEN, {**X, "video": None}, steps=3), r"x\['video'\] must be a torch tensor"),
        (lambda: solve_tree(logsnr.Denoiser(one, VP), X, steps=3), "den must be a TreeDenoiser"),
        (
            lambda: DEN.start({"video": (3, 2, 4), "sounds": [(3, 5)]}, seed=0),
            "shapes must have a shape for 'sounds/1'",
        ),
        (lambda: TreeDenoiser(one, {}), "schedules must have leaves"),
        (lambda: TreeDenoiser(one, {"a/b": VP, "a": {"b": VP}}), "leaves of different names"),
        (lambda: TreeDenoiser(one, {"a": None}), "schedule"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()
