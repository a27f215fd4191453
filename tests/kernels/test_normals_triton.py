"""The normals of Triton kernels, interpreted: the bits of the specification."""

import pytest
import torch
from checks import interpreted

from logsnr.kernels import normals

pytestmark = interpreted


@pytest.mark.parametrize(("count", "block"), [(1, 4), (100, 64), (2500, 1024)])
@pytest.mark.parametrize(
    ("seed", "sample", "interval", "stream", "first"),
    [
        (0, 0, 0, 0, 0),
        (1, 2, 3, 1, 64),
        (0x9E3779B97F4A7C15, 77, 123456789, 5, 2**33 + 8),
        (2**64 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1, 2**34 - 2500),
    ],
)
def test_bits(seed: int, sample: int, interval: int, stream: int, first: int, count: int, block: int) -> None:
    """At any address, from small to the ends of its range, and by blocks of any length."""
    from aot_normals import store_normals

    address = torch.tensor([seed - (seed >> 63 << 64), sample, interval, stream, first])
    found = torch.full((count,), torch.nan)
    store_normals[(-(-count // block),)](found, address, count, BLOCK=block, enable_fp_fusion=False)
    wanted = normals(seed, sample, interval, count, stream=stream, first=first)
    assert torch.equal(found.view(torch.int32), wanted.view(torch.int32))
    address[1] += 1
    store_normals[(-(-count // block),)](found, address, count, BLOCK=block, enable_fp_fusion=False)
    assert not torch.equal(found, wanted)
