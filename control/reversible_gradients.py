"""Gradients through a reversible run from its end alone: states are made again backwards, one call recorded at a time.

    x_{n+1} = F_n(x_n) + a_n x_{n-1}     so     x_{n-1} = (x_{n+1} - F_n(x_n)) / a_n,

and gradients g of a loss with respect to the states follow by ``g_n += F_n' g_{n+1}``, ``g_{n-1} = a_n g_{n+1}``: exact
ones of the discrete run, as those of recording it all, but for the rounding of the way back.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ..solvers.denoisers.answers import check_output
from ..solvers.denoisers.conditions import tensors
from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.programs.call import STATE
from ..solvers.programs.lower import lower
from ..solvers.programs.program import Program
from ..solvers.runs.run import timesteps
from ..solvers.sampling import solve

FAR = 0.05  # of the start's norm, by which a way back may miss it: half precision does by less


class Row(NamedTuple):
    """``answer`` times the model's answer, plus ``now`` x_n, plus ``before`` x_{n-1}."""

    answer: float
    now: float
    before: float


class Walk:
    """A run there and back. tensors: to which gradients are wanted, beside the start. x: (B, ...), in the state's
    dtype, as it starts."""

    def __init__(self, den: Denoiser, x: torch.Tensor, program: Program, tensors: Sequence[torch.Tensor]) -> None:
        self.den, self.program, self.tensors = den, program, tensors
        lowered = lower(program, den.schedule, den.answers, state=x.dtype, model=x.dtype)
        self.rows = [_row(call.table.coefs, call.models, call.reads, call.writes) for call in lowered.updates.calls]
        self.asking = den.asking(lowered.times, len(x))
        self.told = timesteps(lowered, den, x)

    def there(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The last state, and the one before it."""
        kept = [x]

        def keep(node: int, t: float, state: torch.Tensor) -> None:
            if node == len(self.rows) - 1:
                kept[0] = state.clone()

        end = solve(self.den, x.detach(), solver=self.program, callback=keep).x
        return end, kept[0]

    def call(self, n: int, now: torch.Tensor) -> torch.Tensor:
        """F_n(x_n)."""
        answer = check_output(self.asking.call(now.to(self.den.dtype(now)), self.told[n], n), now)
        return self.rows[n].answer * answer.to(now.dtype) + self.rows[n].now * now

    def back(
        self, start: torch.Tensor, end: torch.Tensor, before: torch.Tensor, slope: torch.Tensor
    ) -> list[torch.Tensor | None]:
        """The gradients with respect to the start and the tensors of a loss with the gradient ``slope`` at the end."""
        later, now, slope_now = end, before, torch.zeros_like(slope)
        totals: list[torch.Tensor | None] = [None] * len(self.tensors)
        for n in reversed(range(len(self.rows))):
            if n == 0:
                _check_arrived(now, start)
                now = start
            with torch.enable_grad():
                seen = now.detach().requires_grad_()
                made = self.call(n, seen)
            at_now, *found = torch.autograd.grad(made, [seen, *self.tensors], slope, allow_unused=True)
            totals = [_sum(*pair) for pair in zip(totals, found, strict=True)]
            a = self.rows[n].before
            slope, slope_now = slope_now + (0 if at_now is None else at_now), a * slope
            if n:
                later, now = now, (later - made.detach()) / a
        return [slope, *totals]


class Reversed(torch.autograd.Function):
    """The end of a `Walk`, whose gradients are made on the way back."""

    @staticmethod
    def forward(ctx: Any, walk: Walk, x: torch.Tensor, *wanted: torch.Tensor) -> torch.Tensor:
        end, before = walk.there(x)
        ctx.walk = walk
        ctx.save_for_backward(x, end, before)
        return end

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> Any:
        start, end, before = ctx.saved_tensors
        return None, *ctx.walk.back(start, end, before, slope)


def wanted_of(den: Denoiser) -> list[torch.Tensor]:
    """What a denoiser has that records gradients: weights of its models, conditions, the scale of its guidance."""
    guidance = den.guidance
    models: list[Any] = [den.model]
    given: list[Any] = [den.conditions]
    if guidance is not None:
        given += [guidance.uncond, guidance.scale]
        models += [guidance.model]
    weights = [p for model in models if isinstance(model, torch.nn.Module) for p in model.parameters()]
    every = {id(y): y for y in [*weights, *tensors(given)] if y.requires_grad}
    return list(every.values())


def _row(matrix: Any, models: int, reads: Sequence[int], writes: Sequence[int]) -> Row:
    row = matrix[writes.index(STATE)].tolist()
    found = dict(zip(reads, row[models:], strict=False))
    now = found.pop(STATE, 0.0)
    return Row(row[0], now, *(found.values() or (0.0,)))


def _sum(one: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor | None:
    return other if one is None else one if other is None else one + other


def _check_arrived(now: torch.Tensor, start: torch.Tensor) -> None:
    """RuntimeError if the way back has not come back to the start."""
    apart = float(torch.linalg.vector_norm(now - start)) / max(float(torch.linalg.vector_norm(start)), 1e-30)
    if not apart <= FAR:
        raise RuntimeError(
            f"the way back has missed the start by {apart:.2g} of its norm, so gradients would be wrong: the model "
            "must answer the same when it is asked again (no dropout), and in no less than the precision of x; else "
            "take logsnr.sample(..., grad=True, checkpoint=1)"
        )
