"""Problems with exact answers, references, and what is measured and proved with them."""

from .bound_grid import bound_grid
from .compare import compare
from .comparison import Comparison
from .digits import load_digits
from .discrepancies import energy_distance, mmd
from .empirical import Empirical
from .explain import Explanation, explain
from .gaussian import Gaussian
from .likelihood import LogLikelihood, log_likelihood
from .log_prob import LogProb, log_prob
from .metrics import kl_gaussian, sliced_w2, w2_gaussian
from .mixture import GaussianMixture
from .moments import Moments, sampler_moments
from .optimal_grid import OptimalGrid, optimal_grid
from .orders import Convergence, convergence_order, local_order, two_gaussians, warped_grid
from .picard import Sweeps, picard_sweeps, picard_work
from .problem import Problem
from .reference import Reference, reference_flow
from .rounding import Rounding, rounding
from .stability import Stability, stability
from .trajectory_grid import trajectory_grid
from .transfer import Choice, Transfer, rank, transfer
from .transport import GaussianTransport, TransportGap, gaussian_gap, gaussian_transport, transport_gap
from .transport_entropic import Bridge, Sinkhorn, schroedinger_bridge, sinkhorn
from .weak import three_modes, weak_order
from .work_precision import work_precision

__all__ = [
    "Bridge",
    "Choice",
    "Comparison",
    "Convergence",
    "Empirical",
    "Explanation",
    "Gaussian",
    "GaussianMixture",
    "GaussianTransport",
    "LogLikelihood",
    "LogProb",
    "Moments",
    "OptimalGrid",
    "Problem",
    "Reference",
    "Rounding",
    "Sinkhorn",
    "Stability",
    "Sweeps",
    "Transfer",
    "TransportGap",
    "bound_grid",
    "compare",
    "convergence_order",
    "energy_distance",
    "explain",
    "gaussian_gap",
    "gaussian_transport",
    "kl_gaussian",
    "load_digits",
    "local_order",
    "log_likelihood",
    "log_prob",
    "mmd",
    "optimal_grid",
    "picard_sweeps",
    "picard_work",
    "rank",
    "reference_flow",
    "rounding",
    "sampler_moments",
    "schroedinger_bridge",
    "sinkhorn",
    "sliced_w2",
    "stability",
    "three_modes",
    "trajectory_grid",
    "transfer",
    "transport_gap",
    "two_gaussians",
    "w2_gaussian",
    "warped_grid",
    "weak_order",
    "work_precision",
]
