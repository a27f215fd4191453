"""DPM-Solver-v3 (Zheng et al. 2023; book 9.7 with its errata): a gauge of statistics that a denoiser was measured by.

With y = x / alpha, u = e^-lam eps and an l, s and f of lam, by element, the PF-ODE is

    dy/dlam = -u = -l y - F,        F = u - l y = f + e^(int s) N.

So l y and f are integrated exactly, and N = e^(-int s) (F - f) is interpolated. The published l = E[sigma deps/dx]
leaves an F that depends on x as little as possible; s and b, the least squares of dF/dlam on s F + b along the paths,
an N that hardly moves. f is the mean of F, for which b = f' - s f: a table of f needs no derivative, and Gaussian data,
where F = f, are exact. l = 0, s = -1, f = 0 leaves N = eps, and l = 1, s = 0, f = 0 leaves N = -x0.
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import torch

from ..arrays import Array
from ..denoisers.denoiser import Denoiser
from ..denoisers.recognise import check_fingerprint, check_levels, levels
from ..grids.grids import WINDOW
from ..planners.curves import Curve, chebyshev_nodes, integrals
from ..planners.gauge import Nodes, OdeGauge, chunks
from ..planners.quadrature import rule
from ..planners.stochasticity import NONE, Stochasticity
from ..schedules.base import Schedule, check_schedule
from ..values import Value

FORMAT = "logsnr statistics 1"
ARRAYS = ("l", "s", "f", "levels", "fingerprint")
SLACK = 1e-6  # by which times may leave the span: a rounding to float32


@dataclass(frozen=True, eq=False)
class Statistics(Value, OdeGauge):
    """Statistics of a denoiser, made by `logsnr.calibrate`; ``logsnr.solver("dpm-v3-3", statistics=...)`` runs on them.

    l, s, f:     float64 (K, *event), at the K `nodes` of ``span``; numbers and arrays that broadcast to it are taken.
    span:        lam from the noisy to the clean end. Steps to and from infinite lam are DDIM's.
    schedule:    its name, and ``levels``, (n, 3): t, alpha and sigma, by which it is recognised.
    fingerprint: what the denoiser answers to fixed noise; empty for statistics that go with any.
    points:      how many points of data they are means of.

    Raises ValueError for arrays that do not fit, that hold less than 2 nodes or
    numbers that are not finite.
    """

    schedule: str
    levels: Array
    span: tuple[float, float]
    l: Array  # noqa: E741
    s: Array
    f: Array
    fingerprint: Array = field(default_factory=lambda: np.zeros(0))
    points: int = 0
    eta: Stochasticity = field(default=NONE, kw_only=True)
    event: tuple[int, ...] = field(init=False, repr=False)  # type: ignore[misc]
    known: Any = field(init=False, repr=False)  # denoisers that were recognised
    _l: Curve = field(init=False, repr=False)
    _s: Curve = field(init=False, repr=False)
    _f: Curve = field(init=False, repr=False)
    constant = True

    def __post_init__(self) -> None:
        put = object.__setattr__
        super().__post_init__()
        try:
            tables = np.broadcast_arrays(*(np.asarray(part, dtype=np.float64) for part in (self.l, self.s, self.f)))
        except (TypeError, ValueError):
            raise ValueError("l, s and f must be numbers of shapes (K, ...) that fit") from None
        if tables[0].ndim < 1 or len(tables[0]) < 2 or not np.isfinite(tables).all():
            raise ValueError(f"l, s and f must be finite and have at least 2 nodes, (K, ...), not {tables[0].shape}")
        if not self.span[0] < self.span[1]:
            raise ValueError(f"span must go from a lower lam to a higher one, not be {self.span}")
        for name, values in zip(ARRAYS, (*tables, self.levels, self.fingerprint), strict=True):
            array = np.array(values, dtype=np.float64)
            array.setflags(write=False)
            put(self, name, array)
        for name in ("l", "s", "f"):
            put(self, f"_{name}", Curve(self.span, getattr(self, name)))
        put(self, "event", self.l.shape[1:])
        put(self, "known", WeakSet())

    @classmethod
    def constant_in_lam(cls, schedule: Schedule, l: Any, s: Any, f: Any) -> "Statistics":  # noqa: E741
        """Of numbers or arrays of a sample's shape, the same at all lam, for any denoiser on ``schedule``."""
        check_schedule(schedule)
        l, s, f = (np.stack([part, part]) for part in np.broadcast_arrays(l, s, f))  # noqa: E741
        return cls(str(schedule), levels(schedule), span_of(schedule), l, s, f)

    def __reduce__(self) -> tuple[Any, ...]:
        parts = self.schedule, self.levels, self.span, self.l, self.s, self.f, self.fingerprint, self.points
        return Statistics, parts

    def __repr__(self) -> str:
        return f"Statistics{self.event}"

    @cached_property
    def key(self) -> tuple[Any, ...]:
        return self.span, self.l.shape, *(getattr(self, name).tobytes() for name in ARRAYS)

    @property
    def nodes(self) -> Array:
        """The lam, (K,), of the rows of l, s and f."""
        return chebyshev_nodes(self.span, len(self.l))

    @property
    def b(self) -> Array:
        """The b of the paper, f' - s f."""
        return self._f.slope(self.nodes) - self.s * self.f

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: the tables in float64, and in its metadata all the rest."""
        from safetensors.numpy import save_file

        told = {"format": FORMAT, "schedule": self.schedule, "span": json.dumps(self.span), "points": str(self.points)}
        save_file({name: np.ascontiguousarray(getattr(self, name)) for name in ARRAYS}, str(path), metadata=told)

    @classmethod
    def load(cls, path: str | Path) -> "Statistics":
        """What `save` has written. Raises ValueError for other files, and OSError where there is none."""
        arrays, told = read_tensors(path)
        if told.get("format") != FORMAT or sorted(arrays) != sorted(ARRAYS):
            raise ValueError(f"{path} holds no statistics of logsnr: its format is {told.get('format')!r:.60}")
        try:
            low, high = map(float, json.loads(told["span"]))
            known, l, s, f, answers = (arrays[name] for name in ("levels", "l", "s", "f", "fingerprint"))  # noqa: E741
            return cls(told["schedule"], known, (low, high), l, s, f, answers, int(told["points"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no statistics of logsnr: {error}") from None

    def check(self, den: Denoiser, x: torch.Tensor) -> None:
        if tuple(x.shape[1:]) != self.event and self.event:
            raise ValueError(f"these statistics are of samples of shape {self.event}, not {tuple(x.shape[1:])} as of x")
        check_levels(self.levels, self.schedule, den.schedule)
        if self.fingerprint.size and den not in self.known:
            check_fingerprint(self.fingerprint, den, x, self.span)
            self.known.add(den)

    def columns(self, sch: Schedule, t: Array) -> Array:
        check_levels(self.levels, self.schedule, sch)
        at = Nodes.at(sch, t)
        lam = np.where(np.isfinite(at.lam), at.lam, self.span[1])  # steps from or to there do not ask
        self._inside(lam)
        l, v = self._l.at(lam), self._wide(np.exp(-lam))  # noqa: E741
        parts = np.stack([-l, (1 - l) * v, -self._f.at(lam)], axis=np.ndim(t))
        return parts * np.expand_dims(np.exp(-self._s.integral(lam)), np.ndim(t))

    def ratio(self, s: Nodes, t: Nodes) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            start, end = self._l.integral(np.stack([s.lam, t.lam]))
            return self._wide(t.alpha / s.alpha) * np.exp(start - end)

    def rate(self, left: Array, t: Nodes) -> Array:
        end = t.lam[:, None]
        l, s = integrals([self._l, self._s], np.concatenate([end - left, end], axis=1))  # noqa: E741
        return -self._wide(t.alpha)[:, None] * np.exp(l[:, :-1] - l[:, -1:] + s[:, :-1])

    def total(self, s: Nodes, t: Nodes) -> Array:
        return self.integrate("lam", None, s, t, lambda u: np.ones((len(u), 1, u.shape[1])))[:, 0]  # type: ignore[arg-type]

    def offset(self, s: Nodes, t: Nodes) -> Array:
        """``-alpha_t int e^(-int l) f dlam``."""
        span = t.lam - s.lam
        inside = np.isfinite(span)
        x, w = rule(float(np.abs(span[inside]).max(initial=0.0)))
        result, finite = np.zeros((len(span), *self.event)), np.flatnonzero(inside)
        for some in chunks(len(finite), len(x) * prod(self.event)):
            n = finite[some]
            lam, end = s.lam[n, None] + span[n, None] * x, t.lam[n, None]
            l = self._l.integral(np.concatenate([lam, end], axis=1))  # noqa: E741
            values = np.exp(l[:, :-1] - l[:, -1:]) * self._f.at(lam)
            result[n] = self._wide(-t.alpha[n] * span[n]) * np.tensordot(values, w, (1, 0))
        return result

    def leap(self, sch: Schedule, s: Nodes, t: Nodes) -> Array:
        return np.stack(np.broadcast_arrays(self._wide(t.alpha), self._wide(t.sigma), np.zeros(self.event)), axis=1)

    def _inside(self, lam: Array) -> None:
        low, high = self.span
        if (wrong := lam[(lam < low - SLACK * (1 + abs(low))) | (lam > high + SLACK * (1 + abs(high)))]).size:
            raise ValueError(
                f"these statistics reach from lam = {low:.6g} to {high:.6g}, but a step is at {wrong.flat[0]:.6g}: "
                "calibrate with t_start and t_end, or choose a grid inside"
            )


def span_of(sch: Schedule, t_start: float | None = None, t_end: float | None = None) -> tuple[float, float]:
    """The lam between which a schedule's networks are asked, at most from -7 to 7 where it does not end itself."""
    start = sch.t_start if t_start is None else t_start
    end = (sch.t_end if sch.last_level is None else sch.last_level) if t_end is None else t_end
    low, high = float(sch.half_logsnr(start)), float(sch.half_logsnr(end))
    return max(low, -WINDOW) if low == -np.inf else low, WINDOW if high == np.inf else high


def read_tensors(path: str | Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and metadata of a safetensors file. Raises ValueError for other files, and OSError where there is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from None
