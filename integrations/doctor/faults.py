"""Faults of other libraries that were found by measuring their orders, and whom they concern."""

from collections.abc import Callable
from dataclasses import dataclass

from .types import Subject


@dataclass(frozen=True)
class Fault:
    """when: whom it concerns. severity: "warning" or "danger"."""

    when: Callable[[Subject], bool]
    severity: str
    text: str


def _class(*names: str) -> Callable[[Subject], bool]:
    return lambda subject: any(subject.name.startswith(name) for name in names)


def _signed(subject: Subject) -> bool:
    return subject.library == "diffusers" and subject.solver == "sde-dpmpp-3m"


def _halved(subject: Subject) -> bool:
    return bool(subject.compat) and not subject.own and subject.solver in ("dpmpp-3m", "sde-dpmpp-3m")


def _truncated(subject: Subject) -> bool:
    return bool(subject.config.get("use_exponential_sigmas") or subject.config.get("use_beta_sigmas"))


def _shifted_twice(subject: Subject) -> bool:
    shift = float(subject.config.get("shift") or 1)
    return subject.name.startswith("FlowMatch") and shift != 1 and not subject.config.get("use_dynamic_shifting")


FAULTS = (
    Fault(
        _halved, "warning", "3M multiplies a second difference that is h^2 f'' / 2 by the weight of h^2 f'': half of "
        "the term is missing, and it is a method of order 2.",
    ),
    Fault(
        _signed, "danger", "sde-dpmsolver++ of order 3 in diffusers has - 0.5 where + 0.5 belongs, in the weight of "
        "the second difference: weak order 1, and worse than order 2 at any number of steps. Take solver_order=2.",
    ),
    Fault(
        _class("heunpp2"), "warning", "heunpp2 weighs slopes at three nodes by sigma / (3 sigma_0): order 1, for three "
        "evaluations a step. heun has two, and order 2.",
    ),
    Fault(
        _class("dpm++2mv2"), "warning", "dpm++2mv2 takes the mean of two steps for the length of one: order 1 where "
        "steps differ. dpmpp-2m has order 2.",
    ),
    Fault(
        _class("sd.cpp ipndm_v"), "warning", "ipndm_v of stable-diffusion.cpp has the weights of equal steps at orders "
        "3 and 4, as ipndm has: order 2 where steps differ. lms-4 has the right ones.",
    ),
    Fault(
        lambda s: s.own is not None and s.own.name.startswith("REAB"), "warning", "REABSampler of azula multiplies its "
        "integral by sqrt(alpha_t^2 + sigma_s^2), a step from s to t; it should be sigma_t: order 1 at any order.",
    ),
    Fault(
        _class("DEISMultistep", "SASolver"), "warning", "Its coefficients are computed in fp32 from fp32 sigmas and "
        "cancel: on smooth grids order 3 gets worse beyond 24 to 48 steps. logsnr's are float64, without cancellation.",
    ),
    Fault(
        lambda s: _class("UniPC")(s) and (s.config.get("solver_order") or 2) > 3, "danger", "UniPC of order 4 solves "
        "small linear systems in fp32: NaN with many steps.",
    ),
    Fault(
        lambda s: s.library == "diffusers" and _truncated(s), "warning", "Exponential and beta grids are truncated, "
        "not rounded, to whole timesteps: the model is told less noise than there is, at every step.",
    ),
    Fault(
        _shifted_twice, "warning", "The shift is applied twice to the clean end of the grid: sigma of the last call is "
        "not that of one shift.",
    ),
)  # fmt: skip
