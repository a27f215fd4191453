"""Gaussian mixtures: exact denoiser, and in one dimension the exact flow map of the PF-ODE."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..solvers.schedules.base import Schedule
from .problem import Problem, columns, parameter, shares, spectrum
from .quantile import same_quantile
from .reference import reference_flow


@dataclass(frozen=True, init=False, eq=False, repr=False)
class GaussianMixture(Problem):
    """x0 ~ sum_k weights_k N(means_k, covs_k).

    `means`: (K, *event). `covs`: a number or (K,) (times the identity), (K, *event) (variances) or (K, D, D)
    (full, for an event of D elements flattened in C order); positive definite, for the density must exist at
    sigma = 0. `weights`: (K,), nonnegative with sum 1 to 1e-8; equal if not given. Means of shape (K,)
    describe every coordinate of a state of any shape, independently.

    Raises ValueError for shapes that do not fit, values that are not finite, a covs that is not positive
    definite, and weights that are not a distribution.
    """

    means: torch.Tensor
    covs: torch.Tensor
    weights: torch.Tensor
    _centres: torch.Tensor  # (K, D)
    _variances: torch.Tensor  # eigenvalues of the covariances (K, D)
    _basis: torch.Tensor | None  # their eigenvectors in columns (K, D, D); None where all are diagonal

    def __init__(self, means: Any, covs: Any, weights: Any = None) -> None:
        means, covs = parameter("means", means), parameter("covs", covs)
        if means.ndim == 0 or means.numel() == 0:
            raise ValueError(f"means has shape {tuple(means.shape)}; it must be (K, *event) with K >= 1")
        weights = _distribution(weights, len(means))
        variances, basis = _spectra(covs, means.shape)
        if not variances.amin() > 0:
            raise ValueError(f"covs must be positive definite, but has the eigenvalue {variances.amin().item():.6g}")
        fields = dict(
            means=means,
            covs=covs,
            weights=weights / weights.sum(),
            event_shape=means.shape[1:],
            _centres=means.reshape(len(means), -1),
            _variances=variances,
            _basis=basis,
        )
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def posterior(self, x: torch.Tensor, alpha: Any, sigma: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self._check_event(x)
        batch = x.shape[: x.ndim - len(self.event_shape)]
        y = x.to(torch.float64).reshape(*batch, 1, self._centres.shape[1])
        alpha, sigma = columns(alpha, y), columns(sigma, y)
        centres, c = self._centres.to(x.device), self._variances.to(x.device)
        d = self._rotate(y - alpha * centres, inverse=False)  # (..., K, D), in each component's eigenbasis
        r2 = alpha * alpha * c + sigma * sigma
        log_odds = torch.log(self.weights.to(x.device)) - (d * d / r2 + torch.log(r2)).sum(-1) / 2
        share = shares(log_odds).unsqueeze(-1)
        x0 = (share * (centres + self._rotate(alpha * c / r2 * d, inverse=True))).sum(-2)
        eps = (share * self._rotate(sigma / r2 * d, inverse=True)).sum(-2)
        return x0.reshape(x.shape).to(x.dtype), eps.reshape(x.shape).to(x.dtype)

    def _rotate(self, d: torch.Tensor, *, inverse: bool) -> torch.Tensor:
        if self._basis is None:
            return d
        formula = "...kd,ked->...ke" if inverse else "...kd,kde->...ke"
        return torch.einsum(formula, d, self._basis.to(d.device))

    def reference(self, x: torch.Tensor, sch: Schedule, s: float, t: float) -> torch.Tensor:
        """Where the PF-ODE takes the states x from time s to time t, noisier or cleaner; float64.

        With event shape () exact up to rounding, far into the tails: each coordinate keeps its quantile,
        which is one root-find. Otherwise integrated to about 1e-10.
        """
        if self.event_shape:
            return reference_flow(self, x, sch, s, t).x
        levels = [(sch.alpha(u), sch.sigma(u)) for u in (s, t)]
        m, c = self.means.numpy(), self._variances[:, 0].numpy()
        source, target = ((alpha * m, np.sqrt(alpha**2 * c + sigma**2)) for alpha, sigma in levels)
        flat = x.detach().to("cpu", torch.float64).numpy().ravel()
        y = same_quantile(flat, self.weights.numpy(), source, target)
        return torch.from_numpy(y).reshape(x.shape).to(x.device)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> torch.Tensor:
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        d = torch.randn(n, self._centres.shape[1], dtype=torch.float64, generator=generator)
        basis = None if self._basis is None else self._basis[k]
        if basis is not None:  # the symmetric root of a covariance, as for a Gaussian
            d = torch.einsum("ne,ned->nd", d, basis)
        d = torch.sqrt(self._variances[k]) * d
        if basis is not None:
            d = torch.einsum("nd,ned->ne", d, basis)
        return (self._centres[k] + d).reshape(n, *self.event_shape)


def _distribution(weights: Any, k: int) -> torch.Tensor:
    weights = parameter("weights", [1 / k] * k if weights is None else weights)
    if weights.shape != (k,):
        raise ValueError(f"weights has shape {tuple(weights.shape)}; for {k} means it must be ({k},)")
    if (weights < 0).any():
        raise ValueError(f"weights must not be negative, but holds {weights.amin().item():.6g}")
    if abs(weights.sum().item() - 1) > 1e-8:
        raise ValueError(f"weights must sum to 1, but sum to {weights.sum().item():.10g}")
    return weights


def _spectra(covs: torch.Tensor, shape: torch.Size) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Variances (K, D), and a basis (K, D, D) for full covariances; `shape` is that of the means."""
    k, size = shape[0], math.prod(shape[1:])
    if covs.shape in (torch.Size(()), torch.Size((k,))):
        return covs.reshape(-1, 1).expand(k, size).clone(), None
    if covs.shape == shape:
        return covs.reshape(k, size), None
    if covs.shape == (k, size, size):
        return spectrum("covs", covs)
    raise ValueError(
        f"covs has shape {tuple(covs.shape)}; for means of shape {tuple(shape)} it must be a number, ({k},), "
        f"{tuple(shape)} (variances) or {(k, size, size)} (full)"
    )
