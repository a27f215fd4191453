"""A guided model sees the state twice over in one block of memory, whatever happens to it between calls."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import logsnr

SCH = logsnr.VPLinear()
X = logsnr.randn((3, 4, 5), seed=0)
Y, Y0 = torch.tensor([0.5, -1.0, 2.0]), torch.zeros(3)


def network(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Whose bits do not depend on the batch."""
    shift = (t + y).reshape(-1, *[1] * (x.ndim - 1))
    return x / (1 + x * x) - 0.3 * shift.to(x.dtype)


def guided(model: Callable[..., torch.Tensor] = network, batch: int = 3, w: Any = 3.0, **options: Any) -> Any:
    keys = {name: options.pop(name) for name in ("dtype", "map_x0") if name in options}
    guidance = logsnr.Guidance(w, uncond={"y": Y0[:batch]}, **options)
    return logsnr.Denoiser(model, SCH, "v", conditions={"y": Y[:batch]}, guidance=guidance, **keys)


def seeing_twice(asked: list[int]) -> Callable[..., torch.Tensor]:
    """The network, for calls of twice the rows: both halves must be the same, and lie where they lay before."""

    def model(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        half = len(x) // 2
        assert torch.equal(x[:half], x[half:])
        asked.append(x.data_ptr())
        return network(x, t, y)

    return model


def check(x: torch.Tensor = X, blocks: int = 1, w: Any = 3.0, solver: str = "dpmpp-2m", **options: Any) -> None:
    """The bits of two calls for each pair of answers, and the numbers of a callable that does it by hand."""
    asked = list[int]()
    keys = {name: options.pop(name) for name in ("dtype", "map_x0", "kind", "interval") if name in options}
    given = dict(w=w, batch=len(x), **keys)
    settings = dict(solver=solver, steps=5, seed=1, **options)
    found = logsnr.solve(guided(seeing_twice(asked), **given), x, **settings)
    assert torch.equal(found.x, logsnr.sample(guided(batched=False, **given), x, **settings))
    assert len(set(asked)) == blocks
    assert found.x.untyped_storage().nbytes() == found.x.nbytes
    if not keys and not isinstance(w, torch.Tensor):

        def by_hand(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            u, c = network(x, t, Y0[: len(x)]), network(x, t, Y[: len(x)])
            return u + w * (c - u)

        wanted = logsnr.sample(logsnr.Denoiser(by_hand, SCH, "v"), x, **settings)
        torch.testing.assert_close(found.x, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("solver", "blocks"), [("ddim", 1), ("dpmpp-3m", 1), ("rk4", 2), ("sde-dpmpp-2m", 1)])
def test_solvers(solver: str, blocks: int) -> None:
    """Every slot that the model sees has one block: those of stages too."""
    check(solver=solver, blocks=blocks)


@pytest.mark.parametrize("kind", ["cfg", "cfg++", "rescale", "apg"])
def test_kinds(kind: str) -> None:
    check(kind=kind)
    check(kind=kind, dtype=torch.float16)


def test_scales_by_sample_and_maps() -> None:
    check(w=torch.tensor([1.0, 3.0, 0.5]))
    check(map_x0=lambda x0, x, t: x0.clamp(-1, 1))


@pytest.mark.parametrize("x", [X[:1], X[..., :0], X.transpose(0, 2)[:3], logsnr.randn((2, 3, 4, 5), seed=1)])
def test_layouts(x: torch.Tensor) -> None:
    """One sample, none, samples that do not lie one after the other, and channels last."""
    x = x.to(memory_format=torch.channels_last) if x.ndim == 4 else x
    found = logsnr.sample(guided(batch=len(x)), x, solver="dpmpp-2m", steps=4)
    assert torch.equal(found, logsnr.sample(guided(batch=len(x), batched=False), x, solver="dpmpp-2m", steps=4))


def test_every_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = logsnr.sample(guided(), X, solver="dpmpp-2m", steps=4)
    monkeypatch.setenv("LOGSNR_BACKEND", "torch")
    assert torch.equal(logsnr.sample(guided(), X, solver="dpmpp-2m", steps=4), wanted)


def in_place(state: torch.Tensor) -> None:
    state.mul_(0.5)


def by_data(state: torch.Tensor) -> None:
    state.data.mul_(0.5)


def other_memory(state: torch.Tensor) -> None:
    state.data = state * 0.5


def new(state: torch.Tensor) -> torch.Tensor:
    return state * 0.5


HALF = torch.float16  # whose cast is made before the callback: it knows nothing of writes that torch does not count


@pytest.mark.parametrize(
    ("edit", "options"),
    [(in_place, {}), (by_data, {}), (other_memory, {}), (new, {}), (in_place, {"dtype": HALF}), (new, {"dtype": HALF})],
)
def test_edits_between_calls(edit: Callable[[torch.Tensor], torch.Tensor | None], options: Any) -> None:
    """Both halves follow what a callback makes of the state, even what torch does not count as a write."""
    check(callback=lambda node, t, state: edit(state) if node in (2, 3) else None, **options)


def test_intervals() -> None:
    """Calls that need one answer see the state alone, and others twice over; edits fall on either side."""
    for interval in ((-1.0, 2.0), (0.5, 9.0), (-9.0, 0.0)):
        rows = list[int]()

        def model(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor, rows: list[int] = rows) -> torch.Tensor:
            rows.append(len(x))
            assert torch.equal(x[:3], x[-3:])
            return network(x, t, y)

        def halve(node: int, t: float, state: torch.Tensor) -> None:
            state.mul_(0.9)

        settings = dict(solver="dpmpp-2m", steps=8, callback=halve)
        found = logsnr.sample(guided(model, interval=interval), X, **settings)
        assert set(rows) == {3, 6}
        assert torch.equal(found, logsnr.sample(guided(batched=False, interval=interval), X, **settings))


def test_models_that_write_to_what_they_see() -> None:
    def model(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        answer = network(x, t, y)
        x.mul_(2)
        return answer

    with pytest.raises(ValueError, match=r"call 1 of 4, .*: the model has changed x in place"):
        logsnr.sample(guided(model), X, solver="ddim", steps=4)
    half = dict(dtype=torch.float16)
    found = logsnr.sample(guided(model, **half), X, solver="ddim", steps=4)
    assert torch.equal(found, logsnr.sample(guided(**half), X, solver="ddim", steps=4))


def test_gradients_and_stops() -> None:
    leaf = X.clone().requires_grad_()
    logsnr.sample(guided(), leaf, solver="ddim", steps=3).sum().backward()
    other = X.clone().requires_grad_()
    logsnr.sample(guided(batched=False), other, solver="ddim", steps=3).sum().backward()
    torch.testing.assert_close(leaf.grad, other.grad)

    def stop(node: int, t: float, state: torch.Tensor) -> None:
        if node == 2:
            raise logsnr.StopSampling

    runs = [logsnr.solve(guided(batched=b), X, solver="ddim", steps=4, callback=stop).x for b in (True, False)]
    assert torch.equal(*runs)
    assert np.isfinite(runs[0].numpy()).all()
