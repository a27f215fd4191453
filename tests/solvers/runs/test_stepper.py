"""The sequential executor, one call at a time."""

from typing import Any

import numpy as np
import pytest
import torch
from parallel_runs import model, start

import logsnr

SCH = logsnr.VPLinear()
X = start(2, 5)
PLANNED = [name for name in logsnr.solver_names() if logsnr.solver(name).planner]


def program(name: str, steps: int = 5, **layout: Any) -> logsnr.Program:
    return logsnr.solver(name).program(SCH, logsnr.grid(SCH, steps), **layout)


def stepped(stepper: logsnr.Stepper) -> torch.Tensor:
    while not stepper.done:
        stepper.step(model(stepper.x, torch.full((2,), stepper.t)))
    return stepper.x


@pytest.mark.parametrize("name", PLANNED)
def test_the_bits_of_sample(name: str) -> None:
    table, den = program(name), logsnr.Denoiser(model, SCH, "v")
    wanted = logsnr.sample(den, X, solver=table, seed=3)
    assert torch.equal(stepped(logsnr.Stepper(table, SCH, "v", X, seed=3)), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_of_half_precision(dtype: torch.dtype) -> None:
    """``x`` is handed out in the model's dtype; the state behind it keeps fp32."""
    table = program("dpmpp-2m")
    wanted = logsnr.sample(logsnr.Denoiser(model, SCH, "v", dtype=dtype), X, solver=table)
    stepper = logsnr.Stepper(table, SCH, "v", X, dtype=dtype)
    assert stepper.x.dtype is dtype
    assert torch.equal(stepped(stepper), wanted)
    assert stepper.x.dtype is torch.float32


def test_where_it_is() -> None:
    table = program("dpmpp-2s", 3)
    stepper, nodes, times = logsnr.Stepper(table, SCH, "x0", X), [], []
    with pytest.raises(ValueError, match="x0 before the first step"):
        _ = stepper.x0
    while not stepper.done:
        nodes.append(stepper.node)
        times.append(stepper.t)
        stepper.step(0.5 * stepper.x)
        assert torch.isfinite(stepper.x0).all()
    assert nodes == [0, 0, 1, 1, 2, 2]
    assert times == [call.t for call in table]
    assert (stepper.node, stepper.t) == (3, table.grid[-1])
    with pytest.raises(ValueError, match="all 6 calls"):
        stepper.step(X)


def test_the_estimate() -> None:
    stepper = logsnr.Stepper(program("ddim"), SCH, "eps", X)
    seen, t = stepper.x.clone(), stepper.t
    stepper.step(0.3 * seen)
    wanted = (seen.double() - SCH.sigma(t) * 0.3 * seen.double()) / SCH.alpha(t)
    torch.testing.assert_close(stepper.x0.double(), wanted, rtol=1e-5, atol=1e-4)
    quiet = logsnr.Stepper(program("ddim"), SCH, "eps", X, x0=False)
    quiet.step(0.3 * seen)
    with pytest.raises(ValueError, match="x0=False"):
        _ = quiet.x0


@pytest.mark.parametrize(("name", "dtype"), [("dpmpp-2m", None), ("dpmpp-2m", torch.float16), ("rk4", None)])
def test_replaced_states(name: str, dtype: torch.dtype | None) -> None:
    """An edit between steps is what a callback of `sample` may do; within a step it is the stage that is edited."""
    table = program(name)
    den = logsnr.Denoiser(model, SCH, "v", dtype=dtype)
    wanted = logsnr.sample(den, X, solver=table, callback=lambda node, t, x: x.clamp(-1, 1) + 0.25)
    stepper = logsnr.Stepper(table, SCH, "v", X, dtype=dtype)
    while not stepper.done:
        stepper.step(model(stepper.x, torch.full((2,), stepper.t)))
        if stepper.node and table.calls[stepper.n - 1].node is not None:
            stepper.replace(stepper.memory.slots[0].clamp(-1, 1) + 0.25)
    assert torch.equal(stepper.x, wanted)


def test_replaced_stages() -> None:
    table = program("rk4", 1)
    stepper, plain = (logsnr.Stepper(table, SCH, "v", X) for _ in range(2))
    for one in (stepper, plain):
        one.step(model(one.x, torch.full((2,), one.t)))
    stepper.replace(stepper.x + 1)
    assert torch.equal(stepper.x, plain.x + 1)
    assert not torch.equal(stepped(stepper), stepped(plain))
    half = logsnr.Stepper(table, SCH, "v", X, dtype=torch.float16)
    half.step(model(half.x, torch.full((2,), half.t)))
    with pytest.raises(ValueError, match="within a step"):
        half.replace(half.x + 1)
    with pytest.raises(ValueError, match=r"shape \(2, 5\)"):
        half.replace(half.x[:1])
    with pytest.raises(ValueError, match=r"what replaces it is torch\.complex64, but must be real"):
        stepper.replace(X.to(torch.complex64))
    with pytest.raises(TypeError, match="what replaces it must be a torch tensor, not ndarray"):
        stepper.replace(X.numpy())


def test_noise_sources() -> None:
    table, given = program("sde-dpmpp-2m"), {}

    def noise(key: Any, like: torch.Tensor) -> torch.Tensor:
        return given.setdefault(key, torch.full_like(like, 0.5))

    den = logsnr.Denoiser(model, SCH, "v")
    for options in ({"seed": [4, 5]}, {"seed": 1, "brownian": True}, {"noise": noise}):
        wanted = logsnr.sample(den, X, solver=table, **options)
        assert torch.equal(stepped(logsnr.Stepper(table, SCH, "v", X, **options)), wanted)  # type: ignore[arg-type]


def test_bad_input() -> None:
    table = program("ddim")
    with pytest.raises(TypeError, match=r"program must be a logsnr\.Program, not str"):
        logsnr.Stepper("ddim", SCH, "eps", X)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'epsilon' is not a head"):
        logsnr.Stepper(table, SCH, "epsilon", X)
    with pytest.raises(TypeError, match="x must be a torch tensor"):
        logsnr.Stepper(table, SCH, "eps", np.zeros((2, 3)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="outside the times"):
        logsnr.Stepper(logsnr.solver("ddim").program(logsnr.EDM(), [80.0, 1.0]), SCH, "eps", X)
    stepper = logsnr.Stepper(table, SCH, "eps", X)
    with pytest.raises(ValueError, match="call 1 of 5"):
        stepper.step(X[:1])
    with pytest.raises(logsnr.NonFiniteError, match="call 1 of 5"):
        stepper.step(X * torch.nan)
