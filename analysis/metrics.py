"""Distances between distributions: Gaussians in closed form, samples by sliced transport."""

from typing import Any, NamedTuple

import numpy as np
import torch

from .problem import parameter, spectrum


class _Pair(NamedTuple):
    """Two Gaussians in one form: covariances as variances (D,), or full (D, D) if either is."""

    shift: torch.Tensor  # m2 - m1, (D,)
    covs: tuple[torch.Tensor, torch.Tensor]
    full: bool


def w2_gaussian(m1: Any, S1: Any, m2: Any, S2: Any) -> float:
    """The 2-Wasserstein distance between N(m1, S1) and N(m2, S2), not squared.

    m1, m2: means of one shape, D elements; numbers, arrays or tensors. S1, S2: a number (times the identity),
    variances in the means' shape, or a full matrix (D, D), each in its own form.

    W^2 = |m1 - m2|^2 + min_U |A - B U|_F^2 over orthogonal U, for A A^T = S1 and B B^T = S2 (Bhatia, Jain and
    Lim 2019, the orthogonal Procrustes form of the Bures distance). Unlike the usual trace formula it
    subtracts before it squares, so close covariances are as far apart as they are, not 1e-8.

    Raises ValueError for shapes that do not fit, values that are not finite, covariances that are not
    symmetric or not positive semidefinite.
    """
    pair = _pair(m1, S1, m2, S2)
    if pair.full:
        a, b = (vectors * values.sqrt() for values, vectors in map(_eigen, ("S1", "S2"), pair.covs))
        gap = _procrustes(a, b)
    else:
        gap = pair.covs[0].sqrt() - pair.covs[1].sqrt()
    return float(torch.sqrt(pair.shift.square().sum() + gap.square().sum()))


def kl_gaussian(m1: Any, S1: Any, m2: Any, S2: Any) -> float:
    """The Kullback-Leibler divergence KL(N(m1, S1) || N(m2, S2)) in nats; arguments as in `w2_gaussian`.

    Half the sum of d - log(1 + d) over the eigenvalues d of S2^{-1/2} (S1 - S2) S2^{-1/2}, plus half the
    squared length of S2^{-1/2} (m1 - m2). Infinite where one has variance in a direction in which the other
    has none, or the means differ in a direction without variance; directions that neither knows add nothing.
    A full covariance has no variance where its eigenvalue is below rounding, D eps times the largest.

    Raises what `w2_gaussian` raises.
    """
    pair = _pair(m1, S1, m2, S2)
    if not pair.full:
        v1, v2 = pair.covs
        known = v2 > 0
        if ((v1 > 0) != known).any() or (pair.shift[~known] != 0).any():
            return float("inf")
        excess = (v1[known] - v2[known]) / v2[known]
        shift = pair.shift[known] / v2[known].sqrt()
    else:
        values, vectors = _eigen("S2", pair.covs[1])
        known, rank = values > 0, int((_eigen("S1", pair.covs[0])[0] > 0).sum())
        blind, root = vectors[:, ~known], vectors[:, known] * values[known].rsqrt()
        rounding = len(values) * torch.finfo(torch.float64).eps
        leaks = (blind.mT @ pair.covs[0] @ blind).diagonal() > rounding * pair.covs[0].abs().amax()
        moved = (blind.mT @ pair.shift).abs() > rounding * pair.shift.abs().amax()
        if rank != int(known.sum()) or leaks.any() or moved.any():
            return float("inf")
        excess = torch.linalg.eigvalsh(root.mT @ (pair.covs[0] - pair.covs[1]) @ root)
        shift = root.mT @ pair.shift
    return float((excess - torch.log1p(excess)).sum() + shift.square().sum()) / 2


def _procrustes(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a - b U for the orthogonal U that makes it smallest."""
    u, _, vt = torch.linalg.svd(b.mT @ a)
    return a - b @ (u @ vt)


def sliced_w2(x: Any, y: Any, *, projections: int = 256, seed: int = 0) -> float:
    """The sliced 2-Wasserstein distance between two samples, not squared (Rabin et al. 2011).

    x: (N, ...), y: (M, ...), arrays or tensors with the same event shape. The root mean, over ``projections``
    directions drawn uniformly from the sphere with ``seed``, of the squared distance between the projected
    samples, which is exact for any N and M. For events of one element it is the distance itself.

    Raises ValueError for shapes that do not fit, empty samples and values that are not finite.
    """
    a, b = (z.numpy() for z in samples(x, y))
    if projections < 1:
        raise ValueError(f"projections must be at least 1, not {projections}")
    if a.shape[1] > 1:  # events of one element have one direction
        directions = np.random.default_rng(seed).standard_normal((a.shape[1], projections))
        directions /= np.linalg.norm(directions, axis=0)
        a, b = a @ directions, b @ directions
    a, b = np.sort(np.ascontiguousarray(a.T)), np.sort(np.ascontiguousarray(b.T))
    n, m = a.shape[1], b.shape[1]
    # Both quantile functions are constant between neighbouring cuts, counted in units of 1 / (n m).
    cuts = np.union1d(m * np.arange(1, n + 1), n * np.arange(1, m + 1))
    mass = np.diff(cuts, prepend=0) / (n * m)
    gap = a[:, (cuts - 1) // m] - b[:, (cuts - 1) // n]
    return float(np.sqrt((gap**2 @ mass).mean()))


def samples(x: Any, y: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Two samples as float64 (N, D) and (M, D); complex ones as their parts, between which distances are the same.

    Raises ValueError for shapes that do not fit, empty samples and values that are not finite.
    """
    a, b = (parameter(name, _parts(value)) for name, value in (("x", x), ("y", y)))
    if a.ndim == 0 or b.ndim == 0 or a.shape[1:] != b.shape[1:] or not a.numel() or not b.numel():
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"x and y must be samples (N, ...), (M, ...) of one event shape, not {shapes}")
    return a.reshape(len(a), -1), b.reshape(len(b), -1)


def _parts(x: Any) -> Any:
    given = torch.as_tensor(x) if isinstance(x, (torch.Tensor, np.ndarray)) else x
    return torch.view_as_real(given.resolve_conj()) if torch.is_tensor(given) and given.is_complex() else x


def _pair(m1: Any, S1: Any, m2: Any, S2: Any) -> _Pair:
    m1, S1, m2, S2 = (parameter(name, v) for name, v in (("m1", m1), ("S1", S1), ("m2", m2), ("S2", S2)))
    if m1.shape != m2.shape:
        raise ValueError(f"m1 and m2 must have one shape, not {tuple(m1.shape)} and {tuple(m2.shape)}")
    one, other = (_form(name, cov, m1) for name, cov in (("S1", S1), ("S2", S2)))
    full = one.ndim == 2 or other.ndim == 2
    if full:
        one, other = (cov if cov.ndim == 2 else torch.diag(cov) for cov in (one, other))
    return _Pair((m2 - m1).reshape(-1), (one, other), full)


def _form(name: str, cov: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Variances (D,), or the matrix (D, D)."""
    size = mean.numel()
    if cov.ndim and cov.shape != mean.shape:
        if cov.shape != (size, size):
            raise ValueError(
                f"{name} has shape {tuple(cov.shape)}; for means of shape {tuple(mean.shape)} it must be "
                f"a number, of shape {tuple(mean.shape)} (variances) or of shape {(size, size)} (full)"
            )
        spectrum(name, cov)
        return cov
    if (cov < 0).any():
        raise ValueError(f"{name} must not be negative, but holds {cov.amin().item():.6g}")
    return cov.expand(mean.shape).reshape(-1)


def _eigen(name: str, cov: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues, those that are zero up to rounding exactly so, and eigenvectors in columns."""
    values, vectors = spectrum(name, cov)
    floor = len(values) * torch.finfo(torch.float64).eps * values.amax()
    return torch.where(values > floor, values, 0.0), vectors
