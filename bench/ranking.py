"""The table of `logsnr rank`."""

from collections.abc import Sequence

import torch
from rich.table import Column, Table

from ..analysis.digits import load_digits
from ..analysis.transfer import MAX_NFE, rank
from ..solvers.schedules.formulas import VPLinear

LONGEST = 1000  # evaluations: all solvers on all grids then take a quarter of a minute


def ranking(stds: Sequence[float] | None, nfe: int | None, target: float | None, best: int) -> Table:
    """The best solvers and grids for a spectrum, by default that of the digits. ValueError if none reaches the
    target."""
    if nfe is not None and nfe > LONGEST:
        raise ValueError(f"nfe = {nfe} takes too long to rank; at most {LONGEST}")
    spectrum = list(stds) if stds else digit_stds()
    choices = rank(spectrum, VPLinear(), nfe=nfe, target=target, best=best)
    if not choices:
        limit = MAX_NFE if nfe is None else nfe
        closest = rank(spectrum, VPLinear(), nfe=limit, best=1)
        told = "".join(f"; {c.solver} on the grid {c.grid} comes closest, {c.error:.1e} with {c.nfe}" for c in closest)
        raise ValueError(f"no solver reaches target = {target} within nfe = {limit}{told}")
    table = Table("solver", "grid", "start", *(Column(head, justify="right") for head in ("NFE", "error")), box=None)
    for choice in choices:
        table.add_row(choice.solver, choice.grid, choice.startup, str(choice.nfe), f"{choice.error:.1e}")
    return table


def digit_stds() -> list[float]:
    """The standard deviations of the embedded digits along their principal axes, but for those that are 0."""
    variances = torch.linalg.eigvalsh(torch.cov(load_digits()[0].flatten(1).mT))
    return [float(v) ** 0.5 for v in variances if v > 1e-6]
