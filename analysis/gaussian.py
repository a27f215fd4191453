"""Gaussian data: denoiser, marginals and flow map of the PF-ODE in closed form."""

from dataclasses import dataclass
from typing import Any

import torch

from ..solvers.schedules.base import Schedule
from .problem import Problem, columns, parameter, spectrum


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Gaussian(Problem):
    """x0 ~ N(mean, cov).

    `mean`: a number or an event-shaped list, array or tensor. `cov`: a number (times the identity), the
    variances in the mean's shape, or the full matrix (D, D) for an event of D elements, flattened in C order;
    symmetric positive semidefinite. A scalar mean and cov describe every coordinate of a state of any shape,
    independently.

    With d = x - alpha mean and R^2 = alpha^2 c + sigma^2 for each eigenvalue c of cov, along its eigenvector
    E[x0 | x] = mean + alpha c / R^2 d and E[eps | x] = sigma / R^2 d. Where R = 0 (sigma = 0 in a direction
    without variance) x says nothing about eps, and its expectation is 0.

    Raises ValueError for shapes that do not fit, values that are not finite, and a cov that is not a
    covariance.
    """

    mean: torch.Tensor
    cov: torch.Tensor
    variances: torch.Tensor  # eigenvalues of cov: event-shaped, or (D,) with a basis
    basis: torch.Tensor | None  # eigenvectors in columns (D, D); None where cov is diagonal

    def __init__(self, mean: Any, cov: Any) -> None:
        mean, cov = parameter("mean", mean), parameter("cov", cov)
        size = mean.numel()
        basis = None
        if cov.shape in (torch.Size(()), mean.shape):
            if (cov < 0).any():
                raise ValueError(f"cov must not be negative, but holds {cov.amin().item():.6g}")
            variances = cov.expand(mean.shape).clone()
        elif cov.shape == (size, size):
            variances, basis = spectrum("cov", cov)
        else:
            raise ValueError(
                f"cov has shape {tuple(cov.shape)}; for a mean of shape {tuple(mean.shape)} it must be "
                f"a number, of shape {tuple(mean.shape)} (variances) or of shape {(size, size)} (full)"
            )
        fields = dict(mean=mean, cov=cov, variances=variances, basis=basis, event_shape=mean.shape)
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def posterior(self, x: torch.Tensor, alpha: Any, sigma: Any) -> tuple[torch.Tensor, torch.Tensor]:
        d = self._deviation(x, alpha)
        alpha, sigma, c = columns(alpha, d), columns(sigma, d), self.variances.to(x.device)
        r2 = alpha * alpha * c + sigma * sigma
        d = torch.where(r2 > 0, d / r2, 0.0)
        x0 = self.mean.to(x.device) + self._from_basis(alpha * c * d)
        return x0.to(x.dtype), self._from_basis(sigma * d).to(x.dtype)

    def flow(self, x: torch.Tensor, sch: Schedule, s: float, t: float) -> torch.Tensor:
        """The PF-ODE's endpoint alpha_t m + S_t^{1/2} S_s^{-1/2} (x - alpha_s m), in x's dtype.

        S_t = alpha_t^2 cov + sigma_t^2 I is the marginal covariance. Raises ValueError where S_s is singular,
        as all states but the mean's have probability 0 there.
        """
        r2_s, r2_t = (sch.alpha(u) ** 2 * self.variances + sch.sigma(u) ** 2 for u in (s, t))
        if not r2_s.amin() > 0:
            raise ValueError(f"at s = {s} the marginal covariance is singular, so no flow starts there")
        d = self._deviation(x, sch.alpha(s)) * torch.sqrt(r2_t / r2_s).to(x.device)
        return (sch.alpha(t) * self.mean.to(x.device) + self._from_basis(d)).to(x.dtype)

    def reference(self, x: torch.Tensor, sch: Schedule, s: float, t: float) -> torch.Tensor:
        """`flow` in float64."""
        return self.flow(x.to(torch.float64), sch, s, t)

    def marginal(self, sch: Schedule, t: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and covariance of x_t, the latter a number, variances or a matrix as cov was given."""
        noise = torch.eye(len(self.cov), dtype=torch.float64) if self.basis is not None else 1.0
        return sch.alpha(t) * self.mean, sch.alpha(t) ** 2 * self.cov + sch.sigma(t) ** 2 * noise

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> torch.Tensor:
        """As of every problem. By the symmetric root of the covariance, which no machine's choice of eigenvectors
        moves."""
        noise = torch.randn(n, *self.mean.shape, dtype=torch.float64, generator=generator)
        return self.mean + self._from_basis(torch.sqrt(self.variances) * self._to_basis(noise))

    def _deviation(self, x: torch.Tensor, alpha: Any) -> torch.Tensor:
        """x - alpha mean in float64, in the eigenbasis."""
        self._check_event(x)
        return self._to_basis(x.to(torch.float64) - columns(alpha, x) * self.mean.to(x.device))

    def _to_basis(self, d: torch.Tensor) -> torch.Tensor:
        if self.basis is None:
            return d
        batch = d.shape[: d.ndim - self.mean.ndim]
        return d.reshape(*batch, len(self.basis)) @ self.basis.to(d.device)

    def _from_basis(self, d: torch.Tensor) -> torch.Tensor:
        if self.basis is None:
            return d
        return (d @ self.basis.mT.to(d.device)).reshape(*d.shape[:-1], *self.mean.shape)
