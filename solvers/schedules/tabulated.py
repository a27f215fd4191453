"""A schedule given by numbers: a DDPM-style table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .base import VariancePreserving
from .roots import increasing_root
from .splines import bernstein, binomials, monotone_slopes
from .tables import as_table

ROUNDING = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Discrete(VariancePreserving):
    """A DDPM-style table alphas_cumprod[n] = alpha_n^2 = 1 - sigma_n^2, made continuous; t is the index.

    Between the entries alpha is a polynomial of degree 5, with two continuous derivatives at them (`splines`). It
    decreases strictly for every table, and so does lam; a table that ends in 0 (zero terminal SNR), or below 2^-104,
    whose root is a rounding beside sigma = 1, has alpha exactly 0 there. The entries of a smooth formula are joined
    so smoothly that solvers of order 4 and 5 keep their order down to rounding. A float32 table carries its rounding,
    about 1e-7 / sigma^2 relative in sigma; pass float64 if you have it. One of the usual betas (linear, or linear in
    their roots) is recognised and made again in float64; half precision is refused.

    The first entry still has noise, 0.029 of Stable Diffusion's table. From t = 0 to -1 (sigma / alpha)^2 falls in a
    line to 0, and a solve ends there, as that of other libraries does; the network is asked at t = 0 last.
    ``t_end=0`` leaves the noise of the first entry.

    `alphas_cumprod`: list, array or tensor of shape (N,), N >= 2, strictly decreasing in [0, 1); kept as a
    read-only float64 array. Raises ValueError otherwise. Equal and hashed by the table's bytes.
    """

    alphas_cumprod: np.ndarray
    _fall: torch.Tensor  # -lam at the entries, (N,)
    _values: torch.Tensor  # Bernstein coefficients of alpha and 1 - alpha between them, times binomials, (N - 1, 2, 6)
    _slopes: torch.Tensor  # likewise of -alpha', (N - 1, 5)

    def __init__(self, alphas_cumprod: Sequence[float] | np.ndarray | torch.Tensor) -> None:
        table = as_table(alphas_cumprod)
        _check_table(table)
        table[-1] *= table[-1] > ROUNDING**2
        table.setflags(write=False)
        # Nothing cancels, neither where alpha is close to 1 nor where it is close to 0.
        alpha = np.sqrt(table)
        gap = (1 - table) / (1 + alpha)
        slopes = monotone_slopes((table[:-1] - table[1:]) / (alpha[:-1] + alpha[1:]))
        rises = np.cumsum(slopes[:, :-1], axis=1) / 5
        falls = np.cumsum(slopes[:, :0:-1], axis=1)[:, ::-1] / 5
        values = np.empty((len(slopes), 2, 6))
        values[:, 0] = np.column_stack([alpha[:-1], alpha[1:, None] + falls, alpha[1:]])
        values[:, 1] = np.column_stack([gap[:-1], gap[:-1, None] + rises, gap[1:]])
        with np.errstate(divide="ignore"):
            fall = -np.log(alpha / np.sqrt(1 - table))
        object.__setattr__(self, "alphas_cumprod", table)
        tables = {"_fall": fall, "_values": values * binomials(5), "_slopes": slopes * binomials(4)}
        with torch.inference_mode(False):  # to be differentiated outside it too
            for name, rows in tables.items():
                object.__setattr__(self, name, torch.from_numpy(rows))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Discrete) and self.alphas_cumprod.tobytes() == other.alphas_cumprod.tobytes()

    def __hash__(self) -> int:
        return hash(self.alphas_cumprod.tobytes())

    def __repr__(self) -> str:
        table = self.alphas_cumprod
        return f"Discrete([{table[0]:.6g} ... {table[-1]:.6g}], {len(table)} entries)"

    @property
    def domain(self) -> tuple[float, float]:
        return -1.0, len(self.alphas_cumprod) - 1.0

    @property
    def last_level(self) -> float:
        return 0.0

    def _tail(self, t: Any, xp: Any) -> tuple[Any, Any]:
        """Below the first entry: alpha and sigma / alpha."""
        first = float(self.alphas_cumprod[0])
        rho = xp.sqrt((1 - first) / first * xp.clip(1 + t, 0, 1))
        return 1 / xp.sqrt(1 + rho * rho), rho

    def _segment(self, t: Any, xp: Any) -> tuple[Any, Any]:
        t = xp.clip(t, 0, None)
        k = xp.clip(xp.floor(t), 0, len(self._slopes) - 1)
        return k.astype(np.int64) if xp is np else k.long(), t - k

    def _both(self, k: Any, u: Any, xp: Any) -> tuple[Any, Any]:
        """alpha and 1 - alpha, each to full relative accuracy."""
        both = bernstein(_rows(self._values, u, xp)[k], u[..., None], xp)
        return both[..., 0], both[..., 1]

    def _slope(self, k: Any, u: Any, xp: Any) -> Any:
        return bernstein(_rows(self._slopes, u, xp)[k], u, xp)

    def _alpha(self, t: Any, xp: Any) -> Any:
        return xp.where(t < 0, self._tail(t, xp)[0], self._both(*self._segment(t, xp), xp)[0])

    def _sigma(self, t: Any, xp: Any) -> Any:
        alpha, rho = self._tail(t, xp)
        table_alpha, gap = self._both(*self._segment(t, xp), xp)
        return xp.where(t < 0, alpha * rho, xp.sqrt(gap * (1 + table_alpha)))

    def _dalpha(self, t: Any, xp: Any) -> Any:
        first = float(self.alphas_cumprod[0])
        tail = -(1 - first) / first / 2 * self._tail(t, xp)[0] ** 3
        return xp.where(t < 0, tail, -self._slope(*self._segment(t, xp), xp))

    def _dsigma(self, t: Any, xp: Any) -> Any:
        k, u = self._segment(t, xp)
        alpha, gap = self._both(k, u, xp)
        table = alpha * self._slope(k, u, xp) / xp.sqrt(gap * (1 + alpha))
        first = float(self.alphas_cumprod[0])
        alpha, rho = self._tail(t, xp)
        return xp.where(t < 0, (1 - first) / first / 2 * alpha**3 / rho, table)

    def _time(self, lam: Any, xp: Any) -> Any:
        first = float(self.alphas_cumprod[0])
        tail = xp.exp(-2 * lam) * first / (1 - first) - 1
        return xp.where(tail < 0, tail, self._table_time(lam, xp))

    def _table_time(self, lam: Any, xp: Any) -> Any:
        alpha = 1 / xp.sqrt(1 + xp.exp(-2 * lam))
        gap = 1 / ((1 + xp.exp(2 * lam)) * (1 + alpha))
        k = xp.clip(xp.searchsorted(_rows(self._fall, lam, xp), -lam, side="right") - 1, 0, len(self._slopes) - 1)

        def residual(u: Any) -> tuple[Any, Any]:
            a, g = self._both(k, u, xp)
            return xp.where(gap < alpha, g - gap, alpha - a), self._slope(k, u, xp)  # the smaller one is more exact

        return k + increasing_root(residual, xp.zeros_like(lam), xp.ones_like(lam), xp)


def _rows(table: torch.Tensor, like: Any, xp: Any) -> Any:
    return table.numpy() if xp is np else table.to(like.device)


def _check_table(table: np.ndarray) -> None:
    if table.ndim != 1 or len(table) < 2:
        raise ValueError(f"alphas_cumprod has shape {table.shape}; it must be 1-D with at least 2 entries")
    hint = "; from betas it is numpy.cumprod(1 - betas), from sigmas of a VE model use EDM instead"
    bad = np.flatnonzero(~((table >= 0) & (table < 1)))
    if bad.size:
        raise ValueError(f"alphas_cumprod[{bad[0]}] = {table[bad[0]]} is not in [0, 1){hint}")
    rises = np.flatnonzero(np.diff(table) >= 0)
    if rises.size:
        n = rises[0]
        raise ValueError(
            "alphas_cumprod must decrease strictly, "
            f"but entries {n} and {n + 1} are {table[n]} and {table[n + 1]}{hint}"
        )
