"""Sums whose order depends on nothing but the number of terms: neither on threads nor on the batch.

In every chunk of a sample element i goes to strand i mod 16, in order; then the strands of a chunk, then the chunks,
are added by halves. Compiled CPU code and torch take these sums to the same bits.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

CHUNK = 1024  # elements that are summed in one go
STRANDS = 16  # interleaved sums within a chunk


def numbers(values: Any, wide: torch.dtype) -> Any:
    """As nested Python numbers, rounded to the dtype in which sums are taken. Not by way of a tensor: older releases of
    torch do not tell its values under the transforms of torch.func."""
    return np.asarray(values, dtype=np.float64 if wide is torch.float64 else np.float32).tolist()


def weighted_sum(weights: Iterable[Any], terms: Sequence[torch.Tensor], used: Iterable[bool]) -> torch.Tensor:
    """``sum_j w_j x_j`` over the terms that are ``used``, from left to right."""
    products = [w * x for w, x, use in zip(weights, terms, used, strict=True) if use]
    return reduce(torch.add, products) if products else torch.zeros_like(terms[0])


def sum_squares(x: torch.Tensor) -> torch.Tensor:
    """(B, n) to (B,), by additions of whole tensors only: torch's own sums depend on threads and shapes."""
    chunks = power_of_two(-(-x.shape[1] // CHUNK))
    padded = pad(x * x, (0, chunks * CHUNK - x.shape[1])).reshape(len(x), chunks, CHUNK // STRANDS, STRANDS)
    return by_halves(by_halves(reduce(torch.add, padded.unbind(2))))


def by_halves(terms: Any) -> Any:
    """Sum over the last dimension, of a power of two, of a tensor or array: the second half is added to the first,
    until one is left."""
    while terms.shape[-1] > 1:
        half = terms.shape[-1] // 2
        terms = terms[..., :half] + terms[..., half:]
    return terms[..., 0]


def power_of_two(n: int) -> int:
    """The smallest that is not below n."""
    return 1 << max(n - 1, 0).bit_length()
