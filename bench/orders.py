"""Measured orders of every fixed-step solver: the tables of docs/solvers.md and docs/orders.md.

python -m logsnr.bench.orders
python -m logsnr.bench.orders --all > docs/orders.md
"""

from functools import cache, partial
from typing import Annotated

import numpy as np
import typer

from ..analysis.mixture import GaussianMixture
from ..analysis.orders import Convergence, convergence_order, local_order, two_gaussians, warped_grid
from ..analysis.problem import Problem
from ..solvers.arrays import Array
from ..solvers.catalogue.catalogue import Solver, solver, solver_names
from ..solvers.schedules.base import Schedule
from ..solvers.schedules.custom import Custom
from ..solvers.schedules.formulas import EDM, VE, FlowMatching, SubVP, Trigonometric, VPCosine, VPLinear
from ..solvers.schedules.tabulated import Discrete
from .command import run_command
from .work_precision import startups

SPAN = 0.69  # half-log-SNR from -0.69 to 0.69: every schedule reaches it
PROBLEM = GaussianMixture([-1.0, 0.8], [1.0, 0.5], [0.3, 0.7])  # as wide as they are far apart; ALL says why
SAMPLES = 32  # no single start decides
SLOW = {"ipndm-3": 512, "ipndm-4": 512, "pndm": 512, "gradient-estimation": 512}  # evaluations until the slopes settle

ALL = f"""\
# Orders: every solver on every schedule

Every solver without noise has its declared order on every schedule. How far down each keeps it is in
[solvers.md](solvers.md#measured-orders). The table is made by

`python -m logsnr.bench.orders --all > docs/orders.md`

`tests/analysis/test_order_table.py` measures again. It fails where a number differs or is more than 0.1 from the
declared order. It also shows that a solver ends in the same states whatever head the network has, to rounding: so the
numbers hold for all heads.

| | how it is measured |
|---|---|
| number | the slope log2(error(n) / error(2n)) of the finest two runs above round-off; nothing is extrapolated |
| by | `logsnr.analysis.convergence_order(...).order` |
| data | a 1-D mixture of two Gaussians, in float64, with `startup="single-step"` |
| network | the exact denoiser, which returns x0 |
| grids | from lam = -{SPAN} to {SPAN}; steps vary by +-30 % |
| steps | double from 8 to 32; at order 5 to 64 |
| steps of multistep solvers | to 64 at order 2, to 256 above: their start shows longer; {", ".join(SLOW)}: to 512 |
| `Discrete` | the 1000-entry table of the linear schedule, on the same grids as the others: they ignore its entries |
| `Custom` | alpha = 1 / (1 + t^2), sigma = t |

Why this data and this span: slopes settle where steps are short against the length over which the flow bends. Errors
of `dopri5` must not have reached round-off by then. So the two Gaussians are as wide as they are far apart, and the
span is the longest that all schedules have. On the narrower mixture of `two_gaussians` errors reach round-off first."""


def methods() -> list[Solver]:
    """Every solver whose order a grid can show; of those that are one planner by several names the first."""
    fixed = [m for m in map(solver, solver_names()) if m.planner is not None and not m.stochastic]
    return [m for n, m in enumerate(fixed) if m.planner not in [other.planner for other in fixed[:n]]]


def schedules() -> dict[str, Schedule]:
    """One of each family, by name."""
    discrete = Discrete(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    custom = Custom(lambda t: 1 / (1 + t * t), lambda t: t)
    found = [VPLinear(), VPCosine(), SubVP(), VE(), EDM(), FlowMatching(), Trigonometric(), discrete, custom]
    return {type(sch).__name__: sch for sch in found}


def measured(method: Solver, sch: Schedule, head: str, problem: Problem = PROBLEM) -> Convergence:
    """The measurement behind one number of docs/orders.md."""
    grids = partial(nodes, sch)
    return convergence_order(
        method, problem, sch, prediction=head, grids=grids, max_nfe=longest(method), samples=SAMPLES
    )


def longest(method: Solver) -> int:
    """Evaluations that pay for so many steps that the slopes settle, and for a start by another method: 32 steps, 64 at
    order 5, and where that start shows, in multistep solvers, 64 at order 2 and 256 above."""
    multistep = method.evaluations == 1 < method.order
    if method.name in SLOW:
        return SLOW[method.name]
    steps = (64 if method.order == 2 else 256) if multistep else (32 if method.order < 5 else 64)
    return steps * 5 // 4 * method.evaluations


@cache
def nodes(sch: Schedule, steps: int) -> Array:
    """The grid of docs/orders.md, asked for 105 times for each schedule."""
    return warped_grid(sch, steps, -SPAN, SPAN)


def order_row(method: Solver) -> str:
    """One line of docs/orders.md."""
    orders = " | ".join(f"{measured(method, sch, 'x0').order:.2f}" for sch in schedules().values())
    return f"| `{method.name}` | {method.order} | {orders} |"


def row(method: Solver, max_nfe: int) -> str:
    """One line of the table of docs/solvers.md."""
    cells = [
        told(convergence_order(method, two_gaussians(), VPLinear(), max_nfe=max_nfe, startup=startup))
        for startup in startups(method, VPLinear())[::-1]
    ]
    step = told(local_order(method, two_gaussians(), VPLinear()))
    return f"| `{method.name}` | {method.order} | {' | '.join([*cells, 'the same'][:2])} | {step} |"


def told(found: Convergence) -> str:
    """The order and the least error at which it was read."""
    read = "" if found.window is None else f", at errors down to {found.errors[found.window[1] + 1]:.0e}"
    return f"{found.order:.2f}{read}"


def main(
    max_nfe: Annotated[int, typer.Option(min=64, help="The largest run of each solver, without --all.")] = 10_000,
    everything: Annotated[bool, typer.Option("--all", help="All schedules: docs/orders.md.")] = False,
) -> None:
    """Print the table, in Markdown."""
    if everything:
        print(f"{ALL}\n\n| solver | declared | {' | '.join(schedules())} |")
        print("|---" * (2 + len(schedules())) + "|")
        for method in methods():
            print(order_row(method), flush=True)
        return
    print("| solver | declared | measured, `single-step` start | measured, `ramp` start | one step: declared + 1 |")
    print("|---|---|---|---|---|")
    for method in methods():
        print(row(method, max_nfe), flush=True)


if __name__ == "__main__":
    run_command(main)
