"""Programs in bases and the same runs on states that are transformed by hand; shared by their tests."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import logsnr
from logsnr.solvers import DCT, Principal

SHAPE = (2, 4, 4)
F64 = torch.float64
SCH = logsnr.VPLinear()
ORTHOGONAL = np.linalg.qr(np.random.default_rng(0).standard_normal((32, 32)))[0]
BASES = {"dct": DCT(), "dct of one axis": DCT(1), "pca": Principal(ORTHOGONAL, SHAPE)}
VARIANCE = np.geomspace(0.01, 9.0, 32).reshape(SHAPE)
MEAN = np.linspace(-1, 1, 32).reshape(SHAPE)
PLANS = {name: logsnr.Wiener(MEAN, VARIANCE, basis=basis) for name, basis in BASES.items()}
X = torch.randn(4, *SHAPE, dtype=F64, generator=torch.Generator().manual_seed(0))


def net(x: torch.Tensor, t: torch.Tensor, y: Any = None) -> torch.Tensor:
    """Not linear, and the same bits for a sample in every batch."""
    return torch.tanh(1.3 * x + (0 if y is None else y[:, None, None, None]))


def wiener(name: str, order: int = 2) -> logsnr.Solver:
    return logsnr.solver(f"wiener-{order}", gaussian=PLANS[name])


def by_hand(name: str, ask: Callable[..., torch.Tensor], x: torch.Tensor, **options: Any) -> torch.Tensor:
    """The pixel gauge of the same numbers, on states that are transformed outside."""
    basis = BASES[name]
    den = logsnr.Denoiser(lambda z, t: basis.forward(ask(basis.back(z), t)), SCH, "x0")
    pixels = logsnr.solver("wiener-2", gaussian=logsnr.Wiener(MEAN, VARIANCE))
    return basis.back(logsnr.sample(den, basis.forward(x), solver=pixels, **options))


def close(a: torch.Tensor, b: torch.Tensor, tol: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tol)
