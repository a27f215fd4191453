"""The memory of a run: other default devices, models that give the state other memory, and what is kept."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from checks import BF16, F32, random

import logsnr
from logsnr.kernels import Noise, Recurrence, Table, combine, normals, scan, standard_normals
from logsnr.kernels.buffers import first_true
from logsnr.kernels.table import Recent

SCH = logsnr.VPLinear()


def sample(
    model: Callable[..., torch.Tensor], x: torch.Tensor, solver: str = "dpmpp-3m", **options: Any
) -> torch.Tensor:
    return logsnr.sample(logsnr.Denoiser(model, SCH), x, solver=solver, steps=6, seed=3, **options)


def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return x / (1 + x * x)


@pytest.mark.parametrize("solver", ["dpmpp-3m", "rk4", "sde-dpmpp-2m"])
def test_another_default_device(solver: str) -> None:
    """A run on the CPU stays there where new tensors would be elsewhere."""
    x = random((2, 3, 5))
    wanted = sample(net, x, solver)
    with torch.device("meta"):
        assert torch.equal(sample(net, x, solver), wanted)
    try:
        torch.set_default_device("meta")
        assert torch.equal(sample(net, x, solver), wanted)
    finally:
        torch.set_default_device(None)


def test_kernels_on_another_default_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operation, by every backend that the CPU has."""
    x, seeds = random((2, 7)), torch.arange(2)
    noise, rec = Noise(seeds, seeds, ((1, 2),)), Recurrence(np.full((3, 2, 3), 0.5), np.zeros(4, int), 1)
    rows, start = random((3, 2, 7)), random((2, 2, 7))

    def found() -> list[torch.Tensor]:
        return [
            *combine([x, x], np.array([[0.5, 1.0, 2.0]]), noise=noise)[0],
            *combine([x], [[0.5]])[0],  # type: ignore[arg-type]
            standard_normals(noise, 0, x),
            normals(1, 2, 3, 5),
            *scan(start, [rows], rows, rec),
        ]

    wanted = found()
    for backend in ("cpu", "torch"):
        monkeypatch.setenv("LOGSNR_BACKEND", backend)
        with torch.device("meta"):
            for a, b in zip(found(), wanted, strict=True):
                assert torch.equal(a, b)


def other_memory(x: torch.Tensor) -> None:
    x.data = x.clone()


def other_storage(x: torch.Tensor) -> None:
    with torch.no_grad():
        x.set_(x.clone())  # type: ignore[call-overload]


def larger_storage(x: torch.Tensor) -> None:
    x.untyped_storage().resize_(1 << 24)


def freed(x: torch.Tensor) -> None:
    x.untyped_storage().resize_(0)


def other_shape(x: torch.Tensor) -> None:
    x.data = x.new_zeros(1)


def other_dtype(x: torch.Tensor) -> None:
    x.data = x.to(BF16)


@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize("solver", ["dpmpp-3m", "rk4"])
@pytest.mark.parametrize("move", [other_memory])
def test_models_that_give_the_state_other_memory(move: Callable[..., None], solver: str, runs: int) -> None:
    """What is there is taken over, at every call, and the result is that of a model that does not."""
    x = random((2, 3000))
    wanted = sample(net, x, solver)
    for _ in range(runs):
        count = [0]

        def model(x: torch.Tensor, t: torch.Tensor, count: list[int] = count) -> torch.Tensor:
            answer, count[0] = net(x, t), count[0] + 1
            move(x)
            return answer

        assert torch.equal(sample(model, x, solver), wanted)


@pytest.mark.parametrize("move", [larger_storage, freed, other_shape, other_dtype])
def test_memory_that_is_gone(move: Callable[..., None]) -> None:
    """The run ends with an error that says so."""
    count = [0]

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        answer, count[0] = net(x, t), count[0] + 1
        if count[0] == 3:
            move(x)
        return answer

    sample(net, random((2, 3000)))
    with pytest.raises((RuntimeError, ValueError), match=r"the model (or callback has|returned shape)"):
        sample(model, random((2, 3000)))


def test_callbacks_that_give_the_state_other_memory() -> None:
    """As models: what they leave there is the state."""
    x = random((2, 300))

    def halve(node: int, t: float, state: torch.Tensor) -> None:
        if node == 2:
            state.data = state / 2

    def halve_in_place(node: int, t: float, state: torch.Tensor) -> None:
        if node == 2:
            state /= 2

    assert torch.equal(sample(net, x, callback=halve), sample(net, x, callback=halve_in_place))


def test_the_first_flag_of_many() -> None:
    """One of a row is enough."""
    flags = torch.zeros(5, 16, dtype=torch.bool)
    assert first_true(flags) is None
    flags[3, 0] = flags[4, 7] = True
    assert first_true(flags) == 3


def test_what_is_kept_is_bounded() -> None:
    """The oldest is forgotten; tables with coefficients by element meet any number of shapes."""
    kept = Recent()
    for k in range(1000):
        kept[k] = k
    assert list(kept) == list(range(1000 - Recent.MOST, 1000))
    coefs = Table(np.ones((1, 1, 1)))
    for n in range(1, 200):
        x = torch.ones(1, n)
        assert torch.equal(combine([x], coefs, backend="cpu")[0][0], x)
    assert len(coefs.kept) <= Recent.MOST
    assert x.dtype is F32


def test_storage_that_torch_counts_as_a_write_is_refused() -> None:
    """`set_` is one; at whatever call."""
    count = [0]

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        answer, count[0] = net(x, t), count[0] + 1
        if count[0] == 3:
            other_storage(x)
        return answer

    with pytest.raises(ValueError, match=r"call 3 of .*: the model has changed x in place"):
        sample(model, random((2, 3000)))
