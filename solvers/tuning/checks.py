"""What `tune` refuses before the first model call."""

import math
from collections.abc import Iterable
from typing import Any

import torch

from ..denoisers.answers import check_state
from ..denoisers.denoiser import Denoiser, check_denoiser
from ..programs.call import integer
from .groups import Groups
from .job import MANY

FEWEST, LEAST = 64, 32  # noises, and those of them whose trajectories are finite


def check_each(each: Any, x: torch.Tensor, budgets: list[int], several: bool) -> Groups:
    if several:
        raise ValueError(f"each = {each!r:.60} is for one budget a fit, without smooth=, scales= and rounds=")
    if x.is_complex():
        raise ValueError(f"each = {each!r:.60} is for real samples, and x is complex")
    groups = Groups(each, tuple(x.shape[1:]))
    n = max(budgets)
    groups.check(n * (n + 3) // 2 if n < MANY else n * (n - 1) // 2)
    return groups


def check_scales(den: Denoiser, scales: Any, budgets: Any, reference: Any) -> list[float]:
    if den.guidance is None:
        raise ValueError("scales are those of guidance, which den has not: give it guidance=logsnr.Guidance(...)")
    if isinstance(budgets, Iterable) or reference is not None:
        raise ValueError("scales go with one budget, and with references of tune's own")
    try:
        found = sorted({float(scale) for scale in scales})
    except (TypeError, ValueError):
        found = []
    if len(found) < 2 or not 0 < found[0] <= found[-1] < math.inf:
        raise ValueError(f"scales must be two or more different positive numbers, not {scales!r:.60}")
    return found


def check_smooth(smooth: Any, budgets: list[int], together: int, told: bool) -> None:
    if smooth is not True:
        raise TypeError(f"smooth must be True or False, not {smooth!r:.60}")
    if len(set(budgets)) < 2 or together > 1 or told:
        what = "rounds" if together > 1 else "told times" if told else f"nfe = {budgets}"
        raise ValueError(f"smooth tables are for several budgets of one call after the other, not for {what}")


def check(
    den: Any, x: Any, told: Any, held_out: Any, reference: Any, batch: Any, iterations: Any, progress: Any
) -> None:
    check_denoiser(den)
    check_state(x, complex_too=True)
    if not x[:1].numel():
        raise ValueError(f"x has no elements: its shape is {tuple(x.shape)}")
    if x.ndim < 2 and not x.is_complex():
        raise ValueError(f"x must have axes besides the samples', as ({len(x)}, 1), not the shape {tuple(x.shape)}")
    if len(x) < FEWEST:
        raise ValueError(f"x holds {len(x)} noises; a fit needs at least {FEWEST}, and 256 are a good number")
    for name, value in (("told", told), ("progress", progress)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r:.60}")
    if not isinstance(held_out, float) or not 0.1 <= held_out <= 0.5:
        raise ValueError(f"held_out = {held_out!r:.60} must be a share from 0.1 to 0.5")
    integer("iterations", iterations, 1, 10_000)
    if batch is not None:
        integer("batch", batch, 1, len(x))
    if reference is not None:
        check_state(reference, "reference", complex_too=True)
        if (reference.shape, reference.is_complex()) != (x.shape, x.is_complex()):
            wanted, given = (
                f"{tuple(z.shape)} and be {'complex' if z.is_complex() else 'real'}" for z in (x, reference)
            )
            raise ValueError(f"reference must have x's shape {wanted}, not {given}")
        if not bool(torch.isfinite(reference).flatten(1).all(1).any()):
            raise ValueError("reference is finite for no sample")
    den.asking([], len(x))  # conditions of another batch, and guidance that goes from call to call
