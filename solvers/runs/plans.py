"""What a run is planned as: made once per setting, and kept."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from ...kernels import transformed
from ..catalogue.catalogue import Solver
from ..catalogue.planning import Layout, specialised
from ..denoisers.denoiser import Denoiser, as_timesteps, time_map
from ..denoisers.guidance import Rule
from ..planners.gauge import Gauge
from ..programs.checks import check_event
from ..programs.lower import Lowered, lower
from ..programs.program import Program
from ..schedules.base import Schedule


def lowered_for(
    method: Solver | Program,
    den: Denoiser,
    x: torch.Tensor,
    layout: tuple[Any, ...],
    columns: bool,
    coordinates: bool = False,
) -> Lowered:
    """The plan of a run; ``columns``: it is one in which guidance can be columns of the program. coordinates: whether
    its states are those of the program's basis, see `coordinates`; else a program in a basis is refused."""
    planner, event = getattr(method, "planner", None), None
    if hasattr(planner, "suited"):
        event = tuple(map(specialised, x.shape[1:]))
    gauge = getattr(planner, "gauge", None)
    if isinstance(gauge, Gauge) and not transformed():
        gauge.check(den, x)
    named, rule = den.time if isinstance(den.time, str) else None, den.guidance.rule if den.guidance else None
    if rule and not (columns and den.map_x0 is None and rule.columns):
        rule = None
    lowered = _plan(
        method, den.schedule, layout, den.answers, den.state_dtype(x), den.dtype(x), named, rule, den.spread,
        event, den.guidance is not None, coordinates,
    )  # fmt: skip
    if (basis := lowered.program.basis) is not None:
        if torch.compiler.is_compiling():
            raise ValueError("programs in a basis are not compiled: compile the model instead")
        if den.spread != 1:
            raise ValueError(f"{lowered.program.name} is in the basis {basis}, which is of real states; x is complex")
        basis.check(tuple(x.shape[1:]))
    if lowered.program.event:
        check_event(lowered.program.event, x)
    return lowered


def suited_to(method: Any, event: tuple[int, ...], guided: bool, head: str) -> Solver:
    """A solver whose planner chooses by what the samples look like, for samples of this shape, and by the model."""
    return replace(method, planner=method.planner.suited(event, guided, head))


def laid_out(*fields: Any) -> Layout:
    """A `Layout`, which torch.compile takes for a constant."""
    return Layout(*fields)


def _plan(*setting: Any) -> Lowered:
    return _planned(*setting)


for function in (laid_out, _plan):  # as torch.compiler.assume_constant_result, imported cheaply
    setattr(function, "_dynamo_marked_constant", True)  # noqa: B010


@lru_cache(maxsize=256)
def _planned(
    method: Solver | Program,
    sch: Schedule,
    layout: tuple[Any, ...],
    prediction: str,
    state: torch.dtype,
    model: torch.dtype,
    time: str | None,
    rule: Rule | None,
    spread: float,
    event: tuple[int, ...] | None,
    guided: bool,
    coordinates: bool,
) -> Lowered:
    """Everything that can be known before the first model call. event: the shape of the samples, for a solver whose
    planner chooses by what they look like."""
    if event is not None:
        method = suited_to(method, event, guided, prediction)
    program = Layout(*layout).program(method, sch, prediction)
    shown = model if program.basis is None else state  # the model is shown what is made of the coordinates
    lowered = lower(
        program, sch, prediction, state=state, model=shown, rule=rule, spread=spread, coordinates=coordinates
    )
    if time is None:  # a callable of the user's: asked at every run
        return lowered
    with torch.inference_mode(False):  # for runs outside it too
        times = torch.tensor(lowered.times, dtype=torch.float64, device="cpu")
        return replace(lowered, timesteps=as_timesteps(time_map(time, sch)(times), model).unsqueeze(1))
