"""What a fit knows of how the ends of a table move with its numbers: by gradients, or by differences."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch

from .noises import Noises
from .numbers import Rows
from .run import Field, ends_of

ELEMENTS = 1 << 20  # of differences that are taken at once: what is larger leaves the caches
RECORDED = 1 << 16  # elements of states whose gradients are recorded at once
FEWEST, EACH = 4, 5  # random directions for each sample, and in all for each number
# Steps of differences, by the model's dtype: the sum over many samples and elements averages what is rounded.
NUDGE = {torch.float64: 1e-7, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}
AGREE = 0.2  # by which gradients may differ from differences


class Normal(NamedTuple):
    """Of residuals that are weighted as `Noises.weights` say: the squares (P, P) of their derivatives, and those times
    the residuals (P,)."""

    squares: torch.Tensor
    gradient: torch.Tensor


class Derivatives(Protocol):
    """How the ends move with the numbers of a table; name: in words."""

    name: str

    def few(self, elements: int, numbers: int) -> int:
        """Samples of so many elements that are taken at once."""

    def normal(self, f: Field, noises: Noises, table: Rows, slopes: Rows) -> Normal:
        """The sum over the noises. slopes: those of the table, last dimension P."""


@dataclass(frozen=True)
class Differences:
    """Along every number, one call for each that it touches. A number's tangent begins at the first row that has it, so
    half of them meet no model, and those of the last row none at all. nudge: the size of the steps, in the state and in
    lam."""

    nudge: float = NUDGE[torch.float64]
    name = "differences"

    def few(self, elements: int, numbers: int) -> int:
        return ELEMENTS // (elements * numbers)

    def normal(self, f: Field, noises: Noises, table: Rows, slopes: Rows) -> Normal:
        end, moved = self.tangents(f, noises.u, table, slopes)
        weight = noises.weights(noises.errors(end))
        weight = torch.where(torch.isfinite(moved.flatten(2)).all(2).all(0), weight, 0.0)
        shaped = _each(weight, end)
        j, r = (moved * shaped).nan_to_num().flatten(1), ((end - noises.end) * shaped).nan_to_num().flatten()
        return Normal(j @ j.T, j @ r)

    def tangents(self, f: Field, u: torch.Tensor, table: Rows, slopes: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """The end (B, ...) and its derivatives (P, B, ...)."""
        states, answers = ends_of(f, u, table)
        size, moved_answers = slopes.matrix.shape[-1], list[torch.Tensor]()
        moved, active = u.new_zeros(size, *u.shape), torch.zeros(size, dtype=torch.bool, device=u.device)
        for i, turned in enumerate(slopes.matrix):
            row = table.row(i)
            if i:
                active = active | (slopes.lam[i] != 0) | (slopes.told[i] != 0)
            at = states[i], table.lam[i], table.told[i]
            moved_answers.append(torch.zeros_like(moved))
            for k in active.nonzero()[:, 0].tolist():
                along = moved[k], slopes.lam[i][k], slopes.told[i][k]
                moved_answers[i][k] = difference(f, at, along, answers[i], self.nudge)
            moved = row[0] * moved + _outer(turned[0], states[i], table.labels)
            for j, other in enumerate(moved_answers):
                moved += _outer(turned[j + 1], answers[j], table.labels) + row[j + 1] * other
            active = active | (turned != 0).flatten(0, -2).any(0)
        return states[-1], moved


@dataclass(frozen=True)
class Gradients:
    """Those of what a few random directions see of every end, which cost a backward pass each, however many numbers a
    table has: the squares are right in the mean. What they are multiplied with is exact, by a direction of its own.
    signs: how many directions; at least as many as a sample has elements: each of those, and the squares are exact.
    once: whether a graph of the model can be gone back through once only, as those of compiled models."""

    signs: int
    once: bool = False
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))
    name = "gradients"

    @classmethod
    def enough(cls, numbers: int, samples: int, once: bool = False) -> "Gradients":
        """For a table with so many numbers, and so many samples in all."""
        return cls(max(FEWEST, math.ceil(EACH * numbers / samples)), once)

    def few(self, elements: int, numbers: int) -> int:
        return RECORDED * FEWEST // (elements * max(FEWEST, self.signs))

    def normal(self, f: Field, noises: Noises, table: Rows, slopes: Rows) -> Normal:
        states, answers = ends_of(f, noises.u, table)
        end = states.pop()
        shaped = _each(noises.weights(noises.errors(end)), end)
        along = self.directions(end) * shaped
        residual = ((end - noises.end) * shaped * shaped).nan_to_num()
        seen = self.pulled(f, states, answers, table, slopes, torch.cat([along, residual[None]])).nan_to_num()
        j = seen[:-1].flatten(0, 1)
        return Normal(j.T @ j, seen[-1].sum(0))

    def directions(self, end: torch.Tensor) -> torch.Tensor:
        """(S, B, ...), whose products with themselves are the identity, in the mean."""
        if self.signs >= (size := end[0].numel()):
            each = torch.eye(size, dtype=end.dtype, device=end.device).reshape(size, 1, *end.shape[1:])
            return each.expand(-1, len(end), *end.shape[1:])
        signs = torch.randint(0, 2, (self.signs, *end.shape), generator=self.generator, device="cpu").to(end)
        return (2 * signs - 1) / math.sqrt(self.signs)

    def pulled(
        self, f: Field, states: list[torch.Tensor], answers: list[torch.Tensor], table: Rows, slopes: Rows,
        adjoint: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """The products (S, B, P) of the end's derivatives with directions (S, B, ...). states: those of the calls.

        The adjoint goes back from row to row. Each answer is asked for once more, now with its graph, so that only
        one call's is kept.
        """
        waiting = [torch.zeros_like(adjoint) for _ in answers]
        found = adjoint.new_zeros(*adjoint.shape[:2], slopes.matrix.shape[-1])
        for i in reversed(range(len(answers))):
            row, turned = table.row(i), slopes.matrix[i]
            found += _along(adjoint * states[i], turned[0], table.labels)
            for j in range(i + 1):
                found += _along(adjoint * answers[j], turned[j + 1], table.labels)
                waiting[j] += row[j + 1] * adjoint
            if i:  # where a run starts, nothing moves
                moved, *levels = pulled_back(f, (states[i], table.lam[i], table.told[i]), waiting.pop(), self.once)
                for by_level, by_number in zip(levels, (slopes.lam[i], slopes.told[i]), strict=True):
                    found += by_level[..., None] * by_number
                adjoint = row[0] * adjoint + moved
        return found


def difference(f: Field, at: Any, along: Any, answer: torch.Tensor, nudge: float) -> torch.Tensor:
    """The derivative of N along a direction of the state and the two levels. answer: N there."""
    size = nudge / max(float(along[0].square().mean().sqrt()), *(abs(float(c)) for c in along[1:]), 1e-30)
    return (f(*(a + size * c for a, c in zip(at, along, strict=True))) - answer) / size


def pulled_back(f: Field, at: Any, adjoint: torch.Tensor, once: bool) -> list[torch.Tensor]:
    """The products of N's derivatives by the state, by the node and by the level that is told with directions
    (S, B, ...): (S, B, ...), and (S, B) twice. once: of `Gradients`."""
    u, *levels = at
    with torch.enable_grad():
        inputs = [u.detach().requires_grad_(), *(level.expand(len(u)).clone().requires_grad_() for level in levels)]
        found, answer = [], f(*inputs)
        for k, along in enumerate(adjoint):
            answer = f(*inputs) if once and k else answer
            kept = not once and k + 1 < len(adjoint)
            parts = torch.autograd.grad(answer, inputs, along, retain_graph=kept, allow_unused=True)
            found.append([torch.zeros_like(x) if part is None else part for x, part in zip(inputs, parts, strict=True)])
    return [torch.stack(same) for same in zip(*found, strict=True)]


@torch.no_grad()
def has_gradients(f: Field, u: torch.Tensor, lam: float, nudge: float, once: bool = False) -> bool:
    """Whether N has gradients that agree with central differences, by the state and by lam, on a few states u
    (B, ...). once: of `Gradients`."""
    level = torch.tensor(lam, dtype=torch.float64, device=u.device)
    at, still = (u, level, level), tuple(map(torch.zeros_like, (u, level, level)))
    ones = tuple(map(torch.ones_like, at))
    wanted = []
    for along in ((ones[0], *still[1:]), (still[0], *ones[1:])):
        before = [x - nudge / 2 * c for x, c in zip(at, along, strict=True)]
        wanted.append(difference(f, before, along, f(*before), nudge))
    squares = torch.stack([slope.flatten(1).square().sum(1) for slope in wanted])
    try:
        by_state, *by_level = pulled_back(f, at, torch.stack(wanted), once)
    except Exception:  # whatever a model does that gradients cannot follow
        return False
    found = torch.stack([by_state[0].flatten(1).sum(1), torch.stack(by_level).sum(0)[1]])
    return bool(((found - squares).norm(dim=1) <= AGREE * squares.norm(dim=1) + 1e-12 * u.square().sum()).all())


def _each(by_sample: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(B,) as what samples (B, ...) are multiplied with."""
    return by_sample.reshape(-1, *[1] * (x.dim() - 1))


def _outer(by_number: torch.Tensor, x: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    """(P, B, ...), of x (B, ...) and numbers (P,), or (G, P) for the groups that elements are of."""
    if labels is None:
        return by_number.reshape(-1, *[1] * x.dim()) * x
    return by_number.T[:, labels].unsqueeze(1) * x


def _along(x: torch.Tensor, by_number: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    """(S, B, P), of x (S, B, ...) and numbers (P,), or (G, P) for the groups that elements are of."""
    if labels is None:
        return x.flatten(2).sum(2)[..., None] * by_number
    sums = x.new_zeros(*x.shape[:2], len(by_number)).index_add(2, labels.flatten(), x.flatten(2))
    return sums @ by_number
