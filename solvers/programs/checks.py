"""What the calls and the grid of a program must be to one another, and a program to a schedule and to states; each call
is checked where it is made, in `call`."""

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..schedules.base import Schedule
from .call import ONE, STATE, Call, NoiseKey, finite, sequence

if TYPE_CHECKING:
    from .program import Program

SLACK = 1e-6  # of the span, that the ends of a program may be off


def checked_grid(grid: Any) -> tuple[float, ...]:
    """The times as floats; ValueError unless they are finite and strictly monotone."""
    times = tuple(finite("a time of the grid", t) for t in sequence("grid", grid))
    if len(times) < 2:
        raise ValueError(f"grid must have at least 2 times, not {len(times)}")
    back = times[-1] < times[0]
    for n, (s, t) in enumerate(pairwise(times)):
        if s == t or (t < s) is not back:
            raise ValueError(f"grid must be strictly monotone, but times {n} and {n + 1} are {s:.6g} and {t:.6g}")
    return times


def written_slots(calls: Iterable[Call]) -> set[int]:
    """All slots that hold something at some time; ValueError if one is read before."""
    written, call = {ONE, STATE}, None
    for n, call in enumerate(calls):
        if missing := {call.at, *call.reads} - written:
            raise ValueError(f"call {n} reads slots {sorted(missing)} that nothing has written")
        written.update(call.writes)
    if call is None or STATE not in call.writes:
        raise ValueError("the last call must write the state, slot 0")
    return written


def check_nodes(calls: Iterable[Call], steps: int) -> None:
    """ValueError unless the nodes that calls reach increase, and are nodes of a grid of ``steps``."""
    nodes = [call.node for call in calls if call.node is not None]
    if any(a >= b for a, b in pairwise(nodes)) or not all(1 <= node <= steps for node in nodes):
        raise ValueError(f"the nodes that calls reach must increase from 1 to at most {steps}, not be {nodes!s:.60}")


def common_event(calls: Iterable[Call]) -> tuple[int, ...]:
    """The shape to which those of per-element coefficients broadcast."""
    shapes = sorted({call.event for call in calls})
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(f"per-element coefficients of the shapes {shapes!s:.60} do not fit together") from None


def check_disjoint(keys: Iterable[NoiseKey]) -> None:
    """ValueError if two different intervals of a stream overlap."""
    ordered = sorted(keys, key=lambda key: (key.stream, min(key.s, key.t)))
    for one, other in pairwise(ordered):
        if one.stream == other.stream and min(other.s, other.t) < max(one.s, one.t):
            raise ValueError(f"{one} and {other} overlap; split them into the same parts, or give one another stream")


def check_elements(program: "Program") -> None:
    """ValueError for a program in a basis, whose states are coordinates: of what works on the elements of states."""
    if program.basis is not None:
        raise ValueError(
            f"{program.name} is in the basis {program.basis}, where states are coordinates: "
            "it is run by logsnr.solve and logsnr.sample, and nothing else"
        )


def check_event(event: tuple[int, ...], x: torch.Tensor) -> None:
    """ValueError unless coefficients for samples of shape ``event`` fit those of x."""
    shape = tuple(x.shape[1:])
    if len(event) > len(shape) or any(e not in (1, n) for e, n in zip(event[::-1], shape[::-1], strict=False)):
        raise ValueError(f"the program has coefficients for samples of shape {event}, not {shape} as of x")


def check_times(sch: Schedule, program: "Program", why: str = "it was made for another schedule") -> None:
    """ValueError, which says ``why``, unless all times of the program lie in the schedule's domain."""
    low, high = sch.domain
    slack = SLACK * (high - low)
    for t in (*program.grid, *(call.t for call in program)):
        if not low - slack <= t <= high + slack:
            raise ValueError(
                f"{program.name} has the time {t:.6g}, outside the times of {sch}, {low:.6g} to {high:.6g}: {why}"
            )
