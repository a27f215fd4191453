"""Tables and functions as users have them: their precision is looked at."""

import numpy as np
import pytest
import torch

import logsnr

LINEAR = np.linspace(1e-4, 0.02, 1000)
ROOTS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    table = torch.tensor(np.cumprod(1 - ROOTS)[::100]).to(dtype)
    with pytest.raises(ValueError, match=f"half precision, {dtype}"):
        logsnr.Discrete(table)


@pytest.mark.parametrize("betas", [LINEAR, ROOTS], ids=["linear", "linear in roots"])
@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_float32_tables_of_the_usual_betas_are_made_again(betas: np.ndarray, kind: str) -> None:
    """As diffusers makes them: everything in float32."""
    exact = logsnr.Discrete(np.cumprod(1 - betas))
    if kind == "tensor":
        narrow = torch.linspace(betas[0] ** 0.5, betas[-1] ** 0.5, 1000) ** 2
        narrow = narrow if betas is ROOTS else torch.linspace(1e-4, 0.02, 1000)
        table = torch.cumprod(1 - narrow, 0)
    else:
        table = np.cumprod(1 - betas).astype(np.float32)
    assert logsnr.Discrete(table) == exact


def test_other_float32_tables_stay_as_they_are() -> None:
    """A table of other betas, and one that only looks like the usual ones."""
    other = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000) ** 1.01).astype(np.float32)
    np.testing.assert_array_equal(logsnr.Discrete(other).alphas_cumprod, other.astype(np.float64))
    wide = np.cumprod(1 - LINEAR * 1.0001)
    np.testing.assert_array_equal(logsnr.Discrete(wide).alphas_cumprod, wide)


def test_detached_functions_are_refused() -> None:
    """Autograd's derivative of one is 0, and heun would stand still."""
    with pytest.raises(ValueError, match=r"the derivative of alpha .* is 0 by autograd .* not detached"):
        logsnr.Custom(lambda t: (1 - t).detach(), lambda t: t)
    with pytest.raises(ValueError, match="the derivative of sigma"):
        logsnr.Custom(lambda t: 1 - t, lambda t: t.detach() ** 2)
    logsnr.Custom(torch.ones_like, lambda t: t)
    with pytest.raises(ValueError, match=r"torch cannot differentiate alpha .*: write it with torch operations on t"):
        logsnr.Custom(lambda t: torch.from_numpy(1 - t.detach().numpy()), lambda t: t)


def test_time_grows_with_the_noise() -> None:
    with pytest.raises(ValueError, match=r"time grows with the noise \(where data is at t = 1, give"):
        logsnr.Custom(lambda t: t, lambda t: 1 - t)
