"""One sample's window of a parallel run: what its calls see, how they follow the model, and how it moves on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..kernels import Recurrence, advance, scan
from .denoiser import Denoiser
from .gauges import Array, Mask
from .heads import Level, from_pair, to_pair
from .lower import Lowered

SLOWEST = 0.9  # contraction that estimates reckon with at most: at roundoff changes no longer shrink
UNKNOWN = 0.5  # that of a node that has been swept once, if no other is known to contract faster
ROUNDOFFS = 4  # changes of so many are noise, of which no slope is made


@dataclass(frozen=True, eq=False)
class Plan:
    """What the windows of all samples share.

    size, tol, secant: of the `Picard`. wide, seen: dtypes of the slots and of what the model sees.
    alpha, sigma: (calls + 1,), when the calls are made and at the end. pair: (calls, 2, 2), what makes (x0, eps) of
    what a call sees and its answer. slopes: (calls, 2), the derivative of the head with respect to x where x0 does not
    follow x, and where it follows as fast as it can before eps turns back: d x0 / dx = 0 and 1 / alpha.
    """

    recurrence: Recurrence
    size: int
    tol: float
    secant: bool
    wide: torch.dtype
    seen: torch.dtype
    alpha: Array
    sigma: Array
    pair: Array
    slopes: torch.Tensor

    @classmethod
    def of(
        cls, lowered: Lowered, rec: Recurrence, den: Denoiser, device: torch.device, size: int, tol: float, secant: bool
    ) -> "Plan":
        times, dtypes = np.array([*lowered.times, lowered.grid[-1]]), lowered.updates.dtypes
        level = Level.at(den.schedule, times)
        with np.errstate(divide="ignore", invalid="ignore"):
            rows = [*to_pair(den.prediction, level), from_pair(den.prediction, level)]
            (a, b), (c, d), (p, q) = (np.broadcast_arrays(*row, times)[:2] for row in rows)
            pair = np.array([[a, b], [c, d]])
            slopes = np.stack([q / level.sigma, p / level.alpha], axis=1)[:-1]
        pair = np.where(np.isfinite(pair).all(axis=(0, 1)), pair, still(level.alpha, level.sigma))
        slopes[~np.isfinite(slopes).all(axis=1)] = 0.0
        on_device = torch.tensor(slopes, dtype=dtypes[0], device=device)
        pair = np.moveaxis(pair, -1, 0)
        return cls(rec, size, tol, secant, dtypes[0], dtypes[-1], level.alpha, level.sigma, pair, on_device)


def still(alpha: Array, sigma: Array) -> Array:
    """(2, 2, ...): (x0, eps) of (x, anything) if v = alpha eps - sigma x0 is 0: noise stays noise, data stays data."""
    zero, norm = np.zeros_like(alpha), alpha**2 + sigma**2
    return np.array([[alpha / norm, zero], [sigma / norm, zero]])


class Window:
    """The calls from ``first`` on of one sample. ``nodes[k]`` is what call ``first + k + 1`` is thought to see, or the
    result. ``slots`` are those before call ``first``: accepted."""

    def __init__(self, plan: Plan, x: torch.Tensor, keep: bool) -> None:
        calls = len(plan.recurrence)
        self.plan, self.first, self.rounds, self.nfe = plan, 0, 0, 0
        self.slots = x.to(plan.wide).repeat(plan.recurrence.slots, *[1] * x.ndim)
        self.nodes = x.new_empty((0, *x.shape), dtype=plan.seen)
        x0, eps = still(plan.alpha[0], plan.sigma[0])[:, 0]
        self.ahead = float(x0) * self.slots[0], float(eps) * self.slots[0]  # the pair that unknown nodes are made of
        self.before: list[torch.Tensor] = []  # what the calls saw in the last sweep, and their answers
        self.moved = np.full(calls, np.nan)  # relative change of what each call makes, in the last sweep
        self.change = np.zeros(calls)
        self.distance = 0.0
        self.kept: list[list[torch.Tensor]] | None = [] if keep else None

    def __len__(self) -> int:
        return min(self.plan.size, len(self.plan.recurrence) - self.first)

    @property
    def calls(self) -> slice:
        return slice(self.first, self.first + len(self))

    @property
    def state(self) -> torch.Tensor:
        """After the last call."""
        return self.slots[0]

    def see(self) -> torch.Tensor:
        """What the calls see, (W, ...); nodes that nothing is known of come from the line of constant (x0, eps)."""
        x0, eps = self.ahead
        missing = slice(self.first + len(self.nodes) + 1, self.calls.stop + 1)
        alpha, sigma = (
            torch.tensor(level[missing], dtype=x0.dtype, device=x0.device).reshape(-1, *[1] * x0.ndim)
            for level in (self.plan.alpha, self.plan.sigma)
        )
        self.nodes = torch.cat([self.nodes, (alpha * x0 + sigma * eps).to(self.plan.seen)])
        first = self.slots[int(self.plan.recurrence.at[self.first])].to(self.plan.seen)
        return torch.cat([first, self.nodes[:-1, 0]])

    def sweep(self, seen: torch.Tensor, outputs: Sequence[torch.Tensor], noises: Sequence[torch.Tensor]) -> bool:
        """Carry out the calls with the model's answers (W, ...), and move on past what has converged. False, and
        nothing is done, where the first answer is not finite; later ones are not used, and their nodes made anew."""
        plan, first = self.plan, self.first
        self.rounds, self.nfe = self.rounds + 1, self.nfe + len(self)
        size = leading(np.logical_and.reduce([host(x.isfinite().flatten(1).all(1)) for x in outputs]))
        if not size:
            return False
        seen, old = seen[:size], self.nodes[:size]
        outputs, noises = [x[:size].unsqueeze(1) for x in outputs], [z[:size] for z in noises]
        slopes = self._slopes(seen, outputs)
        new, squares = scan(self.slots, outputs, old, plan.recurrence, first=first, noises=noises, slopes=slopes)
        changes = np.sqrt(host(squares[:, 0]))
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = np.where(changes > 0, changes / host(norms(new)), changes)
        stride = min(leading(moved <= plan.tol) + 1, size)
        finite = max(leading(np.isfinite(changes)), stride)
        given = [x[:finite].to(plan.wide, copy=True) for x in outputs]
        change = new[: finite - 1].to(plan.wide) - old[: finite - 1].to(plan.wide)
        for x in given:  # as scan has done
            x[1:] += slopes[1:finite].reshape(-1, *[1] * (x.ndim - 1)) * change
        passed = [x[:stride] for x in given]
        advance(self.slots, passed, plan.recurrence, first=first, noises=[z[:stride] for z in noises], out=self.slots)
        if self.kept is not None:
            self.kept.append([x.clone() for x in passed])
        self._certify(moved, stride)
        self.before = [seen[stride:], *(x[stride:, 0] for x in outputs)]
        self.nodes = new[stride:finite]
        last = new[finite - 2, 0] if finite > 1 else seen[0]
        self.ahead = self._pair(first + finite - 1, last, [x[-1, 0] for x in given])
        self.first += stride
        return True

    def _slopes(self, seen: torch.Tensor, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """(W, 1): how each answer is taken to follow what the call sees; 0 for x0 if nothing is known of it.

        The secant along the line of a node's last two values: the diagonal of Broyden's method, node by node."""
        limits = self.plan.slopes[self.first : self.first + len(seen)]
        slopes = limits[:, 0].clone()
        if self.plan.secant and self.before:
            n = min(len(self.before[0]), len(seen))
            now, then = (
                [x[:n].to(self.plan.wide).flatten(1) for x in rows] for rows in ([seen, *outputs], self.before)
            )
            dx, *df = (new - old for new, old in zip(now, then, strict=True))
            square = (dx * dx).sum(1)
            along = (dx * sum(df)).sum(1) / (len(df) * square)
            known = square > (ROUNDOFFS * torch.finfo(seen.dtype).eps) ** 2 * (now[0] * now[0]).sum(1)
            slopes[:n] = torch.where(known, along.clamp(limits[:n].amin(1), limits[:n].amax(1)), slopes[:n])
        return slopes[:, None]

    def _certify(self, moved: Array, stride: int) -> None:
        last = self.moved[self.first : self.first + len(moved)].copy()
        self.moved[self.first : self.first + len(moved)] = moved
        self.change[self.first + 1 : self.first + stride] = given = moved[: stride - 1]
        known = last > 0
        ratio = np.divide(moved, last, out=np.zeros_like(moved), where=known)
        ratio[~np.isfinite(last)] = min(UNKNOWN, ratio[known].max(initial=0.0)) if known.any() else UNKNOWN
        rest = np.minimum(ratio, SLOWEST)[: stride - 1]
        self.distance += float(np.max(given * rest / (1 - rest), initial=0.0))

    def _pair(self, n: int, seen: torch.Tensor, outputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """(x0, eps) at call n; of several answers their mean counts."""
        x, answer = seen.to(self.plan.wide), torch.stack([*outputs]).to(self.plan.wide).mean(0)
        x0, eps = ((float(a) * x + float(b) * answer)[None] for a, b in self.plan.pair[n])
        return x0, eps


def leading(flags: Mask) -> int:
    """How many come before the first that is False."""
    return int(np.logical_and.accumulate(flags).sum())


def host(x: torch.Tensor) -> np.ndarray:
    return x.cpu().numpy()


def norms(rows: torch.Tensor) -> torch.Tensor:
    """Of (W, 1, ...), fp64 (W,)."""
    wide = torch.promote_types(rows.dtype, torch.float32)
    return torch.linalg.vector_norm(rows.flatten(1), dim=1, dtype=wide).double()
