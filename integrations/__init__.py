"""Ways into the programs that people run, and for their models into this library. The other libraries stay optional."""

from importlib import import_module
from types import ModuleType

from .models.checking import Check, check
from .models.forms import azula, edm, edm_raw, flow, from_k_diffusion, guided_diffusion, lucidrains, score_sde, trigflow
from .models.pretrained import from_diffusers
from .models.wrapping import wrap

MODULES = ("comfyui", "diffusers", "k_diffusion")  # imported when they are first used, with what they need


def __getattr__(name: str) -> ModuleType:
    if name in MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
    *MODULES,
]
