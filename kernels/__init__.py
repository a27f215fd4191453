"""Fused kernels: each operation has a torch reference that is its specification, and compiled versions."""

from .combine import MAX_INPUTS, MAX_OUTPUTS, combine
from .execute import combine_reference, standard_normals
from .normals import Noise, normals
from .recurrence import Recurrence, recurrence
from .registers import Registers, registers
from .scan import advance, scan, scan_reference
from .table import Table
from .tensors import STATE_DTYPES, transformed
from .updates import Seeds, Update, Updates

__all__ = [
    "MAX_INPUTS", "MAX_OUTPUTS", "STATE_DTYPES", "Noise", "Recurrence", "Registers", "Seeds", "Table", "Update",
    "Updates", "advance", "combine", "combine_reference", "normals", "recurrence", "registers", "scan",
    "scan_reference", "standard_normals", "transformed",
]  # fmt: skip
