"""A table of `tune` run on a denoiser."""

from collections.abc import Callable
from typing import Any

import torch

from ..bases import Basis, to_coordinates, to_samples
from ..denoisers.denoiser import Denoiser
from .numbers import Rows

# N of states on the unit circle (B, ...) at the node lam, as the model tells it at another: field(u, node, told)
Field = Callable[[torch.Tensor, Any, Any], torch.Tensor]


def field(den: Denoiser, gauge: str, samples: torch.Tensor | None = None, basis: Basis | None = None) -> Field:
    """``den`` on the unit circle: u = x / sqrt(alpha^2 + sigma^2), float64. samples: int64 (B,), those of u of the
    denoiser's batch; by default all. basis: of whose coordinates u and N are."""
    sch, den = den.schedule, den if samples is None else den.of_samples(samples)

    def answer(u: torch.Tensor, node: Any, told: Any) -> torch.Tensor:
        t, other = sch.time(node), sch.time(told)
        radius = torch.sqrt(sch.alpha(t) ** 2 + sch.sigma(t) ** 2)
        x = radius.reshape(-1, *[1] * (u.dim() - 1)) * to_samples(basis, u)
        return to_coordinates(basis, den.head(gauge, x, other))

    return answer


def ends_of(f: Field, u: torch.Tensor, table: Rows) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The states u (B, ...) that the table goes through, the last of which is the end, and the answers."""
    states, answers = [u], list[torch.Tensor]()
    for i in range(len(table.matrix)):
        row = table.row(i)
        answers.append(f(states[i], table.lam[i], table.told[i]))
        states.append(row[0] * states[i] + sum(row[j + 1] * answer for j, answer in enumerate(answers)))
    return states, answers


def end_of(f: Field, u: torch.Tensor, table: Rows) -> torch.Tensor:
    """Where the table takes the states u (B, ...)."""
    return ends_of(f, u, table)[0][-1]
