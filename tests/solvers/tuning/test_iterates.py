"""When a fit ends, by noises that it does not see."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from logsnr.solvers.tuning.fit import State, iterates


class Constant:
    """An aim whose loss is the number itself."""

    noises = SimpleNamespace(near=lambda errors: None)

    def _replace(self, noises: None) -> "Constant":
        return self

    def errors(self, q: torch.Tensor) -> torch.Tensor:
        return q

    def loss(self, q: torch.Tensor, errors: torch.Tensor) -> float:
        return float(errors)


def ended(losses: list[float], patience: int, gain: float) -> tuple[int, float, int]:
    """The last iterate, and the least loss and its number."""
    test: Any = [Constant()]
    states = iter([State(torch.tensor(loss, dtype=torch.float64), []) for loss in losses])
    *_, (last, best) = iterates(states, test, patience, gain)
    assert float(best.q) == min(losses[: last.k + 1])
    return last.k, float(best.q), best.k


@pytest.mark.parametrize(
    ("losses", "patience", "gain", "found"),
    [
        ([3.0, 2.0, 1.0, 0.0], 2, 0.0, (3, 0.0, 3)),  # to its own end
        ([3.0, 2.0, 2.0, 4.0, 1.0], 2, 0.0, (3, 2.0, 1)),  # two without any less
        ([3.0, 2.0, 1.9, 1.8, 1.0], 2, 0.0, (4, 1.0, 4)),
        ([3.0, 2.0, 1.9, 1.8, 1.0], 2, 0.25, (3, 1.8, 3)),  # two with too little
        ([3.0, 4.0, 5.0, 0.0], 2, 0.0, (2, 3.0, 0)),  # the start is the best
    ],
)
def test_a_fit_ends_where_too_little_is_gained(
    losses: list[float], patience: int, gain: float, found: tuple[int, float, int]
) -> None:
    assert ended(losses, patience, gain) == found
