"""Addressed normals are independent standard normals."""

import math
from importlib import import_module

import numpy as np
import pytest
from scipy import stats

from logsnr.kernels.normals import normals

spec = import_module("logsnr.kernels.normals")  # the package has a function of this name
COUNT = 1 << 18


def ks(z: np.ndarray) -> float:
    return float(stats.kstest(z.astype(np.float64), "norm").pvalue)


def test_normals_are_distributed_as_such() -> None:
    """Kolmogorov-Smirnov does not reject, and moments up to 8 are within 4 standard errors."""
    z = normals(11, 0, 0, COUNT).numpy().astype(np.float64)
    assert ks(z) > 0.01
    for k in range(1, 9):
        mean, square = (math.prod(range(1, p, 2)) if p % 2 == 0 else 0 for p in (k, 2 * k))
        assert abs((z**k).mean() - mean) < 4 * math.sqrt((square - mean**2) / COUNT)


def test_kolmogorov_smirnov_notices_one_percent() -> None:
    """Mutant: normals 1 % too large, or with a mean of 0.01, are rejected."""
    z = normals(11, 0, 0, COUNT).numpy()
    assert ks(1.01 * z) < 0.01
    assert ks(z + 0.01) < 0.01


def correlations() -> list[float]:
    """In standard errors, of normals, their squares and their signs, between neighbours in every part of the
    address, and between neighbouring elements."""
    count = 1 << 14
    z = normals(8, 4, 2, count, stream=1).numpy()
    neighbours = [
        normals(9, 4, 2, count, stream=1),
        normals(8 + 2**32, 4, 2, count, stream=1),
        normals(8, 5, 2, count, stream=1),
        normals(8, 4, 3, count, stream=1),
        normals(8, 4, 2, count, stream=0),
        normals(4, 8, 2, count, stream=1),
        *(normals(8, 4, 2, count, stream=1, first=lag) for lag in (1, 2, 3, 4, 8, 64, 128)),
    ]
    maps = (lambda x: x, lambda x: x**2 - 1, np.sign)
    return [abs(np.corrcoef(f(z), f(y.numpy()))[0, 1]) * math.sqrt(count) for y in neighbours for f in maps]


def test_neighbouring_addresses_are_uncorrelated() -> None:
    """None of 39 correlations is beyond 4 standard errors."""
    assert max(correlations()) < 4


def test_correlations_notice_too_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: four rounds of Philox leave neighbours correlated."""
    monkeypatch.setattr(spec, "ROUNDS", 4)
    assert max(correlations()) > 4
