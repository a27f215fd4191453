"""ddpm with the variance that a network returns beside its answer."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

import logsnr

TABLE = logsnr.Discrete(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
GRID = np.array([999.0, 700, 400, 150, 20, -1])
X = logsnr.randn((3, 2, 4, 4), seed=0)


def answer(x: torch.Tensor, t: torch.Tensor, v: Any = None, scale: Any = 1.0) -> torch.Tensor:
    """eps, and v, by default one that depends on everything."""
    time = t.reshape(-1, 1, 1, 1).to(x)
    second = torch.tanh(2 * x + 0.003 * time) if v is None else torch.full_like(x, v)
    return torch.cat([scale * (0.8 * torch.sin(1.3 * x + 0.01 * time)), second], dim=1)


def sampled(model: Any, variance: Any = "learned", **options: Any) -> torch.Tensor:
    den = logsnr.Denoiser(model, TABLE, "eps")
    return logsnr.sample(den, X, solver="ddpm", variance=variance, grid=GRID, **{"seed": 1, **options})


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("v", [-1.0, 0.5, 1.0])
def test_a_constant_v_is_a_known_variance(v: float) -> None:
    """-1 is beta-tilde, 1 beta, between them the logarithms are interpolated."""
    found = sampled(lambda x, t: answer(x, t, v))
    assert apart(found, sampled(answer, (1 + v) / 2)) < 1e-6
    assert apart(found, sampled(answer, (1 + v) / 2 - 1e-3 if v > 0 else 1e-3)) > 1e-6


def test_every_element_has_its_own() -> None:
    """Against the step written out, with beta and beta-tilde of the respaced table."""
    normals = [logsnr.randn(X.shape, seed=9 + n) for n in range(len(GRID))]
    given = iter(normals)
    found = sampled(answer, seed=None, noise=lambda key, like: next(given))
    bars = np.append(np.asarray(TABLE.alpha(GRID[:-1])) ** 2, 1.0)
    x = X.double()
    for n, (now, then) in enumerate(pairwise(bars)):
        eps, v = answer(x, torch.full((3,), GRID[n])).chunk(2, dim=1)
        x0 = (x - (1 - now) ** 0.5 * eps) / now**0.5
        beta = 1 - now / then
        x = (then**0.5 * beta * x0 + (1 - beta) ** 0.5 * (1 - then) * x) / (1 - now)
        if then < 1:
            logs = np.log(beta * (1 - then) / (1 - now)), np.log(beta)
            x = x + torch.exp((1 - v) / 4 * logs[0] + (1 + v) / 4 * logs[1]) * normals[n]
    assert apart(found, x.float()) < 1e-6


def test_a_stepper_has_the_same_bits() -> None:
    program = logsnr.solver("ddpm", variance="learned").program(TABLE, GRID)
    assert program.learned
    assert logsnr.Program.from_json(program.to_json()) == program
    assert program != logsnr.solver("ddpm").program(TABLE, GRID)
    assert "(1 + v) / 2)" in str(program)
    stepper = logsnr.Stepper(program, TABLE, "eps", X, seed=1)
    while not stepper.done:
        stepper.step(answer(stepper.x, torch.full((3,), stepper.t)))
    assert torch.equal(stepper.x, sampled(answer))


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("scale", [3.0, torch.tensor([3.0, 3.0, 3.0])])
def test_with_guidance_the_conditional_answer_says_it(batched: bool, scale: Any) -> None:
    def model(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        y = y.reshape(-1, 1, 1, 1)
        return torch.cat([y * answer(x, t)[:, :2], torch.tanh(x + y)], dim=1)

    guidance = logsnr.Guidance(scale, uncond={"y": torch.zeros(3)}, batched=batched)
    y = torch.tensor([1.0, 0.5, 0.9])
    den = logsnr.Denoiser(model, TABLE, "eps", conditions={"y": y}, guidance=guidance)
    found = logsnr.sample(den, X, solver="ddpm", variance="learned", grid=GRID, seed=1)
    by_hand = sampled(lambda x, t: torch.cat([3 * model(x, t, y)[:, :2], model(x, t, y)[:, 2:]], dim=1))
    assert apart(found, by_hand) < 1e-5
    weaker = logsnr.Guidance(scale, model=lambda x, t, y: torch.zeros_like(x), batched=batched)
    den = logsnr.Denoiser(model, TABLE, "eps", conditions={"y": y}, guidance=weaker)
    assert apart(logsnr.sample(den, X, solver="ddpm", variance="learned", grid=GRID, seed=1), by_hand) < 1e-5


def test_maps_and_gradients_go_with_it() -> None:
    den = logsnr.Denoiser(answer, TABLE, "eps", map_x0=lambda x0, x, t: x0.clamp(-1, 1))
    assert logsnr.sample(den, X, solver="ddpm", variance="learned", grid=GRID, seed=1).abs().max() <= 1
    v = torch.tensor(0.3, requires_grad=True)
    sampled(lambda x, t: torch.cat([answer(x, t)[:, :2], v.expand_as(x)], dim=1), grad=True).sum().backward()
    assert v.grad is not None
    assert v.grad != 0


def test_what_cannot_do_it() -> None:
    with pytest.raises(ValueError, match=r"needs a network that returns twice the channels in dimension 1, not \(3, 2"):
        sampled(lambda x, t: answer(x, t)[:, :2])
    with pytest.raises(ValueError, match="runs one call after the other: leave out parallel="):
        sampled(answer, parallel=logsnr.Picard())
    with pytest.raises(ValueError, match="'learned' and data_variance exclude each other"):
        logsnr.solver("ddpm", variance="learned", data_variance=1.0)
    with pytest.raises(ValueError, match="variance = 'lerned' must be 'beta-tilde', 'beta', 'learned' or a number"):
        logsnr.solver("ddpm", variance="lerned")
