"""Fused kernels: each operation has a torch reference that is its specification, and compiled versions."""

from .combine import MAX_INPUTS, MAX_OUTPUTS, STATE_DTYPES, combine, combine_reference, dense, transformed
from .registers import Registers, Updates, registers

__all__ = [
    "MAX_INPUTS",
    "MAX_OUTPUTS",
    "STATE_DTYPES",
    "Registers",
    "Updates",
    "combine",
    "combine_reference",
    "dense",
    "registers",
    "transformed",
]
