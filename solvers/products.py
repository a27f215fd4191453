"""Derivatives of a network in a direction: forward mode where it works and is right, else central differences."""

from collections.abc import Callable
from typing import Any

import torch

AGREE = 0.1  # by which forward mode may differ from differences

Function = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of x and times
Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]  # f, (df/dx) v


def best_product(f: Function, x: torch.Tensor, t: torch.Tensor, v: torch.Tensor, delta: float) -> Product:
    """What gives (f, (df/dx) v) of (x, t, v), tried out on these. delta: the step of differences, in units of x."""

    def differences(x: torch.Tensor, t: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = delta * (float(x.square().mean()) ** 0.5 or 1.0)
        after, before = (f(x + sign * h * v, t) for sign in (1, -1))
        return f(x, t), (after - before) / (2 * h)

    def forward(x: torch.Tensor, t: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both: Any = torch.func.jvp(lambda z: f(z, t), (x,), (v,))
        return both[0], both[1]

    wanted = differences(x, t, v)[1]
    try:
        found = forward(x, t, v)[1]
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return differences
    far = torch.linalg.vector_norm(found - wanted) > AGREE * torch.linalg.vector_norm(wanted)
    return differences if bool(far) or not bool(torch.isfinite(found).all()) else forward
