"""Other libraries: each module needs its own one, which is imported when it is first used."""

from importlib import import_module
from types import ModuleType

MODULES = ("diffusers",)


def __getattr__(name: str) -> ModuleType:
    if name in MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = list(MODULES)
