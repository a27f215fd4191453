"""A t_start of every sample: each run is the one that it would be alone, to the bit."""

import numpy as np
import pytest
import torch

import logsnr
from logsnr import control

SCH = logsnr.VPLinear()
X = logsnr.randn((5, 3), seed=1)
TIMES = torch.tensor([0.5, 0.9, 0.5, 0.31, 1.0], dtype=torch.float64)


def net(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | float = 0.0) -> torch.Tensor:
    return 0.3 * torch.sin(x) + 0.4 * x * (1 + t.reshape(-1, 1)) + y


DEN = logsnr.Denoiser(net, SCH, "eps")


@pytest.mark.parametrize("parallel", [None, logsnr.Picard(tol=0.0)], ids=["sequential", "picard"])
@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m", "heun", "ddpm", "sde-dpmpp-2m"])
def test_every_sample_is_as_it_is_alone(name: str, parallel: logsnr.Picard | None) -> None:
    """With one number for its start, too; noise is that of its own intervals. The model is asked as often as of one."""
    options = {"solver": name, "steps": 5, "seed": 3, "trajectory": True, "parallel": parallel}
    found = logsnr.solve(DEN, X, t_start=TIMES, **options)
    assert found.program is None
    assert found.times.shape == (6, 5)
    for b, t in enumerate(TIMES.tolist()):
        rows = slice(b, b + 1)
        for start in (t, TIMES[rows]):
            alone = logsnr.solve(DEN, X[rows], t_start=start, sample_ids=[b], **options)
            assert torch.equal(alone.x, found.x[rows])
            assert torch.equal(alone.trajectory, found.trajectory[:, rows])
            assert alone.times.flatten().tolist() == found.times[:, b].tolist()
        assert parallel or (alone.nfe, alone.rounds) == (found.nfe, found.rounds)


def test_conditions_guidance_and_seeds_follow_their_samples() -> None:
    y = torch.arange(5.0).reshape(5, 1) / 10
    scale = torch.tensor([1.0, 2.0, 3.0, 1.5, 0.5])

    def conditioned(rows: slice) -> logsnr.Denoiser:
        guidance = logsnr.Guidance(scale[rows], uncond={"y": -y[rows]})
        return logsnr.Denoiser(net, SCH, "eps", conditions={"y": y[rows]}, guidance=guidance)

    seeds = [9, 8, 7, 6, 5]
    for parallel in (None, logsnr.Picard(tol=0.0)):
        options = {"solver": "ddpm", "steps": 4, "parallel": parallel}
        found = logsnr.sample(conditioned(slice(None)), X, t_start=TIMES, seed=seeds, **options)
        for b in range(5):
            rows = slice(b, b + 1)
            alone = logsnr.sample(conditioned(rows), X[rows], t_start=TIMES[rows], seed=seeds[rows], **options)
            assert torch.equal(alone, found[rows])


def test_callbacks_see_the_times_of_all_and_may_change_the_state() -> None:
    seen = []

    def callback(node: int, t: torch.Tensor, state: torch.Tensor, x0: torch.Tensor) -> torch.Tensor | None:
        seen.append((node, t, x0.clone()))
        state[1:] *= 0.5
        return state.clone() if node == 2 else None

    found = logsnr.solve(DEN, X, t_start=TIMES, solver="ddim", steps=4, callback=callback)
    assert [node for node, *_ in seen] == [1, 2, 3, 4]
    assert all(t.tolist() == row.tolist() for (_, t, _), row in zip(seen, found.times[1:], strict=True))
    torch.testing.assert_close(seen[0][2][3], DEN.x0(X, TIMES)[3])
    for b, factor in ((0, 1.0), (4, 0.5)):
        alone = logsnr.sample(
            DEN, X[b : b + 1], t_start=float(TIMES[b]), solver="ddim", steps=4,
            callback=lambda node, t, state, factor=factor: state * factor,
        )  # fmt: skip
        assert torch.equal(alone, found.x[b : b + 1])

    def stop(node: int, t: torch.Tensor, state: torch.Tensor) -> None:
        raise logsnr.StopSampling

    stopped = logsnr.solve(DEN, X, t_start=TIMES, solver="ddim", steps=4, callback=stop)
    assert stopped.stopped
    assert stopped.times.shape == (2, 5)
    assert stopped.nfe == 1
    again = logsnr.solve(DEN, X, t_start=TIMES, solver="ddim", steps=4, callback=stop, parallel=logsnr.Picard(tol=0.0))
    assert torch.equal(again.x, stopped.x)


def test_gradients_half_precision_strides_and_flow_models() -> None:
    x = X.clone().requires_grad_()
    logsnr.sample(DEN, x, t_start=TIMES, steps=3).square().sum().backward()
    alone = X[3:4].clone().requires_grad_()
    logsnr.sample(DEN, alone, t_start=TIMES[3:4], steps=3).square().sum().backward()
    torch.testing.assert_close(x.grad[3:4], alone.grad)
    half = logsnr.Denoiser(net, SCH, "eps", dtype=torch.bfloat16)
    found = logsnr.sample(half, X.bfloat16(), t_start=TIMES, steps=3)
    assert torch.equal(found[1:2], logsnr.sample(half, X[1:2].bfloat16(), t_start=0.9, steps=3))
    strided = X.T.contiguous().T
    assert torch.equal(
        logsnr.sample(DEN, strided, t_start=TIMES, steps=3), logsnr.sample(DEN, X, t_start=TIMES, steps=3)
    )
    flow = logsnr.Denoiser(net, logsnr.FlowMatching(data_at=1), "velocity")
    found = logsnr.sample(flow, X, t_start=TIMES, steps=3, solver="dpmpp-2m")
    assert torch.equal(found[4:], logsnr.sample(flow, X[4:], t_start=1.0, steps=3, solver="dpmpp-2m"))
    one = logsnr.sample(flow, X, t_start=TIMES, steps=1)
    assert torch.equal(one[:1], logsnr.sample(flow, X[:1], t_start=0.5, steps=1))


def test_samples_that_fail_are_named_by_their_number() -> None:
    def fails(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.where(t.reshape(-1, 1) < 0.3, torch.nan, net(x, t))

    den = logsnr.Denoiser(fails, SCH, "eps")
    with pytest.raises(logsnr.NonFiniteError, match="in sample 3 of 5") as error:
        logsnr.sample(den, X, t_start=TIMES, steps=4, solver="ddim", grid="time")
    assert error.value.samples == (3,)
    with pytest.warns(UserWarning, match="not finite"):
        found = logsnr.solve(den, X, t_start=TIMES, steps=2, solver="ddim", grid="time", t_end=0.1, on_nan="keep")
    assert found.failed == (3,)
    assert found.x[[0, 1, 2, 4]].isfinite().all()
    bad = X.clone()
    bad[2] = torch.inf
    with pytest.raises(ValueError, match="x holds infinities or NaNs, in sample 2 of 5"):
        logsnr.sample(DEN, bad, t_start=TIMES, steps=4)


class Uneven:
    """A planner whose steps cost more from some starts than from others."""

    def plan(self, schedule: logsnr.Schedule, grid: np.ndarray) -> logsnr.Program:
        return logsnr.solver("heun" if grid[0] > 0.6 else "ddim").program(schedule, grid)


def test_bad_input() -> None:
    for times in (TIMES[:4], TIMES[None]):
        with pytest.raises(ValueError, match=r"t_start must be a number or have shape \(5,\)"):
            logsnr.sample(DEN, X, t_start=times, steps=3)
    with pytest.raises(ValueError, match=r"or a tensor \(5,\) of one per sample, not \[0.5, 0.9"):
        logsnr.sample(DEN, X, t_start=TIMES.tolist(), steps=3)
    for wrong in (TIMES > 0.5, (TIMES > 0.5).numpy(), TIMES.to(torch.complex64)):
        with pytest.raises(TypeError, match="t_start must be of real numbers, not"):
            logsnr.sample(DEN, X, t_start=wrong, steps=3)
    with pytest.raises(ValueError, match="give one number for an empty batch"):
        logsnr.sample(DEN, X[:0], t_start=TIMES[:0], steps=3)
    guided = logsnr.Denoiser(net, SCH, "eps", guidance=logsnr.Guidance(2.0, model=net, kind="cfg++"))
    with pytest.raises(ValueError, match=r"without .* a t_start of every sample"):
        logsnr.sample(guided, X, t_start=TIMES, steps=3)
    with pytest.raises(ValueError, match=r"t_start = 6.5 to t_end = 0.001: grid\[0\] = 6.5 is outside"):
        logsnr.sample(DEN, X, t_start=TIMES + 6, steps=3)
    with pytest.raises(ValueError, match="t_start"):
        logsnr.sample(DEN, X, t_start=TIMES * torch.nan, steps=3)
    told = "t_start of every sample does not go with an adaptive run of {}: give one number, or {}"
    for name, more, instead in (
        ("dpm-23", {}, "take a solver with fixed steps"),
        ("dpm-23", {"rtol": 1e-3}, "take a solver with fixed steps"),
        ("dopri5", {}, "give steps or nfe for fixed steps"),
        ("dopri5", {"atol": 1e-3}, "leave out rtol and atol for fixed steps"),
    ):
        with pytest.raises(ValueError, match=told.format(name, instead)):
            logsnr.sample(DEN, X, t_start=TIMES, solver=name, **more)
    with pytest.raises(ValueError, match="leave out t_start"):
        logsnr.sample(DEN, X, t_start=TIMES, grid=[1.0, 0.5])
    with pytest.raises(ValueError, match="noise= is asked for the intervals of all samples"):
        logsnr.sample(DEN, X, t_start=TIMES, solver="ddpm", steps=3, noise=lambda key, like: like)
    with pytest.raises(ValueError, match="takes other calls from one start than from another"):
        logsnr.sample(DEN, X, t_start=TIMES, solver=Uneven(), steps=3)
    one = torch.tensor(0.5, dtype=torch.float64)
    assert torch.equal(logsnr.sample(DEN, X, t_start=one, steps=3), logsnr.sample(DEN, X, t_start=0.5, steps=3))


def test_times_that_want_gradients_are_refused() -> None:
    """Where the run records them: none would come back. Elsewhere they are numbers like others."""
    levels = torch.tensor([0.9, 0.4, 0.1], requires_grad=True)
    moving = {"t_start": TIMES.clone().requires_grad_(), "t_end": levels[2], "grid": levels}
    moving |= {"sigmas": levels, "lams": -levels.log()}
    for name, times in moving.items():
        layout = {} if name in ("grid", "sigmas", "lams") else {"steps": 3}
        for x, grad in ((X, True), (X.clone().requires_grad_(), False)):
            with pytest.raises(ValueError, match=f"{name} requires gradients, .* give {name}.detach"):
                logsnr.sample(DEN, x, grad=grad, **{name: times}, **layout)
        plain = logsnr.sample(DEN, X, **{name: times.detach()}, **layout)
        assert torch.equal(logsnr.sample(DEN, X, **{name: times}, **layout), plain)
    for name in ("strength", "t_start"):
        with pytest.raises(ValueError, match=f"{name} requires gradients"):
            control.sdedit(DEN, X, **{name: moving["t_start"]}, steps=2, grad=True)
    tree = control.TreeDenoiser(lambda x, t: [net(x[0], t[0])], [SCH])
    with pytest.raises(ValueError, match="t_end requires gradients"):
        control.sample_tree(tree, [X], steps=2, t_end=levels[2], grad=True)
