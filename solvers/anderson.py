"""Anderson acceleration in triangular form: what a window makes of its last few sweeps."""

import numpy as np
import torch

PAST = 2  # sweeps that are mixed with the last one
FURTHEST = 0.5  # how far past the last sweep, in parts of the way that it has gone since
RIDGE = 1e-10  # of the trace


class Anderson:
    """Mixes the nodes of a window with those of its last few sweeps, as Tang et al. (2024, ParaTAA, section 3.2): the
    least-squares coefficients of a node are of the residuals of nodes up to it. So nodes behind do not disturb those
    before, on which alone they depend.

    What a sweep makes of the first node after those accepted is not mixed at all: it is right.
    """

    def __init__(self) -> None:
        self.past: list[tuple[int, torch.Tensor, torch.Tensor]] = []  # call of the first row, residuals, nodes

    def mix(self, first: int, residuals: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
        """Better nodes (W, 1, ...), whose row k is of call ``first + k``, than those that a sweep has made, given by
        how much it has changed them: ``nodes - mixed`` of the last time. Rows that past sweeps have not are left."""
        past = [(r[first - at :], y[first - at :]) for at, r, y in self.past]
        self.past = [(first, residuals, nodes), *self.past[: PAST - 1]]
        known = min([len(nodes), *(len(r) for r, _ in past)]) if past else 0
        if not known:
            return nodes
        now, new = residuals[:known].flatten(1), nodes[:known].flatten(1).to(residuals.dtype)
        change = torch.stack([now - r[:known].flatten(1) for r, _ in past], 1)
        moved = torch.stack([new - y[:known].flatten(1) for _, y in past], 1)
        products = change @ torch.stack([now, *change.unbind(1)], 2)  # (W, past, 1 + past)
        weights = torch.linalg.vecdot(new, new)
        gamma = coefficients((products / weights[:, None, None]).double().cpu().numpy())
        mixed = new - (torch.from_numpy(gamma).to(moved)[:, None] @ moved)[:, 0]
        return torch.cat([mixed.reshape(nodes[:known].shape).to(nodes.dtype), nodes[known:]])


def coefficients(products: np.ndarray) -> np.ndarray:
    """(W, m): for every node k the gamma that minimises ``sum_(j <= k) |r_j - sum_i gamma_i dr_ij|^2``, of the inner
    products (W, m, 1 + m) of the m changes dr_ij with the residual r_j and with each other.

    The minimum is looked for where it goes on, at most by `FURTHEST`, and not back: far from the solution, where a
    sample has not found its mode, residuals that grow would call it back to where it came from.
    """
    sums = np.cumsum(products, axis=0)
    gram, right = sums[:, :, 1:], sums[:, :, 0]
    ridge = RIDGE * np.trace(gram, axis1=1, axis2=2) + np.finfo(np.float64).tiny
    gamma = np.linalg.solve(gram + ridge[:, None, None] * np.eye(gram.shape[1]), right[:, :, None])[:, :, 0]
    total = gamma.sum(axis=1, keepdims=True)
    inside = np.where(total > 0, 0.0, FURTHEST / np.maximum(-total, FURTHEST))
    return np.where(np.isfinite(total), gamma * inside, 0.0)
