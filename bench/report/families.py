"""The families of solvers that the report tells apart, by how their names begin."""

from typing import NamedTuple

from ...solvers.catalogue.catalogue import solver


class Family(NamedTuple):
    """title; how the names of its solvers begin."""

    title: str
    starts: tuple[str, ...]


NOISE = Family("with noise", ())
FAMILIES = (
    Family("DEIS, LMS", ("deis", "lms")),
    Family("DPM-Solver", ("dpm-",)),
    Family("DPM-Solver++", ("dpmpp",)),
    Family("UniPC", ("unipc",)),
    Family("iPNDM, PNDM", ("ipndm", "pndm")),
    Family("velocity", ("flow",)),
    Family("exponential RK", ("heun-rho", "exp-", "res-", "etdrk", "krogstad", "ho4")),
    Family("Runge-Kutta", ("euler", "heun", "rk4", "dopri", "bosh", "adaptive-heun")),
    Family("fitted", ("auto", "universal", "tuned")),
    Family("others", ("",)),
    NOISE,
)


def family_of(name: str) -> Family:
    """The one with the longest start of the name; of methods with noise, theirs."""
    if solver(name).stochastic:
        return NOISE
    fits = [(len(start), family) for family in FAMILIES for start in family.starts if name.startswith(start)]
    return max(fits, key=lambda fit: fit[0])[1]
