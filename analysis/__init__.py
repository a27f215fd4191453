"""Problems with exact answers, references, and what is measured with them."""

from .digits import load_digits
from .empirical import Empirical
from .gaussian import Gaussian
from .mixture import GaussianMixture
from .orders import Convergence, convergence_order, warped_grid
from .problem import Problem
from .reference import Reference, reference_flow

__all__ = [
    "Convergence",
    "Empirical",
    "Gaussian",
    "GaussianMixture",
    "Problem",
    "Reference",
    "convergence_order",
    "load_digits",
    "reference_flow",
    "warped_grid",
]
