"""What the field ships under the name of an Adams method: other weights than the exact integrals.

A step of an Adams method needs the moments ``M_k = mu_t int theta^k dE`` of the fraction theta of the step. Most
formulas below change M_1 or M_2; "equal" does without moments.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from .quadrature import lagrange, rule

Change = Callable[[Array, Array], Array]  # (moments (n, K), the kernel at the end times h (n,)) -> moments


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


@dataclass(frozen=True)
class Formula:
    """values: the order of the methods that have it, None for all. most: their order of convergence, at most."""

    change: Change | None
    values: int | None = None
    most: int = 64


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
}


def equal_weights(past: int, ahead: int) -> Array:
    """The classical weights on equal steps, (past + 1,), newest first, of Adams-Bashforth (``ahead`` = 0) or
    Adams-Moulton (1): with the gauge's total for the step they are iPNDM (Zhang and Chen 2023, 4.2)."""
    x, w = rule(1.0)
    weights: Array = lagrange(ahead - np.arange(past + 1.0)[None], x[None])[0] @ w
    return weights


def shipped_weights(moments: Array, theta: Array) -> Array:
    """All weights but the newest, (n, J - 1): of the polynomials through the fractions ``theta`` (n, J) of the step."""
    monomials = theta[:, None, :] ** np.arange(theta.shape[1])[:, None]  # l_j(theta) = sum_k c_jk theta^k
    older: Array = np.array(np.linalg.solve(monomials, moments[:, :, None])[:, 1:, 0])
    return older


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
