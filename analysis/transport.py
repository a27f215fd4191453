"""Optimal transport with the squared distance: Gaussians in closed form, and how far a PF-ODE's map is from it.

A map is optimal if it is the gradient of a convex function (Brenier; book 7.2). The PF-ODE's map is that in one
dimension, and for Gaussian data from isotropic noise. It is not in general (book 7.5): nor does it have to be between
Gaussians, where their covariances do not commute.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import linear_sum_assignment

from ..solvers.arrays import Array
from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.names import nearest
from ..solvers.sampling import sample
from .metrics import _pair, samples, w2_gaussian
from .problem import parameter, spectrum

PATHS = ("diffusion", "straight")


@dataclass(frozen=True, eq=False)
class GaussianTransport:
    """The optimal map from N(m1, S1) to N(m2, S2), ``T(x) = m2 + A (x - m1)`` (Knott and Smith 1984).

    m1, m2: event-shaped, float64. matrix: A (D, D), symmetric positive semidefinite, for events of D elements in C
    order. w2: the distance, not squared: the root mean of |T(x) - x|^2.
    """

    m1: torch.Tensor
    m2: torch.Tensor
    matrix: torch.Tensor
    w2: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """T(x), x (..., *event); like x, computed in float64."""
        wide = x.double() - self.m1.to(x.device)
        batch = wide.shape[: wide.ndim - self.m1.ndim]
        moved = wide.reshape(*batch, len(self.matrix)) @ self.matrix.mT.to(x.device)
        return (self.m2.to(x.device) + moved.reshape(wide.shape)).to(x.dtype)

    def between(self, x: torch.Tensor, time: float) -> torch.Tensor:
        """McCann's interpolation ``(1 - time) x + time T(x)``, whose law is the geodesic at ``time`` in [0, 1]."""
        return torch.lerp(x, self(x), time)


def gaussian_transport(m1: Any, S1: Any, m2: Any, S2: Any) -> GaussianTransport:
    """The optimal map between Gaussians; arguments as for `w2_gaussian`.

    ``A = S1^{-1/2} (S1^{1/2} S2 S1^{1/2})^{1/2} S1^{-1/2}``, by eigenvalues; where S1 and S2 are diagonal, exactly
    sqrt(S2 / S1). Raises ValueError for a singular S1, from which there is no map, and what `w2_gaussian` raises.
    """
    pair = _pair(m1, S1, m2, S2)
    one, other = pair.covs
    if not pair.full:
        if not one.amin() > 0:
            raise ValueError("S1 must be positive definite: no map starts from a singular Gaussian")
        matrix = torch.diag(torch.sqrt(other / one))
    else:
        root, inverse = roots("S1", one)
        matrix = inverse @ _root(root @ other @ root) @ inverse
        matrix = (matrix + matrix.mT) / 2
    return GaussianTransport(parameter("m1", m1), parameter("m2", m2), matrix, w2_gaussian(m1, S1, m2, S2))


def roots(name: str, cov: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """S^{1/2} and S^{-1/2}; ValueError for an S that is singular up to rounding."""
    values, vectors = spectrum(name, cov)
    if not values.amin() > len(values) * torch.finfo(torch.float64).eps * values.amax():
        raise ValueError(f"{name} must be positive definite, but has the eigenvalue {values.amin().item():.6g}")
    return (vectors * values.sqrt()) @ vectors.mT, (vectors * values.rsqrt()) @ vectors.mT


def _root(cov: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh((cov + cov.mT) / 2)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT


@dataclass(frozen=True)
class TransportGap:
    """A map beside the optimal one between the same laws.

    cost: the mean of |map(x) - x|^2. optimal: the least there is, W2^2. distance: the root mean square of what lies
    between the map and the optimal one; 0 if and only if they are the same.
    """

    cost: float
    optimal: float
    distance: float

    @property
    def gap(self) -> float:
        """cost - optimal, at least 0 but for rounding."""
        return self.cost - self.optimal

    def __str__(self) -> str:
        return f"cost {self.cost:.4f}, optimal {self.optimal:.4f}, {self.distance:.1e} from the optimal map"


def gaussian_gap(S1: Any, S2: Any, path: str = "straight") -> TransportGap:
    """The map of a PF-ODE from N(0, S1) to N(0, S2), matrices (D, D), beside the optimal one; exact.

    path: "straight", flow matching from independent draws, ``x_t = (1 - t) x_0 + t x_1`` (book 7.5.2; integrated to
          1e-11); "diffusion", from one to noise and on to the other by the flows of both (DDIB, book 7.1), which is
          ``S2^{1/2} S1^{-1/2}``.

    Where S1 and S2 commute, both are the optimal map. Otherwise both have the right law at the end, and cost more.
    Means add the same to every cost. Raises ValueError for covariances that are not positive definite matrices.
    """
    if path not in PATHS:
        raise ValueError(f"path = {path!r} is not one{nearest(path, PATHS)}")
    one, other = (parameter(name, S) for name, S in (("S1", S1), ("S2", S2)))
    if one.ndim != 2 or one.shape[0] != one.shape[1] or one.shape != other.shape:
        raise ValueError(f"S1 and S2 must be matrices (D, D), not {tuple(one.shape)} and {tuple(other.shape)}")
    (root, inverse), (target, _) = roots("S1", one), roots("S2", other)
    matrix = target @ inverse if path == "diffusion" else _straight(one.numpy(), other.numpy())
    zero = torch.zeros(len(one), dtype=torch.float64)
    best = gaussian_transport(zero, one, zero, other)
    moved, between = ((matrix - end) @ root for end in (torch.eye(len(one), dtype=torch.float64), best.matrix))
    return TransportGap(float(moved.square().sum()), best.w2**2, float(between.square().sum().sqrt()))


def _straight(one: Array, other: Array) -> torch.Tensor:
    """dx_1/dx_0 of the flow with the velocity E[x_1 - x_0 | x_t] = (t S2 - (1 - t) S1) S_t^{-1} x."""
    size = len(one)

    def slope(t: float, flat: Array) -> Array:
        now = (1 - t) ** 2 * one + t * t * other
        moved: Array = (t * other - (1 - t) * one) @ np.linalg.solve(now, flat.reshape(size, size))
        return moved.ravel()

    found = solve_ivp(slope, (0.0, 1.0), np.eye(size).ravel(), "DOP853", rtol=1e-12, atol=1e-13)
    return torch.from_numpy(found.y[:, -1].reshape(size, size).copy())


def transport_gap(x: Any, y: Any, **options: Any) -> TransportGap:
    """A map beside the optimal one, by samples.

    x, y: the starts (N, ...) and their ends, arrays or tensors; or a `Denoiser` and the starts, which are then solved
          with ``options`` as of `logsnr.solve`.

    The optimal pairing of these N starts with these N ends is an assignment, solved exactly, in N^3. If the map is
    optimal, so is its pairing, whatever the number of samples: ``gap`` is then 0. That it is 0 for few samples says
    little, as there are few pairings. Raises ValueError for samples that do not fit.
    """
    if isinstance(x, Denoiser):
        x, y = y, sample(x, y, **options)
    elif options:
        raise ValueError(f"{' and '.join(sorted(options))}: options are for a denoiser and its starts")
    a, b = samples(x, y)
    if len(a) != len(b):
        raise ValueError(f"x and y must be pairs, as many of the one as of the other, not {len(a)} and {len(b)}")
    cost = squared_distances(a, b)
    _, best = linear_sum_assignment(cost.numpy())
    direct, least = cost.diagonal().mean(), cost[torch.arange(len(a)), torch.from_numpy(best)].mean()
    between = (b - b[torch.from_numpy(best)]).square().sum(1).mean().sqrt()
    return TransportGap(float(direct), float(least), float(between))


def squared_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(N, M): |a_i - b_j|^2 of a (N, D) and b (M, D), without the cancellation of ``a^2 - 2 a b + b^2``."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
