"""What is done with a trained denoiser beside drawing samples: inverse problems, editing, flow maps, teachers.

Everything here stands on `logsnr.solvers`, and nothing there imports it.
"""

from ..solvers.denoisers.guides import At, Guide
from .editing import inpaint, sdedit
from .encode import decode, encode
from .flow_maps import FlowMap
from .guidance import MGPD, Classifier, FreeDoM, chain, threshold_dynamic, threshold_static, universal
from .inverse import Linear, LinearProblem
from .inverse_methods import DPS, ILVR, MMPS, PiGDM, Projection
from .inverse_operators import blur, gray, mask, matrix, operator, superresolution
from .inversion import Inversion, invert, translate
from .one_step import step
from .pairs import pairs
from .previews import previews
from .reversible import Reversible
from .shards import Pairs
from .teachers import consistency_pair, noised, progressive_target, score_gradient
from .time_travel import TimeTravel
from .trees import TreeDenoiser, TreeSolution, leaf_seed, sample_tree, solve_tree

__all__ = [
    "DPS",
    "ILVR",
    "MGPD",
    "MMPS",
    "At",
    "Classifier",
    "FlowMap",
    "FreeDoM",
    "Guide",
    "Inversion",
    "Linear",
    "LinearProblem",
    "Pairs",
    "PiGDM",
    "Projection",
    "Reversible",
    "TimeTravel",
    "TreeDenoiser",
    "TreeSolution",
    "blur",
    "chain",
    "consistency_pair",
    "decode",
    "encode",
    "gray",
    "inpaint",
    "invert",
    "leaf_seed",
    "mask",
    "matrix",
    "noised",
    "operator",
    "pairs",
    "previews",
    "progressive_target",
    "sample_tree",
    "score_gradient",
    "sdedit",
    "solve_tree",
    "step",
    "superresolution",
    "threshold_dynamic",
    "threshold_static",
    "translate",
    "universal",
]  # fmt: skip
