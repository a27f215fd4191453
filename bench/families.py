"""The families of solvers that the report tells apart, by how their names begin."""

from collections.abc import Iterable
from typing import NamedTuple

from ..solvers.catalogue import solver
from .tables import Line

BASELINE = Line("ddim")


class Family(NamedTuple):
    """title, and in words what its solvers do; how their names begin."""

    title: str
    what: str
    starts: tuple[str, ...]


NOISE = Family("with noise", "methods of the SDE", ())
FAMILIES = (
    Family("DEIS, LMS", "polynomials in t or sigma/alpha", ("deis", "lms")),
    Family("DPM-Solver", "predicting eps", ("dpm-",)),
    Family("DPM-Solver++", "predicting x0", ("dpmpp",)),
    Family("UniPC", "with a corrector", ("unipc",)),
    Family("iPNDM, PNDM", "weights of equal steps", ("ipndm", "pndm")),
    Family("velocity", "Adams methods in the velocity", ("flow",)),
    Family("exponential RK", "exponential Runge-Kutta", ("heun-rho", "exp-", "res-", "etdrk", "krogstad", "ho4")),
    Family("Runge-Kutta", "on dx/dt", ("euler", "heun", "rk4", "dopri", "bosh", "adaptive-heun")),
    Family("fitted", "auto, universal and tuned tables", ("auto", "universal", "tuned")),
    Family("others", "all others", ("",)),
    NOISE,
)  # fmt: skip


def family_of(name: str) -> Family:
    """The one with the longest start of the name; of methods with noise, theirs."""
    if solver(name).stochastic:
        return NOISE
    fits = [(len(start), family) for family in FAMILIES for start in family.starts if name.startswith(start)]
    return max(fits, key=lambda fit: fit[0])[1]


def families(lines: Iterable[Line]) -> dict[Family, list[Line]]:
    """Each family's lines that start by the ramp, less DDIM, which is in every panel."""
    found: dict[Family, list[Line]] = {family: [] for family in FAMILIES}
    for line in lines:
        if line.startup == "ramp" and line != BASELINE:
            found[family_of(line.solver)].append(line)
    return {family: members for family, members in found.items() if members}
