"""Callbacks that end a run: what is returned is the run up to there."""

import pytest
import torch

import logsnr

SCH = logsnr.VPLinear()
X = logsnr.randn((3, 4), seed=1)
GRID = logsnr.grid(SCH, 6)


def net(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | float = 0.0) -> torch.Tensor:
    return 0.3 * torch.sin(x) + 0.4 * x + y


DEN = logsnr.Denoiser(net, SCH, "eps")


def stop(at: int) -> object:
    def callback(node: int, t: float, state: torch.Tensor) -> None:
        if node == at:
            raise logsnr.StopSampling

    return callback


@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m", "dpmpp-2s", "ddpm", "edm-churn"])
def test_the_run_up_to_the_node(name: str) -> None:
    """State, time, trajectory and evaluations are those of the whole run up to the node; nothing more is asked."""
    whole = logsnr.solve(DEN, X, solver=name, grid=GRID, seed=3, trajectory=True)
    asked: list[int] = []

    def counted(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(1)
        return net(x, t)

    den = logsnr.Denoiser(counted, SCH, "eps")
    found = logsnr.solve(den, X, solver=name, grid=GRID, seed=3, trajectory=True, callback=stop(4))
    assert found.stopped
    assert not whole.stopped
    assert torch.equal(found.x, whole.trajectory[4])
    assert torch.equal(found.trajectory, whole.trajectory[:5])
    assert found.times.tolist() == GRID[:5].tolist()
    assert found.nfe == found.rounds == len(asked) == whole.nfe * 4 // 6


def test_parallel_and_adaptive_runs_return_the_state_of_the_node() -> None:
    """Which they know when they are done: the whole run is paid for."""
    whole = logsnr.solve(DEN, X, solver="ddim", grid=GRID, trajectory=True)
    found = logsnr.solve(DEN, X, solver="ddim", grid=GRID, parallel=logsnr.Picard(tol=0.0), callback=stop(2))
    assert torch.equal(found.x, whole.trajectory[2])
    assert found.stopped
    assert len(found.times) == 3
    for name in ("dpm-12", "dopri5"):
        whole = logsnr.solve(DEN, X, solver=name, grid=GRID, rtol=1e-3, atol=1e-3, trajectory=True)
        found = logsnr.solve(DEN, X, solver=name, grid=GRID, rtol=1e-3, atol=1e-3, trajectory=True, callback=stop(2))
        assert torch.equal(found.x, whole.trajectory[2])
        assert torch.equal(found.trajectory, whole.trajectory[:3])
        assert found.stopped
        assert found.times.tolist() == GRID[:3].tolist()


def test_what_the_callback_has_written_before_stays() -> None:
    """In the state's own memory, also of solvers that would not have gone on from there."""

    def callback(node: int, t: float, state: torch.Tensor) -> None:
        state.fill_(7.0)
        raise logsnr.StopSampling

    for name in ("ddim", "edm-churn"):
        found = logsnr.solve(DEN, X, solver=name, steps=18, seed=0, callback=callback, trajectory=True)
        assert (found.x == 7).all()
        assert (found.trajectory[-1] == 7).all()
    with pytest.raises(ValueError, match="parallel and adaptive runs cannot take over"):
        logsnr.solve(DEN, X, steps=3, callback=callback, parallel=logsnr.Picard())


def test_guided_runs_half_precision_and_gradients() -> None:
    y = torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1)
    guidance = logsnr.Guidance(2.0, uncond={"y": 0 * y})
    den = logsnr.Denoiser(net, SCH, "eps", conditions={"y": y}, guidance=guidance)
    whole = logsnr.solve(den, X.half(), solver="ddim", grid=GRID, trajectory=True)
    found = logsnr.solve(den, X.half(), solver="ddim", grid=GRID, callback=stop(3))
    assert torch.equal(found.x, whole.trajectory[3])
    assert (found.nfe, found.rounds) == (6, 3)
    groups = logsnr.solve(den, X, solver="ddim", grid=GRID, callback=stop(3), grad=True, checkpoint=2)
    assert (groups.nfe, groups.rounds) == (6, 3)
    x = X.clone().requires_grad_()
    logsnr.solve(DEN, x, grid=GRID, solver="ddim", callback=stop(1)).x.sum().backward()
    assert x.grad.abs().min() > 0


def test_only_callbacks_stop_a_run() -> None:
    """Raised by a model it is an error like any other."""

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise logsnr.StopSampling("not here")

    with pytest.raises(logsnr.StopSampling, match="not here"):
        logsnr.sample(logsnr.Denoiser(model, SCH), X, steps=3)
