from importlib import resources
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from logsnr.analysis.digits import load_digits
from logsnr.bench.digits_net import SCHEDULE, DigitsNet, load_digits_net


def batch(lam: float, *, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Held-out digits with noise at one half-log-SNR: (x_t, t, v)."""
    x0, _ = load_digits(split="test")
    noise = torch.randn(x0.shape, dtype=x0.dtype)
    t = SCHEDULE.time(lam)
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    times = torch.full((len(x0),), t, dtype=torch.float64)
    return tuple(a.to(dtype) for a in (alpha * x0 + sigma * noise, times, alpha * noise - sigma * x0))


def test_it_loads_ready_for_use() -> None:
    """The network comes in eval mode, float32, without gradients, below 250,000 weights and 1 MB."""
    net = load_digits_net()
    assert not net.training
    assert {(p.dtype, p.requires_grad) for p in net.parameters()} == {(torch.float32, False)}
    assert sum(p.numel() for p in net.parameters()) < 250_000
    weights = resources.files("logsnr.bench").joinpath("data", "digits_net.safetensors").read_bytes()
    assert len(weights) < 1_000_000


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 1e-2), (torch.bfloat16, 1e-1)])
@pytest.mark.parametrize("lam", [-5.0, -1.0, 0.0, 1.0, 4.5])
def test_every_dtype_gives_the_float64_answer(dtype: torch.dtype, tolerance: float, lam: float) -> None:
    """Shape and dtype are the input's; the RMS distance from float64 is a small multiple of the rounding."""
    x, _, _ = batch(lam)
    x = x[:16].to(dtype)
    t = torch.full((16,), SCHEDULE.time(lam)).to(dtype)
    answer = load_digits_net().to(dtype)(x, t)
    assert answer.shape == x.shape
    assert answer.dtype == dtype
    exact = load_digits_net().double()(x.double(), t.double())
    assert (answer.double() - exact).square().mean().sqrt() < tolerance


def test_the_same_call_gives_the_same_answer() -> None:
    """Two loads and two calls agree to the bit."""
    x, t, _ = batch(0.0, dtype=torch.float32)
    net = load_digits_net()
    assert torch.equal(net(x, t), net(x, t))
    assert torch.equal(net(x, t), load_digits_net()(x, t))


def test_samples_do_not_see_each_other() -> None:
    """Each row, with its own time, is what it is alone."""
    x, _, _ = batch(0.0)
    x, t = x[:4], torch.linspace(0.1, 0.9, 4, dtype=torch.float64)
    net = load_digits_net().double()
    alone = torch.cat([net(x[i : i + 1], t[i : i + 1]) for i in range(4)])
    assert torch.allclose(net(x, t), alone, atol=1e-12)


@pytest.mark.parametrize("t", [0.0, 1e-6, 1.0])
def test_the_ends_of_time_are_finite(t: float) -> None:
    """At t = 0, where the log-SNR is infinite, and at t = 1 the answer is finite."""
    assert load_digits_net()(torch.randn(2, 1, 8, 8), torch.full((2,), t)).isfinite().all()


def test_it_denoises_better_than_any_linear_estimator() -> None:
    """Its loss on unseen digits at lam = 1 is below 0.6 times the best linear one's (training moments)."""
    x, t, v = batch(1.0)
    train = load_digits(split="train")[0].flatten(1)
    mean, cov = train.mean(dim=0), torch.cov(train.T)
    alpha, sigma = float(SCHEDULE.alpha(t[0])), float(SCHEDULE.sigma(t[0]))
    gain = torch.linalg.solve(alpha**2 * cov + sigma**2 * torch.eye(64), alpha * cov)
    x0 = mean + (x.flatten(1) - alpha * mean) @ gain
    linear = ((alpha * x.flatten(1) - x0) / sigma - v.flatten(1)).square().mean()
    assert (load_digits_net().double()(x, t) - v).square().mean() < 0.6 * linear


def test_it_is_analytic_in_the_log_snr() -> None:
    """Chebyshev interpolation in lam gains factors 5 and 50 from degree 32 to 64 to 128; a kink gives 2."""
    x, _, _ = batch(0.0)
    net = load_digits_net().double()
    lo, hi = (SCHEDULE.half_logsnr(t) for t in (1.0, 1e-3))

    def along(points: np.ndarray) -> np.ndarray:
        lam = torch.from_numpy((lo + hi) / 2 + (hi - lo) / 2 * points)
        t = SCHEDULE.time(lam)
        answers = [net(image.expand(len(lam), -1, -1, -1), t) for image in x[:2, None]]
        return torch.cat(answers, dim=1).flatten(1).numpy()

    fine, errors = np.linspace(-1, 1, 201), []
    exact = along(fine)
    for degree in (32, 64, 128):
        nodes = np.polynomial.chebyshev.chebpts1(degree + 1)
        fit = np.polynomial.chebyshev.chebfit(nodes, along(nodes), degree)
        errors.append(np.abs(np.polynomial.chebyshev.chebval(fine, fit).T - exact).max())
    assert errors[1] < errors[0] / 5
    assert errors[2] < errors[1] / 50


def blended(images: Tensor) -> Tensor:
    return (images[:-1] + images[1:]) / 2


def test_it_generates_digits_of_every_class() -> None:
    """Thirty DDIM steps from noise give 200 images as near to the training digits as unseen digits are, and no nearer:
    they are not learnt by heart. All ten classes are there, and blends of two digits are farther away."""
    net = load_digits_net()
    x = torch.randn(200, 1, 8, 8)
    times = SCHEDULE.time(np.linspace(SCHEDULE.half_logsnr(1.0), SCHEDULE.half_logsnr(1e-3), 31))
    for s, t in pairwise(times):
        v = net(x, torch.full((200,), s, dtype=torch.float32))
        x0 = SCHEDULE.alpha(s) * x - SCHEDULE.sigma(s) * v
        noise = SCHEDULE.sigma(s) * x + SCHEDULE.alpha(s) * v
        x = (SCHEDULE.alpha(t) * x0 + SCHEDULE.sigma(t) * noise).float()
    (seen, labels), (unseen, _) = load_digits(split="train"), load_digits(split="test")
    apart = torch.cdist(x.flatten(1).double(), seen.flatten(1))
    assert torch.bincount(labels[apart.argmin(1)], minlength=10).amin() >= 8
    real, blends = (torch.cdist(y.flatten(1), seen.flatten(1)).amin(1).median() for y in (unseen, blended(unseen)))
    assert 0.9 * real < apart.amin(1).median() < 1.1 * real < blends / 1.2


def test_other_shapes_are_refused() -> None:
    """The error shows the shape given and the shape wanted."""
    with pytest.raises(ValueError, match=r"x has shape \(2, 3, 8, 8\).*\(B, 1, 8, 8\)"):
        DigitsNet()(torch.zeros(2, 3, 8, 8), torch.zeros(2))
