"""What the tests of kernels share."""

import os
import re

import numpy as np
import pytest
import torch

from logsnr.kernels import STATE_DTYPES, Recurrence
from logsnr.kernels.tensors import triton_missing

F64, F32, F16, BF16 = STATE_DTYPES

# Where there is a GPU, Triton's kernels are compiled, and tested in test_gpu.py.
interpreted = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1" or triton_missing() is not None, reason="needs Triton's interpreter"
)
one_graph = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13), reason="needs torch 2.13 to trace a whole loop"
)
BACKENDS = ["torch", "cpu", pytest.param("triton", marks=interpreted)]


def nameless(value: object) -> str:
    """The id of a test: no addresses, which differ from process to process."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def random(shape: tuple[int, ...], dtype: torch.dtype = F32, seed: int = 0) -> torch.Tensor:
    """Normals, the same in every dtype but for rounding."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def assert_same(found: torch.Tensor, wanted: torch.Tensor, backend: str = "cpu") -> None:
    """Equal, NaNs too, except that Triton's interpreter cuts off to bf16 where GPUs round."""
    rtol = 2**-7 if backend == "triton" and found.dtype is BF16 and not found.is_cuda else 0
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=0, equal_nan=True)


def dense_recurrence(calls: int, slots: int, models: int = 1, noises: int = 0, zeros: float = 0.3) -> Recurrence:
    """Any recurrence, a share of its coefficients 0; it neither grows nor fades."""
    rng = np.random.default_rng(slots)
    matrices = rng.standard_normal((calls, slots, models + slots + noises)) / slots
    matrices[rng.random(matrices.shape) < zeros] = 0
    return Recurrence(matrices, rng.integers(0, slots, calls + 1), models)
