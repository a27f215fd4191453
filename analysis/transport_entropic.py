"""Entropic transport: Sinkhorn's algorithm between samples, the Schroedinger bridge between Gaussians.

A Schroedinger bridge for the reference dx = sqrt(eps) dw on [0, 1] has the ends of the entropic plan for the cost
|x - y|^2 and the regularisation 2 eps (book 7.3.1, where the factor 2 is missing in Figure 7.3).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from .metrics import _pair, samples
from .problem import parameter, spectrum
from .transport import squared_distances

NEWTON = 5  # iterations from one step of Newton's method to the next
RIDGE = 1e-12  # of the weights, in the Hessian
COARSE = 1e-3  # how right the rows are before eps comes down


@dataclass(frozen=True, eq=False)
class Sinkhorn:
    """An entropic plan between samples.

    plan: (N, M), float64, its columns sum to the weights of y. cost: the sum of plan |x - y|^2. value: that and
    eps KL(plan || a b^T), which is what the plan makes least. error: the sum of what the rows are off their weights.
    iterations: how many it took. converged: whether error is below the tolerance.
    """

    plan: torch.Tensor
    cost: float
    value: float
    error: float
    iterations: int
    converged: bool


def sinkhorn(
    x: Any, y: Any, eps: float, *, a: Any = None, b: Any = None, tol: float = 1e-9, max_iterations: int = 10_000
) -> Sinkhorn:
    """The plan that makes ``sum P |x - y|^2 + eps KL(P || a b^T)`` least (Cuturi 2013; book 7.2.5), in logarithms.

    x, y:  samples (N, ...), (M, ...). a, b: their weights, positive, with sum 1; equal by default.
    eps:   > 0: to 0 the optimal plan, to infinity the product. It comes down by halves from the largest cost, as each
           plan is a good start for the next one.
    tol:   of `Sinkhorn.error`. Where it is not reached in ``max_iterations``, ``converged`` is False.

    One iteration costs N M, and every fifth, by Newton's method, N^2 (N + M). Sinkhorn's steps alone take 1e5 where
    eps is small; with both it is about 100. Raises ValueError for samples, weights and numbers that do not fit.
    """
    one, other = samples(x, y)
    cost = squared_distances(one, other)
    log_a, log_b = (_weights(name, w, n) for name, w, n in (("a", a, len(one)), ("b", b, len(other))))
    for name, number in (("eps", eps), ("tol", tol)):
        if not 0 < number < math.inf:
            raise ValueError(f"{name} = {number!r} must be a positive number")
    if max_iterations < 1:
        raise ValueError(f"max_iterations = {max_iterations!r} must be at least 1")
    f, g, level, error, n = torch.zeros_like(log_a), torch.zeros_like(log_b), max(float(cost.amax()), eps), math.inf, 0
    for n in range(1, max_iterations + 1):
        level = max(level / 2, eps) if error < COARSE else level
        g = _best(f, cost.mT, log_a, level)
        new = _best(g, cost, log_b, level)
        error = float((log_a.exp() * torch.expm1((f - new) / level)).abs().sum())  # the rows of (f, g) by those of new
        if level == eps and error < tol:
            break
        f = new if n % NEWTON else _newton(f, new, cost, log_a, log_b, level)
    log_ratio = (f[:, None] + g - cost) / level
    plan = torch.exp(log_ratio + log_a[:, None] + log_b)
    paid = float((plan * cost).sum())
    return Sinkhorn(plan, paid, paid + level * float((plan * log_ratio).sum()), error, n, level == eps and error < tol)


def _best(other: torch.Tensor, cost: torch.Tensor, log_weights: torch.Tensor, eps: float) -> torch.Tensor:
    """The potential that gives the plan its sums, for the other potential and its weights: a row of ``cost`` each."""
    return -eps * torch.logsumexp((other - cost) / eps + log_weights, 1)


def _newton(
    f: torch.Tensor, new: torch.Tensor, cost: torch.Tensor, log_a: torch.Tensor, log_b: torch.Tensor, eps: float
) -> torch.Tensor:
    """Newton's step of the dual in f, or a part of it, if its rows are nearer to their weights than those of Sinkhorn's
    step, ``new``; else that.

    The Hessian is the Laplacian of a graph of the rows. ``RIDGE`` holds parts that hardly hang together.
    """
    a, b = log_a.exp(), log_b.exp()

    def plan(f: torch.Tensor) -> torch.Tensor:
        return torch.exp((f[:, None] + _best(f, cost.mT, log_a, eps) - cost) / eps + log_a[:, None] + log_b)

    def off(f: torch.Tensor) -> float:
        return float((a - plan(f).sum(1)).abs().sum())

    now = plan(f)
    links = (now / b) @ now.mT
    links.fill_diagonal_(0)
    laplacian = torch.diag(links.sum(1) + RIDGE * a) - links
    factor, failed = torch.linalg.cholesky_ex(laplacian)
    if failed:
        return new
    step, least = eps * torch.cholesky_solve((a - now.sum(1))[:, None], factor).squeeze(1), off(new)
    return next((found for k in range(8) if off(found := f + step / 2**k) < least), new)


def _weights(name: str, given: Any, n: int) -> torch.Tensor:
    """Logarithms of weights (n,); ValueError unless they are a distribution without zeros."""
    if given is None:
        return torch.full((n,), -math.log(n), dtype=torch.float64)
    w = parameter(name, given)
    if w.shape != (n,) or not w.amin() > 0 or abs(float(w.sum()) - 1) > 1e-8:
        raise ValueError(f"{name} must be {n} positive weights with sum 1, not {given!r:.60}")
    return torch.log(w)


@dataclass(frozen=True, eq=False)
class Bridge:
    """The Schroedinger bridge between N(m1, S1) at time 0 and N(m2, S2) at 1, for the reference dx = sqrt(eps) dw.

    All float64; matrices (D, D), for events of D elements in C order. coupling: the covariance of x_0 with x_1.
    """

    m1: torch.Tensor
    m2: torch.Tensor
    S1: torch.Tensor
    S2: torch.Tensor
    eps: float
    coupling: torch.Tensor

    @property
    def joint(self) -> torch.Tensor:
        """The covariance (2 D, 2 D) of both ends."""
        return torch.cat([torch.cat([self.S1, self.coupling], 1), torch.cat([self.coupling.mT, self.S2], 1)])

    @property
    def cost(self) -> float:
        """The mean of |x_1 - x_0|^2."""
        spread = torch.trace(self.S1) + torch.trace(self.S2) - 2 * torch.trace(self.coupling)
        return float((self.m2 - self.m1).square().sum() + spread)

    def marginal(self, time: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean, event-shaped, and covariance of x at ``time`` in [0, 1]."""
        t = _unit(time)
        mixed = (
            t * (1 - t) * (self.coupling + self.coupling.mT + self.eps * torch.eye(len(self.S1), dtype=torch.float64))
        )
        return (1 - t) * self.m1 + t * self.m2, (1 - t) ** 2 * self.S1 + t * t * self.S2 + mixed

    def drift(self, time: float) -> tuple[torch.Tensor, torch.Tensor]:
        """(K, c) with the bridge's ``dx = (K (x - mean) + c) dt + sqrt(eps) dw``, at a ``time`` before 1."""
        t = _unit(time)
        if t == 1:
            raise ValueError("time must be below 1, where the bridge ends")
        end = (1 - t) * self.coupling.mT + t * self.S2  # the covariance of x_1 with x_t
        slope = torch.linalg.solve(self.marginal(t)[1], end, left=False)
        return (slope - torch.eye(len(slope), dtype=torch.float64)) / (1 - t), self.m2 - self.m1


def schroedinger_bridge(m1: Any, S1: Any, m2: Any, S2: Any, eps: float) -> Bridge:
    """The Schroedinger bridge between Gaussians in closed form (Janati et al. 2020; Bunne et al. 2023).

    m1, S1, m2, S2: as for `w2_gaussian`; singular covariances too. eps: > 0, the variance of the reference at time 1.

    ``C = S1^{1/2} g(K) S1^{1/2} S2`` with ``K = S1^{1/2} S2 S1^{1/2}`` and ``g(k) = 2 / (eps + sqrt(eps^2 + 4 k))``: no
    inverse and no difference is taken. Raises ValueError for an eps that is not positive, and what `w2_gaussian`
    raises.
    """
    pair = _pair(m1, S1, m2, S2)
    if not 0 < eps < math.inf:
        raise ValueError(f"eps = {eps!r} must be a positive number; without noise it is gaussian_transport")
    one, other = (S if pair.full else torch.diag(S) for S in pair.covs)
    values, vectors = spectrum("S1", one)
    root = (vectors * values.sqrt()) @ vectors.mT
    inner = root @ other @ root
    k, basis = torch.linalg.eigh((inner + inner.mT) / 2)
    g = (basis * (2 / (eps + torch.sqrt(eps * eps + 4 * k.clamp(min=0))))) @ basis.mT
    return Bridge(parameter("m1", m1), parameter("m2", m2), one, other, float(eps), root @ g @ root @ other)


def _unit(time: float) -> float:
    if not 0 <= time <= 1:
        raise ValueError(f"time = {time!r} must be from 0 to 1")
    return float(time)
