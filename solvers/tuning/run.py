"""A table of `tune` run on a denoiser, with the derivatives of the end by all its numbers."""

from collections.abc import Callable
from typing import Any

import torch

from ..bases import Basis, to_coordinates, to_samples
from ..denoisers.denoiser import Denoiser
from .numbers import Rows

# N of states on the unit circle (B, ...) at the node lam, as the model tells it at another: field(u, node, told)
Field = Callable[[torch.Tensor, Any, Any], torch.Tensor]
ELEMENTS = 1 << 20  # of derivatives that are taken at once: what is larger leaves the caches
# Steps of differences, by the model's dtype: the sum over many samples and elements averages what is rounded.
NUDGE = {torch.float64: 1e-7, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}


def field(den: Denoiser, gauge: str, samples: torch.Tensor | None = None, basis: Basis | None = None) -> Field:
    """``den`` on the unit circle: u = x / sqrt(alpha^2 + sigma^2), float64. samples: int64 (B,), those of u of the
    denoiser's batch; by default all. basis: of whose coordinates u and N are."""
    sch, den = den.schedule, den if samples is None else den.of_samples(samples)

    def answer(u: torch.Tensor, node: Any, told: Any) -> torch.Tensor:
        t, other = sch.time(node), sch.time(told)
        x = torch.sqrt(sch.alpha(t) ** 2 + sch.sigma(t) ** 2) * to_samples(basis, u)
        return to_coordinates(basis, den.head(gauge, x, other))

    return answer


def end_of(f: Field, u: torch.Tensor, table: Rows) -> torch.Tensor:
    """Where the table takes the states u (B, ...)."""
    answers: list[torch.Tensor] = []
    for i, row in enumerate(table.matrix):
        answers.append(f(u, table.lam[i], table.told[i]))
        u = row[0] * u + sum(row[j + 1] * answer for j, answer in enumerate(answers))
    return u


def tangents_of(
    f: Field, u: torch.Tensor, table: Rows, slopes: Rows, *, forward: bool = True, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    """The end (B, ...) and its derivatives (P, B, ...). slopes: those of the table, last dimension P.

    A number's tangent begins at the first row that has it, so half of them meet no model, and those of the last row
    none at all. forward: by forward mode; else by differences, which cost one call each.
    """
    size, n = slopes.matrix.shape[-1], len(table.matrix)
    answers: list[torch.Tensor] = []
    moved = u.new_zeros(size, *u.shape)
    moved_answers: list[torch.Tensor | None] = []
    active = torch.zeros(size, dtype=torch.bool, device=u.device)
    for i in range(n):
        if i:
            active = active | (slopes.lam[i] != 0) | (slopes.told[i] != 0)
        which = active.nonzero()[:, 0]
        directions = moved[which], slopes.lam[i][which], slopes.told[i][which]
        answers.append(f(u, table.lam[i], table.told[i]))
        slope = _slope if forward else _difference(answers[i], NUDGE[dtype])
        moved_answers.append(_all(slope, f, (u, table.lam[i], table.told[i]), directions, which, size) if i else None)
        row, turned = table.matrix[i], slopes.matrix[i]
        moved = row[0] * moved + _outer(turned[0], u)
        for j, (answer, other) in enumerate(zip(answers, moved_answers, strict=True)):
            moved += _outer(turned[j + 1], answer)
            if other is not None:
                moved += row[j + 1] * other
        u = row[0] * u + sum(row[j + 1] * answer for j, answer in enumerate(answers))
        active = active | (turned != 0).flatten(0, -2).any(0)
    return u, moved


def _outer(by_number: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(P, B, ...), of x (B, ...) and numbers (P,), or (*event, P)."""
    event = by_number.shape[:-1] or (1,) * (x.dim() - 1)
    return by_number.movedim(-1, 0).reshape(-1, 1, *event) * x


def _all(slope: Any, f: Field, at: Any, directions: Any, which: torch.Tensor, size: int) -> torch.Tensor:
    """Derivatives of f in the directions of the active numbers, 0 in all others; a few at a time."""
    u = at[0]
    found = u.new_zeros(size, *u.shape)
    few = max(1, ELEMENTS // max(u.numel(), 1))
    for k in range(0, len(which), few):
        found[which[k : k + few]] = slope(f, at, tuple(d[k : k + few] for d in directions))
    return found


def _slope(f: Field, at: Any, directions: Any) -> torch.Tensor:
    found: torch.Tensor = torch.vmap(lambda *d: torch.func.jvp(f, at, d)[1])(*directions)
    return found


def _difference(answer: torch.Tensor, nudge: float) -> Any:
    """Differences along every direction from the ``answer`` there, with steps of the size of ``nudge`` in the state and
    in lam."""

    def slope(f: Field, at: Any, directions: Any) -> torch.Tensor:
        found = []
        for d in zip(*directions, strict=True):
            size = nudge / max(float(d[0].square().mean().sqrt()), *(abs(float(c)) for c in d[1:]), 1e-30)
            found.append((f(*(a + size * c for a, c in zip(at, d, strict=True))) - answer) / size)
        return torch.stack(found)

    return slope


def has_forward_mode(f: Field, u: torch.Tensor, lam: float) -> bool:
    """Whether derivatives of N by forward mode exist and agree with differences, on a few states u (B, ...)."""
    at = u, *(torch.tensor(lam, dtype=torch.float64, device=u.device) for _ in range(2))
    along = tuple(torch.ones_like(part)[None] for part in at)
    with torch.no_grad():
        wanted = _difference(f(*at), NUDGE[torch.float32])(f, at, along)
        try:
            found = _slope(f, at, along)
        except Exception:  # whatever a model does that tangents cannot follow
            return False
    return bool((found - wanted).norm() <= 0.1 * wanted.norm() + 1e-6 * u.norm())
