"""The Wiener gauge: the linear denoiser of a Gaussian is integrated exactly, only the rest is interpolated.

The Gaussian with the mean m and the variance c of the data, by element, has with v = sigma / alpha = e^-lam and
r^2 = c + v^2 the linear denoiser

    eps_W = v (x / alpha - m) / r^2,       x0_W = m + c (x / alpha - m) / r^2      (Wiener's filter)

and the PF-ODE of x / alpha - m in units of r is ``d((x / alpha - m) / r) = (eps - eps_W) dv / r``. So N = eps - eps_W,
which is 0 on Gaussian data: one step is then exact, however long (cf. Wang and Vastola 2024). With c = inf N is eps.

By element, or by coordinate of an orthogonal basis: x, m, x0 and eps are then coordinates, and noise is what it was.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..arrays import Array
from ..bases import Basis, Principal, basis_of, check_broadcast, check_size, to_coordinates
from ..grids.levels import numbers
from ..planners.gauge import Nodes, OdeGauge
from ..planners.stochasticity import NONE, Stochasticity
from ..schedules.base import Schedule
from ..values import Value
from .moments import moments_of

FEWEST = 2  # points that have a variance
SYMMETRIC = 1e-12  # of the largest entry: by which a covariance may be none


@dataclass(frozen=True, eq=False)
class Wiener(Value, OdeGauge):
    """The gauge of a Gaussian with independent coordinates; as a solver ``logsnr.solver("wiener-2", gaussian=...)``.

    mean, variance: numbers, arrays or tensors whose shapes broadcast to each other, of the shape of a sample or one
    that broadcasts to it, as (3, 1, 1) of images. They are kept as float64 arrays. The gauge is that of the ODE:
    there is no eta.
    basis: in whose coordinates they are given: "pixel" or None, the elements themselves; "dct", the orthonormal DCT-II
    over the last two axes, or the one there is; or a `Basis`.
    Raises ValueError for shapes that do not fit, numbers that are not finite, and negative variances.
    """

    mean: Any = 0.0
    variance: Any = 1.0
    basis: Any = field(default=None, kw_only=True)  # type: ignore[misc]
    eta: Stochasticity = field(default=NONE, kw_only=True)
    event: tuple[int, ...] = field(init=False, repr=False)  # type: ignore[misc]
    constant = True

    def __post_init__(self) -> None:
        mean, variance = _numbers("mean", self.mean), _numbers("variance", self.variance)
        if (variance < 0).any():
            raise ValueError(f"variance must not be negative, but holds {variance.min():.6g}")
        try:
            mean, variance = (np.array(part) for part in np.broadcast_arrays(mean, variance))
        except ValueError:
            raise ValueError(f"mean of shape {mean.shape} and variance of shape {variance.shape} do not fit") from None
        super().__post_init__()
        basis = basis_of(self.basis, mean.ndim)
        if basis is not None:
            check_broadcast(basis, mean.shape)
        for name, value in (("mean", mean), ("variance", variance), ("event", mean.shape), ("basis", basis)):
            object.__setattr__(self, name, value)
        mean.setflags(write=False)
        variance.setflags(write=False)

    @classmethod
    def from_data(cls, x0: Any, basis: Any = "pixel") -> "Wiener":
        """The gauge of the mean and the variance of each coordinate of data x0, (N, *event), N >= 2, an array or a
        tensor, taken in float64.

        basis: "pixel", the elements; "dct", the frequencies of the last two axes, or of the one there is; "pca", the
        principal components of the data, at most 16384; or a `Basis`. Of complex data there is only "pixel": their
        coordinates are the parts, (*event, 2), and variances are of unit power, twice that of the part. Raises
        ValueError for other bases, and for too few points.
        """
        if isinstance(x0, (torch.Tensor, np.ndarray)) and torch.as_tensor(x0).is_complex():
            if not isinstance(basis, str) or basis != "pixel":
                raise ValueError(f"basis = {basis!r:.60} is for real data; complex ones have 'pixel'")
            parts = cls.from_data(torch.view_as_real(torch.as_tensor(x0).resolve_conj()))
            return cls(parts.mean, 2 * parts.variance)
        data = _numbers("x0", x0)
        if data.ndim < 1 or len(data) < FEWEST:
            raise ValueError(f"x0 must be data (N, ...) of at least {FEWEST} points, not of shape {data.shape}")
        event = data.shape[1:]
        if isinstance(basis, str) and basis == "pca":
            check_size(event)
            flat = data.reshape(len(data), -1)
            away = flat - flat.mean(axis=0)
            return cls.from_moments(data.mean(axis=0), away.T @ away / len(data), "pca")
        found = _named(basis, event)
        if found is not None:
            data = found.forward(torch.from_numpy(data)).numpy()
        return cls(data.mean(axis=0), data.var(axis=0), basis=found)

    @classmethod
    def from_moments(cls, mean: Any, covariance: Any, basis: Any = "pca") -> "Wiener":
        """The gauge of a mean of the shape of a sample, and the covariance (n, n) of its n elements in the order of
        memory, arrays or tensors, taken in float64.

        basis: as for `from_data`; of others than "pca" the covariance counts by its diagonal there. Directions without
        variance have variance 0. Raises ValueError for shapes that do not fit, and for what is no covariance.
        """
        mean, covariance = _numbers("mean", mean), _numbers("covariance", covariance)
        n = mean.size
        if covariance.shape != (n, n):
            raise ValueError(f"covariance must be ({n}, {n}) for a mean of shape {mean.shape}, not {covariance.shape}")
        size = np.abs(covariance).max(initial=0.0)
        if not np.allclose(covariance, covariance.T, rtol=0, atol=SYMMETRIC * size):
            raise ValueError("covariance must be symmetric")
        if isinstance(basis, str) and basis == "pca":
            check_size(mean.shape)
            values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
            found: Basis | None = Principal(vectors.T[::-1], mean.shape)
            values, least = values[::-1], n * np.finfo(np.float64).eps * size
            if values[-1] < -SYMMETRIC * n * size:
                raise ValueError(f"covariance must be positive semidefinite, but has the eigenvalue {values[-1]:.6g}")
            variance = np.where(values > least, values, 0.0)
        else:
            found = _named(basis, mean.shape)
            rows = torch.from_numpy(covariance).reshape(n, *mean.shape)
            half = to_coordinates(found, rows).reshape(n, n)  # the transform of columns, then of rows
            whole = to_coordinates(found, half.mT.reshape(n, *mean.shape))
            variance = whole.reshape(n, n).diagonal().numpy()
        if found is not None:
            mean = found.forward(torch.from_numpy(mean)[None])[0].numpy()
        return cls(mean, variance.reshape(mean.shape), basis=found)

    @classmethod
    def from_denoiser(cls, den: Any, event_shape: Any, basis: Any = "pixel", **options: Any) -> "Wiener":
        """The gauge of the mean and the variance that a denoiser knows of its data, without data: far out, what it
        answers is the filter of the Gaussian of these moments, and its slope is the variance's share.

        den: a `Denoiser`. event_shape: the shape of a sample. basis: "pixel" or "dct", or a `Basis`; the DCT where
        coordinates are strongly correlated, as pixels of images are.
        options: points=16, how many states the denoiser sees at once; rounds=16, how many such batches are averaged at
        each of some ten levels of noise; seed=0 and dtype=torch.float32, of the states; device, by default that of the
        model. Raises what `moments.moments_of` raises, and ValueError for other bases.
        """
        found = _named(basis, tuple(event_shape))
        return cls(*moments_of(den, event_shape, found, **options), basis=found)

    def __repr__(self) -> str:
        basis = "" if self.basis is None else f", {self.basis}"
        if self.event:
            return f"Wiener({', '.join(map(str, self.event))}{basis})"
        return f"Wiener({float(self.mean):.6g}, {float(self.variance):.6g}{basis})"

    @cached_property
    def key(self) -> tuple[Any, ...]:
        return self.event, self.mean.tobytes(), self.variance.tobytes(), self.basis

    def columns(self, sch: Schedule, t: Array) -> Array:
        at = Nodes.at(sch, t)
        alpha, sigma, c = self._wide(at.alpha), self._wide(at.sigma), self.variance
        spread = alpha * alpha * c + sigma * sigma
        with np.errstate(divide="ignore", invalid="ignore"):
            x0 = -alpha * sigma / spread
            return np.stack(np.broadcast_arrays(x0, alpha * alpha * c / spread, -self.mean * x0), axis=np.ndim(t))

    def ratio(self, s: Nodes, t: Nodes) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._spread(t) / self._spread(s)

    def rate(self, left: Array, t: Nodes) -> Array:
        v = self._wide(np.exp(left - t.lam[:, None]))
        with np.errstate(divide="ignore", invalid="ignore"):
            return -self._spread(t)[:, None] * v / np.hypot(np.sqrt(self.variance), v)

    def total(self, s: Nodes, t: Nodes) -> Array:
        """``-R_t int dv / r = -R_t (asinh(v_s / sqrt c) - asinh(v_t / sqrt c))``, of sines that do not cancel."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            v_s, v_t = self._wide(s.sigma / s.alpha), self._wide(t.sigma / t.alpha)
            r_s, r_t = (np.hypot(np.sqrt(self.variance), v) for v in (v_s, v_t))
            whole = -self._spread(t) * np.arcsinh(self._fall(s, t) / (v_s * r_t + v_t * r_s))
        return np.where(r_t > 0, whole, 0.0)  # at sigma = 0 an element without variance is at its mean

    def offset(self, s: Nodes, t: Nodes) -> Array:
        """``alpha_t m (1 - r_t / r_s)``."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            r_s, r_t = (np.hypot(np.sqrt(self.variance), self._wide(at.sigma / at.alpha)) for at in (s, t))
            return self._wide(t.alpha) * self.mean * self._fall(s, t) / (r_s * (r_s + r_t))

    def leap(self, sch: Schedule, s: Nodes, t: Nodes) -> Array:
        """The step of order 1 itself, which has a limit at sigma = 0. From alpha = 0, where eps - eps_W is 0 and x0
        their common mean, alpha_t x0 + R_t eps."""
        ends = np.stack(np.broadcast_arrays(self._wide(s.alpha), self._wide(s.sigma), 0.0 * self.mean), axis=1)
        with np.errstate(invalid="ignore"):
            step = self.ratio(s, t)[:, None] * ends + self.total(s, t)[:, None] * self.columns(sch, s.t)
            step[:, 2] += self.offset(s, t)
        limit = np.stack(np.broadcast_arrays(self._wide(t.alpha), self._spread(t), 0.0 * self.mean), axis=1)
        return np.where(self._wide(s.alpha)[:, None] > 0, step, limit)

    def _spread(self, at: Nodes) -> Array:
        """R = sqrt(alpha^2 c + sigma^2), the standard deviation of the Gaussian's states."""
        return np.hypot(self._wide(at.alpha) * np.sqrt(self.variance), self._wide(at.sigma))

    def _fall(self, s: Nodes, t: Nodes) -> Array:
        """``v_s^2 - v_t^2``."""
        return self._wide(-np.expm1(2 * (s.lam - t.lam)) * (s.sigma / s.alpha) ** 2)


def _named(basis: Any, event: tuple[int, ...]) -> Basis | None:
    """The basis by its name, of samples of this shape."""
    found = basis_of(basis, len(event))
    if found is not None:
        found.check(event)
    return found


def _numbers(name: str, values: Any) -> Array:
    array = numbers(f"{name} must be numbers", values)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, but holds {array[~np.isfinite(array)].flat[0]}")
    return array
