"""dynamic_threshold: clipped and scaled as defined, to the same bits by every backend."""

from typing import Any

import numpy as np
import pytest
import torch
from checks import BACKENDS, BF16, F64, assert_same, interpreted, random

from logsnr.kernels import STATE_DTYPES, dynamic_threshold, quantile_abs, threshold
from logsnr.kernels.pool import THREADED_BYTES

INF, NAN = float("inf"), float("nan")


@pytest.fixture(autouse=True)
def no_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code serves small samples too, which are sorted otherwise."""
    monkeypatch.setattr(threshold, "FEW", 0)
    monkeypatch.setattr(threshold, "SOON", dict.fromkeys(threshold.SOON, 0))


def exact(x: torch.Tensor, q: float) -> np.ndarray:
    """By NumPy in float64."""
    return np.quantile(np.abs(x.double().numpy().reshape(len(x), -1)), q, axis=1)


@interpreted
@pytest.mark.parametrize("dtype", STATE_DTYPES)
@pytest.mark.parametrize("size", [1, 7, 1023, 4097])
def test_triton(dtype: torch.dtype, size: int) -> None:
    """Triton's kernels return the bits of torch, into poisoned outputs."""
    x = random((2, size), dtype, seed=size)
    assert_same(quantile_abs(x, 0.3, backend="triton"), quantile_abs(x, 0.3, backend="torch"))
    out = torch.full_like(x, NAN)
    y, s = dynamic_threshold(x, quantile=0.9, limit=0.3, out=out, backend="triton")
    wanted, s_too = dynamic_threshold(x, quantile=0.9, limit=0.3, backend="torch")
    assert y is out
    assert_same(s, s_too)
    assert_same(y, wanted, "triton")


@pytest.mark.parametrize("backend", BACKENDS)
def test_independent_of_the_batch(backend: str) -> None:
    """A sample is thresholded alike alone, in a batch, and in another place of it."""
    x = random((4, 3, 111))
    y, s = dynamic_threshold(x, quantile=0.8, backend=backend)
    for part in ([2], [3, 1]):
        some, few = dynamic_threshold(x[part], quantile=0.8, backend=backend)
        assert torch.equal(few, s[part])
        assert torch.equal(some, y[part])


def test_threads_and_their_number() -> None:
    """Parts of samples counted by several threads add up to the same answer."""
    x = random((3, THREADED_BYTES // 8))
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(dynamic_threshold(x, quantile=0.9, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    wanted = dynamic_threshold(x, quantile=0.9, backend="torch")
    for y, s in found:
        assert torch.equal(y, wanted[0])
        assert torch.equal(s, wanted[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", STATE_DTYPES)
def test_the_definition(backend: str, dtype: torch.dtype) -> None:
    """The result is clip(x, -s, s) limit / s with s the quantile, but not below the limit, to two roundings."""
    x = random((3, 2, 400), dtype) * torch.tensor([0.1, 1, 5]).to(dtype).reshape(3, 1, 1)
    limit = 1.5
    y, s = dynamic_threshold(x, quantile=0.9, limit=limit, backend=backend)
    wanted = np.maximum(exact(x, 0.9), limit)
    np.testing.assert_allclose(s.numpy(), wanted, rtol=2**-23)
    assert (s == limit).tolist() == [True, False, False] if wanted[1] > limit else [True, True, False]
    bound = wanted.reshape(3, 1, 1)
    exactly = np.clip(x.double().numpy(), -bound, bound) * limit / bound
    roundings = 4 if dtype is F64 else 2 if backend == "triton" and dtype is BF16 else 1  # NumPy rounds fp64 as well
    rtol = torch.finfo(dtype).eps * roundings + 2**-22 * (dtype is not F64)
    np.testing.assert_allclose(y.double().numpy(), exactly, rtol=rtol, atol=torch.finfo(dtype).smallest_normal)
    assert y.dtype is dtype
    assert abs(y.double()).max() == limit


@pytest.mark.parametrize("backend", BACKENDS)
def test_within_the_limit_nothing_changes(backend: str) -> None:
    """Where the quantile is below the limit, elements are clipped and not scaled."""
    x = random((2, 500)) / 3
    assert (x.abs() > 1).any()
    y, s = dynamic_threshold(x, quantile=0.5, backend=backend)
    assert torch.equal(s, torch.ones(2))
    assert torch.equal(y, x.clamp(-1, 1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_static(backend: str) -> None:
    """Without a quantile only the limit counts, and a NaN stays one without touching its sample."""
    x = random((2, 77))
    x[0, 3], x[1, 4], x[1, 5] = NAN, INF, -INF
    y, s = dynamic_threshold(x, quantile=None, limit=0.7, backend=backend)
    assert_same(s, torch.full((2,), 0.7))
    assert_same(y, x.clamp(-0.7, 0.7))


@pytest.mark.parametrize("backend", BACKENDS)
def test_dynamic_and_not_finite(backend: str) -> None:
    """A NaN makes the whole sample NaN; where s is infinite, numbers become 0 and infinities NaN."""
    x = random((3, 100))
    x[1, 8], x[2, :60] = NAN, INF
    y, s = dynamic_threshold(x, quantile=0.9, backend=backend)
    assert_same(s[1:], torch.tensor([NAN, INF]))
    assert y[0].isfinite().all()
    assert y[1].isnan().all()
    assert y[2, :60].isnan().all()
    assert (y[2, 60:] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0,), (0, 5), (3, 0)])
def test_nothing(backend: str, shape: tuple[int, ...]) -> None:
    """Without elements there is nothing to clip, and s is the limit; but no quantile of a sample without any."""
    y, s = dynamic_threshold(torch.ones(shape), limit=2, backend=backend)
    assert y.shape == shape
    assert torch.equal(s, torch.full(shape[:1], 2.0))
    if shape[0]:
        with pytest.raises(ValueError, match="x must have elements"):
            quantile_abs(torch.ones(shape), 0.5, backend=backend)
    else:
        assert quantile_abs(torch.ones(shape), 0.5, backend=backend).shape == (0,)


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_place(backend: str) -> None:
    """The output may be x."""
    x = random((2, 700))
    wanted, _ = dynamic_threshold(x, quantile=0.9, backend=backend)
    found, _ = dynamic_threshold(x, quantile=0.9, out=x, backend=backend)
    assert found is x
    assert torch.equal(x, wanted)


def test_layouts() -> None:
    """Channels-last tensors are served compiled and keep their layout; others are served by torch."""
    x = random((2, 3, 9, 11))
    wanted, s = dynamic_threshold(x, quantile=0.9)
    for other in (x.contiguous(memory_format=torch.channels_last), x.transpose(0, 1).contiguous().transpose(0, 1)):
        y, s_too = dynamic_threshold(other, quantile=0.9)
        assert torch.equal(y, wanted)
        assert torch.equal(s, s_too)
    assert dynamic_threshold(x.contiguous(memory_format=torch.channels_last), backend="cpu")[0].stride() != x.stride()
    with pytest.raises(RuntimeError, match="not next to each other"):
        quantile_abs(other, 0.9, backend="cpu")
    assert torch.equal(quantile_abs(x[:, :, ::2, 1:], 0.9), quantile_abs(x[:, :, ::2, 1:].contiguous(), 0.9))


def test_gradients() -> None:
    """Recorded gradients go through the clipping and the quantile, as finite differences do."""
    x = random((2, 9), F64).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: dynamic_threshold(v, quantile=0.8, limit=0.1), [x])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(2, 3).int()}, "x must be fp64"),
        ({"x": torch.ones(())}, "x must have a batch dimension"),
        ({"quantile": 1.01}, "quantile must be"),
        ({"quantile": -0.1}, "quantile must be"),
        ({"quantile": NAN}, "quantile must be"),
        ({"limit": 0}, "limit must be"),
        ({"limit": INF}, "limit must be"),
        ({"limit": NAN}, "limit must be"),
        ({"out": torch.ones(2, 4)}, "out must be like x"),
        ({"out": torch.ones(2, 3).double()}, "out must be like x"),
        ({"backend": "numba"}, "backend must be"),
    ],
)
def test_errors(change: dict[str, Any], message: str) -> None:
    """What does not fit is a ValueError that names the argument."""
    arguments = {"x": torch.ones(2, 3)} | change
    with pytest.raises(ValueError, match=message):
        dynamic_threshold(arguments.pop("x"), **arguments)
