"""Evaluations and errors of adaptive solvers at a tolerance, for the docs: ``python -m logsnr.bench.adaptive``."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from ..analysis.gaussian import Gaussian
from ..analysis.mixture import GaussianMixture
from ..analysis.orders import two_gaussians
from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.runs.normals import start
from ..solvers.sampling import solve
from ..solvers.schedules.formulas import EDM, FlowMatching, VPLinear
from .problems import digits

SOLVERS = ("adams-23", "adams-34", "dpm-12", "dpm-23", "dopri5")
TOLERANCES = (1e-2, 1e-3)
SAMPLES, EXACT = 64, 1e-8  # tolerance of the reference, by another method than those compared: dopri8


class Exact(NamedTuple):
    """A problem with its exact end: den at the starts x (B, ...) ends at ``end``."""

    name: str
    den: Denoiser
    x: torch.Tensor
    end: torch.Tensor


def problems() -> Iterator[Exact]:
    """Two Gaussians, a Gaussian and a mixture in 16 dimensions, on three schedules, and the digits."""
    means = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    data: dict[str, Any] = {
        "two Gaussians": two_gaussians(),
        "16-D Gaussian": Gaussian(torch.full((16,), 0.3), torch.linspace(0.025, 0.25, 16)),
        "16-D mixture": GaussianMixture(means, torch.full((8,), 0.05)),
    }
    for sch in (VPLinear(), EDM(), FlowMatching()):
        for name, problem in data.items():
            den = problem.denoiser(sch, "velocity")  # which is known at both ends of every schedule
            x = start(sch, (SAMPLES, *problem.event_shape), seed=0, dtype=torch.float64)
            end = solve(den, x, solver="dopri8", rtol=EXACT, atol=EXACT).x
            yield Exact(f"{name}, {type(sch).__name__}", den, x, end)
    known = digits()
    x = known.start(SAMPLES, 0)
    yield Exact("digits, VPLinear", known.precise, x, known.exact(x))


def row(exact: Exact, solver: str, tol: float) -> tuple[float, float]:
    """Mean evaluations, and the median over samples of the root mean square error in tolerances."""
    found = solve(exact.den, exact.x, solver=solver, rtol=tol, atol=tol)
    errors = ((found.x - exact.end) / (tol + tol * exact.end.abs())).reshape(len(exact.x), -1)
    assert found.nfe_per_sample is not None
    return float(found.nfe_per_sample.double().mean()), float(errors.square().mean(1).sqrt().median())


def main() -> None:
    print("| | tolerance |", *(f"`{name}` |" for name in SOLVERS))
    print("|---|---|" + "---|" * len(SOLVERS))
    for exact in problems():
        for tol in TOLERANCES:
            cells = (f"{nfe:.1f}, {error:.1f} |" for nfe, error in (row(exact, name, tol) for name in SOLVERS))
            print(f"| {exact.name if tol == TOLERANCES[0] else ''} | {tol:.0e} |", *cells, flush=True)


if __name__ == "__main__":
    main()
