"""The errors of samples, and what sums them up."""

from typing import NamedTuple

import numpy as np
import torch

from ..solvers.arrays import Array


class Estimate(NamedTuple):
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float


def sample_errors(made: torch.Tensor, end: torch.Tensor) -> Array:
    """The root mean square of each sample's difference, (B, ...) -> (B,), float64; infinite where it is not finite."""
    squares = (made.double() - end).reshape(len(end), -1).square().mean(1)
    return np.asarray(squares.sqrt().nan_to_num(torch.inf, torch.inf).cpu())


def summary(errors: Array) -> dict[str, float]:
    """The median, the root mean square, and the 90th percentile: one of the errors, as between infinite ones is NaN."""
    with np.errstate(over="ignore"):
        rms = np.sqrt(np.mean(errors**2))
    p90 = np.quantile(errors, 0.9, method="inverted_cdf")
    return {"median": float(np.median(errors)), "rms": float(rms), "p90": float(p90)}
