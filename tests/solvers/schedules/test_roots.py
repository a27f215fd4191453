"""The bracketed Newton iteration."""

import numpy as np
import torch

from logsnr.solvers.schedules.roots import increasing_root


def test_roots_over_many_scales() -> None:
    """log(x) = c is solved to rounding for roots from 1e-12 to 1 in [0, 1], where Newton alone diverges."""
    c = np.log(10.0 ** np.arange(-12.0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        x = increasing_root(lambda x: (np.log(x) - c, 1 / x), np.zeros_like(c), np.ones_like(c), np)
    np.testing.assert_allclose(x, np.exp(c), rtol=5e-15)


def test_useless_derivatives_fall_back_on_bisection() -> None:
    """With derivatives of 0, inf or nan the root is found all the same, in torch too."""
    for slope in (0.0, np.inf, np.nan):
        low, high = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        root = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
        x = increasing_root(lambda x, r=root, s=slope: (x**3 - r**3, torch.full_like(x, s)), low, high, torch)
        torch.testing.assert_close(x, root, rtol=1e-15, atol=0)
