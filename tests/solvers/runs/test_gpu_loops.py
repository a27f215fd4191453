"""Whole loops on a GPU: the bits of the CPU."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from checks import BF16, F16
from gpu_loop import DEVICE, SCH, SHAPE, loop

import logsnr

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


@pytest.mark.parametrize("solver", [name for name in logsnr.solver_names() if logsnr.solver(name).planner])
def test_loops_have_the_bits_of_the_cpu(solver: str) -> None:
    """Every solver, its noise included, and again with another seed and start, at other addresses."""
    for seed in (0, 1):
        x = logsnr.randn(SHAPE, seed=seed, device=DEVICE)
        assert torch.equal(x.cpu(), logsnr.randn(SHAPE, seed=seed))
        assert torch.equal(loop(x, solver=solver, seed=seed).cpu(), loop(x.cpu(), solver=solver, seed=seed))


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 5), (2, 1023), (0, 4)])
@pytest.mark.parametrize("solver", ["dpmpp-2m", "sde-dpmpp-2m"])
def test_odd_sizes_again(solver: str, shape: tuple[int, ...]) -> None:
    x = logsnr.randn(shape, seed=0, device=DEVICE)
    wanted = loop(x.cpu(), solver=solver)
    for _ in range(2):
        assert torch.equal(loop(x, solver=solver).cpu(), wanted)


def test_streams_and_threads() -> None:
    """A run is launched on the stream of its caller, at any time from any thread."""
    starts = [logsnr.randn(SHAPE, seed=k, device=DEVICE) for k in range(8)]
    wanted = [loop(x.cpu(), solver="sde-dpmpp-2m") for x in starts]
    loop(starts[0], solver="sde-dpmpp-2m")

    def run(x: torch.Tensor) -> torch.Tensor:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.default_stream())
        with torch.cuda.stream(stream):
            return loop(x, solver="sde-dpmpp-2m").cpu()

    with ThreadPoolExecutor(4) as pool:
        for found, end in zip(pool.map(run, starts), wanted, strict=True):
            assert torch.equal(found, end)


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "sde-dpmpp-2m", "brownian": True},
        {"solver": "dpmpp-2m", "model": F16},
        {"solver": "dpmpp-2m", "model": BF16},
        {"solver": "dpmpp-3m", "startup": "single-step"},
        {"solver": "dpmpp-2m", "parallel": logsnr.Picard(tol=0)},
        {"solver": "sde-dpmpp-2m", "parallel": logsnr.Picard(tol=0, window=3)},
        {"solver": "deis-3", "parallel": logsnr.Picard(tol=0, accelerate=None)},
        {"solver": "dpmpp-3s", "parallel": logsnr.Picard(tol=0, init="constant")},
    ],
    ids=str,
)
def test_ways_to_run_have_the_bits_of_the_cpu(options: dict[str, Any]) -> None:
    """A Brownian path, narrow models, single-step starts; and parallel runs, which have the bits of sequential ones."""
    x = logsnr.randn(SHAPE, seed=0, device=DEVICE)
    wanted = loop(x.cpu(), **{name: value for name, value in options.items() if name != "parallel"})
    for _ in range(2):
        assert torch.equal(loop(x, **options).cpu(), wanted)


def test_layouts() -> None:
    """Samples do not depend on where and in which order the start lies in memory."""
    x = logsnr.randn(SHAPE, seed=0, device=DEVICE)
    wanted = loop(x, solver="sde-dpmpp-2m")
    shifted = torch.empty(x.numel() + 1, device=DEVICE)[1:].view(SHAPE).copy_(x)
    for start in (shifted, x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
        assert torch.equal(loop(start, solver="sde-dpmpp-2m"), wanted)


def test_gradients() -> None:
    """Those of the CPU, to round-off."""
    gradients = []
    for device in (DEVICE, "cpu"):
        x = logsnr.randn(SHAPE, seed=0, device=device).requires_grad_()
        loop(x, solver="dpmpp-2m").sum().backward()
        assert x.grad is not None
        gradients.append(x.grad.cpu())
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=0)


def replies(answers: Sequence[torch.Tensor]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A model that gives these answers, one after another."""
    left = iter(answers)
    return lambda x, t: next(left)


def test_loops_name_what_was_not_finite() -> None:
    """The flag of every call is read once, after the loop, and names the first call whose answer was not finite; so it
    does when the driver launches."""
    for _ in range(2):
        answers = [torch.full((2, 3), answer, device=DEVICE) for answer in (1.0, float("inf"), float("nan"), 1.0)]
        den = logsnr.Denoiser(replies(answers), SCH)
        with pytest.raises(logsnr.NonFiniteError, match="call 2 of 4"):
            logsnr.sample(den, torch.ones(2, 3, device=DEVICE), solver="ddim", steps=4)
