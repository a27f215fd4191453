"""What a run returns."""

from dataclasses import dataclass

import numpy as np
import torch

from .parallel.common import Certificate
from .program import Program


@dataclass(frozen=True, eq=False)
class Solution:
    """What `solve` returns.

    x: the end state, shape and dtype of the start. nfe: model evaluations per sample, counted. rounds: how
    many sequential batched model calls they took. times: float64, the grid (or the accepted steps' span);
    read-only.
    trajectory: (steps + 1, B, ...), the state at every time, if it was asked for. program: the table, if any.
    certificate: of a parallel run, how far it is from the sequential one; nfe is then of the sample that took most.
    """

    x: torch.Tensor
    nfe: int
    rounds: int
    times: np.ndarray
    trajectory: torch.Tensor | None = None
    program: Program | None = None
    certificate: Certificate | None = None
