"""The density of the steps of a stochastic run, against the joint law of the whole path."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

import logsnr
from logsnr import analysis
from logsnr.analysis.log_prob import Normals, log_prob
from logsnr.analysis.moments import after_each_call
from logsnr.solvers.programs.call import ONE, Call, NoiseKey

SCH = logsnr.VPLinear()
MEAN, VARIANCE = np.array([0.5, -1.0, 0.0]), np.array([0.3, 1.0, 2.0])
GAUSSIAN = analysis.Gaussian(MEAN, VARIANCE)
X = logsnr.start(SCH, (4, 3), seed=0, dtype=torch.float64)
GRID, DEN = logsnr.grid(SCH, 6), GAUSSIAN.denoiser(SCH)

# Solvers that ask the model about a stage with noise: the next state is not Gaussian given those before.
STAGES = {"sde-dpmpp-2s", "sde-dpmpp-3s", "seeds-2", "seeds-3", "edm-churn", "restart", "pc", "ald"}


def recorded(program: logsnr.Program, den: logsnr.Denoiser = DEN, seed: int = 1) -> torch.Tensor:
    path = logsnr.solve(den, X, solver=program, seed=seed, trajectory=True).trajectory
    assert path is not None
    return path


def programs() -> list[logsnr.Program]:
    planned = (logsnr.solver(name) for name in logsnr.solver_names())
    found = (method.program(SCH, GRID) for method in planned if method.planner)
    return [program for program in found if program.noises]


def path_density(program: logsnr.Program, path: torch.Tensor) -> torch.Tensor:
    """(B,): of all states together, from the rows of noise of the exact affine forms of every mode."""
    forms = [f for call, f in zip(program, after_each_call(program, SCH, VARIANCE), strict=True) if call.node]
    mean = torch.from_numpy(MEAN)
    begun, total = path[0] - float(SCH.alpha(program.grid[0])) * mean, torch.zeros(len(path[0]), dtype=torch.float64)
    for d in range(3):
        noise = torch.from_numpy(np.array([f.noise[:, d] for f in forms]))
        middle = [f.mean[d] * mean[d] + f.start[d] * begun[:, d] + f.constant[d] for f in forms]
        root = torch.linalg.qr(noise.T).R.T  # no square root of the covariance, which is ill conditioned
        root = root * root.diagonal().sign()
        total += MultivariateNormal(torch.stack(middle, 1), scale_tril=root).log_prob(path[1:, :, d].T)
    return total


def correlated(apart: float = 1.0) -> logsnr.Program:
    """Normals that enter several calls, a constant, and a stage that the state tells: slot 1 is twice the state, as far
    as ``apart`` is 1."""
    one, other, two, three = NoiseKey(1.0, 0.6), NoiseKey(1.0, 0.6, 1), NoiseKey(0.6, 0.3), NoiseKey(0.3, 0.1)
    first = np.array([[0.3, 0.1, 0.7, 0.5, 0.2], [0.6, 0.2, 1.4, 1.0, 0.4 * apart]])
    second = np.array([[0.2, 0.1, 0.3, 0.3, 0.4, 0.6], [0.0, 0.0, 0.5, 0.0, 0.5, 0.7]])
    calls = (
        Call(1.0, (0,), (0, 1), first, 0, (one, other), 1),
        Call(0.6, (1, ONE), (0, 2), second, 1, (one, two), 2),
        Call(0.3, (0, 2), (0,), np.array([[0.6, 0.3, 0.5, 0.3, 0.7, 0.4]]), 0, (two, three), 3),
    )
    return logsnr.Program("correlated", 1, (1.0, 0.6, 0.3, 0.1), calls)


@pytest.mark.parametrize("program", [*programs(), correlated()], ids=lambda program: program.name)
def test_the_sum_over_the_steps_is_the_density_of_the_path(program: logsnr.Program) -> None:
    path = recorded(program)
    if program.name.split()[0] in STAGES:
        with pytest.raises(ValueError, match="a stage to which noise has been added"):
            log_prob(DEN, path, program)
        return
    found = log_prob(DEN, path, program)
    torch.testing.assert_close(found.value, path_density(program, path), rtol=1e-11, atol=1e-10)
    assert found.steps.shape == (program.steps, 4)
    assert found.mean.shape == path[1:].shape
    assert found.std.shape == (program.steps,)


def test_what_the_states_tell_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant: without what a state tells of normals that come again, the density is another."""
    program = correlated()
    path = recorded(program)
    monkeypatch.setattr(Normals, "_mean", lambda self, form: form.known)
    assert float((log_prob(DEN, path, program).value - path_density(program, path)).abs().min()) > 1e-3
    with pytest.raises(ValueError, match="call 2 of 3 asks the model about a stage"):
        log_prob(DEN, path, correlated(apart=0.99))


def test_flow_grpo() -> None:
    """Euler-Maruyama of a flow model, as Liu et al. (2025) write it: the same means, deviations and densities."""
    flow, scale, times = logsnr.FlowMatching(), 0.7, np.linspace(0.95, 0.05, 7)
    den = GAUSSIAN.denoiser(flow, "velocity")
    program = logsnr.solver("euler-maruyama", eta=scale / math.sqrt(2)).program(flow, times)
    path = recorded(program, den)
    found = log_prob(den, path, program)
    for k, (t, dt) in enumerate(zip(times, np.diff(times), strict=False)):
        v, std = den.velocity(path[k], float(t)), scale * math.sqrt(t / (1 - t))
        mean = path[k] + (v + std**2 / (2 * t) * (path[k] + (1 - t) * v)) * dt
        torch.testing.assert_close(found.mean[k], mean)
        assert math.isclose(float(found.std[k]), std * math.sqrt(-dt), rel_tol=1e-12)
        torch.testing.assert_close(found.steps[k], Normal(mean, found.std[k]).log_prob(path[k + 1]).sum(1))


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.4, dtype=torch.float64))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.weight * x


@pytest.mark.parametrize("name", ["ddpm", "sde-dpmpp-2m"])
def test_gradients(name: str) -> None:
    """To the weights, against a difference; the same bits where calls are made again."""
    model = Scaled()
    den = logsnr.Denoiser(model, SCH, "eps")
    program = logsnr.solver(name).program(SCH, GRID)
    path = recorded(program, den)
    assert not path.requires_grad
    grads = []
    for again in (False, True):
        found = log_prob(den, path, program, checkpoint=again).value.sum()
        grads += torch.autograd.grad(found, model.weight)
    assert torch.equal(*grads)
    ends = []
    with torch.no_grad():
        for weight in (0.4 - 1e-5, 0.4 + 1e-5):
            model.weight.fill_(weight)
            ends.append(log_prob(den, path, program).value.sum())
    torch.testing.assert_close(grads[0], (ends[1] - ends[0]) / 2e-5, rtol=1e-5, atol=1e-4)


def test_steps_without_noise_count_nothing() -> None:
    """The last step to sigma = 0; the others are those of the run that ends before."""
    program = logsnr.solver("ddpm").program(SCH, np.array([1.0, 0.5, 0.1, 0.0]))
    path = recorded(program)
    found = log_prob(DEN, path, program)
    assert found.std[-1] == 0
    assert not found.steps[-1].any()
    assert (found.std[:-1] > 0).all()
    torch.testing.assert_close(found.mean[-1], path[-1])
    short = logsnr.solver("ddpm").program(SCH, np.array([0.5, 0.1]))
    assert torch.equal(log_prob(DEN, path[1:3], short).steps[0], found.steps[1])


def test_guided_half_and_single() -> None:
    """Guidance as columns, a network in half precision, one sample of one element, and a tensor that is not dense."""

    def model(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 0.5 * x + y[:, None].to(x.dtype)

    y = torch.zeros(4), torch.ones(4)
    guidance = logsnr.Guidance(3.0, uncond={"y": y[0]})
    den = logsnr.Denoiser(model, SCH, "eps", conditions={"y": y[1]}, guidance=guidance)
    plain = logsnr.Denoiser(lambda x, t: 0.5 * x + 3.0, SCH, "eps")
    program = logsnr.solver("ddpm").program(SCH, GRID)
    path = recorded(program, den)
    guided = log_prob(den, path, program).steps
    torch.testing.assert_close(guided, log_prob(plain, path, program).steps)
    assert torch.equal(log_prob(den, path.mT.contiguous().mT, program).steps, guided)
    half = logsnr.Denoiser(lambda x, t: 0.5 * x, SCH, "eps", dtype=torch.float16)
    short = logsnr.solver("ddpm").program(SCH, [1.0, 0.2])
    assert log_prob(half, path[:2, :1, 0].float(), short).value.shape == (1,)


def test_a_sample_alone() -> None:
    program = logsnr.solver("er-sde-2").program(SCH, GRID)
    path = recorded(program)
    alone = log_prob(DEN, path[:, 2:3], program).steps
    assert torch.equal(alone[:, 0], log_prob(DEN, path, program).steps[:, 2])


def test_momentum_and_an_empty_batch() -> None:
    """Calls are made in order: what is left of each state, in its standard deviation, is the noise of the run."""

    def model(x: torch.Tensor, t: torch.Tensor, y: float) -> torch.Tensor:
        return torch.sin(x) + y * t[:, None]

    program, found = logsnr.solver("ddpm").program(SCH, GRID), []
    for guidance in (None, logsnr.Guidance(2.0, uncond={"y": 0.0}, kind="apg", options={"momentum": -0.5})):
        den = logsnr.Denoiser(model, SCH, "eps", conditions={"y": 1.0}, guidance=guidance)
        path = recorded(program, den)
        steps = log_prob(den, path, program)
        found.append((path[1:] - steps.mean) / steps.std.reshape(-1, 1, 1))
    torch.testing.assert_close(*found)
    assert log_prob(DEN, path[:, :0], program).value.shape == (0,)


def test_bad_input() -> None:
    program, far = logsnr.solver("ddpm").program(SCH, GRID), logsnr.solver("ddpm").program(logsnr.EDM(), [80.0, 1.0])
    path = X.expand(7, 4, 3)
    wrong: list[tuple[Any, Any, Any, str]] = [
        (DEN.model, path, program, "den must be a logsnr.Denoiser"),
        (DEN, path, "ddpm", "program must be a logsnr.Program"),
        (DEN, path[1:], program, r"trajectory must have the shape \(7, B, ...\)"),
        (DEN, path.half(), program, "trajectory must be fp32 or fp64"),
        (DEN, path.numpy(), program, "trajectory must be a torch tensor"),
        (DEN, path, logsnr.solver("ddim").program(SCH, GRID), "adds no noise"),
        (DEN, path, logsnr.solver("ddim-eta", eta=0.0).program(SCH, GRID), "adds no noise"),
        (DEN, path[:2], far, "outside the times"),
    ]
    for one, trajectory, table, message in wrong:
        with pytest.raises((TypeError, ValueError), match=message):
            log_prob(one, trajectory, table)
