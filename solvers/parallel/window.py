"""One sample's window of a parallel run: what its calls see, how they follow the model, and how it moves on."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ...kernels import advance, scan
from ...kernels.devices import in_float64
from ..arrays import Array, Mask
from ..denoisers.conditions import column
from .plan import Pair, Plan, resting_pair
from .settings import Picard

SLOWEST = 0.9  # contraction that estimates reckon with at most: at roundoff changes no longer shrink
UNKNOWN = 0.5  # that of a node that has been swept once, if no other is known to contract faster
ROUNDOFFS = 4  # changes of so many are noise, of which no slope is made


class Swept(NamedTuple):
    """A sweep of a window: the answers and noises of its calls, how answers follow what calls see, what has come out,
    the squares of its changes and its norms, their ratio, and by how many calls the window can move on."""

    outputs: list[torch.Tensor]
    noises: Sequence[torch.Tensor]
    slopes: torch.Tensor
    new: torch.Tensor
    squares: Array
    scales: Array
    moved: Array
    stride: int


class PicardWindow:
    """The calls from ``first`` on of one sample. ``nodes[k]`` is what call ``first + k + 1`` is thought to see, or the
    result. ``slots`` are those before call ``first``: accepted.

    how: the `Picard` settings. cost: evaluations of each call. record: whether the answers that calls were carried out
    with are kept.
    """

    def __init__(
        self, plan: Plan, x: torch.Tensor, how: Picard, cost: Sequence[int] = (), *, record: bool = False
    ) -> None:
        self.plan, self.how, self.size, self.cost = plan, how, how.window or len(plan), cost or [1] * len(plan)
        self.first, self.rounds, self.nfe = 0, 0, 0
        self.slots = plan.start(x)
        self.nodes = x.new_empty((0, *x.shape), dtype=plan.seen)
        a, s = resting_pair(plan.alpha[0], plan.sigma[0])[:, 0].tolist()
        self.ahead: Pair = a * self.slots[:1], s * self.slots[:1]  # at the last call that is known
        # Of the last sweep: the answers, how much what the calls see has changed since, and the squares of that and of
        # what they see; and the relative change of what each call makes.
        self.answers, self.dx, self.squares = list[torch.Tensor](), self.slots[:0], np.empty((2, 0))
        self.moved = np.full(len(plan), np.nan)
        self.change = np.zeros(len(plan))
        self.distance = 0.0
        self.kept: list[list[torch.Tensor]] | None = [] if record else None

    def __len__(self) -> int:
        left = self.plan.lowered.asks[self.first :]
        alone = left and not left[0] and len(self.dx) < 2  # no node is known, and no model needed to know the next
        return min(1 if alone else self.size, len(left))

    @property
    def calls(self) -> slice:
        return slice(self.first, self.first + len(self))

    @property
    def asks(self) -> bool:
        """Whether one of the calls asks the model."""
        return any(self.plan.lowered.asks[self.calls])

    @property
    def state(self) -> torch.Tensor:
        """After the last call."""
        return self.slots[0]

    def see(self, noises: Sequence[torch.Tensor]) -> torch.Tensor:
        """What the calls see, (W, ...); ``noises`` (W, 1, ...) are theirs."""
        self.rounds -= not self.asks  # the sweep that follows asks nothing
        first = self.slots[int(self.plan.recurrence.at[self.first])].to(self.plan.seen)
        if known := len(self.nodes):
            if known < len(self):
                self.nodes = torch.cat([self.nodes, self._guessed(known, self.nodes[-1], noises)])
        else:
            self.nodes = self._guessed(0, first, noises)
        return torch.cat([first, self.nodes[:-1, 0]])

    def _guessed(self, known: int, last: torch.Tensor, noises: Sequence[torch.Tensor]) -> torch.Tensor:
        """The nodes from the number ``known`` on, ``last`` being the one before. Noise goes in by a sweep in which x0
        is the guess's."""
        plan, calls = self.plan, slice(self.first + known, self.calls.stop)
        ends = slice(calls.start + 1, calls.stop + 1)
        if self.how.init == "constant":
            return last.repeat(calls.stop - calls.start, *[1] * last.ndim)
        x0, eps = self.ahead
        nodes = (column(plan.alpha[ends], x0) * x0 + column(plan.sigma[ends], x0) * eps).to(plan.seen)
        if not noises:
            return nodes
        n, wide = calls.start, last.to(plan.wide)
        answers = column(plan.answer[calls, 0], x0) * x0 + column(plan.answer[calls, 1], x0) * eps
        answers[0] += plan.frozen[n] * (wide - plan.alpha[n] * x0[0] - plan.sigma[n] * eps[0])
        slots = plan.slots_of(n, (x0[0], eps[0]))
        slots[plan.seen_slots[n]] = wide
        slopes = column(plan.frozen[calls], x0).reshape(-1, 1)
        new, _ = scan(
            slots, [answers] * plan.recurrence.models, nodes, plan.recurrence, first=n,
            noises=[z[known:] for z in noises], slopes=slopes,
        )  # fmt: skip
        return new

    def sweep(self, outputs: Sequence[torch.Tensor], noises: Sequence[torch.Tensor]) -> bool:
        """Carry out the calls with the model's answers (W, ...), and move on past what has converged. False, and
        nothing is done, where the first answer is not finite; later ones are not used, and their nodes made anew."""
        swept = self.swept(outputs, noises)
        if swept is not None:
            self.move(swept, swept.stride)
        return swept is not None

    def swept(self, outputs: Sequence[torch.Tensor], noises: Sequence[torch.Tensor]) -> "Swept | None":
        """What the calls make of the model's answers; None where the first is not finite."""
        plan, first, size = self.plan, self.first, len(self)
        self.rounds, self.nfe = self.rounds + 1, self.nfe + sum(self.cost[self.calls])
        slopes = torch.from_numpy(self._slopes(outputs)[:, None]).to(self.slots.dtype).to(self.slots.device)
        outputs = [x.unsqueeze(1) for x in outputs]
        new, squared = scan(self.slots, outputs, self.nodes, plan.recurrence, first=first, noises=noises, slopes=slopes)
        squares, scales = torch.stack([squared[:, 0], norms(new)]).cpu().numpy()
        if not np.isfinite(squares).all():
            size = leading(np.logical_and.reduce([x.isfinite().flatten(1).all(1).cpu().numpy() for x in outputs]))
            if not size:
                return None
            squares, scales, new = squares[:size], scales[:size], new[:size]
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = np.where(squares > 0, np.sqrt(squares) / scales, squares)
        stride = min(leading(moved <= self.how.tol) + 1, size)
        return Swept(outputs, noises, slopes, new, squares, scales, moved, stride)

    def move(self, swept: "Swept", stride: int) -> None:
        """Move on by ``stride`` calls, at most those that have converged."""
        plan, first, old = self.plan, self.first, self.nodes
        outputs, noises, slopes, new, squares, scales, moved, _ = swept
        finite, size = max(leading(np.isfinite(squares)), stride), len(new)
        change = new[:finite].to(plan.wide) - old[:finite].to(plan.wide)
        if min(first + stride + self.size, len(plan)) > first + finite:  # there will be nodes that nothing is known of
            at = int(plan.recurrence.at[first])
            before = new[finite - 2 : finite - 1] if finite > 1 else self.slots[at : at + 1].to(plan.seen)
            last = self._followed(outputs, slopes, change, finite - 1, finite)
            self.ahead = plan.pair_of(first + finite - 1, before, last)
        passed = self._followed(outputs, slopes, change, 0, stride)
        advance(self.slots, passed, plan.recurrence, first=first, noises=[z[:stride] for z in noises], out=self.slots)
        if self.kept is not None:
            self.kept.append(passed)
        self._certify(moved, stride)
        self.first += stride
        self.nodes, self.answers = new[stride:finite], [x[stride:size, 0] for x in outputs]
        self.dx, self.squares = change[stride - 1 :], np.stack([squares, scales**2])[:, stride - 1 : finite]

    def fail(self) -> None:
        """Give up: the sample is not finite from here on."""
        self.slots = torch.full_like(self.slots, math.nan)
        if self.kept is not None:
            left = self.slots[:1].expand(len(self.plan) - self.first, *self.slots.shape[1:])
            self.kept.append([left] * self.plan.recurrence.models)
        self.first, self.distance = len(self.plan), math.nan

    def _followed(
        self, outputs: Sequence[torch.Tensor], slopes: torch.Tensor, change: torch.Tensor, begin: int, end: int
    ) -> list[torch.Tensor]:
        """The answers of the calls from ``begin`` to ``end`` as `scan` has used them: each follows what it sees."""
        given, known = [x[begin:end].to(self.plan.wide, copy=True) for x in outputs], max(begin, 1)
        if end > known:
            by = slopes.reshape(-1, *[1] * (change.ndim - 1))[known:end] * change[known - 1 : end - 1]
            for x in given:
                x[known - begin :] += by
        return given

    def _slopes(self, outputs: Sequence[torch.Tensor]) -> Array:
        """(W,): how each answer is taken to follow what the call sees: so that x0 stays if nothing is known of it.

        The secant along the line of a node's last two values: the diagonal of Broyden's method, node by node."""
        plan, calls = self.plan, self.calls
        slopes, n = plan.frozen[calls].copy(), min([self.squares.shape[1], *map(len, self.answers)])
        if self.how.accelerate and n:
            wide = ([x[:n].to(plan.wide) for x in answers] for answers in (outputs, self.answers))
            change = sum(new - old for new, old in zip(*wide, strict=True))
            dx, dy = in_float64(self.dx[:n].flatten(1)), in_float64(change.reshape(n, -1))
            along = torch.linalg.vecdot(dx, dy).cpu().numpy()
            square, scale = self.squares[:, :n]
            known = square > (ROUNDOFFS * torch.finfo(plan.seen).eps) ** 2 * scale
            along = along / (len(outputs) * np.where(known, square, 1.0))
            slopes[:n] = np.where(known, along.clip(*plan.slopes[:, calls.start : calls.start + n]), slopes[:n])
        return slopes

    def _certify(self, moved: Array, stride: int) -> None:
        last = self.moved[self.first : self.first + len(moved)].copy()
        self.moved[self.first : self.first + len(moved)] = moved
        self.change[self.first + 1 : self.first + stride] = given = moved[: stride - 1]
        known = last > 0
        ratio = np.divide(moved, last, out=np.zeros_like(moved), where=known)
        ratio[~np.isfinite(last)] = min(UNKNOWN, ratio[known].max(initial=0.0)) if known.any() else UNKNOWN
        rest = np.minimum(ratio, SLOWEST)[: stride - 1]
        self.distance += float(np.max(given * rest / (1 - rest), initial=0.0))


def leading(flags: Mask) -> int:
    """How many flags come before the first that is False."""
    return int(np.logical_and.accumulate(flags).sum())


def norms(nodes: torch.Tensor) -> torch.Tensor:
    """The norm of each row of (W, 1, ...), fp64 (W,): in fp32 squares overflow beyond 1e19."""
    return torch.linalg.vector_norm(in_float64(nodes.flatten(1)), dim=1)
