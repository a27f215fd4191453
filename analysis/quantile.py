"""The map between two one-dimensional Gaussian mixtures that keeps the quantile, far into tails and gaps."""

import math

import numpy as np

from ..solvers.schedules.roots import increasing_root


def same_quantile(
    x: np.ndarray,
    weights: np.ndarray,
    source: tuple[np.ndarray, np.ndarray],
    target: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """For states x (N,) of the mixture `source`, those of `target` with the same distribution function F.

    Both are (means (K,), widths (K,)) with the same weights (K,); float64. Let A be the mass that the
    components right of x have below it and B the mass that the others have above it: F is A - B plus a
    constant. To solve A_t - B_t = A_s - B_s =: H as log(A_t + max(-H, 0)) = log(B_t + max(H, 0)) cancels
    nothing, neither in the tails nor in the gaps between components, where F and 1 - F round to constants.
    """
    from scipy.special import log_ndtr  # a quarter of a second, for those who need it

    (m_s, r_s), (m, r) = source, target
    z_s = (x[:, None] - m_s) / r_s
    below = z_s > 0  # which components lie below x, so count into B
    with np.errstate(divide="ignore"):  # log(0) = -inf for weights of 0, one side empty, and H = 0
        log_w = np.log(weights)

        def log_sums(terms: np.ndarray) -> list[np.ndarray]:
            return [np.logaddexp.reduce(np.where(side, log_w + terms, -np.inf), axis=1) for side in (~below, below)]

        a_s, b_s = log_sums(log_ndtr(-abs(z_s)))
        log_h = np.maximum(a_s, b_s) + np.log(-np.expm1(-abs(a_s - b_s)))
        to_a, to_b = np.where(a_s < b_s, log_h, -np.inf), np.where(a_s < b_s, -np.inf, log_h)

        def mismatch(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            z = (y[:, None] - m) / r
            a, b = log_sums(log_ndtr(np.where(below, -z, z)))
            da, db = log_sums(-z * z / 2 - np.log(math.sqrt(2 * math.pi) * r))
            a, b = np.logaddexp(a, to_a), np.logaddexp(b, to_b)
            return a - b, np.exp(da - a) + np.exp(db - b)

        alone = m + r * z_s  # where each component on its own would take x; all together end up in between
        return increasing_root(mismatch, alone.min(axis=1), alone.max(axis=1), np)
