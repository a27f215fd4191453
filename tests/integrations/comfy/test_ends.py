"""Samplers between two sigmas: dpm_adaptive against its loop with closed-form weights, its error and its options."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

import logsnr
from logsnr import analysis
from logsnr.integrations import k_diffusion

X = 14.6 * logsnr.randn((64,), seed=0, dtype=torch.float64)
EXACT = analysis.two_gaussians().denoiser(logsnr.EDM(), "x0")
HIGH, LOW = 14.6, 0.03


def model(x: torch.Tensor, sigma: Any) -> torch.Tensor:
    return EXACT.x0(x, torch.as_tensor(sigma, dtype=torch.float64).expand(len(x)))


def noise(s: Any, t: Any) -> torch.Tensor:
    return torch.sin(X * 3 + 4 * float(s) + float(t))


def results(order: int, x: torch.Tensor, s: float, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    """DPM-Solver-1 and 2, or 2 and 3 with r1 = 1/3 and r2 = 2/3, as Lu et al. (2022a) write them."""
    h, r = t - s, 1 / order
    sigma = lambda lam: math.exp(-lam)  # noqa: E731
    eps = lambda y, lam: (y - model(y, sigma(lam))) / sigma(lam)  # noqa: E731
    first, mid = eps(x, s), s + r * h
    bend = eps(x - sigma(mid) * math.expm1(r * h) * first, mid) - first
    one = x - sigma(t) * math.expm1(h) * first
    two = one - sigma(t) / (2 * r) * math.expm1(h) * bend
    if order == 2:
        return one, two
    mid, part = s + 2 * h / 3, 2 * h / 3
    y = x - sigma(mid) * math.expm1(part) * first - sigma(mid) * 2 * (math.expm1(part) / part - 1) * bend
    return two, one - sigma(t) * 1.5 * (math.expm1(h) / h - 1) * (eps(y, mid) - first)


def adaptive(order: int, rtol: float, eta: float) -> tuple[torch.Tensor, int, int]:
    """The published controller, with pcoeff = 0.2, icoeff = 0.7 and dcoeff = 0.1."""
    x, last, s, end, h = X, X, -math.log(HIGH), -math.log(LOW), 0.05
    old, good, bad = list[float](), 0, 0
    while s < end - 1e-5:
        t = min(end, s + h)
        up = eta * math.exp(-t) * math.sqrt(1 - math.exp(2 * (s - t)))
        down = min(end, -math.log(math.sqrt(math.exp(-2 * t) - up**2)))
        worse, better = results(order, x, s, down)
        allowed = torch.maximum(torch.tensor(1e-3), rtol * torch.maximum(worse.abs(), last.abs()))
        now = 1 / (float((((worse - better) / allowed) ** 2).mean().sqrt()) + 1e-8)
        before = old or [now, now]
        k = 1.5 if eta else order
        factor = 1 + math.atan(now ** (1.0 / k) * before[0] ** (-0.4 / k) * before[1] ** (0.1 / k) - 1)
        old, h = before, h * factor
        if factor < 0.81:
            bad += 1
            continue
        left = math.sqrt(max(math.exp(-2 * t) - math.exp(-2 * down), 0.0))
        x, last = better + (left * noise(math.exp(-s), math.exp(-t)) if eta else 0.0), worse
        old, s, good = [now, before[0]], t, good + 1
    return x, good, bad


@pytest.mark.parametrize(("order", "rtol", "eta"), [(3, 0.05, 0.0), (2, 0.01, 0.0), (3, 0.05, 0.5), (2, 0.05, 1.0)])
def test_dpm_adaptive_is_its_loop(order: int, rtol: float, eta: float) -> None:
    given = {"order": order, "rtol": rtol, "atol": 1e-3, "eta": eta, "pcoeff": 0.2, "icoeff": 0.7, "dcoeff": 0.1}
    wanted, good, bad = adaptive(order, rtol, eta)
    end, info = k_diffusion.sample_dpm_adaptive(model, X, LOW, HIGH, noise_sampler=noise, return_info=True, **given)
    assert (info["n_accept"], info["n_reject"], info["nfe"]) == (good, bad, order * (good + bad))
    torch.testing.assert_close(end, wanted, rtol=1e-7, atol=1e-7)  # noise of sqrt(rounding) at the end
    mutant = k_diffusion.sample_dpm_adaptive(model, X, LOW, HIGH, noise_sampler=noise, **{**given, "icoeff": 0.71})
    assert not torch.allclose(mutant, wanted, 1e-6, 1e-6)


def fast(n: int, eta: float, s_noise: float) -> torch.Tensor:
    """k-diffusion's loop: steps down to less noise than the node has, not beyond the end, and up again."""
    steps, end = n // 3 + 1, -math.log(LOW)
    orders = [3] * (steps - 1) + [n % 3] if n % 3 else [3] * (steps - 2) + [2, 1]
    x, h = X, (end + math.log(HIGH)) / steps
    for i, order in enumerate(orders):
        s, t = -math.log(HIGH) + i * h, -math.log(HIGH) + (i + 1) * h
        up = eta * math.exp(-t) * math.sqrt(1 - math.exp(2 * (s - t)))
        down = min(end, -math.log(math.sqrt(math.exp(-2 * t) - up**2)))
        x = results(max(order, 2), x, s, down)[order > 1]
        left = math.sqrt(max(math.exp(-2 * t) - math.exp(-2 * down), 0.0))
        x = x + s_noise * left * noise(math.exp(-s), math.exp(-t))
    return x


@pytest.mark.parametrize("n", [1, 3, 5, 7])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_dpm_fast_is_its_loop(n: int, eta: float) -> None:
    given = {"eta": eta, "s_noise": 0.9, "noise_sampler": noise}
    found = k_diffusion.sample_dpm_fast(model, X, LOW, HIGH, n, **given)
    torch.testing.assert_close(found, fast(n, eta, 0.9), rtol=1e-7, atol=1e-7)
    by_name = k_diffusion.sampler("dpm_fast", **given)(model, X, [HIGH, *range(n - 1, 0, -1), LOW])
    torch.testing.assert_close(by_name, found)
    if eta and n > 2:
        mutant = k_diffusion.sample_dpm_fast(model, X, LOW, HIGH, n, **{**given, "eta": 0.99 * eta})
        assert not torch.allclose(mutant, found, 1e-5, 1e-5)


def test_dpm_fast_refuses_what_it_cannot_add() -> None:
    for options, error, said in (
        ({"eta": 2.0}, ValueError, r"eta = 2\.0 must be a number from 0 \(no noise\) to 1"),
        ({"eta": 1.0, "noise_sampler": 3}, TypeError, "noise_sampler must be a callable"),
    ):
        with pytest.raises(error, match=said):
            k_diffusion.sample_dpm_fast(model, X, LOW, HIGH, 4, **options)
    with pytest.raises(ValueError, match="sigmas must decrease"):
        k_diffusion.sample_dpm_fast(model, X, HIGH, LOW, 4, eta=1.0)


def test_errors_follow_the_tolerance() -> None:
    """Ten times less of it is at least four times less error, from 1e-2 to 1e-5; and back to the noise again."""
    exact = logsnr.sample(EXACT, X, solver="ho4", grid=logsnr.grid(logsnr.EDM(LOW, HIGH), 200, "logsnr"))

    def end(tol: float) -> torch.Tensor:
        return k_diffusion.sample_dpm_adaptive(model, X, LOW, HIGH, rtol=tol, atol=tol)

    ends = [end(tol) for tol in (1e-2, 1e-3, 1e-4, 1e-5)]
    errors = [float((found - exact).square().mean().sqrt()) for found in ends]
    assert all(a > 4 * b for a, b in pairwise(errors))
    assert errors[-1] < 1e-5
    back = k_diffusion.sample_dpm_adaptive(model, ends[-1], HIGH, LOW, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(back, X, rtol=1e-2, atol=1e-2)


def test_by_sigmas_and_by_seed() -> None:
    """`sampler` takes the first sigma and the last above 0, as ComfyUI; its callback, and noise by seed."""
    told = list[Any]()
    by_name = k_diffusion.sampler("dpm_adaptive", rtol=0.02)
    end = by_name(model, X, [HIGH, 3.0, LOW, 0.0], None, told.append)
    assert torch.equal(end, k_diffusion.sample_dpm_adaptive(model, X, LOW, HIGH, rtol=0.02))
    assert [info["i"] for info in told] == list(range(len(told)))
    assert float(told[-1]["sigma"]) == pytest.approx(LOW)
    torch.testing.assert_close(told[0]["denoised"], model(X, HIGH))
    assert by_name(model, X, [HIGH]) is X
    fast = k_diffusion.sampler("dpm_fast")(model, X, [HIGH, 3.0, 1.0, LOW, 0.0])
    assert torch.equal(fast, k_diffusion.sample_dpm_fast(model, X, LOW, HIGH, 4))
    take = lambda x, sigma, seed: model(x, sigma)  # noqa: E731
    a, b, c = (k_diffusion.sample_dpm_adaptive(take, X, LOW, HIGH, {"seed": n}, eta=1.0) for n in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert k_diffusion.sample_dpm_adaptive(model, X.float(), LOW, HIGH).dtype is torch.float32


def test_bad_input() -> None:
    for options, said in (
        ({"order": 4}, "order = 4 must be 2 or 3"),
        ({"rtol": 0.0, "atol": 0.0}, "rtol and atol are both 0"),
        ({"rtol": -1.0}, r"rtol = -1\.0 must be"),
        ({"h_init": 0.0}, r"h_init = 0\.0 must be a length"),
        ({"eta": 2.0}, r"eta = 2\.0 must be"),
        ({"accept_safety": 2.0}, r"accept_safety = 2\.0 must be"),
    ):
        with pytest.raises(ValueError, match=said):
            k_diffusion.sample_dpm_adaptive(model, X, LOW, HIGH, **options)
    with pytest.raises(ValueError, match=r"sigma_min = 0\.0 must be positive"):
        k_diffusion.sample_dpm_adaptive(model, X, 0.0, HIGH)
    with pytest.raises(ValueError, match="adds noise: sigma_max"):
        k_diffusion.sample_dpm_adaptive(model, X, HIGH, LOW, eta=1.0)
    with pytest.raises(ValueError, match="leave space out"):
        k_diffusion.sampler("dpm_adaptive", space="logsnr")
    with pytest.raises(ValueError, match="must decrease"):
        k_diffusion.sampler("dpm_adaptive")(model, X, [1.0, 2.0])
    with pytest.raises(TypeError, match="noise_sampler must be"):
        k_diffusion.sample_dpm_adaptive(model, X, LOW, HIGH, noise_sampler=3)  # type: ignore[arg-type]
    with pytest.raises(logsnr.NonFiniteError, match=r"not finite in the step from sigma = 14\.6"):
        k_diffusion.sample_dpm_adaptive(lambda x, sigma: x * torch.nan, X, LOW, HIGH)
