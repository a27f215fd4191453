"""What is done with a trained denoiser beside drawing samples: inverse problems, editing, flow maps, teachers.

Everything here stands on `logsnr.solvers`, and nothing there imports it.
"""

from .flow_maps import FlowMap
from .one_step import step
from .pairs import pairs
from .shards import Pairs
from .teachers import consistency_pair, noised, progressive_target, score_gradient

__all__ = ["FlowMap", "Pairs", "consistency_pair", "noised", "pairs", "progressive_target", "score_gradient", "step"]
