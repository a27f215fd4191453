"""quantile_abs: exact order statistics, and the rest as torch.quantile and NumPy define it."""

import math

import numpy as np
import pytest
import torch
from checks import BACKENDS, BF16, F16, F32, F64, assert_same, random

from logsnr.kernels import STATE_DTYPES, quantile_abs, threshold, threshold_cpu

INF, NAN = float("inf"), float("nan")


@pytest.fixture(autouse=True)
def no_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code serves small samples too, which are sorted otherwise."""
    monkeypatch.setattr(threshold, "FEW", 0)
    monkeypatch.setattr(threshold, "SOON", dict.fromkeys(threshold.SOON, 0))


def exact(x: torch.Tensor, q: float) -> np.ndarray:
    """By NumPy in float64."""
    return np.quantile(np.abs(x.double().numpy().reshape(len(x), -1)), q, axis=1)


@pytest.mark.parametrize("dtype", STATE_DTYPES)
@pytest.mark.parametrize("size", [1, 2, 7, 16, 1023, 4097])
@pytest.mark.parametrize("q", [0, 0.3, 0.5, 0.995, 1])
def test_against_numpy_and_torch(dtype: torch.dtype, size: int, q: float) -> None:
    """The quantile is NumPy's and torch's of float64 numbers, to one rounding, and torch and cpu agree on the bits."""
    x = random((3, size), dtype, seed=size)
    found = quantile_abs(x, q, backend="cpu")
    wide = F64 if dtype is F64 else F32
    assert found.dtype is wide
    rtol = torch.finfo(wide).eps * (4 if wide is F64 else 0.5000001)
    torch.testing.assert_close(found.double(), torch.from_numpy(exact(x, q)), rtol=rtol, atol=0)
    torch.testing.assert_close(found.double(), torch.quantile(x.double().abs(), q, dim=1), rtol=rtol, atol=0)
    assert_same(quantile_abs(x, q, backend="torch"), found)


@pytest.mark.parametrize("dtype", STATE_DTYPES)
def test_every_rank(dtype: torch.dtype) -> None:
    """At q = k / (n - 1) the result is the k-th smallest value, over the whole range of exponents, denormals, zeros
    and ties included, and its neighbours are other numbers."""
    info = torch.finfo(dtype)
    low, high = math.log2(info.smallest_normal) - 2, math.log2(info.max) - 1
    powers = torch.linspace(low, high, 120, dtype=F64)
    x = torch.cat([2.0**powers, -(2.0 ** powers[:5]), torch.tensor([0.0, -0.0, info.max, info.max / 2])])
    x = x.to(dtype)[torch.randperm(129)].reshape(1, 129)
    order = x.abs().sort(dim=1).values[0]
    assert len(order.unique()) > 100
    for k in range(129):
        for backend in ("cpu", "torch"):
            assert quantile_abs(x, k / 128, backend=backend)[0] == order[k]


@pytest.mark.parametrize("dtype", [F16, BF16])
def test_every_number_of_half_precision(dtype: torch.dtype) -> None:
    """Of all finite numbers of 16 bits any quantile is exact."""
    x = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
    x = x[x.isfinite()][None]
    for q in np.linspace(0, 1, 41):
        torch.testing.assert_close(
            quantile_abs(x, q, backend="cpu").double(), torch.from_numpy(exact(x, q)), rtol=2**-24, atol=2e-45
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_neighbours_in_other_bins(backend: str) -> None:
    """The next value is found wherever it is: in the same place, in the same bin of any pass, or in none of them."""
    for a, b in [(1.0, 1.0), (1.0, 1 + 2**-23), (1.0, 1 + 2**-12), (1.0, 1.25), (1.0, 3e38), (0.0, 1e-45), (2.0, INF)]:
        x = torch.tensor([[a, 0.0, -b, 0.0, b]])
        wanted = torch.tensor([a / 2 + b / 2])
        assert_same(quantile_abs(x, 2.5 / 4, backend=backend), wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_not_finite(backend: str) -> None:
    """A NaN makes its sample's quantile NaN, infinities are the largest numbers, and other samples do not notice."""
    x = random((5, 300))
    x[1, 7], x[2, 3], x[3] = NAN, -INF, INF
    x[4, :2] = torch.tensor([INF, NAN])
    for q in (0, 0.7, 1):
        found = quantile_abs(x, q, backend=backend)
        assert found.isnan().tolist() == [False, True, False, False, True]
        assert found[3] == INF
        assert found[2] == (INF if q == 1 else quantile_abs(x[2:3].nan_to_num(neginf=3e38), q, backend="torch")[0])
        assert found[0] == quantile_abs(x[:1], q, backend="torch")[0]
    # torch.quantile makes NaN of a rank exactly below an infinity.
    assert quantile_abs(torch.tensor([[0.0, 1.0, INF]]), 0.5, backend=backend)[0] == 1
    assert quantile_abs(torch.tensor([[0.0, 1.0, INF]]), 0.51, backend=backend)[0] == INF


def test_beyond_the_limit_of_torch() -> None:
    """More than 2^24 elements, which torch.quantile refuses, are no obstacle, nor is that all are alike but one."""
    x = torch.ones(1, (1 << 24) + 2)
    x[0, 12345] = -7
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(x, 0.5)
    position = 1 - 0.25 / (x.numel() - 1)  # a quarter below the largest
    assert quantile_abs(x, 0.5)[0] == 1
    assert quantile_abs(x, position)[0] == pytest.approx(1 + 0.75 * 6, rel=1e-6)
    assert quantile_abs(x, 1)[0] == 7


def test_few_elements_are_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples of few elements are sorted whatever the backend, with the same result."""
    x = random((4, 100))
    wanted = quantile_abs(x, 0.7, backend="cpu")
    monkeypatch.undo()
    monkeypatch.setattr(threshold_cpu, "order_statistics", None)
    assert torch.equal(quantile_abs(x, 0.7, backend="cpu"), wanted)
