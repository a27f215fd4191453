"""Tables of alpha^2 as users have them: their precision, and float32 tables of the usual betas made again."""

from typing import Any

import numpy as np
import torch

from ..arrays import Array


def as_table(alphas_cumprod: Any) -> Array:
    """``alphas_cumprod``, a list, array or tensor, in float64.

    What float32 has rounded of `linear_betas` or `root_linear_betas` is made again. Raises ValueError for half
    precision, whose sigma at the clean end is off by percents.
    """
    if isinstance(alphas_cumprod, torch.Tensor):
        values = alphas_cumprod.detach().cpu()
        if values.dtype in (torch.float16, torch.bfloat16):
            raise ValueError(_half(str(values.dtype)))
        alphas_cumprod = values.numpy()
    array = np.asarray(alphas_cumprod)
    if array.dtype == np.float16:
        raise ValueError(_half("float16"))
    if np.iscomplexobj(array):
        raise ValueError(f"alphas_cumprod must be real numbers, not {array.dtype}")
    table: Array = np.array(array, dtype=np.float64)
    return _rebuilt(table) if array.dtype == np.float32 and table.ndim == 1 and len(table) > 2 else table


def _half(dtype: str) -> str:
    return (
        f"alphas_cumprod has half precision, {dtype}, in which sigma at the clean end is off by 7 % and entries are "
        "equal; make it in float64 from the betas: numpy.cumprod(1 - betas)"
    )


def linear_betas(first: float, last: float, count: int) -> Array:
    return np.linspace(first, last, count)


def root_linear_betas(first: float, last: float, count: int) -> Array:
    """Stable Diffusion's "scaled linear"."""
    return np.linspace(first**0.5, last**0.5, count) ** 2


def _rebuilt(table: Array) -> Array:
    """The float64 table that ``table`` rounds, or itself if it is none of the usual ones."""
    count = len(table)
    with np.errstate(divide="ignore", invalid="ignore"):
        last = 1 - table[-1] / table[-2]
    if not 0 < table[0] < 1 or not 0 < last < 1:
        return table
    for betas in (linear_betas, root_linear_betas):
        for digits in (2, 3):  # of the numbers that people write
            first, end = (float(f"{b:.{digits - 1}e}") for b in (1 - table[0], last))
            exact: Array = np.array(np.cumprod(1 - betas(first, end, count)), dtype=np.float64)
            if np.abs(exact / table - 1).max() < 2e-7 * count**0.5 + 1e-6:  # what a product in float32 loses
                return exact
    return table
