"""How much noise a sampler adds: eta(lam) of the reverse SDEs that all have the marginals of the PF-ODE.

For every eta >= 0 the SDE, run from noise to data in lam,

    d(x / sigma) = x0 de^lam - eta^2 (x / sigma - e^lam x0) dlam + sqrt(2) eta dW

has the same marginals (Huang et al. 2021; book Prop. 6.4.1): eta = 0 is the PF-ODE, eta = 1 the reverse SDE.
With E(lam) = int eta^2 dlam it is linear but for x0, d(e^E x / sigma) = x0 de^(lam + E) + dB on the clock e^(2 E).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array
from .checks import number
from .quadrature import rule

MOST = 1e150  # its square is still finite


class Stochasticity(ABC):
    """eta as a function of lam; elementwise on float64 arrays. False where there is no noise at all."""

    @property
    def edges(self) -> tuple[float, ...]:
        """The lam between which it is smooth."""
        return ()

    @abstractmethod
    def squared(self, lam: Array) -> Array:
        """eta^2 at the values of lam."""

    @abstractmethod
    def integral(self, s: Array, t: Array, rate: float = 0.0) -> Array:
        """``int_s^t eta^2 e^(rate (t - lam)) dlam`` between two lam, s <= t; with the rate 0 they may be infinite."""

    def energy(self, s: Array, t: Array) -> Array:
        """E(t) - E(s)."""
        return self.integral(s, t)


@dataclass(frozen=True)
class Window(Stochasticity):
    """eta inside ``low <= lam <= high``, 0 outside."""

    eta: float
    low: float = -np.inf
    high: float = np.inf

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= MOST:
            raise ValueError(
                f"eta = {self.eta} is not a number of at least 0 and at most {MOST:g}: 0 is the ODE, 1 the SDE"
            )
        if not self.low < self.high:
            raise ValueError(f"the window of eta must have low < high, not {self.low} and {self.high}")

    def __bool__(self) -> bool:
        return self.eta > 0

    @property
    def edges(self) -> tuple[float, ...]:
        return tuple(edge for edge in (self.low, self.high) if self.eta and np.isfinite(edge))

    def squared(self, lam: Array) -> Array:
        return np.where((self.low <= lam) & (lam <= self.high), self.eta**2, 0.0)

    def integral(self, s: Array, t: Array, rate: float = 0.0) -> Array:
        a, b = np.clip(s, self.low, self.high), np.clip(t, self.low, self.high)
        with np.errstate(invalid="ignore", over="ignore"):
            length = np.where(a == b, 0.0, b - a)  # both may be infinite: no part of the step is in the window
            if rate == 0.0:
                return np.where(length > 0, self.eta**2 * length, 0.0) if self.eta else np.zeros_like(length)
            return self.eta**2 * np.exp(rate * (t - b)) * np.expm1(rate * length) / rate


@dataclass(frozen=True)
class Smooth(Stochasticity):
    """Any smooth eta(lam), a function of float64 arrays; integrated by quadrature, to the last bit if it is analytic.

    Its value at -inf decides what a step from alpha = 0 does: if positive, that step forgets its noise entirely.
    """

    function: Callable[[Array], Any]

    def squared(self, lam: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            eta = np.asarray(self.function(lam), dtype=np.float64)
        if eta.shape != np.shape(lam):
            raise ValueError(f"eta must map arrays of lam to arrays of their shape, not {np.shape(lam)} to {eta.shape}")
        wrong = ~(eta >= 0) | (np.isinf(eta) & np.isfinite(lam))
        if wrong.any():
            raise ValueError(f"eta({lam[wrong][0]:.6g}) = {eta[wrong][0]} is not a number of at least 0")
        return eta * eta

    def integral(self, s: Array, t: Array, rate: float = 0.0) -> Array:
        s, t = np.broadcast_arrays(np.asarray(s, dtype=np.float64), t)
        endless = ~np.isfinite(t - s)
        left = np.where(endless, 0.0, t - s)
        x, w = rule(float(left.max(initial=0.0)))
        lam = np.where(endless, 0.0, t)[..., None] - left[..., None] * x
        total = np.asarray(left * (self.squared(lam) * np.exp(rate * left[..., None] * x) @ w))
        if endless.any():
            end = np.where(np.isinf(s), s, t)[endless]
            total[endless] = np.where(self.squared(end) > 0, np.inf, 0.0)
        return total


@dataclass(frozen=True)
class Unknown(Stochasticity):
    """eta of a program that was read from JSON, which cannot hold a function of the user's."""

    def squared(self, lam: Array) -> Array:
        raise ValueError(
            "this program does not know its eta, a function that JSON cannot hold; leave out brownian=True"
        )

    def integral(self, s: Array, t: Array, rate: float = 0.0) -> Array:
        return self.squared(s)


NONE = Window(0.0)


class WithEta:
    """Planners that have a field ``eta``."""

    eta: Any

    @property
    def stochastic(self) -> bool:
        return bool(self.eta)


def stochasticity(eta: float | Callable[[Array], Any] | Stochasticity) -> Stochasticity:
    """From what a user gives: a number, a function of lam (float64 arrays in, arrays out), or an object.

    Raises ValueError for what is none of these, and for negative numbers and those above `MOST`.
    """
    if isinstance(eta, Stochasticity):
        return eta
    if callable(eta):
        return Smooth(eta)
    what = f"a number of at least 0 (the ODE; 1: the reverse SDE) and at most {MOST:g}, or a function of lam"
    return Window(number("eta", eta, 0.0, MOST, what))


def er_sde(lam: Array) -> Array:
    """eta of ER-SDE-Solver's default noise scale phi(s) = s (e^(s^0.3) + 10), s = sigma / alpha (Cui et al. 2023):
    s e^-E is phi up to a constant, so eta^2 = s d/ds log(phi / s)."""
    power = np.exp(-0.3 * lam)
    return np.sqrt(0.3 * power / (1 + 10 * np.exp(-power)))


def eta_to_json(eta: Stochasticity | None) -> Any:
    """``eta`` as JSON: null, a window as [eta, low, high] with null for infinite ends, or the name of a function."""
    if isinstance(eta, Window):
        return [eta.eta, *(edge if np.isfinite(edge) else None for edge in (eta.low, eta.high))]
    if eta is None:
        return None
    return "er-sde" if eta == Smooth(er_sde) else "function"


def eta_from_json(value: Any) -> Stochasticity | None:
    """The inverse of `eta_to_json`; ValueError for other values."""
    if value is None or value in ("er-sde", "function"):
        return {None: None, "er-sde": Smooth(er_sde), "function": Unknown()}[value]
    said = f"eta must be null, 'er-sde', 'function' or [eta, low, high], not {value!r:.60}"
    if not isinstance(value, list) or len(value) != 3 or not all(u is None or type(u) in (int, float) for u in value):
        raise ValueError(said)
    try:
        eta, low, high = (d if u is None else float(u) for u, d in zip(value, (np.nan, -np.inf, np.inf), strict=True))
    except OverflowError:  # an int of hundreds of digits
        raise ValueError(said) from None
    return Window(eta, low, high)
