"""Data sets as distributions, against the mixture that they are."""

import math

import pytest
import torch

import logsnr
from logsnr.analysis import empirical
from logsnr.analysis.empirical import Empirical
from logsnr.analysis.mixture import GaussianMixture

F64 = torch.float64
LEVELS = [(1.0, 0.0), (0.0, 1.0), (0.6, 0.8), (1.0, 80.0), (0.999, 1e-3)]


def close(a: torch.Tensor, b: torch.Tensor, tol: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
@pytest.mark.parametrize("event", [(), (3,), (2, 2)], ids=str)
def test_posterior_is_the_mixture_s(alpha: float, sigma: float, event: tuple[int, ...]) -> None:
    """Both posterior means are those of the equal mixture of N(point, smoothing^2 I), at both ends too."""
    points = 3 + torch.randn(20, *event, dtype=F64)
    x = alpha * points[:6] + (0.1 + sigma) * torch.randn(6, *event, dtype=F64)
    mixture = GaussianMixture(points, 0.04)
    for a, b in zip(*(p.posterior(x, alpha, sigma) for p in (Empirical(points, 0.2), mixture)), strict=True):
        close(a, b)


def test_per_sample_levels_and_leading_dimensions() -> None:
    """alpha and sigma of shape (B,) act on their samples, and x may lack a batch or have more dimensions."""
    p, x = Empirical(torch.randn(20, 3), 0.2), torch.randn(5, 3, dtype=F64)
    alpha, sigma = torch.linspace(0, 1, 5, dtype=F64), torch.linspace(1, 0, 5, dtype=F64)
    x0 = p.posterior(x, alpha, sigma)[0]
    for i in range(5):
        close(p.posterior(x[i], alpha[i], sigma[i].item())[0], x0[i])
    close(p.posterior(x.reshape(5, 1, 3).expand(5, 4, 3), alpha, sigma)[0][:, 2], x0)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cutting the batch into pieces of any size gives the same answer to rounding."""
    p, x = Empirical(torch.randn(20, 3), 0.2), torch.randn(7, 3, dtype=F64)
    whole = p.posterior(x, 0.6, 0.8)[0]
    for elements in (1, 40, 139):
        monkeypatch.setattr(empirical, "CHUNK_ELEMENTS", elements)
        close(p.posterior(x, 0.6, 0.8)[0], whole, 1e-14)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_float32_survives_an_offset(offset: float) -> None:
    """In float32 the answer is that of float64 for the same x to 1e-5 of its scale, wherever the data lie."""
    points = offset + torch.randn(200, 8, dtype=F64)
    p = Empirical(points, 0.05)
    for alpha, sigma in [(1.0, 0.01), (1.0, 0.3), (0.8, 0.6)]:
        data = p.sample(50, generator=torch.Generator().manual_seed(0))
        x = (alpha * data + sigma * torch.randn(50, 8)).float()
        x0, _ = p.posterior(x, alpha, sigma)
        want, _ = p.posterior(x.double(), alpha, sigma)
        assert x0.dtype == torch.float32
        assert (x0 - want).abs().max() < 1e-5 * (1 + offset)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_denoiser_in_every_dtype(dtype: torch.dtype) -> None:
    """The denoiser rounds the float64 answer once to x's dtype, and its model works under vmap and jvp."""
    p, sch = Empirical(torch.randn(20, 3), 0.2), logsnr.VPLinear()
    den, x, t = p.denoiser(sch), torch.randn(4, 3, dtype=F64), torch.tensor([1e-3, 0.2, 0.7, 1.0], dtype=F64)
    y = x.to(dtype)
    assert torch.equal(den.x0(y, t), den.x0(y.double(), t).to(dtype))
    close(torch.func.vmap(den.model)(x, t), den.model(x, t))
    value, slope = torch.func.jvp(lambda z: den.model(z, t), (x,), (torch.ones_like(x),))
    numeric = (den.model(x + 1e-6, t) - den.model(x - 1e-6, t)) / 2e-6
    close(value, den.model(x, t))
    close(slope, numeric, 1e-6)


def test_samples_are_smoothed_points() -> None:
    """Samples lie around the points with the smoothing's spread, every point comes up, and seeds repeat."""
    points = 10.0 * torch.arange(5, dtype=F64).reshape(5, 1).expand(5, 2)
    x = Empirical(points, 0.1).sample(5000, generator=torch.Generator().manual_seed(3))
    nearest = (x.mean(1) / 10).round()
    assert (nearest.to(torch.int64).bincount(minlength=5) - 1000).abs().max() < 5 * math.sqrt(800)
    assert (x - 10 * nearest[:, None]).std().item() == pytest.approx(0.1, rel=5 / math.sqrt(2 * 10_000))
    assert torch.equal(x, Empirical(points, 0.1).sample(5000, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize(
    ("points", "smoothing", "message"),
    [
        (1.0, 0.1, r"points has shape \(\); it must be \(N, \*event\)"),
        (torch.zeros(0, 3), 0.1, r"points has shape \(0, 3\)"),
        ([0.0, math.nan], 0.1, "points must be finite, but holds nan"),
        ([0.0, 1.0], 0.0, "smoothing = 0.0; it must be positive"),
        ([0.0, 1.0], math.inf, "smoothing = inf"),
    ],
)
def test_bad_parameters_are_refused(points: object, smoothing: float, message: str) -> None:
    """What is no smoothed data set raises ValueError with the argument and what would be right."""
    with pytest.raises(ValueError, match=message):
        Empirical(points, smoothing)
