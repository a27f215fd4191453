"""What the sampler of another library does itself, on exact problems: as it is run, and its formula alone."""

from collections.abc import Callable
from typing import NamedTuple

from ...integrations.doctor import Finding
from ...integrations.doctor.types import Subject
from ..peers.samplers import missing
from .diffusers import extra, of_diffusers
from .functions import k_diffusion_name, of_azula, of_k_diffusion
from .ways import Way, measured


class Library(NamedTuple):
    """A package, its extra of pip, and the ways to run a subject with it. extra: what else is measured."""

    package: str
    pip: str
    ways: Callable[[Subject], list[Way]]
    extra: Callable[[Subject], list[Finding]] = lambda subject: []


LIBRARIES = {
    "diffusers": Library("diffusers", "logsnr[diffusers]", of_diffusers, extra),
    "ComfyUI": Library("k-diffusion", "logsnr[peers]", of_k_diffusion),
    "A1111": Library("k-diffusion", "logsnr[peers]", of_k_diffusion),
    "azula": Library("azula", "logsnr[peers]", of_azula),
}


def check_foreign(subject: Subject) -> None:
    """ValueError where the library's own sampler cannot be run."""
    library = LIBRARIES.get(subject.library)
    if library is None:
        raise ValueError(f"measure runs diffusers, k-diffusion and azula, not {subject.library}; leave out --measure")
    if subject.config.get("sigma_data") is not None:
        raise ValueError("measure is for models with a table of betas and for flow models; leave out --measure")
    if why := missing(library.package):
        raise ValueError(f"measure needs {library.package} ({why}): pip install '{library.pip}', or leave it out")
    if library.package == "k-diffusion":
        k_diffusion_name(subject)


def foreign(subject: Subject) -> list[Finding]:
    """Orders and errors of the sampler itself, as findings."""
    library = LIBRARIES[subject.library]
    return [*map(measured, library.ways(subject)), *library.extra(subject)]
