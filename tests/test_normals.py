"""Addressed normals: Philox meets its published vectors, and compiled code gives the bits of the specification."""

import numpy as np
import pytest
import torch

from logsnr.kernels import Noise, combine, normals
from logsnr.kernels.normals import philox

# The philox4x32 10 lines of Random123's kat_vectors: counter, key, words.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox(counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]) -> None:
    """Ten rounds give the published words."""
    assert tuple(map(int, philox([torch.tensor(c) for c in counter], [torch.tensor(k) for k in key]))) == words


@pytest.mark.parametrize("size", [1, 7, 128, 1023])
def test_noise_columns_are_the_specified_normals(size: int) -> None:
    """A noise column adds, to each sample, the normals of its seed, number, interval and stream, bit by bit."""
    seeds, samples = torch.tensor([5, 2**62]), torch.tensor([3, 2**32 - 1])
    x = torch.randn(2, size, generator=torch.Generator().manual_seed(0))
    noise = Noise(seeds, samples, ((7, 1), (2**32 - 1, 0)))
    (found,), _ = combine([x], np.array([[0.5, 2.0, -3.0]]), noise=noise, backend="cpu")
    z, w = normals(seeds, samples, 7, size, stream=1), normals(seeds, samples, 2**32 - 1, size)
    assert torch.equal(found, (0.5 * x + 2 * z) + -3 * w)


def test_moments() -> None:
    """Mean and variance of 2^16 normals are those of a standard normal within 4 standard errors."""
    z = normals(11, 0, 0, 1 << 16).double()
    assert abs(float(z.mean())) < 4 / 256
    assert abs(float(z.square().mean()) - 1) < 4 * 2**0.5 / 256
