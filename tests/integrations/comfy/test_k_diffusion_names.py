"""Names and options of k-diffusion's samplers mean the formulas that they have there."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch

import logsnr
from logsnr import analysis
from logsnr.integrations import k_diffusion

SIGMAS = torch.cat([torch.from_numpy(np.geomspace(14.6, 0.03, 8)), torch.zeros(1)]).float()
X = 14.6 * logsnr.randn((16,), seed=0, dtype=torch.float64)
EXACT = analysis.two_gaussians().denoiser(logsnr.EDM(), "x0")


def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return EXACT.x0(x, sigma)


def test_published_formulas() -> None:
    """The midpoint form of dpmpp_2m_sde by name, its other one when asked; what is written down in its own loop."""
    noise = lambda s, t: torch.ones_like(X)  # noqa: E731
    for kind in ("midpoint", "heun"):
        x, old = X, list[Any]()
        for s, t in pairwise(SIGMAS.double().tolist()):
            x0 = model(x, torch.full((len(x),), s, dtype=torch.float64))
            h = 2 * math.log(s / t) if t else math.inf  # with eta = 1
            x = (t / s) * math.exp(-h / 2) * x - math.expm1(-h) * x0 if t else x0
            if old and t:
                weight = -math.expm1(-h) / 2 if kind == "midpoint" else 1 + math.expm1(-h) / h
                x = x + weight * (h / 2) / math.log(old[-1][0] / s) * (x0 - old[-1][1])
            x = x + t * math.sqrt(-math.expm1(-h)) if t else x
            old.append((s, x0))
        found = k_diffusion.sample_dpmpp_2m_sde(model, X, SIGMAS, noise_sampler=noise, solver_type=kind)
        torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)
        by_name = k_diffusion.sampler("dpmpp_2m_sde" if kind == "midpoint" else "dpmpp_2m_sde_heun")
        assert torch.equal(by_name(model, X, SIGMAS, noise_sampler=noise), found)
    for name, own, compat in (
        ("dpmpp_3m_sde", "sde-dpmpp-3m", True),
        ("deis", "deis-3", "comfyui"),
        ("er_sde", "er-sde-3", "comfyui"),
        ("ipndm_v", "deis-rho-4", "comfyui"),
    ):
        here, other = k_diffusion.sampler(own, compat=compat), k_diffusion.sampler(name, compat=False)
        ends = [f(model, X, SIGMAS, noise_sampler=noise) for f in (k_diffusion.sampler(name), here, other)]
        assert torch.equal(ends[0], ends[1])
        assert not torch.allclose(ends[0], ends[2])


def test_options_of_churn() -> None:
    """edm-churn takes its own; all others take them as 0."""
    some, none = (k_diffusion.sampler("edm-churn", s_churn=c, s_noise=1.01)(model, X, SIGMAS, seed=1) for c in (4.0, 0))
    assert not torch.allclose(some, none)
    k_diffusion.sample_euler(model, X, SIGMAS, s_churn=0.0, s_tmin=0.0, s_tmax=math.inf, s_noise=1.0)


def test_lms_ends_at_the_denoised_data() -> None:
    """As ComfyUI's; k-diffusion's goes on to 0 with its polynomial of fourth order, and is the same up to there."""
    levels, slopes, x = SIGMAS.double().numpy(), list[Any](), X
    for i, (s, t) in enumerate(pairwise(levels.tolist())):
        before, x0 = x, model(x, torch.full((len(X),), s, dtype=torch.float64))
        slopes.insert(0, (x - x0) / s)
        past = levels[i - len(slopes[:4]) + 1 : i + 1][::-1]
        for k, slope in enumerate(slopes[:4]):
            others = np.delete(past, k)
            whole = np.polyint(np.atleast_1d(np.poly(others)) / np.prod(past[k] - others))
            x = x + float(np.polyval(whole, t) - np.polyval(whole, s)) * slope
    found = k_diffusion.sample_lms(model, X, SIGMAS)
    torch.testing.assert_close(k_diffusion.sample_lms(model, X, SIGMAS[:-1]), before, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found, x0, rtol=1e-6, atol=1e-6)
    assert (found - x).abs().max() > 1e-3
