"""What a loop of `combine` on the CPU is compiled for."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from .lanes import CODES, SIZES
from .table import Table
from .tensors import accumulation_dtype

NOISE_BYTES = 20  # moved in the time that a normal takes


@dataclass(frozen=True)
class Signature:
    """What a loop is compiled for.

    inputs, outputs: dtypes by letter, see `lanes.CODES`. used: by output, which columns (inputs, then noises)
    have coefficients other than 0. checked: how many inputs are tested. clamped: by output, whether it has a
    limit. tabled: whether coefficients vary over the elements of a sample. past_caches: how whole blocks are written,
    see `lanes.store`.
    """

    inputs: str
    outputs: str
    used: tuple[tuple[bool, ...], ...]
    checked: int
    clamped: tuple[bool, ...]
    tabled: bool
    past_caches: bool = False

    @property
    def noises(self) -> int:
        return len(self.used[0]) - len(self.inputs)

    @cached_property
    def cost(self) -> int:
        """Of an element, for `pool.shared`."""
        return sum(SIZES[code] for code in self.inputs + self.outputs) + NOISE_BYTES * self.noises

    @property
    def by_sample(self) -> bool:
        """Whether the loop must know where a sample begins."""
        return self.tabled or self.noises > 0


def signature(
    inputs: Sequence[torch.dtype],
    outputs: Sequence[torch.dtype],
    coefs: Table,
    checked: int,
    clamped: Sequence[bool] | None = None,
    past_caches: bool = False,
) -> Signature:
    """``coefs`` has a column for every input, then one for every noise."""
    read, written = ("".join(CODES[d] for d in dtypes) for dtypes in (inputs, outputs))
    limits = tuple(clamped or (False,) * len(outputs))
    return Signature(
        read, written, coefs.used(accumulation_dtype(outputs)), checked, limits, coefs.by_element, past_caches
    )
