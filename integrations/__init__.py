"""Ways into the programs that people run, and for their models into this library. The other libraries stay optional."""

from .checking import Check, check
from .forms import (
    azula,
    edm,
    edm_raw,
    flow,
    from_k_diffusion,
    guided_diffusion,
    lucidrains,
    score_sde,
    trigflow,
)
from .pretrained import from_diffusers
from .wrapping import wrap

__all__ = [
    "Check",
    "azula",
    "check",
    "edm",
    "edm_raw",
    "flow",
    "from_diffusers",
    "from_k_diffusion",
    "guided_diffusion",
    "lucidrains",
    "score_sde",
    "trigflow",
    "wrap",
]
