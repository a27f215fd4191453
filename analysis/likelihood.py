"""Exact log-likelihood along the PF-ODE: the change of variables of a continuous flow.

Along the flow ``d log p(x) / dlam = -div(dx/dlam)`` (Chen et al. 2018, theorem 1; Song et al. 2021, 4.3; book 6.2), so
the log-density of data is that of the noise it comes from plus an integral of the divergence, which is taken here in
lam by the classical Runge-Kutta method.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ..solvers.answers import check_state
from ..solvers.denoiser import Denoiser
from ..solvers.grids import end_time

METHODS = ("exact", "hutchinson")
Drift = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class LogLikelihood:
    """value: float64 (B,), nats. error: (B,), its standard error by the random probes; 0 for the exact divergence.
    latent: (B, ...), the noise that the data comes from. nfe: evaluations per sample, derivatives left out."""

    value: torch.Tensor
    error: torch.Tensor
    latent: torch.Tensor
    nfe: int

    def bits_per_dimension(self, offset: float = 0.0) -> torch.Tensor:
        """(B,): -value / (D log 2) + offset. Data of 256 levels that was scaled to [-1, 1] and dequantised by uniform
        noise has the offset 7."""
        return -self.value / (self.latent[0].numel() * math.log(2)) + offset


def log_likelihood(
    den: Denoiser,
    x: torch.Tensor,
    *,
    method: str = "exact",
    steps: int = 100,
    probes: int = 8,
    seed: int = 0,
    t_start: float | None = None,
    t_end: float | None = None,
    prior: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> LogLikelihood:
    """log p(x) of ``x`` (B, ...), states at t_end, by the flow of ``den``; computed in float64.

    method: "exact" takes the divergence by one derivative per element (for small samples), "hutchinson" by ``probes``
            random signs, the same along the whole path (Hutchinson 1990), and tells the standard error of their mean.
    steps:  of the Runge-Kutta method, equal in lam; each makes 4 evaluations.
    prior:  log-density (B,) of states at t_start; by default that of N(0, sigma^2), pure noise.

    Raises ValueError for other methods and numbers, and for spans that end at infinite lam.
    """
    check_state(x)
    if method not in METHODS:
        raise ValueError(f"method = {method!r} must be one of {', '.join(METHODS)}")
    least = 1 if method == "exact" else 2
    for name, number, low in (("steps", steps, 1), ("probes", probes, least)):
        if isinstance(number, bool) or not isinstance(number, int) or number < low:
            raise ValueError(f"{name} must be a whole number of at least {low}, not {number!r}")
    sch = den.schedule
    given = end_time("t_start", t_start), end_time("t_end", t_end)
    first, last = (default if t is None else t for t, default in zip(given, (sch.t_start, sch.t_end), strict=True))
    lam = np.asarray(sch.half_logsnr(np.array([last, first])))
    if not np.isfinite(lam).all():
        raise ValueError(
            f"lam must be finite at both ends, not {lam[1]:.4g} and {lam[0]:.4g}: give t_start, t_end inside"
        )
    state = x.detach().to(torch.float64)
    signs = None
    if method == "hutchinson":
        generator = torch.Generator().manual_seed(seed)
        signs = [torch.randint(0, 2, x.shape, generator=generator).to(state) * 2 - 1 for _ in range(probes)]
    gained = state.new_zeros((1 if signs is None else probes, len(x)))
    nodes = np.linspace(lam[0], lam[1], steps + 1)
    for a, b in pairwise(nodes.tolist()):
        state, gained = _step(den, state, gained, a, b, signs)
    sigma = float(sch.sigma(first))
    base = _normal(state, sigma) if prior is None else prior(state).double()
    values = base + gained
    error = values.std(0) / math.sqrt(len(values)) if len(values) > 1 else torch.zeros_like(base)
    return LogLikelihood(values.mean(0), error, state.to(x.dtype), 4 * steps)


def _normal(x: torch.Tensor, sigma: float) -> torch.Tensor:
    flat = x.reshape(len(x), -1) / sigma
    return -0.5 * flat.square().sum(1) - flat.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(sigma))


def _step(
    den: Denoiser, x: torch.Tensor, gained: torch.Tensor, a: float, b: float, signs: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step from lam a to b of x, and of log p(x_a) = log p(x_b) + the integral of the divergence from a to b."""
    h, slopes, divergences = b - a, list[torch.Tensor](), list[torch.Tensor]()
    for part in (0.0, 0.5, 0.5, 1.0):
        at = x if not slopes else x + part * h * slopes[-1]
        slope, divergence = _flow(den, at, a + part * h, signs)
        slopes.append(slope)
        divergences.append(divergence)
    weights = (h / 6, h / 3, h / 3, h / 6)
    moved = x + sum(w * k for w, k in zip(weights, slopes, strict=True))
    return moved, gained + sum(w * d for w, d in zip(weights, divergences, strict=True))


def _flow(den: Denoiser, x: torch.Tensor, lam: float, signs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """dx/dlam, and its divergence (probes, B)."""
    sch = den.schedule
    t = float(sch.time(lam))
    alpha, sigma = float(sch.alpha(t)), float(sch.sigma(t))
    dalpha, dsigma = float(sch.dalpha(t)), float(sch.dsigma(t))
    rate = 1 / (dalpha / alpha - dsigma / sigma)  # dt/dlam
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        x0 = den.x0(y, t)
        # x = alpha x0 + sigma eps turns the pair into one: dx/dlam = A x + B x0
        slope = rate * (dsigma / sigma * y + (dalpha - alpha * dsigma / sigma) * x0)
        if signs is None:
            divergence = _trace(slope, y)
        else:
            products = [torch.autograd.grad(slope, y, v, retain_graph=True)[0] for v in signs]
            divergence = torch.stack([(v * p).reshape(len(x), -1).sum(1) for v, p in zip(signs, products, strict=True)])
    return slope.detach(), divergence.detach()


def _trace(slope: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    flat, total = slope.reshape(len(y), -1), y.new_zeros(len(y))
    for i in range(flat.shape[1]):
        (row,) = torch.autograd.grad(flat[:, i].sum(), y, retain_graph=True)
        total = total + row.reshape(len(y), -1)[:, i]
    return total[None]
