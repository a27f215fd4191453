"""Runs of programs in a basis: the same as transforming states by hand, whatever a run does."""

import pytest
import torch
from in_bases import BASES, F64, SCH, X, by_hand, close, net, wiener

import logsnr

Y = torch.linspace(-1, 1, 4, dtype=F64)


@pytest.mark.parametrize("name", BASES)
def test_runs_are_those_of_transformed_states(name: str) -> None:
    """In fp64 and fp32; at once, alone and in Picard's windows to the last bit; what is seen are samples."""
    method, den = wiener(name), logsnr.Denoiser(net, SCH, "x0")
    for dtype, tol in ((F64, 1e-13), (torch.float32, 1e-5)):
        x = X.to(dtype)
        found = logsnr.solve(den, x, solver=method, steps=5, trajectory=True)
        close(found.x, by_hand(name, net, x, steps=5), tol)
        assert found.x.dtype is dtype
        assert found.program is not None
        assert found.program.basis == BASES[name]
        assert found.trajectory is not None
        assert torch.equal(found.trajectory[0], x)
        assert torch.equal(found.trajectory[-1], found.x)
        assert torch.equal(logsnr.sample(den, x[1:2], solver=method, steps=5), found.x[1:2])
        swept = logsnr.solve(den, x, solver=method, steps=5, parallel=logsnr.Picard(tol=0), trajectory=True)
        assert torch.equal(swept.x, found.x)
        assert torch.equal(swept.trajectory, found.trajectory)
    starts = torch.tensor([1.0, 0.5, 0.5, 0.8], dtype=F64)
    each = logsnr.solve(den, X, solver=method, steps=4, t_start=starts)
    assert torch.equal(each.x[1:2], logsnr.sample(den, X[1:2], solver=method, steps=4, t_start=0.5))
    whole = logsnr.solve(den, X, solver=method, steps=4, t_start=starts, parallel=logsnr.Picard(tol=0))
    assert torch.equal(whole.x, each.x)


@pytest.mark.parametrize("kind", ["cfg", "rescale", "apg"])
@pytest.mark.parametrize("name", ["dct", "pca"])
def test_guidance_and_conditions_are_of_samples(name: str, kind: str) -> None:
    """Norms, means and rows are those of samples, and so are maps of x0."""
    guidance = logsnr.Guidance(3.0, uncond={"y": torch.zeros(4, dtype=F64)}, kind=kind)
    den = logsnr.Denoiser(net, SCH, "x0", conditions={"y": Y}, guidance=guidance)
    found = logsnr.solve(den, X, solver=wiener(name), steps=4)
    assert found.nfe == 8
    close(found.x, by_hand(name, den.x0, X, steps=4), 1e-12)
    swept = logsnr.sample(den, X, solver=wiener(name), steps=4, parallel=logsnr.Picard(tol=0))
    close(swept, found.x, 1e-12)
    clipped = logsnr.Denoiser(net, SCH, "x0", map_x0=lambda x0, x, t: x0.clamp(-0.3, 0.3))
    close(logsnr.sample(clipped, X, solver=wiener(name), steps=4), by_hand(name, clipped.x0, X, steps=4), 1e-12)


def test_those_who_watch_see_samples() -> None:
    """Callbacks see and change samples, and stop the run; their x0 is the model's answer."""
    den, method = logsnr.Denoiser(net, SCH, "x0"), wiener("pca")
    states = logsnr.solve(den, X, solver=method, steps=4, trajectory=True).trajectory
    assert states is not None

    def look(node: int, t: float, state: torch.Tensor, x0: torch.Tensor) -> None:
        assert torch.equal(state, states[node])
        close(x0, net(states[node - 1], torch.ones(())), 1e-12)

    def halve(node: int, t: float, state: torch.Tensor) -> None:
        if node == 2:
            state.mul_(0.5)
            raise logsnr.StopSampling

    logsnr.solve(den, X, solver=method, steps=4, callback=look)
    half = logsnr.solve(den, X, solver=method, steps=4, callback=halve)
    close(half.x, states[2] / 2)
    new = logsnr.sample(den, X, solver=method, steps=4, callback=lambda n, t, state: 0.5 * state if n == 4 else None)
    close(new, states[4] / 2)
    with pytest.raises(ValueError, match="parallel and adaptive runs cannot take over"):
        logsnr.solve(den, X, solver=method, steps=4, callback=halve, parallel=logsnr.Picard())
    with pytest.raises(ValueError, match=r"the callback returned \(1, 2, 4, 4\)"):
        logsnr.solve(den, X, solver=method, steps=4, callback=lambda n, t, state: state[:1])


def test_gradients_and_transforms() -> None:
    """To x and to weights, with checkpoints too; under vmap."""
    w, x = torch.tensor(1.3, dtype=F64, requires_grad=True), X.clone().requires_grad_()
    den = logsnr.Denoiser(lambda x, t: torch.tanh(w * x), SCH, "x0")
    grads = []
    for checkpoint in (None, 2):
        end = logsnr.solve(den, x, solver=wiener("dct"), steps=3, grad=True, checkpoint=checkpoint).x
        grads.append(torch.autograd.grad(end.square().sum(), (w, x)))
    for one, other in zip(*grads, strict=True):
        close(one, other)
    h = 1e-5
    ends = [
        logsnr.sample(logsnr.Denoiser(lambda x, t, v=v: torch.tanh(v * x), SCH, "x0"), X, solver=wiener("dct"), steps=3)
        for v in (1.3 + h, 1.3 - h)
    ]
    slope = (ends[0].square().sum() - ends[1].square().sum()) / (2 * h)
    assert float(grads[0][0]) == pytest.approx(float(slope), rel=1e-7)
    plain = logsnr.Denoiser(net, SCH, "x0")
    each = torch.func.vmap(lambda z: logsnr.sample(plain, z[None], solver=wiener("dct"), steps=3)[0])(X)
    close(each, logsnr.sample(plain, X, solver=wiener("dct"), steps=3))


@pytest.mark.parametrize("x", [X.float(), X.half()], ids=["fp32", "fp16"])
def test_a_model_in_half_precision_sees_samples_in_it(x: torch.Tensor) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones((), dtype=torch.bfloat16))

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            assert (x.dtype, t.dtype) == (torch.bfloat16, torch.float32)
            return self.weight * net(x, t)

    found = logsnr.sample(logsnr.Denoiser(Net(), SCH, "x0"), x, solver=wiener("dct"), steps=3)
    wanted = logsnr.sample(logsnr.Denoiser(net, SCH, "x0"), x.double(), solver=wiener("dct"), steps=3)
    assert found.dtype is x.dtype
    close(found.double(), wanted, 0.05)
