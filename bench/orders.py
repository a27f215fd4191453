"""Measured orders of every fixed-step solver, as the table of docs/solvers.md.

python -m logsnr.bench.orders
"""

from typing import Annotated

import typer

from ..analysis.orders import Convergence, convergence_order, two_gaussians
from ..solvers.catalogue import Solver, solver, solver_names
from ..solvers.schedules import VPLinear
from .work_precision import startups


def row(method: Solver, max_nfe: int) -> str:
    cells = [
        told(convergence_order(method, two_gaussians(), VPLinear(), max_nfe=max_nfe, startup=startup))
        for startup in startups(method, VPLinear())[::-1]
    ]
    return f"| `{method.name}` | {method.order} | {' | '.join([*cells, 'the same'][:2])} |"


def told(found: Convergence) -> str:
    """The order and the least error at which it was read."""
    read = "" if found.window is None else f", at errors down to {found.errors[found.window[1] + 1]:.0e}"
    return f"{found.order:.2f}{read}"


def main(max_nfe: Annotated[int, typer.Option(min=64, help="The largest run of each solver.")] = 10_000) -> None:
    """Print the table, in Markdown."""
    print("| solver | declared | measured, `single-step` start | measured, `ramp` start |")
    print("|---|---|---|---|")
    for method in map(solver, solver_names()):
        if method.planner is not None:
            print(row(method, max_nfe), flush=True)


if __name__ == "__main__":
    typer.run(main)
