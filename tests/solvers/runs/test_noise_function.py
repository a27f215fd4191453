"""Noise from a function of the user's: what it is asked, when, and what it may do with its memory."""

from typing import Any

import pytest
import torch

import logsnr
from logsnr.solvers.programs.program import NoiseKey

NOISY = [name for name in logsnr.solver_names() if logsnr.solver(name).stochastic]


def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.clamp(x, -1, 1) * (1 - t).to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))


DEN = logsnr.Denoiser(net, logsnr.VPLinear(), "x0")


def sample(x: torch.Tensor, solver: str, **options: Any) -> torch.Tensor:
    return logsnr.sample(DEN, x, solver=solver, steps=5, **options)


def test_noise_of_the_user() -> None:
    """noise= is asked once for every normal of the program, by its key, and replaces the addressed ones."""
    asked: list[NoiseKey] = []

    def noise(key: NoiseKey, like: torch.Tensor) -> torch.Tensor:
        asked.append(key)
        return torch.zeros_like(like)

    x = logsnr.randn((2, 3), seed=0)
    solution = logsnr.solve(DEN, x, solver="sde-dpmpp-1", steps=4, noise=noise)
    assert solution.program is not None
    assert tuple(asked) == solution.program.noises
    assert not torch.equal(solution.x, logsnr.sample(DEN, x, solver="sde-dpmpp-1", steps=4, seed=0))


@pytest.mark.parametrize("solver", NOISY)
def test_noise_of_the_user_is_asked_once(solver: str) -> None:
    """Also where several calls of a step add the same normals, of a function that never returns the same twice and
    uses its memory again; all of them are let go of."""
    asked: list[NoiseKey] = []
    memory, generator = torch.empty(2, 3), torch.Generator().manual_seed(0)

    def fresh(key: NoiseKey, like: torch.Tensor) -> torch.Tensor:
        asked.append(key)
        return memory.normal_(generator=generator)

    x = logsnr.randn((2, 3), seed=0)
    solution = logsnr.solve(DEN, x, solver=solver, steps=4, noise=fresh)
    assert solution.program is not None
    assert tuple(asked) == solution.program.noises
    generator.manual_seed(0)
    given = {key: torch.empty(2, 3).normal_(generator=generator) for key in asked}
    assert torch.equal(solution.x, logsnr.sample(DEN, x, solver=solver, steps=4, noise=lambda key, like: given[key]))


@pytest.mark.parametrize("parallel", [None, logsnr.Picard(tol=0.0)])
@pytest.mark.parametrize("solver", ["sde-dpmpp-2m", "seeds-2", "seeds-3"])
def test_a_function_may_use_its_memory_again(solver: str, parallel: Any) -> None:
    """What it has returned is read before it is asked again, or copied: the same bits as of new memory each time."""

    def end(given: Any, memory: torch.Tensor | None) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)

        def noise(key: NoiseKey, like: torch.Tensor) -> torch.Tensor:
            return (torch.empty_like(like) if memory is None else memory).normal_(generator=generator)

        return sample(logsnr.randn((2, 3), seed=0), solver, noise=noise, parallel=given)

    assert torch.equal(end(parallel, torch.empty(2, 3)), end(None, None))


@pytest.mark.parametrize("solver", ["sde-dpmpp-2m", "seeds-2"])
def test_a_trajectory_is_that_of_the_noise_of_the_run(solver: str) -> None:
    """The states of a parallel run are those that lead to its end, whatever a function returns when asked again."""
    generator = torch.Generator().manual_seed(0)
    solution = logsnr.solve(
        DEN, logsnr.randn((2, 3), seed=0), solver=solver, steps=4, parallel=logsnr.Picard(window=3), trajectory=True,
        noise=lambda key, like: torch.randn(like.shape, generator=generator),
    )  # fmt: skip
    assert solution.trajectory is not None
    torch.testing.assert_close(solution.trajectory[-1], solution.x, rtol=1e-6, atol=1e-6)
