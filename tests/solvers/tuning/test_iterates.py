"""When a fit ends, by noises that it does not see."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from logsnr.solvers.tuning.fit import State, iterates


def ended(losses: list[float], patience: int, gain: float) -> tuple[int, float, int]:
    """The last iterate, and the least loss and its number."""
    test: Any = [SimpleNamespace(errors=lambda q: q, loss=lambda q, errors: float(errors))]
    states = iter([State(torch.tensor(loss, dtype=torch.float64), 0.0) for loss in losses])
    *_, last = iterates(states, test, patience, gain)
    assert float(last.best[2]) == last.best[0] == min(losses[: last.k + 1])
    return last.k, last.best[0], last.best[1]


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
