"""Measure the statistics of a denoiser for DPM-Solver-v3, on data with noise.

At every node of lam all points of data are noised, x = alpha x0 + sigma eps, always by the same eps: what is measured
is then smooth in lam, though it is a mean of few points. l is the mean of the diagonal of sigma deps/dx (Hutchinson:
v (J v) for signs v, by forward-mode differentiation); s needs w, the derivative of u = e^-lam eps along the path, which
is a difference of two evaluations, for networks that know only some times. All else are means of products of u,
y = x / alpha and w.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..arrays import Array
from ..denoisers.answers import check_state
from ..denoisers.complex_states import of_parts, to_parts
from ..denoisers.conditions import Conditions, tensors
from ..denoisers.denoiser import Denoiser, check_denoiser, per_sample_times
from ..denoisers.recognise import fingerprint, levels
from ..planners.checks import count, flag
from ..planners.curves import Curve, Span, chebyshev_nodes
from ..products import Product, best_product
from ..runs.normals import randn
from ..runs.watching import Bar
from .statistics import Statistics, read_tensors, span_of

FEWEST = 256  # points
EVERY = 3  # s, which needs no such accuracy, is measured at every third node
DENSITY = 12  # nodes for each unit of lam: a Gaussian's l, with poles i pi/2 from the axis, is then known to 1e-13
TINY = 1e-8  # variance of F, in units of those of u and l y, that counts as none: s is 0 there
SHARE = 0.05  # of a unit of lam, by which the times differ that networks of integer times are asked at
MEANS = 9  # of l, u, y, uu, uy, yy, w, uw, yw


def calibrate(
    den: Denoiser,
    x0: torch.Tensor,
    *,
    t_start: float | None = None,
    t_end: float | None = None,
    nodes: int | None = None,
    batch: int = 256,
    seed: int = 0,
    file: str | Path | None = None,
    progress: bool = False,
) -> Statistics:
    """The statistics of ``den`` on data ``x0``, (N, *event) with N >= 256, by element; of complex data by part,
    (*event, 2), as their runs are. Conditions of ``den`` have a row for each point; statistics are then means over
    them, and go with any denoiser.

    t_start, t_end: where to measure; by default where the schedule's solves start and end, up to |lam| = 7. nodes: how
    many lam, by default 12 for each unit, made up to 3 k + 1. A node costs one evaluation of each point with a tangent,
              about 3 without, and every third one two more.
    batch:    points that the network sees at once. The result depends on it by rounding only.
    seed:     of the noise and of the signs.
    file:     where to keep what is done: a calibration that was interrupted goes on from there, and one that was
              finished is read.
    progress: show a bar.

    Where forward-mode differentiation fails, or disagrees with differences, differences are taken. Raises ValueError
    for too few points and arguments that do not fit, for a file of other settings, and where the model is not finite;
    TypeError for other objects.
    """
    _check(den, x0, nodes, batch, progress)
    if x0.is_complex():
        den, x0 = of_parts(den, x0), to_parts(x0).contiguous()
    x0 = x0.detach().to(den.state_dtype(x0))
    span = span_of(den.schedule, t_start, t_end)
    if not span[0] < span[1]:
        raise ValueError(f"t_start and t_end must go from noise to data, but lam goes from {span[0]} to {span[1]}")
    wanted = nodes or max(8, int(np.ceil(DENSITY * (span[1] - span[0]))))
    lam = chebyshev_nodes(span, 1 + EVERY * -((1 - wanted) // EVERY))
    den.asking([], len(x0))  # conditions of another batch
    with torch.no_grad():
        answers = fingerprint(den, x0, span)
        means = _Means(den, x0, span, seed, batch)
        kept = _Kept(file, lam, x0, den.conditions, seed, answers)
        with Bar(progress, "calibrate, nodes of lam", len(lam)) as bar:
            for n in range(len(kept.done), len(lam)):
                bar.show(n)
                found = means.at(float(lam[n]), n % EVERY == 0)
                if not np.isfinite(found).all():
                    t = float(den.schedule.time(float(lam[n])))
                    raise ValueError(f"the model is not finite at lam = {lam[n]:.6g}, t = {t:.6g}")
                kept.add(found)
            bar.show(len(lam))
    tables = _tables(span, lam, np.stack(kept.done))
    return Statistics(str(den.schedule), levels(den.schedule), span, *tables, answers, len(x0))


def _check(den: Any, x0: Any, nodes: Any, batch: Any, progress: Any) -> None:
    check_denoiser(den)
    check_state(x0, "x0", complex_too=True)
    if len(x0) < FEWEST:
        raise ValueError(f"x0 has {len(x0)} points; statistics need at least {FEWEST} to be worth anything")
    if not bool(torch.isfinite(x0).all()):
        raise ValueError("x0 must be finite")
    if nodes is not None and count("nodes", nodes) < 2:
        raise ValueError(f"nodes = {nodes} must be at least 2")
    count("batch", batch)
    flag("progress", progress)


class _Means:
    """Means over all points at one lam."""

    def __init__(self, den: Denoiser, x0: torch.Tensor, span: tuple[float, float], seed: int, batch: int) -> None:
        self.den, self.x0, self.span, self.batch = den, x0, span, batch
        wide = {"dtype": x0.dtype, "device": x0.device}
        half = randn(((len(x0) + 1) // 2, *x0.shape[1:]), seed=seed, **wide)  # type: ignore[arg-type]
        self.noise = den.spread * torch.cat([half, -half])[: len(x0)]  # in pairs: their mean is 0
        signs = randn(x0.shape, seed=seed + 1, **wide)  # type: ignore[arg-type]
        self.signs = torch.where(signs < 0, -1.0, 1.0).to(x0.dtype)
        bits = torch.finfo(den.dtype(x0)).eps
        self.delta = bits ** (1 / 3)
        self.step = SHARE if den.time == "index" else max(self.delta, 1e-4)
        self.product: Product | None = None
        self.part = den  # whose conditions the network is told

    def at(self, lam: float, moving: bool) -> Array:
        """(9, *event): the means of l, u, y, uu, uy, yy, w, uw, yw, with w = du/dlam along the path if ``moving``; else
        0."""
        total = torch.zeros((MEANS, *self.x0.shape[1:]), dtype=torch.float64)
        for first in range(0, len(self.x0), self.batch):
            part = slice(first, first + self.batch)
            self.part = self.den.of_samples(torch.arange(len(self.x0))[part])
            total += self._sums(lam, moving, self.x0[part], self.noise[part], self.signs[part]).cpu()
        return total.numpy() / len(self.x0)

    def _sums(
        self, lam: float, moving: bool, x0: torch.Tensor, noise: torch.Tensor, signs: torch.Tensor
    ) -> torch.Tensor:
        sch = self.den.schedule
        t, v = float(sch.time(lam)), float(np.exp(-lam))
        alpha, sigma = float(sch.alpha(t)), float(sch.sigma(t))
        y = x0 + v * noise
        times = per_sample_times(t, y)
        if self.product is None:
            self.product = best_product(self._eps, alpha * y, times, signs, self.delta)
        eps, slope = self.product(alpha * y, times, signs)
        u, w = v * eps.double(), torch.zeros_like(y, dtype=torch.float64)
        if moving:
            low, high = np.clip([lam - self.step, lam + self.step], *self.span)
            before, after = (self._moved(y, eps, v, float(to)) for to in (low, high))
            w = (after - before) / (high - low)
        l, y = sigma * (signs * slope).double(), y.double()  # noqa: E741
        return torch.stack([part.sum(0) for part in (l, u, y, u * u, u * y, y * y, w, u * w, y * w)])

    def _moved(self, y: torch.Tensor, eps: torch.Tensor, v: float, lam: float) -> torch.Tensor:
        """u at the lam next to it, on the path."""
        t, moved = float(self.den.schedule.time(lam)), float(np.exp(-lam))
        x = float(self.den.schedule.alpha(t)) * (y + (moved - v) * eps)
        return moved * self._eps(x, t).double()

    def _eps(self, x: torch.Tensor, t: Any) -> torch.Tensor:
        return self.part.eps(x, t)


class _Kept:
    """The means that are done, in memory and in a file."""

    def __init__(
        self, file: str | Path | None, lam: Array, x0: torch.Tensor, conditions: Conditions, seed: int, answers: Array
    ) -> None:
        values = b"".join(y.detach().cpu().double().numpy().tobytes() for y in (x0, *tensors([conditions])))
        data = hashlib.blake2b(values, digest_size=16).hexdigest()
        self.told = {"lam": json.dumps(lam.tolist()), "data": f"{tuple(x0.shape)} {data}", "seed": str(seed)}
        self.file, self.answers, self.done = None if file is None else Path(file), answers, list[Array]()
        if self.file is None or not self.file.exists():
            return
        arrays, told = read_tensors(self.file)
        if other := [name for name in self.told if told.get(name) != self.told[name]]:
            raise ValueError(
                f"{file} holds a calibration with another {' and '.join(other)}: remove it, or name another"
            )
        known = arrays["fingerprint"]
        if known.shape != answers.shape or (np.abs(known - answers) > 1e-3 * np.abs(answers).max(initial=0)).any():
            raise ValueError(f"{file} holds a calibration of another denoiser: remove it, or name another")
        self.done = list(arrays["means"])

    def add(self, means: Array) -> None:
        from safetensors.numpy import save_file

        self.done.append(means)
        if self.file is not None:
            new = self.file.with_name(f"{self.file.name}.new")
            save_file({"means": np.stack(self.done), "fingerprint": self.answers}, str(new), metadata=self.told)
            os.replace(new, self.file)


def _tables(span: Span, lam: Array, means: Array) -> tuple[Array, Array, Array]:
    """l, s and f of the means (K, 9, *event): F = u - l y, dF/dlam = w - l' y + l u, s = cov(F, F') / var(F)."""
    l, u, y = means[:, 0], means[:, 1], means[:, 2]  # noqa: E741
    f, slope = u - l * y, np.gradient(l, lam, axis=0)
    a, da, mean = l[::EVERY], slope[::EVERY], f[::EVERY]
    _, u, y, uu, uy, yy, w, uw, yw = np.moveaxis(means[::EVERY], 1, 0)
    variance = uu - 2 * a * uy + a * a * yy - mean * mean
    product = uw - da * uy + a * uu - a * (yw - da * yy + a * uy) - mean * (w - da * y + a * u)
    s = product / (np.maximum(variance, 0.0) + TINY * (uu + a * a * yy))
    return l, Curve(span, s).at(lam), f
