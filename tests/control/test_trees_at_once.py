"""Trees parallel in time and with steps of their own choice."""

from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr.control import TreeDenoiser, leaf_seed, sample_tree, solve_tree

VP, FLOW = logsnr.VPLinear(), logsnr.FlowMatching()
SCHEDULES = {"a": VP, "b": [FLOW]}


def mixed(x: Any, t: Any, y: torch.Tensor) -> Any:
    """Each leaf's answer depends on both; that of a sample does not on the batch."""
    a, b = x["a"], x["b"][0]
    size = 1 / (1 + b.abs() ** 2)
    told = 0.3 * (t["a"] - t["b"][0]) + y
    return {"a": 0.5 * a * size[:, :1] + told[:, None], "b": [b * size - 0.2 * a[:, :2]]}


Y = torch.tensor([0.1, -0.2, 0.3])
DEN = TreeDenoiser(mixed, SCHEDULES, "v", conditions={"y": Y})
X = DEN.start({"a": (3, 4), "b": [(3, 2)]}, seed=0)


def part(den: TreeDenoiser, x: Any, b: int) -> tuple[TreeDenoiser, Any]:
    one = TreeDenoiser(
        den.model, den.schedules, den.leaves["a",].prediction, conditions={"y": den.conditions["y"][b : b + 1]}
    )
    return one, {"a": x["a"][b : b + 1], "b": [x["b"][0][b : b + 1]]}


def equal(one: Any, other: Any) -> bool:
    return torch.equal(one["a"], other["a"]) and torch.equal(one["b"][0], other["b"][0])


@pytest.mark.parametrize("solver", ["dpmpp-2m", "heun", "sde-dpmpp-2m"])
def test_parallel_runs_are_the_sequential_ones(solver: str) -> None:
    """Bit for bit at tolerance 0, trajectories and samples alone included; with conditions that follow their rows."""
    options: dict[str, Any] = {"solver": solver, "steps": 8, "seed": 7}
    whole = solve_tree(DEN, X, trajectory=True, **options)
    for how in (logsnr.Picard(tol=0.0), logsnr.Picard(tol=0.0, window=3, batch=4, accelerate=None)):
        found = solve_tree(DEN, X, trajectory=True, parallel=how, **options)
        assert equal(found.x, whole.x)
        for path, leaf in found.leaves.items():
            assert torch.equal(leaf.trajectory, whole.leaves[path].trajectory)
            assert not leaf.certificate.distance.any()
        assert found.rounds <= whole.nfe
        one, x = part(DEN, X, 2)
        assert equal(part(DEN, whole.x, 2)[1], sample_tree(one, x, parallel=how, sample_ids=[2], **options))


def test_parallel_runs_take_fewer_rounds() -> None:
    """A leaf that the other does not see runs as alone; the slower one decides."""
    wanted = solve_tree(DEN, X, solver="ddim", steps=30)
    found = solve_tree(DEN, X, solver="ddim", steps=30, parallel=logsnr.Picard(tol=1e-3))
    assert found.rounds < 20
    assert found.nfe == max(leaf.certificate.nfe.max() for leaf in found.leaves.values())
    torch.testing.assert_close(found.x["a"], wanted.x["a"], atol=3e-3, rtol=3e-3)
    single = TreeDenoiser(lambda x, t: 0.5 * torch.sin(x), VP)
    alone = logsnr.solve(logsnr.Denoiser(single.model, VP), X["a"], solver="ddim", steps=12, parallel=logsnr.Picard())
    same = solve_tree(single, X["a"], solver="ddim", steps=12, parallel=logsnr.Picard())
    assert torch.equal(same.x, alone.x)
    assert (same.rounds, same.nfe) == (alone.rounds, alone.nfe)


def test_complex_leaves_in_parallel() -> None:
    def model(x: Any, t: Any) -> Any:
        return [0.3 * x[0] * (1 + torch.sin(x[1])), 0.5 * x[1] + torch.sin(x[0].real)]

    den = TreeDenoiser(model, [VP, VP])
    x = [logsnr.start(VP, (2, 3), seed=0, dtype=kind) for kind in (torch.complex64, torch.float32)]
    for solver in ("ddim", "ddpm"):
        ends = [
            sample_tree(den, x, solver=solver, steps=6, seed=1, parallel=how) for how in (None, logsnr.Picard(tol=0.0))
        ]
        assert all(map(torch.equal, *ends))
    free = sample_tree(den, x, solver="dpm-12", rtol=1e-2)
    assert free[0].is_complex()


@pytest.mark.parametrize("solver", ["dpm-23", "adams-34"])
def test_adaptive_runs_of_leaves_that_see_each_other(solver: str) -> None:
    """On the straight line in both half-log-SNRs, as fine steps on even grids of it; alone as in the batch."""

    def clean(x: Any, t: Any, y: torch.Tensor) -> Any:
        a, b = x["a"], x["b"][0]
        told = 0.3 * (t["a"] - t["b"][0]) + y
        return {"a": torch.sin(a + b[:, :1]) + told[:, None], "b": [torch.cos(b - a[:, :2])]}

    ends: dict[str, Any] = {"t_start": {"a": 1.0, "b": [0.98]}, "t_end": {"a": 1e-3, "b": [0.02]}}
    den = TreeDenoiser(clean, SCHEDULES, "x0", conditions={"y": Y.double()})
    x = {"a": X["a"].double(), "b": [X["b"][0].double()]}
    fine = sample_tree(den, x, solver="res-3s", steps=100, grid="logsnr", **ends)
    errors = []
    for tol in (3e-2, 3e-3):
        found = solve_tree(den, x, solver=solver, rtol=tol, atol=tol, **ends)
        errors.append(float((found.x["a"] - fine["a"]).abs().max()))
        assert errors[-1] < 3 * tol
        assert float((found.x["b"][0] - fine["b"][0]).abs().max()) < 3 * tol
        a, b = found.leaves["a",], found.leaves["b", 0]
        assert torch.equal(a.accepted, b.accepted)
        share = [
            (lam - lam[0]) / (lam[-1] - lam[0]) for lam in (VP.half_logsnr(a.grids[1]), FLOW.half_logsnr(b.grids[1]))
        ]
        assert abs(share[0] - share[1]).max() < 1e-9
        assert a.nfe_per_sample.max() == found.nfe == found.rounds
        one, alone = part(den, x, 1)
        assert equal(part(den, found.x, 1)[1], sample_tree(one, alone, solver=solver, rtol=tol, atol=tol, **ends))
    assert errors[1] < errors[0] / 3


def test_adaptive_runs_from_noise_alone_to_data_alone() -> None:
    """Ends at infinite log-SNR, of one leaf or both, take one call more; a tree of one tensor is as that tensor."""
    data = logsnr.analysis.Gaussian(0.5, 0.25)
    dens = {"a": data.denoiser(VP, "v"), "b": data.denoiser(FLOW, "velocity")}
    tree = TreeDenoiser(
        lambda x, t: {k: dens[k].model(x[k], t[k]) for k in x}, {"a": VP, "b": FLOW}, {"a": "v", "b": "velocity"},
        dtype=torch.float64,
    )  # fmt: skip
    x = tree.start({"a": (4, 2), "b": (4, 3)}, seed=0, dtype=torch.float64)
    found = solve_tree(tree, x, solver="dpm-23", rtol=1e-3, atol=1e-3, trajectory=True)
    for key, sch in (("a", VP), ("b", FLOW)):
        wanted = data.flow(x[key], sch, sch.t_start, sch.t_end)
        torch.testing.assert_close(found.x[key], wanted, atol=5e-3, rtol=0)
        assert torch.equal(found.leaves[key,].trajectory[0], x[key])
    single = TreeDenoiser(dens["b"].model, FLOW, "velocity", dtype=torch.float64)
    same, alone = (
        run(d, x["b"], solver="dpm-23", rtol=1e-2) for run, d in ((solve_tree, single), (logsnr.solve, dens["b"]))
    )
    torch.testing.assert_close(same.x, alone.x, atol=1e-10, rtol=0)
    assert same.nfe == alone.nfe


def test_adaptive_runs_have_gradients_and_stops() -> None:
    times = {"a": torch.tensor([1.0, 0.4, 0.01]), "b": [torch.tensor([0.95, 0.5, 0.1])]}
    x = {"a": X["a"].clone().requires_grad_(), "b": X["b"]}
    found = solve_tree(DEN, x, solver="dpm-12", rtol=1e-2, grid=times, trajectory=True)
    assert found.leaves["a",].trajectory.shape == (3, 3, 4)
    (slope,) = torch.autograd.grad(found.x["b"][0].sum(), x["a"])
    assert slope.any()
    with pytest.raises(ValueError, match="as many times"):
        solve_tree(DEN, X, solver="dpm-12", rtol=1e-2, grid=times | {"b": [torch.tensor([0.95, 0.1])]})


def joint(x: Any, t: Any) -> Any:
    k = 0.5 * torch.sin(3 * t["a"])[:, None]
    return {"a": torch.sin(x["a"] + x["b"][:, :1]) + k, "b": torch.cos(x["b"] - x["a"][:, :2] * (1 + k))}


def at_one_time(x: Any, t: Any) -> Any:
    assert torch.equal(t["a"], t["b"])
    return joint(x, t)


BOTH = {"a": VP, "b": FLOW}
WIDE = {"a": X["a"].double(), "b": X["b"][0].double()}


@pytest.mark.parametrize("solver", ["dpm-12", "dpm-23", "adams-34"])
def test_adaptive_runs_at_one_time_for_all_leaves(solver: str) -> None:
    """Stages included, with the order of the pair; alone as in the batch."""
    ends = {"t_start": 0.95, "t_end": 0.02}
    den = TreeDenoiser(at_one_time, BOTH, "x0", dtype=torch.float64)
    fine = sample_tree(den, WIDE, solver="adams-34", rtol=1e-7, atol=1e-7, grid="time", **ends)
    even = sample_tree(den, WIDE, solver="dpmpp-2m", steps=2000, grid="time", **ends)
    assert float((fine["a"] - even["a"]).abs().max()) < 1e-4
    made = [solve_tree(den, WIDE, solver=solver, rtol=tol, atol=tol, grid="time", **ends) for tol in (1e-2, 1e-4)]
    errors = [max(float((found.x[k] - fine[k]).abs().max()) for k in fine) for found in made]
    assert errors[0] < 5e-2
    assert errors[1] < 5e-4 * (2 if solver == "dpm-12" else 1)
    more = {"dpm-12": 10.0, "dpm-23": 4.7, "adams-34": 3.2}[solver]  # 100^(1 / order)
    assert made[1].nfe < 1.2 * more * made[0].nfe
    one = sample_tree(
        den, {k: x[1:2] for k, x in WIDE.items()}, solver=solver, rtol=1e-4, atol=1e-4, grid="time", **ends
    )
    assert all(torch.equal(one[k], made[1].x[k][1:2]) for k in one)


@pytest.mark.parametrize("other", [logsnr.VPLinear(), logsnr.FlowMatching(), logsnr.EDM()])
def test_adaptive_runs_at_one_time_from_noise_alone_to_data_alone(other: logsnr.Schedule) -> None:
    """Leaves with an infinite end and those with none leave it and come to it together, within the tolerance."""
    data = logsnr.analysis.GaussianMixture([[-1.0, 0.3], [0.8, 0.5]], covs=[0.05, 0.2])
    schedules = {"a": other, "b": FLOW}
    dens = {name: data.denoiser(sch, "velocity") for name, sch in schedules.items()}
    shares = []

    def model(x: Any, t: Any) -> Any:
        shares.append([(t[k] - sch.t_start) / (sch.t_end - sch.t_start) for k, sch in schedules.items()])
        return {k: dens[k].model(x[k], t[k]) for k in x}

    tree = TreeDenoiser(model, schedules, "velocity", dtype=torch.float64)
    x = tree.start({"a": (4, 2), "b": (4, 2)}, seed=0, dtype=torch.float64)
    found = sample_tree(tree, x, solver="dpm-23", rtol=1e-4, atol=1e-4, grid="time")
    assert max(float((a - b).abs().max()) for a, b in shares) < 1e-12
    for name, den in dens.items():
        wanted = logsnr.sample(den, x[name], solver="adams-34", rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found[name], wanted, atol=5e-4, rtol=0)


def test_last_levels_of_leaves_at_one_time() -> None:
    """No leaf is asked below its own. Where that of one is too far from the end of the other, this is told."""
    table = logsnr.Discrete(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    least = {"a": 1.0, "b": 1.0}

    def model(x: Any, t: Any) -> Any:
        least.update({k: min(least[k], float(t[k].min())) for k in t})
        return {k: torch.zeros_like(x[k]) for k in x}

    def run(*schedules: logsnr.Schedule, **options: Any) -> None:
        tree = TreeDenoiser(model, dict(zip("ab", schedules, strict=True)), "x0")
        x = {"a": X["a"], "b": X["b"][0]}
        assert not sample_tree(tree, x, solver="dpm-12", grid="time", **options)["a"].isnan().any()

    run(logsnr.EDM(), FLOW, t_end={"a": 0.001, "b": 0.0005})
    assert least["a"] >= 0.002
    run(table, FLOW)
    assert least["a"] == 0
    with pytest.raises(ValueError, match=r"'a' would come to its end t = 0.002 in one step .* give t_end"):
        run(logsnr.EDM(), table)


def test_adaptive_runs_on_other_paths() -> None:
    """One leaf straight in its time and one in lam; arrays of times along a path; other names are none."""
    den, ends = TreeDenoiser(joint, BOTH, "x0"), {"t_start": 0.95, "t_end": 0.02}
    own = {"a": "time", "b": "logsnr"}
    fine = sample_tree(den, WIDE, solver="dpmpp-2m", steps=2000, grid=own, **ends)["a"]
    found = sample_tree(den, WIDE, solver="dpm-23", rtol=1e-3, atol=1e-3, grid=own, **ends)["a"]
    assert float((found - fine).abs().max()) < 5e-3
    times = {name: logsnr.grid(sch, 64, "time", **ends) for name, sch in BOTH.items()}
    fine = sample_tree(den, WIDE, solver="dpmpp-2m", steps=2000, grid="time", **ends)["a"]
    errors = [
        float((solve_tree(den, WIDE, solver="dpm-23", rtol=1e-2, atol=1e-2, grid=grid).x["a"] - fine).abs().max())
        for grid in ({name: t[::stride] for name, t in times.items()} for stride in (64, 4))
    ]
    assert errors[1] < 1e-2 < errors[0]
    for grid in ("karras", lambda share: share):
        with pytest.raises(ValueError, match=r"grid of 'a' is .*, but adaptive runs of trees go .* on a straight line"):
            solve_tree(den, WIDE, solver="dpm-23", grid=grid)


def test_a_leaf_that_stops_being_finite_is_named() -> None:
    def broken(x: Any, t: Any, y: torch.Tensor) -> Any:
        bad = torch.where(torch.arange(len(t["a"])) == 1, torch.nan, 1.0)[:, None]
        return {"a": x["a"], "b": [x["b"][0] * bad]}

    den = TreeDenoiser(broken, SCHEDULES, "v", conditions={"y": Y})
    for options in ({"steps": 4}, {"steps": 4, "parallel": logsnr.Picard()}, {"solver": "dpm-12", "rtol": 1e-2}):
        with pytest.raises(logsnr.NonFiniteError) as caught:
            solve_tree(den, X, **options)
        assert caught.value.samples == (1,)
        assert caught.value.__notes__ == ["in the leaf 'b/0'"]
    learned = logsnr.solver("ddpm", variance="learned")
    with pytest.raises(ValueError, match="variance = 'learned' runs one call after the other"):
        solve_tree(DEN, X, solver=learned, steps=4, parallel=logsnr.Picard())
    assert leaf_seed(3, ("a",)) != 3
