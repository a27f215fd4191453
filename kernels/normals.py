"""Addressed standard normals: the noise of element e of sample i in interval j is a function of (seed, i, j, e).

This file is the specification, in plain torch; the compiled kernels return the same bits. By hand:

1. Block ``e // 4`` of four normals has the four 32-bit words of Philox4x32-10 (Salmon et al., SC 2011) with

       key     = (seed mod 2^32, seed div 2^32)
       counter = (interval, e // 4, sample, stream)

   hence 64-bit seeds, up to 2^32 intervals, samples and streams, and up to 2^34 elements in a sample. Word 1 reaches
   a product a round later than word 0 would: a loop over elements does that round once.
2. Words 0 and 1 give normals 0 and 1 of the block, words 2 and 3 normals 2 and 3, by Box and Muller:
   normal 0 is ``sqrt(-2 ln u) cos(pi/4 t)`` and normal 1 is ``sqrt(-2 ln u) sin(pi/4 t)``, where
   ``u = (word0 + 1/2) 2^-32`` and ``t = (s + 1/2) 2^-29``, s being bits 0 to 29 of word1 read as a signed number.
   Bit 31 negates the cosine, then bit 30 exchanges the two: the other three quadrants.
3. All of it is fp32 additions, multiplications, conversions and one square root, and fused multiply-adds where it
   says `fma` and nowhere else, each rounded once, to nearest: operations that IEEE 754 fixes, so that every processor
   gets the same bits. No library function is called, as their last bits differ. No subnormal number occurs, so
   flushing them changes nothing.

A normal is within 5 units in the last place of the formula in 2 (measured), the largest is
``sqrt(66 ln 2) = 6.76``, and their law is exactly symmetric: over all words, each as often as its negative, and
normal 0 as often as normal 1. ``stream`` keeps apart what one interval draws for different ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .devices import float64_device

Words = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85  # added to the key after every round
MASK = 0xFFFFFFFF
BITS = {"seed": 64, "sample": 32, "interval": 32, "stream": 32}


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float.fromhex(word) for word in text.split())


# Minimax polynomials with fp32 coefficients, lowest degree first, and their relative errors:
# -2 ln(1 + f) / f for |f| <= 1/3 (2.7e-8), sin(pi/4 t) / t (2.8e-8) and cos(pi/4 t) (4.0e-8) in t^2 <= 1.
LOG = _floats(
    "-0x1.000000p+1 0x1.ffffd6p-1 -0x1.5554fcp-1 0x1.00144ep-1 -0x1.99d3b0p-2 "
    "0x1.5038e0p-2 -0x1.1ea89cp-2 0x1.3b0c5ep-2 -0x1.1f27f0p-2"
)
SIN = _floats("0x1.921fb6p-1 -0x1.4abbecp-4 0x1.466b20p-9 -0x1.2f5988p-15")
COS = _floats("0x1.000000p+0 -0x1.3bd39cp-2 0x1.03b058p-6 -0x1.4e78bep-12")
LN2_TWICE = float.fromhex("0x1.62e430p+0")
TWO_THIRDS = 0x3F2AAAAB  # the bits of the fp32 number next to 2/3


@dataclass(frozen=True, eq=False)
class Noise:
    """Normals for a batch: one column of ``combine`` per entry of ``columns``.

    seeds, samples: int64 (B,), contiguous, on the device of the states: what each sample of the batch draws with.
    columns: (interval, stream) of each column, from 0 to 2^32 - 1.
    """

    seeds: torch.Tensor
    samples: torch.Tensor
    columns: tuple[tuple[int, int], ...]

    def check(self, x: torch.Tensor) -> None:
        """Raise ValueError unless this is noise for a batch like ``x``, (B, ...)."""
        batch = x.shape[:1]
        for name, tensor in (("seeds", self.seeds), ("samples", self.samples)):
            if (tensor.shape, tensor.dtype, tensor.device) != (batch, torch.int64, x.device):
                raise ValueError(
                    f"noise.{name} must be int64 of shape {tuple(batch)} on {x.device}, not {tensor.dtype} of shape "
                    f"{tuple(tensor.shape)} on {tensor.device}"
                )
            if not tensor.is_contiguous():
                raise ValueError(f"noise.{name} must be contiguous")
        if not self.columns:
            raise ValueError("noise.columns must not be empty; leave out noise")
        for column in self.columns:
            for name, word in zip(("interval", "stream"), column, strict=True):
                if not 0 <= word <= MASK:
                    raise ValueError(f"the {name} of a noise column must be from 0 to 2^32 - 1, not {word}")


def normals(
    seed: int | torch.Tensor,
    sample: int | torch.Tensor,
    interval: int,
    count: int,
    *,
    stream: int = 0,
    first: int = 0,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Elements ``first`` to ``first + count - 1`` of one sample, fp32 (count,); of B samples, (B, count), if
    ``seed`` or ``sample`` is an int64 tensor (B,). Of a tensor's numbers the lower 64 or 32 bits count. ``device``: by
    default the CPU.

    Raises ValueError for an address out of range.
    """
    for (name, bits), value in zip(BITS.items(), (seed, sample, interval, stream), strict=True):
        if isinstance(value, int) and not 0 <= value < 1 << bits:
            raise ValueError(f"{name} must be from 0 to 2^{bits} - 1, not {value}")
    if first < 0 or count < 0 or first + count > 1 << 34:
        raise ValueError(f"elements are numbered from 0 to 2^34 - 1, not from {first} to {first + count - 1}")
    device = torch.device("cpu" if device is None else device)
    home = float64_device(device)
    key = [_word(seed, shift, home) for shift in (0, 32)]
    blocks = torch.arange(first // 4, -(-(first + count) // 4), dtype=torch.int64, device=home)
    w0, w1, w2, w3 = philox([_word(interval, 0, home), blocks, *(_word(x, 0, home) for x in (sample, stream))], key)
    z = torch.stack((*box_muller(w0, w1), *box_muller(w2, w3)), -1).flatten(-2)
    return z[..., first % 4 : first % 4 + count].to(device)


def _word(x: int | torch.Tensor, shift: int, device: torch.device | str) -> torch.Tensor:
    """32 bits of a number, of shape () or (B, 1), to broadcast against blocks."""
    if isinstance(x, int):
        return torch.tensor(x >> shift & MASK, dtype=torch.int64, device=device)
    return (x.to(device=device, dtype=torch.int64) >> shift & MASK)[:, None]


def philox(counter: Sequence[torch.Tensor], key: Sequence[torch.Tensor]) -> Words:
    """Philox4x32-10 of words held in int64 tensors that broadcast."""
    c0, c1, c2, c3 = counter
    for i in range(ROUNDS):
        k0, k1 = ((k + i * w) & MASK for k, w in zip(key, WEYL, strict=True))
        (high0, low0), (high1, low1) = _product(c0, MULTIPLIERS[0]), _product(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
    return c0, c1, c2, c3


def _product(x: torch.Tensor, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The upper and lower 32 bits of a product, by halves of ``m``: int64 would overflow."""
    low = x * (m & 0xFFFF)
    high = x * (m >> 16) + (low >> 16)
    return high >> 16, (high << 16 | low & 0xFFFF) & MASK


def box_muller(radius: torch.Tensor, angle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two independent fp32 normals from two words."""
    # Of the word as a signed number: in its upper half u is kept as d = u - 1, since 1 + d would round off small radii.
    d = (radius - (radius >> 31 << 32)).float() * 2.0**-32 + 2.0**-33
    bits = torch.where(d < 0, 1 + d, d).view(torch.int32)
    e = (bits - TWO_THIRDS) >> 23  # u = 2^e m with m in [2/3, 4/3); e = 0 only in the upper half
    m = (bits - (e << 23)).view(torch.float32)
    f = torch.where(e == 0, d, m - 1)
    square = fma(f, _polynomial(LOG, f), e.float() * -LN2_TWICE)
    r = square.double().sqrt().float()  # correctly rounded, whatever the device makes of an fp32 square root

    signed = ((angle & 0x3FFFFFFF) ^ 1 << 29) - (1 << 29)
    t = (2 * signed + 1).float() * 2.0**-30  # centred, so that the law is exactly symmetric
    z = t * t
    sine, cosine = t * _polynomial(SIN, z), _polynomial(COS, z)
    cosine = torch.where(angle > MASK >> 1, -cosine, cosine)
    swap = (angle & 1 << 30) != 0
    return r * torch.where(swap, sine, cosine), r * torch.where(swap, cosine, sine)


def _polynomial(coefs: Sequence[float], x: torch.Tensor) -> torch.Tensor:
    """Horner's rule: the order of operations is part of the specification."""
    total = torch.full_like(x, coefs[-1])
    for c in coefs[-2::-1]:
        total = fma(total, x, torch.full_like(x, c))
    return total


def fma(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """``x y + z`` of fp32 tensors, rounded once.

    In fp64 the product is exact and the sum is not. It is made odd in its last bit where it was rounded, and then
    rounds to fp32 as the exact sum does (Boldo and Melquiond, IEEE Trans. Computers 57, 2008).
    """
    product, z = x.double() * y.double(), z.double()
    total = product + z
    taken = total - product
    lost = (product - (total - taken)) + (z - taken)  # exactly what rounding took from the sum (Knuth's TwoSum)
    bits = total.view(torch.int64)
    step = torch.where((lost > 0) == (total > 0), 1, -1)
    return torch.where((lost != 0) & (bits & 1 == 0), bits + step, bits).view(torch.float64).float()
