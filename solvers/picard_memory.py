"""The memory that a window takes, and the largest that there is room for."""

import os

import torch

from .parallel_plan import Plan

SHARE = 0.5  # of the memory that is free; the rest is for the model, whose needs `batch` limits


def window_bytes(plan: Plan, x: torch.Tensor, window: int, anderson: bool = False) -> int:
    """What windows of ``window`` calls take at most for x (B, ...), model left out."""
    return 0


def auto_window(plan: Plan, x: torch.Tensor, anderson: bool = False) -> int:
    return 0
