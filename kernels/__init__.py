"""Fused kernels: each operation has a torch reference that is its specification, and compiled versions."""

from .arguments import MAX_INPUTS, MAX_OUTPUTS
from .combine import combine, combine_reference, standard_normals
from .normals import Noise, normals
from .norms import combine_norm, error_norm
from .recurrence import Recurrence, recurrence
from .registers import Registers, registers
from .scan import advance, scan, scan_reference
from .table import Table
from .tensors import STATE_DTYPES, transformed
from .threshold import dynamic_threshold, quantile_abs
from .updates import Seeds, Update, Updates

__all__ = [
    "MAX_INPUTS",
    "MAX_OUTPUTS",
    "STATE_DTYPES",
    "Noise",
    "Recurrence",
    "Registers",
    "Seeds",
    "Table",
    "Update",
    "Updates",
    "advance",
    "combine",
    "combine_norm",
    "combine_reference",
    "dynamic_threshold",
    "error_norm",
    "normals",
    "quantile_abs",
    "recurrence",
    "registers",
    "scan",
    "scan_reference",
    "standard_normals",
    "transformed",
]
