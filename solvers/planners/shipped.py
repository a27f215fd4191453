"""What the field ships under the name of an Adams method: other weights than the exact integrals.

A step of an Adams method needs the moments ``M_k = mu_t int theta^k dE`` of the fraction theta of the step. Most
formulas below change M_1 or M_2; "equal" does without moments, and those of ComfyUI have weights of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array
from .gauge import Gauge, Nodes, chunks
from .quadrature import lagrange, rule

Change = Callable[[Array, Array], Array]  # (moments (n, K), the kernel at the end times h (n,)) -> moments
# (gauge, nodes of the grid, steps (n,), past) -> the past + 1 weights of each step, newest first
Weights = Callable[[Gauge, Nodes, Any, int], Array]


def _half(moments: Array, kernel: Array) -> Array:
    """M_1 = M_0 / 2 where two values are interpolated: DPM-Solver++(2M) as published (Lu et al. 2022b, Algorithm 2;
    book Algorithm 7), and UniPC with B(h) = e^h - 1."""
    return moments * [1, 0] + np.outer(moments[:, 0], [0, 0.5]) if moments.shape[1] == 2 else moments


def _half_kernel(moments: Array, kernel: Array) -> Array:
    """M_1 = h / 2 of the kernel at the end, where two values are interpolated: UniPC with B(h) = h."""
    return moments * [1, 0] + np.outer(kernel, [0, 0.5]) if moments.shape[1] == 2 else moments


def _half_second(moments: Array, kernel: Array) -> Array:
    """ "3M" as all libraries ship it: the second difference, which is half a second derivative, meets the weight of a
    second derivative."""
    return moments * np.array([1, 1, 0.5])[: moments.shape[1]]


def _half_both(moments: Array, kernel: Array) -> Array:
    """The same, begun by "2M" as published: of DPM-Solver++'s authors and of diffusers. k-diffusion's begins with the
    exact one."""
    return _half_second(_half(moments, kernel), kernel)


# The schedule in whose time ComfyUI's and diff-sampler's DEIS interpolates, whatever the model: 1 / alpha^2 = e^B with
# B = BETA_D t^2 / 2 + BETA_MIN t, which has sigma / alpha = 0.002 at t = 0.001 and 80 at t = 1, taken in fp32.
_LOW, _HIGH = (float(np.log(np.float32(rho) ** 2 + np.float32(1))) for rho in (0.002, 80.0))
BETA_D = 2 * (_LOW / 1e-3 - _HIGH) / (1e-3 - 1)
BETA_MIN = _HIGH - BETA_D / 2


def _sum_in_time(gauge: Gauge, at: Nodes, steps: Any, past: int, points: int = 10_000) -> Array:
    """DEIS in t: eps as a polynomial in the time of that schedule, summed over 10^4 points, both ends among them, which
    has the weights right to 1e-4, and the result to 1e-5 h^2."""
    time = (np.sqrt(BETA_MIN**2 + 2 * BETA_D * np.log1p(at.variable("rho") ** 2)) - BETA_MIN) / BETA_D
    parts = [_in_time(time, steps[some], past, points) for some in chunks(len(steps), (past + 1) * points)]
    return at.alpha[steps + 1, None] * np.concatenate(parts)


def _in_time(time: Array, steps: Any, past: int, points: int) -> Array:
    length = (time[steps + 1] - time[steps])[:, None]
    tau = time[steps, None] + length * np.linspace(0, 1, points)
    growth = np.expm1(tau * (BETA_D * tau / 2 + BETA_MIN))  # rho^2
    slope = (BETA_D * tau + BETA_MIN) * (growth + 1) / (2 * np.sqrt(growth))
    basis = lagrange(time[steps[:, None] - np.arange(past + 1)], tau)
    return np.einsum("nq,njq->nj", slope, basis) * length / points


def _sum_in_rho(gauge: Gauge, at: Nodes, steps: Any, past: int, points: int = 200) -> Array:
    """ER-SDE: x0 by a Taylor series in rho = sigma / alpha at the start of the step, with integrals as sums over 200
    points, the end of the step among them (VP ER-SDE-Solver, Cui et al. 2023, Algorithm 5 and its code)."""
    rho, s, t = at.variable("rho"), at[steps], at[steps + 1]
    here, gone = rho[steps], rho[steps + 1] - rho[steps]
    x = rho[steps + 1, None] - gone[:, None] * np.arange(points) / points
    kernel = rho[steps + 1, None] / x * np.exp(-gauge.eta.energy(-np.log(x), t.lam[:, None])) * -gone[:, None] / points
    weights = np.zeros((len(steps), past + 1))
    weights[:, 0] = gauge.total(s, t)
    if past:
        slope = np.zeros((3, 2, len(steps)))  # the divided differences of the last values, and of those before
        for k in range(min(past, 2)):
            slope[k, k], slope[k + 1, k] = (sign / (rho[steps - k] - rho[steps - k - 1]) for sign in (1, -1))
        weights += (t.alpha * (gone + kernel.sum(axis=1)) * slope[: past + 1, 0]).T
    if past > 1:
        bend = (slope[:, 0] - slope[:, 1]) * 2 / (here - rho[steps - 2])
        weights += (t.alpha * (gone**2 / 2 + ((x - here[:, None]) * kernel).sum(axis=1)) * bend).T
    return weights


def _variable_steps(gauge: Gauge, at: Nodes, steps: Any, past: int) -> Array:
    """iPNDM for variable steps of rho, as diff-sampler has it: Adams-Bashforth's of two values, and with slips of three
    and four, whose weights agree on equal steps alone and, of four, do not add up to 1 on others."""
    rho, back = at.variable("rho"), steps[:, None] - np.arange(past + 1) + 1
    h, h1, h2, h3 = (*(rho[back] - rho[back - 1]).T, *np.ones((3, len(steps))))[:4]
    second, third = (past > 1) * 0.5, float(past > 2)
    second = second * (1 - h * h / (3 * h1 * (h1 + h2)))
    share = (1 - h / (3 * (h + h1))) / 2 + (1 - h / (2 * (h + h1))) * h / (6 * (h + h1 + h2))
    third = third * share * h * (h + h1) * (h + h1 + h2) / (h1 * (h1 + h2) * (h1 + h2 + h3))
    r, b = h1 / h2, h1 * (h1 + h2) / (h2 * (h2 + h3))
    shares = [
        1 + h / (2 * h1) + second + third,
        -h / (2 * h1) - (1 + r) * second - (1 + r + b) * third,
        r * second + (r + b * (1 + h2 / h3)) * third,
        -b * r * third,
    ]
    return np.stack(shares[: past + 1], axis=1) * gauge.total(at[steps], at[steps + 1])[:, None]


@dataclass(frozen=True)
class Formula:
    """values: the order of the methods that have it, None for all. most: their order of convergence, at most. weights:
    of methods that have their own where there are past values; there are none for more than ``up_to`` values, nor of
    correctors."""

    change: Change | None
    values: int | None = None
    most: int = 64
    weights: Weights | None = None
    up_to: int = 8


# DPM-Solver-v3: each derivative from as few values as it needs, which leaves order 2 ("pseudo-order"). By
# name, whether of the predictor, 0, and of the corrector, 1.
PSEUDO = {"pseudo": (0, 1), "pseudo-corrector": (1,)}

# UniPC solves for its weights, which gives the exact ones, but for two values, where it takes 1/2 (Zhao et al. 2023,
# Appendix F): B(h) then is in the result.
SHIPPED = {
    "simplified": Formula(_half, 2, 2),
    "halved": Formula(_half_second, 3, 2),
    "both-halved": Formula(_half_both, 3, 2),
    "bh1": Formula(_half_kernel),
    "bh2": Formula(_half),
    "equal": Formula(None, most=2),
    "sum-in-time": Formula(None, most=3, weights=_sum_in_time),
    "sum-in-rho": Formula(None, most=1, weights=_sum_in_rho, up_to=3),
    "variable-steps": Formula(None, most=2, weights=_variable_steps, up_to=4),
}


def equal_weights(past: int, ahead: int) -> Array:
    """The classical weights on equal steps, (past + 1,), newest first, of Adams-Bashforth (``ahead`` = 0) or
    Adams-Moulton (1): with the gauge's total for the step they are iPNDM (Zhang and Chen 2023, 4.2)."""
    x, w = rule(1.0)
    return lagrange(ahead - np.arange(past + 1.0)[None], x[None])[0] @ w


def shipped_weights(moments: Array, theta: Array) -> Array:
    """All weights but the newest, (n, J - 1): of the polynomials through the fractions ``theta`` (n, J) of the step."""
    monomials = theta[:, None, :] ** np.arange(theta.shape[1])[:, None]  # l_j(theta) = sum_k c_jk theta^k
    return np.array(np.linalg.solve(monomials, moments[:, :, None])[:, 1:, 0])


def pseudo_weights(theta: Array, moments: Array, ahead: int) -> Array:
    """The weights of ``sum_k D_k theta^k`` with D_k the divided difference of the first k + 1 values: from the start of
    the step on, the corrector's second value being that at its end."""
    weights, order = np.zeros_like(moments), np.arange(theta.shape[1])
    order[: 1 + ahead] = order[: 1 + ahead][::-1]
    for k in range(theta.shape[1]):
        for j in order[: k + 1]:
            others = np.array([i for i in order[: k + 1] if i != j], dtype=int)
            share = 1 / np.prod(theta[:, [j]] - theta[:, others], axis=1)
            weights[:, j] += moments[:, k] * share.reshape(-1, *[1] * (moments.ndim - 2))
    return weights
