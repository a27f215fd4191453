"""What is done with a trained denoiser beside drawing samples: inverse problems, editing, flow maps, teachers.

Everything here stands on `logsnr.solvers`, and nothing there imports it.
"""

from .encode import decode, encode
from .flow_maps import FlowMap
from .one_step import step
from .pairs import pairs
from .shards import Pairs
from .teachers import consistency_pair, noised, progressive_target, score_gradient
from .trees import TreeDenoiser, TreeSolution, leaf_seed, sample_tree, solve_tree

__all__ = [
    "FlowMap",
    "Pairs",
    "TreeDenoiser",
    "TreeSolution",
    "consistency_pair",
    "decode",
    "encode",
    "leaf_seed",
    "noised",
    "pairs",
    "progressive_target",
    "sample_tree",
    "score_gradient",
    "solve_tree",
    "step",
]
