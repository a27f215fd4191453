"""One solver from one batch of starts: where it ends, what it evaluated, and the time in and outside the model."""

from time import perf_counter
from typing import Any, NamedTuple

import torch

from ..solvers.denoiser import Denoiser, Model
from ..solvers.run import NonFiniteError
from ..solvers.sampling import solve


class Run(NamedTuple):
    """end: float64 (B, ...), infinite if the run failed. nfe: model calls. seconds, outside: of the whole solve,
    and what of them was not the model."""

    end: torch.Tensor
    nfe: int
    seconds: float
    outside: float


def timed_solve(den: Denoiser, x: torch.Tensor, **options: Any) -> Run:
    """`solve` with these options.

    A fixed-step solver runs once before, untimed, with a model that does nothing: that plans and compiles. On a
    GPU the device is waited for before and after each model call, so that the two times can be told apart.

    A solver that diverges, or an adaptive one that gives up, ends at infinity, with the evaluations it spent.
    """
    adaptive = options.get("rtol") is not None
    if not adaptive:
        solve(den.like(_idle, x), x, **options)
    clock = _Clock(den.model)
    timed = den.like(clock, x)
    began = _now(x)
    try:
        end = solve(timed, x, **options).x.double()
    except NonFiniteError:
        end = torch.full_like(x, torch.inf, dtype=torch.float64)
    except RuntimeError:
        if not adaptive:
            raise
        end = torch.full_like(x, torch.inf, dtype=torch.float64)  # a tolerance out of the dtype's reach
    seconds = _now(x) - began
    return Run(end, clock.calls, seconds, seconds - clock.seconds)


def _idle(x: torch.Tensor, t: torch.Tensor, **conditions: Any) -> torch.Tensor:
    return torch.zeros_like(x)


class _Clock:
    """A model that measures its own time."""

    def __init__(self, model: Model) -> None:
        self.model, self.seconds, self.calls = model, 0.0, 0

    def __call__(self, x: torch.Tensor, t: torch.Tensor, **conditions: Any) -> Any:
        began = _now(x)
        answer = self.model(x, t, **conditions)
        self.seconds += _now(x) - began
        self.calls += 1
        return answer


def _now(x: torch.Tensor) -> float:
    """Seconds, when all that was asked of x's device is done."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return perf_counter()
