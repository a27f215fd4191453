"""Fused kernels: each operation has a torch reference that is its specification, and compiled versions."""

from .combine import MAX_INPUTS, MAX_OUTPUTS, combine, combine_reference
from .normals import Noise, normals
from .norms import combine_norm, error_norm
from .registers import Registers, registers
from .table import Table
from .tensors import STATE_DTYPES, transformed
from .updates import Seeds, Update, Updates

__all__ = [
    "MAX_INPUTS",
    "MAX_OUTPUTS",
    "STATE_DTYPES",
    "Noise",
    "Registers",
    "Seeds",
    "Table",
    "Update",
    "Updates",
    "combine",
    "combine_norm",
    "combine_reference",
    "error_norm",
    "normals",
    "registers",
    "transformed",
]
