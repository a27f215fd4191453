"""combine_norm: norms within a derived bound of the exact ones, the same bits in any batch and on any thread."""

from typing import Any

import numpy as np
import pytest
import torch
from checks import BACKENDS, BF16, F32, F64, assert_same, interpreted, random

from logsnr.kernels import STATE_DTYPES, combine
from logsnr.kernels.norms import combine_norm, error_norm
from logsnr.kernels.pool import THREADED_BYTES

COEFS = np.array([[0.9, -0.4, 0.3, 0.1], [0.0, 1.5, 0.0, -0.7]])
ROWS: dict[str, Any] = {
    "error": [0.0, 2e-3, -3e-3, 1.1e-3],
    "scale": [[1.0, 0, 0, 0], COEFS[0]],
    "rtol": 1e-3,
    "atol": 1e-4,
}


def several(shape: tuple[int, ...], dtype: torch.dtype = F32, count: int = 4) -> list[torch.Tensor]:
    return [random(shape, dtype, seed) for seed in range(count)]


def exact(inputs: list[torch.Tensor], rows: dict[str, Any], wide: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The norms in extended precision, and how far from them the bound of the docstring, not cut at first order,
    lets sums in ``wide`` end."""
    xs = np.stack([x.double().numpy().reshape(len(x), -1) for x in inputs]).astype(np.longdouble)
    (e, big_e), (a, big_a), (b, big_b) = (
        (np.tensordot(row, xs, 1), np.tensordot(np.abs(row), np.abs(xs), 1))
        for row in np.array([rows["error"], *rows["scale"]], dtype=np.longdouble)
    )
    s, big_s = (rows["atol"] + rows["rtol"] * np.maximum(*v) for v in ((abs(a), abs(b)), (big_a, big_b)))
    u, k = np.longdouble(torch.finfo(wide).eps) / 2, len(inputs)
    tiny = 20 * np.longdouble(torch.finfo(wide).smallest_normal) * 2 * u
    off = ((k + 3) * u * big_e + abs(e / s) * (k + 6) * u * big_s + tiny) / (s - (k + 6) * u * big_s)
    off = 1.01 * (off + 2 * u * abs(e / s))

    def norm(x: np.ndarray) -> np.ndarray:
        return np.sqrt(np.mean(x * x, axis=1))

    return norm(e / s), norm(off) + 1e-14 * norm(e / s)


def assert_near(found: torch.Tensor, inputs: list[torch.Tensor], rows: dict[str, Any], wide: torch.dtype) -> None:
    wanted, bound = exact(inputs, rows, wide)
    assert found.dtype is F64
    assert (abs(found.numpy().astype(np.longdouble) - wanted) <= bound).all()


@pytest.mark.parametrize("dtype", STATE_DTYPES)
@pytest.mark.parametrize("size", [1, 7, 16, 1023, 1024, 4097])
def test_torch_and_cpu(dtype: torch.dtype, size: int) -> None:
    """Compiled code writes poisoned outputs as combine does and returns the bits of torch, within the bound."""
    inputs = several((3, size), dtype)
    out = [torch.full_like(inputs[0], float("nan")) for _ in COEFS]
    results, norms = combine_norm(inputs, COEFS, out=out, backend="cpu", **ROWS)
    wanted, norms_too = combine_norm(inputs, COEFS, backend="torch", **ROWS)
    assert all(a is b for a, b in zip(results, out, strict=True))
    assert torch.equal(norms, norms_too)
    for found, want, plain in zip(results, wanted, combine(inputs, COEFS, backend="torch")[0], strict=True):
        assert torch.equal(found, want)
        assert torch.equal(found, plain)
    assert_near(norms, inputs, ROWS, F64 if dtype is F64 else F32)
    assert torch.equal(error_norm(inputs, backend="cpu", **ROWS), norms)


@interpreted
@pytest.mark.parametrize("dtype", STATE_DTYPES)
@pytest.mark.parametrize("size", [1, 7, 1023, 4097])
def test_triton(dtype: torch.dtype, size: int) -> None:
    """Triton's outputs are those of torch, and its norms within the bound and 1e-14 of them."""
    inputs = several((2, size), dtype)
    out = [torch.full_like(inputs[0], float("nan")) for _ in COEFS]
    _, norms = combine_norm(inputs, COEFS, out=out, backend="triton", **ROWS)
    wanted, norms_too = combine_norm(inputs, COEFS, backend="torch", **ROWS)
    for found, want in zip(out, wanted, strict=True):
        assert_same(found, want, "triton")
    torch.testing.assert_close(norms, norms_too, rtol=1e-14, atol=0)
    assert_near(norms, inputs, ROWS, F64 if dtype is F64 else F32)


@pytest.mark.parametrize("key", ["error", "scale", "rtol", "atol"])
def test_the_bound_is_tight(key: str) -> None:
    """A weight or tolerance that is off by 1e-3 leaves the bound."""
    inputs = several((3, 1023))
    wrong = ROWS | {key: np.multiply(ROWS[key], 1.001)}
    norms = error_norm(inputs, backend="cpu", **wrong)
    with pytest.raises(AssertionError):
        assert_near(norms, inputs, ROWS, F32)


def test_mixed_dtypes_and_fp64_outputs() -> None:
    """One fp64 output makes all sums fp64; fp16 and bf16 outputs of fp64 sums round as torch does."""
    inputs = [x.to(d) for x, d in zip(several((3, 129)), STATE_DTYPES, strict=True)]
    dtypes = [F64, BF16]
    results, norms = combine_norm(inputs, COEFS, dtypes=dtypes, backend="cpu", **ROWS)
    wanted, norms_too = combine_norm(inputs, COEFS, dtypes=dtypes, backend="torch", **ROWS)
    assert [r.dtype for r in results] == dtypes
    assert all(torch.equal(a, b) for a, b in zip(results, wanted, strict=True))
    assert torch.equal(norms, norms_too)
    assert_near(norms, inputs, ROWS, F64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_closed_form(backend: str) -> None:
    """An error of 3 and a scale of 1 + 1/4 max(|-8|, |4|) everywhere give 1."""
    ones = torch.ones(2, 5, 3)
    norms = error_norm([ones], error=[3], scale=[[-8], [4]], rtol=0.25, atol=1, backend=backend)
    assert torch.equal(norms, torch.ones(2, dtype=F64))


@pytest.mark.parametrize("backend", BACKENDS)
def test_independent_of_the_batch(backend: str) -> None:
    """A sample's outputs and norm are the same bits alone, in a batch, and in another place of it."""
    inputs = several((5, 3, 417))
    results, norms = combine_norm(inputs, COEFS, backend=backend, **ROWS)
    for part in ([2], [4, 2]):
        some, few = combine_norm([x[part] for x in inputs], COEFS, backend=backend, **ROWS)
        assert torch.equal(few, norms[part])
        assert all(torch.equal(a, b[part]) for a, b in zip(some, results, strict=True))


def test_threads_and_their_number() -> None:
    """Any number of threads returns the same bits, and so does torch."""
    inputs = several((3, THREADED_BYTES // 16))
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found += [combine_norm(inputs, COEFS[:1], backend=b, **ROWS) for b in ("cpu", "torch")]
    finally:
        torch.set_num_threads(before)
    for (result,), norms in found:
        assert torch.equal(result, found[0][0][0])
        assert torch.equal(norms, found[0][1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", range(4))
def test_not_finite(backend: str, value: float, which: int) -> None:
    """A NaN or infinity in e, a or b, if only in one of them, makes its sample's norm not finite, and leaves the
    others alone."""
    inputs = several((3, 37))
    rows = ROWS | {"error": [0, 0, 2e-3, 1e-3], "scale": np.eye(2, 4)}
    before = error_norm(inputs, backend=backend, **rows)
    inputs[which][1, 35] = value
    norms = error_norm(inputs, backend=backend, **rows)
    assert norms.isfinite().tolist() == [True, False, True]
    assert torch.equal(norms[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_unused_inputs(backend: str) -> None:
    """An input whose weights are 0 is left out, whatever it holds, and an error of no input is 0."""
    inputs = several((2, 20))
    inputs[3].fill_(float("nan"))
    rows = ROWS | {"error": [1e-3, 0, 0, 0], "scale": np.eye(2, 4)}
    norms = error_norm(inputs, backend=backend, **rows)
    fewer = error_norm(inputs[:3], backend=backend, **rows | {"error": [1e-3, 0, 0], "scale": np.eye(2, 3)})
    assert torch.equal(norms, fewer)
    assert norms.isfinite().all()
    assert torch.equal(error_norm(inputs, backend=backend, **rows | {"error": [0.0] * 4}), torch.zeros(2, dtype=F64))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 5), (2, 0, 4)])
def test_nothing(backend: str, shape: tuple[int, ...]) -> None:
    """Samples without elements have norm 0, and no samples no norm."""
    (result,), norms = combine_norm(several(shape), COEFS[:1], backend=backend, **ROWS)
    assert result.shape == shape
    assert torch.equal(norms, torch.zeros(shape[0], dtype=F64))


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_place(backend: str) -> None:
    """An output may be an input: every element is read before it is written."""
    inputs = several((2, 1100))
    wanted, norms = combine_norm(inputs, COEFS, backend=backend, **ROWS)
    mine = [x.clone() for x in inputs]
    found, norms_too = combine_norm(mine, COEFS, out=[mine[1], mine[0]], backend=backend, **ROWS)
    assert found[0] is mine[1]
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert torch.equal(norms, norms_too)
