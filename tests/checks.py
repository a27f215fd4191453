"""What the tests of kernels share."""

import torch

from logsnr.kernels import STATE_DTYPES

F64, F32, F16, BF16 = STATE_DTYPES


def random(shape: tuple[int, ...], dtype: torch.dtype = F32, seed: int = 0) -> torch.Tensor:
    """Normals, the same in every dtype but for rounding."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def assert_same(found: torch.Tensor, wanted: torch.Tensor, backend: str = "cpu") -> None:
    """Equal, NaNs too, except that Triton's interpreter cuts off to bf16 where GPUs round."""
    rtol = 2**-7 if backend == "triton" and found.dtype is BF16 and not found.is_cuda else 0
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=0, equal_nan=True)
