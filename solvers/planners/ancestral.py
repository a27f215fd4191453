"""Ancestral samplers: down to less noise than the next node has, then fresh noise up to it.

Forgetting the share ``f = 1 - e^(-2 h)`` of the noise is what the posterior of the forward process does,

    q(x_t | x_s, x0) = N(alpha_t x0 + sigma_t e^-h eps, sigma_t^2 f),    eps = (x_s - alpha_s x0) / sigma_s

(Ho et al. 2020, eq. 6 and 7, for every schedule; book Lemma 4.4.2). All steps here are written with x0 and eps, which
stays finite where alpha = 0 or sigma = 0.
"""

from dataclasses import dataclass, replace

import numpy as np

from ..arrays import Array
from ..programs.call import STATE, Call, NoiseKey
from ..programs.program import Program
from ..schedules.base import Schedule
from .checks import nonnegative, number
from .gauges import EPS, Gauge, Nodes, as_gauge
from .singlestep import ddim_notes
from .stochasticity import WithEta

LEARNED = "learned"
VARIANCES = {"beta-tilde": 0.0, "beta": 1.0, LEARNED: 0.0}


@dataclass(frozen=True)
class AncestralDDIM(WithEta):
    """DDIM with the noise ``eta sigma_t sqrt(f)`` (Song et al. 2021, eq. 16): from eta = 0, DDIM, to 1, DDPM."""

    eta: float = 1.0
    evaluations = 1
    global_order = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "eta", _share(self.eta))

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at = Nodes.at(schedule, grid)
        s, t = at[:-1], at[1:]
        return _program("ddim-eta", at, _calls(s, t, kept(s, t, self.eta), self.eta * posterior_std(s, t)))


@dataclass(frozen=True)
class DDPM:
    """DDPM's sampler: the posterior's mean, and a noise between its variance and that of the forward step.

    The standard deviation is ``sqrt(f) sigma_t^(1 - v) sigma_s^v``: v = ``variance`` = 0 gives the posterior's
    ("beta-tilde"), 1 the forward step's ("beta"), between them is the interpolation of logarithms of Nichol and
    Dhariwal (2021, eq. 15); "learned" takes v, by element, from a network that returns twice the channels. With
    ``data_variance`` = c it is what makes the covariance of N(m, c I) exact on every grid: the posterior's and that of
    x0 given x_s (Bao et al. 2022, Theorem 1). The last step to sigma = 0 adds no noise.
    """

    variance: float | str = 0.0
    data_variance: float | None = None
    evaluations = 1
    global_order = 1
    stochastic = True

    def __post_init__(self) -> None:
        what = "'beta-tilde', 'beta', 'learned' or a number from 0 (beta-tilde) to 1 (beta)"
        if self.variance != LEARNED:
            given = VARIANCES.get(self.variance, self.variance) if isinstance(self.variance, str) else self.variance
            object.__setattr__(self, "variance", number("variance", given, 0.0, 1.0, what))
        elif self.data_variance is not None:
            raise ValueError("variance = 'learned' and data_variance exclude each other: each says how wide noise is")
        if self.data_variance is not None:
            object.__setattr__(self, "data_variance", nonnegative("data_variance", self.data_variance))

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at = Nodes.at(schedule, grid)
        s, t = at[:-1], at[1:]
        least = 0.0 if self.variance == LEARNED else float(self.variance)
        calls = _calls(s, t, kept(s, t, 1.0), _ddpm_std(s, t, least, self.data_variance))
        if self.variance == LEARNED:
            wider = np.log(s.sigma) - np.log(np.where(t.sigma > 0, t.sigma, s.sigma))
            calls = [replace(call, learned=float(log)) for call, log in zip(calls, wider, strict=True)]
        return _program("ddpm", at, calls)


@dataclass(frozen=True)
class AncestralMidpoint(WithEta):
    """k-diffusion's two-stage ancestral samplers: the exponential midpoint rule in ``gauge`` to less noise than the
    node has, and then the noise of `AncestralDDIM`.

    The step ends at a level of the lam of the node and D more, where ``e^-D`` of the noise at t is kept. Its stage is
    within the step, or at its end for eta = 1. Second order at any eta, as the noise is exact.
    """

    gauge: Gauge | str = EPS
    eta: float = 1.0
    evaluations = 2
    global_order = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "gauge", as_gauge(self.gauge))
        object.__setattr__(self, "eta", _share(self.eta))

    def plan(self, schedule: Schedule, grid: Array) -> Program:
        at, gauge = Nodes.at(schedule, grid), as_gauge(self.gauge)
        s, t = at[:-1], at[1:]
        share, std = kept(s, t, self.eta), self.eta * posterior_std(s, t)
        simple = gauge.breaks(schedule, s, t)
        whole = np.flatnonzero(~simple)
        calls = {n: [call] for n, call in enumerate(_calls(s, t, share, std)) if simple[n]}
        s, t, share, std = s[whole], t[whole], share[whole], std[whole]
        lower = Nodes(t.t, t.alpha, t.sigma * share, t.lam - np.log(share))  # less noise than at t
        mid = Nodes.at(schedule, schedule.time(s.lam + (t.lam - s.lam - np.log(share)) / 2))
        ratio = gauge.ratio(s, lower)
        pair = gauge.columns(schedule, mid.t) * gauge.total(s, lower)[:, None]
        for k, n in enumerate(whole.tolist()):
            start, key = float(s.t[k]), NoiseKey(float(s.t[k]), float(t.t[k]))
            stage = Call(start, (STATE,), (1,), np.array([[mid.alpha[k], mid.sigma[k], 0.0]]))
            row = np.array([[*pair[k], ratio[k], std[k]]])
            calls[n] = [stage, Call(float(mid.t[k]), (STATE,), (STATE,), row, at=1, noises=(key,), node=n + 1)]
        ordered = [call for n in range(len(grid) - 1) for call in calls[n]]
        return _program("midpoint", at, ordered, order=2, notes=ddim_notes(simple, at))


def _share(eta: object) -> float:
    return number("eta", eta, 0.0, 1.0, "a number from 0 (no noise) to 1 (DDPM)")


def ddpm_calls(s: Nodes, t: Nodes) -> list[Call]:
    """DDPM's steps with the forward step's variance; where alpha = 1 the reverse diffusion predictor of Song et al.
    (2021b, eq. 46)."""
    return _calls(s, t, kept(s, t, 1.0), _ddpm_std(s, t, 1.0, None))


def kept(s: Nodes, t: Nodes, eta: float) -> Array:
    """What is kept of the noise: sqrt(1 - eta^2 f), without cancellation for eta = 1."""
    return np.sqrt((1 - eta) * (1 + eta) + eta**2 * np.exp(2 * (s.lam - t.lam)))


def posterior_std(s: Nodes, t: Nodes) -> Array:
    """sigma_t sqrt(f)."""
    return t.sigma * _forgotten(s, t)


def _forgotten(s: Nodes, t: Nodes) -> Array:
    return np.sqrt(-np.expm1(2 * (s.lam - t.lam)))


def _ddpm_std(s: Nodes, t: Nodes, variance: float, data_variance: float | None) -> Array:
    f = _forgotten(s, t)
    if data_variance is None:
        std = f * t.sigma ** (1 - variance) * s.sigma**variance
    else:
        spread = s.sigma * np.sqrt(data_variance) / np.hypot(s.alpha * np.sqrt(data_variance), s.sigma)
        std = np.hypot(f * t.sigma, t.alpha * f**2 * spread)
    return np.where(t.sigma > 0, std, 0.0)


def _calls(s: Nodes, t: Nodes, share: Array, std: Array) -> list[Call]:
    """``x_t = alpha_t x0 + sigma_t share eps + std xi``, one call a step, that reach the nodes 1, 2, ..."""
    rows = np.stack([t.alpha, t.sigma * share, std], axis=1)
    keys = map(NoiseKey, s.t.tolist(), t.t.tolist())
    return [
        Call(key.s, (), (STATE,), row[None], noises=(key,), node=n)
        for n, (key, row) in enumerate(zip(keys, rows, strict=True), start=1)
    ]


def steps_to(name: str, at: Nodes, share: Array, std: Array) -> Program:
    """``x_t = alpha_t x0 + sigma_t share eps + std xi`` from node to node, without an order of convergence."""
    return _program(name, at, _calls(at[:-1], at[1:], share, std), order=0)


def _program(name: str, at: Nodes, calls: list[Call], order: int = 1, notes: tuple[str, ...] = ()) -> Program:
    return Program(name, order, tuple(map(float, at.t)), tuple(calls), notes)
