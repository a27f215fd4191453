"""What a search for a grid gains: named grids against those of `trajectory_grid`, on starts it has not seen."""

from typing import Any

import torch

from ..analysis import GaussianMixture, trajectory_grid
from ..solvers.runs.normals import start
from ..solvers.sampling import sample
from ..solvers.schedules.formulas import EDM, FlowMatching

NAMES = ("logsnr", "karras", "time", "arctan", "beta")
CASES = (("ddim", 8), ("dpmpp-2m", 8), ("deis-3", 6))


def report() -> str:
    """The table: a row for each solver and schedule, the median error of each grid."""
    means = torch.randn(12, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mixture = GaussianMixture(means, 0.04)
    lines = [" " * 24 + "".join(f"{name:>9}" for name in (*NAMES, "searched"))]
    for sch, head in ((EDM(), "x0"), (FlowMatching(), "velocity")):
        den = mixture.denoiser(sch, head)
        x, y = (start(sch, (count, 16), seed=seed, dtype=torch.float64) for seed, count in ((0, 128), (1, 256)))
        exact = mixture.reference(y, sch, sch.t_start, sch.t_end)
        for solver, nfe in CASES:
            runs: list[dict[str, Any]] = [dict(solver=solver, nfe=nfe, grid=name) for name in NAMES]
            runs.append(dict(solver=trajectory_grid(den, x, solver, nfe, candidates=40).program))
            errors = [(sample(den, y, **run) - exact).square().mean(1).sqrt().median() for run in runs]
            told = f"{type(sch).__name__} {solver} {nfe}"
            lines.append(f"{told:24}" + "".join(f"{error:9.1e}" for error in errors))
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
