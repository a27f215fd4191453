"""Addressed normals: Philox meets its published vectors, and every implementation gives the same bits."""

from importlib import import_module
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from logsnr.kernels import Noise, combine
from logsnr.kernels.execute import standard_normals
from logsnr.kernels.normals import box_muller, normals, philox

spec = import_module("logsnr.kernels.normals")  # the package has a function of this name

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
# seed, sample, interval, stream: small, at the ends of their ranges, and all different.
ADDRESSES = [
    (0, 0, 0, 0),
    (1, 2, 3, 1),
    (2**64 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1),
    (0x9E3779B97F4A7C15, 77, 123456789, 5),
    (2**63, 2**31, 2**31, 2**31),
]
COUNTS = (1, 3, 4, 127, 128, 1000, 4096)


def tensor(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def formula(radius: torch.Tensor, angle: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The two normals of the docstring, by library functions in extended precision."""
    a, b = radius.numpy().astype(np.longdouble), angle.numpy()
    low, high = (a + 0.5) / 2**32, (2**32 - a - 0.5) / 2**32
    r = np.sqrt(-2 * np.where(low < 0.5, np.log(low), np.log1p(-high)))
    s = b % 2**30
    theta = (np.where(s < 2**29, s, s - 2**30) + np.longdouble(0.5)) / 2**29 * np.arctan(np.longdouble(1))
    sine, cosine = np.sin(theta), np.where(b >> 31, -np.cos(theta), np.cos(theta))
    swap = (b >> 30 & 1).astype(bool)
    return r * np.where(swap, sine, cosine), r * np.where(swap, cosine, sine)


def ulps(found: torch.Tensor, exact: np.ndarray) -> float:
    unit = np.spacing(np.abs(exact).astype(np.float32)).astype(np.longdouble)
    return float((np.abs(found.numpy() - exact) / unit).max())


def words(count: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 2**32, count))


def same_bits(x: np.ndarray, y: np.ndarray) -> bool:
    return np.array_equal(x.view(np.int32), y.view(np.int32))


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_meets_the_known_answers_of_random123(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """Ten rounds give the published words."""
    assert tuple(int(w) for w in philox([tensor(c)[0] for c in counter], [tensor(k)[0] for k in key])) == expected


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_the_address_is_laid_out_as_documented(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """The normals at a known-answer counter and key are Box and Muller's of the published words."""
    (interval, block, sample, stream), seed = counter, key[0] | key[1] << 32
    z = normals(seed, sample, interval, 4, stream=stream, first=4 * block).numpy()
    for i in (0, 2):
        pair = formula(tensor(expected[i]), tensor(expected[i + 1]))
        np.testing.assert_allclose(z[i : i + 2], np.concatenate(pair).astype(float), rtol=3e-7)


def test_normals_are_accurate_to_five_units_in_the_last_place() -> None:
    """So they are over the whole range, in the far tail and next to zero, and at the ends of every segment."""
    count = 200_000
    spread = torch.from_numpy(np.exp2(np.random.default_rng(1).uniform(0, 32, count)).astype(np.int64) - 1)
    edges = tensor(
        0, 1, 2, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, *(k * 2**32 // 3 + d for k in (1, 2) for d in (0, 1))
    )
    for radius in (words(count, 2), spread, spec.MASK - spread, edges.repeat(count // len(edges))):
        angle = words(len(radius), 3)
        for found, exact in zip(box_muller(radius, angle), formula(radius, angle), strict=True):
            assert ulps(found, exact) < 5


def test_accuracy_notices_a_coefficient_off_in_its_last_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: the first coefficient of the logarithm moved by 8 units in its last place exceeds the bound."""
    monkeypatch.setattr(spec, "LOG", (spec.LOG[0] * (1 + 2.0**-21), *spec.LOG[1:]))
    radius, angle = words(200_000, 2), words(200_000, 3)
    assert ulps(box_muller(radius, angle)[0], formula(radius, angle)[0]) > 5


def test_the_law_is_exactly_symmetric() -> None:
    """Other angles of the same radius give each of the pair negated, and the two exchanged."""
    radius, angle = words(10_000, 4), words(10_000, 5) & ~(1 << 30)
    x, y = box_muller(radius, angle)
    for flip, wanted in (((1 << 30) - 1, (x, -y)), (1 << 31, (-x, y)), (1 << 30, (y, x))):
        for found, expected in zip(box_muller(radius, angle ^ flip), wanted, strict=True):
            assert torch.equal(found, expected)


def compiled(seed: int, sample: int, interval: int, count: int, *, stream: int = 0) -> np.ndarray:
    """The elements of one sample as the compiled loop makes them."""
    signed = seed - (1 << 64 if seed >> 63 else 0)
    noise = Noise(tensor(signed), tensor(sample), ((interval, stream),))
    return standard_normals(noise, 0, torch.empty(1, count))[0].numpy()


@pytest.mark.parametrize("address", ADDRESSES)
def test_compiled_normals_equal_the_reference(address: tuple[int, ...]) -> None:
    """Bit by bit, whatever the number of elements."""
    seed, sample, interval, stream = address
    wanted = normals(seed, sample, interval, max(COUNTS), stream=stream).numpy()
    for count in COUNTS:
        assert same_bits(compiled(seed, sample, interval, count, stream=stream), wanted[:count])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(2, 7), (3, 1023), (3000, 257), (2, 600_001)])
def test_noise_columns_are_the_specified_normals(shape: tuple[int, int], threads: int) -> None:
    """A column adds to each sample the normals of its seed, number, interval and stream, bit by bit, however the
    batch is split over threads."""
    seeds, samples = torch.arange(shape[0]) * 2**40 + 5, torch.arange(shape[0]) + 3
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    noise = Noise(seeds, samples, ((7, 1), (2**32 - 1, 0)))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        (found,), _ = combine([x], np.array([[0.5, 2.0, -3.0]]), noise=noise, backend="cpu")
    finally:
        torch.set_num_threads(before)
    for k in (0, 1, shape[0] - 1):
        address = int(seeds[k]), int(samples[k])
        z, w = normals(*address, 7, shape[1], stream=1), normals(*address, 2**32 - 1, shape[1])
        assert torch.equal(found[k], (0.5 * x[k] + 2 * z) + -3 * w)


def test_comparing_bits_notices_products_that_are_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: with products and sums of the polynomials rounded separately bits differ."""
    wanted = normals(1, 2, 3, 4096).numpy()
    monkeypatch.setattr(spec, "fma", lambda x, y, z: x * y + z)
    assert not same_bits(normals(1, 2, 3, 4096).numpy(), wanted)


def factors(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, y, z of very different magnitudes. The first products lie half-way between two fp32 numbers, and z is so
    small that it only says which of them is nearer: where a sum in fp64 loses it, the even one comes out."""
    rng = np.random.default_rng(6)
    x, y, z = (rng.normal(size=count) * 2.0 ** rng.integers(-12, 12, count) for _ in range(3))
    x[:4] = y[:4] = 1 + 2.0**-12
    y[2:4] = -y[2:4]
    z[:4] = 2.0**-80, -(2.0**-80), 2.0**-80, -(2.0**-80)
    x, y, z = (torch.from_numpy(a.astype(np.float32)) for a in (x, y, z))
    return x, y, z


def test_fma_rounds_once() -> None:
    """It is the exact sum, as mpmath has it, rounded to 24 bits; the sum in fp64, rounded again, is not."""
    x, y, z = factors(2000)
    exact = [mpmath.mpf(a) * b + c for a, b, c in zip(x.tolist(), y.tolist(), z.tolist(), strict=True)]
    with mpmath.workprec(24):
        wanted = torch.tensor([float(+value) for value in exact])
    assert torch.equal(spec.fma(x, y, z), wanted)
    assert not torch.equal((x.double() * y.double() + z.double()).float(), wanted)


def test_samples_do_not_depend_on_their_batch() -> None:
    """A batch in any order, or split, has the rows of its samples alone."""
    seeds, samples = tensor(5, 5, 6, 2**62), tensor(3, 2**32 - 1, 3, 0)
    batch = normals(seeds, samples, 7, 1001)
    order = tensor(2, 0, 3, 1)
    assert torch.equal(normals(seeds[order], samples[order], 7, 1001), batch[order])
    assert torch.equal(normals(5, samples[:2], 7, 1001), batch[:2])
    for row, seed, sample in zip(batch, seeds.tolist(), samples.tolist(), strict=True):
        assert torch.equal(normals(seed, sample, 7, 1001), row)


def test_elements_do_not_depend_on_where_a_range_begins() -> None:
    """Any range of elements is a slice of the whole."""
    whole = normals(1, 2, 3, 300)
    for first, count in ((0, 300), (1, 7), (6, 130), (128, 172), (299, 1)):
        assert torch.equal(normals(1, 2, 3, count, first=first), whole[first : first + count])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, r"seed must be from 0 to 2\^64"),
        ({"seed": 2**64}, r"seed must be from 0 to 2\^64"),
        ({"sample": 2**32}, r"sample must be from 0 to 2\^32"),
        ({"interval": 2**32}, r"interval must be from 0 to 2\^32"),
        ({"stream": -1}, r"stream must be from 0 to 2\^32"),
        ({"first": 2**34}, r"elements are numbered from 0 to 2\^34"),
    ],
)
def test_addresses_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    """Nothing wraps around silently."""
    with pytest.raises(ValueError, match=message):
        normals(**({"seed": 0, "sample": 0, "interval": 0, "count": 4} | change))
