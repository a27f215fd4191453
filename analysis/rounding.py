"""What a dtype does to a program: executions in fp64, fp32 and less against one with 50 digits."""

from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any, Unpack

import numpy as np
import torch

from ..solvers.arrays import Array
from ..solvers.catalogue.catalogue import Solver
from ..solvers.catalogue.planning import plan_program
from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.denoisers.heads import Level, from_pair, network_rate
from ..solvers.programs.lower import lower
from ..solvers.programs.program import Program
from ..solvers.runs.run import run
from ..solvers.schedules.base import Schedule
from .gaussian import Gaussian
from .layout import LayoutOptions
from .moments import propagate
from .problem import parameter

DIGITS = 50


@dataclass(frozen=True, eq=False)
class Rounding:
    """Errors of execution of one program, per standard deviation of the data.

    All errors are root mean squares over samples, in units of the marginal's standard deviation at the end.
    stds: (N,). error: of the run in ``dtype`` against 50 digits. error_float64: of the float64 run against
    50 digits. difference: between the two runs. truncation: of the program itself, with 50 digits, against
    the exact flow; a dtype is good enough where ``error`` is below it. program: the table.
    """

    dtype: torch.dtype
    prediction: str
    stds: Array
    error: Array
    error_float64: Array
    difference: Array
    truncation: Array
    program: Program = field(repr=False)

    def __str__(self) -> str:
        """A table of the errors at a few of the standard deviations, and the worst of each."""
        name, columns = (
            str(self.dtype).removeprefix("torch."),
            (self.error, self.error_float64, self.truncation),
        )
        lines = [
            f"{self.program.name}, {len(self.program)} model evaluations, head {self.prediction}",
            f"{'std':>10s} {name:>10s} {'float64':>10s} {'truncation':>10s}",
        ]
        shown = np.unique(np.linspace(0, len(self.stds) - 1, 7).round().astype(int))
        rows = [(f"{self.stds[i]:.3g}", *(column[i] for column in columns)) for i in shown]
        rows.append(("worst", *(column.max() for column in columns)))
        return "\n".join(lines + [f"{row[0]:>10s}" + "".join(f" {e:>10.2e}" for e in row[1:]) for row in rows])


def rounding(
    solver: str | Solver | Program,
    sch: Schedule,
    dtype: torch.dtype = torch.float32,
    *,
    stds: Any = None,
    mean: float = 0.0,
    prediction: str = "eps",
    samples: int = 32,
    seed: int = 0,
    **layout: Unpack[LayoutOptions],
) -> Rounding:
    """Run a program in ``dtype``, in float64 and with 50 digits, on data N(mean, std^2) for each of ``stds``.

    The model is the exact denoiser, computed in float64 and rounded once to ``dtype``, with the head
    ``prediction``. State and times are what `logsnr.sample` uses, fp32 at least, and the state is not rounded
    at the end. The coefficients are the program's float64 numbers in all three runs, so this is the error of
    execution, not of planning. All runs start from the same states, draws from the marginal.

    stds: (N,), positive, by default 25 from 1e-3 to 10. A ``mean`` away from 0 shows what data off centre
    costs. layout: steps, nfe, grid, t_start, t_end and startup, as in `logsnr.solve`. Raises ValueError for options
    that do not fit, for programs that add noise, and for a head that says too little on the span.
    """
    program = plan_program(solver, sch, **layout)
    c = positive("stds", np.geomspace(1e-3, 10.0, 25) if stds is None else stds) ** 2
    data = Gaussian(np.full_like(c, mean), c)
    first, last = program.grid[0], program.grid[-1]
    x = data.sample_at(sch, first, samples, generator=torch.Generator().manual_seed(seed))
    x = x.to(torch.promote_types(dtype, torch.float32))
    narrow, wide = (
        execute(program, data, sch, x, dtype=d, prediction=prediction).double().numpy() for d in (dtype, torch.float64)
    )
    exact = _fifty_digits(program, data, sch, x)
    flow = data.flow(x.double(), sch, first, last).numpy()
    errors = (_less(narrow, exact), _less(wide, exact), narrow - wide, -_less(flow, exact))
    size = np.hypot(sch.alpha(last) * np.sqrt(c), sch.sigma(last))
    error, error64, difference, truncation = (np.sqrt((e**2).mean(axis=0)) / size for e in errors)
    return Rounding(dtype, prediction, np.sqrt(c), error, error64, difference, truncation, program)


def execute(
    program: Program, data: Gaussian, sch: Schedule, x: torch.Tensor, *, dtype: torch.dtype, prediction: str
) -> torch.Tensor:
    """The end state from x (B, *event), as the executor leaves it, with a model of ``data`` in ``dtype``.

    The exact head ``prediction`` is computed in float64 from what the model sees, and rounded once. Raises
    ValueError for programs that add noise.
    """
    if any(call.noises for call in program):
        raise ValueError(f"{program.name} adds noise; runs in a dtype are for deterministic programs")

    def model(seen: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        level = Level.at(sch, float(t[0] if sch.clock_rate == 1 else sch.clock(t[0])))
        x0, eps = data.posterior(seen.double(), level.alpha, level.sigma)
        p, q = (network_rate(prediction, sch) * c for c in from_pair(prediction, level))
        return (p * x0 + q * eps).to(seen.dtype)

    den = Denoiser(model, sch, prediction, dtype=dtype)
    state = torch.promote_types(dtype, torch.float32)
    with torch.no_grad():
        return run(lower(program, sch, prediction, state=state, model=dtype), den, x.to(state))[0]


def positive(name: str, values: Any) -> Array:
    """``values`` as a float64 array (N,). Raises ValueError unless it is not empty, positive and finite."""
    array: Array = parameter(name, values).numpy()
    if array.ndim != 1 or not array.size or not (array > 0).all():
        raise ValueError(f"{name} must be a 1-D array of positive numbers, not {array.tolist()}")
    return array


def weighted(stds: Any, weights: Any) -> tuple[Array, Array]:
    """Standard deviations (N,), and how often each counts, by default the same. Raises ValueError unless they are."""
    stds = positive("stds", stds)
    weights = np.ones_like(stds) if weights is None else parameter("weights", weights).numpy()
    if weights.shape != stds.shape or (weights < 0).any() or not weights.any():
        raise ValueError(f"weights must be {len(stds)} nonnegative numbers, one per std, not all 0")
    return stds, weights


def _fifty_digits(program: Program, data: Gaussian, sch: Schedule, x: torch.Tensor) -> Array:
    """The end states, an array of Decimals like x."""
    with localcontext() as context:
        context.prec = DIGITS
        end = propagate(program, sch, data.variances.numpy(), lift=_decimals)
        start, mean = _decimals(x.double().numpy()), _decimals(data.mean.numpy())
        alpha = _decimals(np.array([sch.alpha(program.grid[0])]))
        states: Array = end.mean * mean + end.start * (start - alpha * mean) + end.constant
        return states


def _less(run: Array, exact: Array) -> Array:
    """run - exact, rounded after the difference."""
    with localcontext() as context:
        context.prec = DIGITS
        return (_decimals(run) - exact).astype(np.float64)


def _decimals(values: Array) -> Array:
    return np.asarray(np.frompyfunc(Decimal, 1, 1)(values))
