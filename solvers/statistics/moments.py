"""The mean and the variance of the data, as a denoiser knows them: what `Wiener.from_denoiser` is made of.

With y = x / alpha and v = sigma / alpha, the denoiser of a Gaussian is ``x0(y) = m + k (y - m)``, k = c / (c + v^2).
Any denoiser is close to that of the Gaussian of its data's moments where v is large: what it has of the third moment
is of the order (c / v^2)^2. So m is ``(mean of x0 - k y_0) / (1 - k)``, of pairs of y on both sides of y_0, far out;
and c is ``v^2 k / (1 - k)``, k being the mean of the diagonal of dx0 / dy, measured by random signs s, as s (J s).

A coordinate of small variance has a small k far out, which is lost in what the others add to s (J s). So c is measured
at a ladder of levels, from the largest scale of the data down, and taken at the first one where k stands out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..arrays import Array
from ..bases import Basis, to_coordinates, to_samples
from ..denoisers.denoiser import Denoiser, check_denoiser, device_of, per_sample_times
from ..planners.checks import count
from ..products import Product, best_product
from ..runs.normals import randn
from .statistics import span_of

FAR, NEAR = 10.0, 4.0  # v of the mean, and of the first variance, in units of the data's largest scale
TRIES, SAME = 8, 1.25  # until the scale is found to this factor
LEVELS = 10  # of v, each half the one before
CLEAR = 0.4  # relative standard error of k that will do
TINY = 1e-12  # of the largest variance: one that counts as none
MOST = 0.999  # k of what is no denoiser


def moments_of(
    den: Denoiser,
    event_shape: Sequence[int],
    basis: Basis | None = None,
    *,
    points: int = 16,
    rounds: int = 16,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: Any = None,
) -> tuple[Array, Array]:
    """Mean and variance of each coordinate, float64 of the event's shape.

    basis:  whose coordinates; None for the elements. On Gaussian data that are independent there, both are exact.
    points: how many states the denoiser sees at once; one with conditions sees one for each of their rows.
    rounds: how many such batches are averaged at each level, of some ten: a mean costs two evaluations of each, a
            variance one with a tangent. Where forward-mode differentiation fails, differences are taken.
    seed:   of the states and the signs. dtype: of x, see `Denoiser`. device: by default that of the model.

    In coordinates that are strongly correlated, as pixels of images are, the diagonal stands out from the rest only
    for many points and rounds: take the DCT. Raises TypeError for other objects, ValueError for numbers below 1, shapes
    that do not fit, and a denoiser whose answers are not finite.
    """
    check_denoiser(den)
    event = tuple(count("event_shape", n) for n in event_shape)
    count("rounds", rounds)
    like = torch.empty(count("points", points), 0, dtype=dtype, device=device or device_of(den.model))
    with torch.no_grad():
        return _Measured(den, event, basis, like, rounds, seed).moments()


class _Measured:
    def __init__(
        self, den: Denoiser, event: tuple[int, ...], basis: Basis | None, like: torch.Tensor, rounds: int, seed: int
    ) -> None:
        self.den, self.basis, self.rounds, self.seed = den, basis, rounds, seed
        self.shape, self.wide = (len(like), *event), den.state_dtype(like)
        self.device, self.delta = like.device, torch.finfo(den.dtype(like)).eps ** (1 / 3)
        low, high = span_of(den.schedule)
        self.least, self.most = float(np.exp(-high)), float(np.exp(-low))
        self.product: Product | None = None
        self.m, self.c = (torch.full(event, value, dtype=self.wide, device=self.device) for value in (0.0, 1.0))

    def moments(self) -> tuple[Array, Array]:
        scale = 1.0
        for _ in range(TRIES):
            self.mean(FAR * scale)
            v, k, _, whole = self.slopes(NEAR * scale)
            before, scale = scale, _std(v, whole) or scale
            self.c = _variance(v, k)
            if max(scale / before, before / scale) < SAME:
                break
        self.ladder(NEAR * scale)
        self.mean(FAR * scale)
        return self.m.double().cpu().numpy(), self.c.double().cpu().numpy()

    def mean(self, v: float) -> None:
        """m of the mean answer at pairs of states, by the c that is known."""
        v, times = self._level(v)
        total = torch.zeros_like(self.m)
        for r in range(self.rounds):
            away = torch.sqrt(self.c + v * v) * self._normals(r)
            total += sum(self._x0(self.m + sign * away, times).mean(0) for sign in (1, -1)) / (2 * self.rounds)
        k = self.c / (self.c + v * v)
        self.m = (total - k * self.m) / (1 - k)
        if not bool(torch.isfinite(self.m).all()):
            raise ValueError(f"the denoiser's x0 is not finite at t = {float(times[0]):.6g}, sigma / alpha = {v:.4g}")

    def slopes(self, v: float) -> tuple[float, torch.Tensor, torch.Tensor, float]:
        """v, the diagonal k of dx0 / dy there with its standard error, and the trace of its square over the trace: the
        k of the largest scale."""
        v, times = self._level(v)
        one, two, square = torch.zeros_like(self.m), torch.zeros_like(self.m), 0.0
        for r in range(self.rounds):
            y = self.m + torch.sqrt(self.c + v * v) * self._normals(r)
            signs = torch.where(self._normals(self.rounds + r) < 0, -1.0, 1.0).to(self.wide)
            if self.product is None:
                self.product = best_product(self._x0, y, times, signs, self.delta)
            slope = self.product(y, times, signs)[1]
            one += (signs * slope).mean(0) / self.rounds
            two += slope.square().mean(0) / self.rounds
            square += float(slope.square().mean()) / self.rounds
        error = torch.sqrt((two - one.square()).clamp(min=0) / (self.rounds * self.shape[0]))
        return v, one, error, square / max(float(one.mean()), 1e-300)

    def ladder(self, v: float) -> None:
        """c of the first level at which it is clear, or of the clearest."""
        found, best, least = torch.zeros_like(self.c), torch.full_like(self.c, torch.inf), TINY * (v / NEAR) ** 2
        for _ in range(LEVELS):
            v, k, error, _ = self.slopes(v)
            doubt = torch.where(v * v * (k.abs() + error) > least, error / k.clamp(min=1e-300), 0.0).clamp(
                max=torch.finfo(self.wide).max
            )
            better = (best > CLEAR) & (doubt < best)
            found, best = torch.where(better, _variance(v, k), found), torch.where(better, doubt, best)
            if bool((best <= CLEAR).all()) or v <= self.least:
                break
            v /= 2
        self.c = found

    def _level(self, v: float) -> tuple[float, torch.Tensor]:
        """The level next to v that the network knows, and the times of a batch there."""
        sch = self.den.schedule
        t = float(sch.time(-np.log(np.clip(v, self.least, self.most))))
        t = float(np.round(t)) if self.den.time == "index" else t
        times = per_sample_times(t, torch.empty(self.shape[0], device=self.device))
        return float(sch.sigma(t)) / float(sch.alpha(t)), times

    def _x0(self, y: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        x = float(self.den.schedule.alpha(float(times[0]))) * to_samples(self.basis, y)
        return to_coordinates(self.basis, self.den.x0(x, times))

    def _normals(self, n: int) -> torch.Tensor:
        return randn(self.shape, seed=self.seed + n, dtype=self.wide, device=self.device)


def _variance(v: float, k: torch.Tensor) -> torch.Tensor:
    k = k.clamp(0.0, MOST)
    return v * v * k / (1 - k)


def _std(v: float, k: float) -> float:
    k = min(max(k, 0.0), MOST)
    return float(v * np.sqrt(k / (1 - k)))
