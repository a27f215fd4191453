"""Problems with exact answers, references, and what is measured with them."""

from .digits import load_digits
from .empirical import Empirical
from .gaussian import Gaussian
from .mixture import GaussianMixture
from .orders import Convergence, convergence_order, local_order, two_gaussians, warped_grid
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
    "local_order",
    "reference_flow",
    "two_gaussians",
    "warped_grid",
]
