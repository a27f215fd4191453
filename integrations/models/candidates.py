"""What `check` tries: scales of the data and of the input, times and directions, heads."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch

from ...solvers.arrays import Array
from ...solvers.denoisers.denoiser import Denoiser
from ...solvers.denoisers.heads import HEADS, Level, from_pair, network_rate
from ...solvers.schedules.base import Schedule
from ...solvers.schedules.straight import FlowMatching
from ...solvers.schedules.tabulated import Discrete

SIGMA_DATA = (0.5, 1.0)  # of EDM, and of v-prediction


class Told(NamedTuple):
    """A time, as one would write it, and the schedule it is of."""

    text: str
    time: Any
    schedule: Schedule
    advice: str


class Form(NamedTuple):
    """A head: p x0 + q eps, by level. whole: its advice says its time, "c_noise", and its input as well."""

    text: str
    p: Array
    q: Array
    advice: str
    whole: bool = False


def data_scales(x0: torch.Tensor) -> list[tuple[str, Callable[[torch.Tensor], torch.Tensor]]]:
    found: list[tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = [("x0", lambda x: x)]
    low, high, spread = float(x0.min()), float(x0.max()), float(x0.std(correction=0))
    if low >= 0 and 0.5 < high <= 1:
        found.append(("2 * x0 - 1", lambda x: 2 * x - 1))
    if -1 <= low < -0.5 and high <= 1:
        found.append(("(x0 + 1) / 2", lambda x: (x + 1) / 2))
    if not 0.2 < spread < 2:
        found.append((f"x0 * {1 / spread:.3g}", lambda x: x / spread))
    return found


def inputs(at: Level) -> list[tuple[str, Array]]:
    found = [("x", np.ones(len(at.alpha)))]
    if (at.alpha == 1).all():
        found += [(_scaled(d), np.sqrt(d * d + at.sigma**2)) for d in SIGMA_DATA]
    else:
        found.append(("x / alpha", np.asarray(at.alpha)))
    return found


def _scaled(sigma_data: float) -> str:
    return f"x / sqrt({sigma_data**2:g} + sigma^2)"


def times_told(den: Denoiser) -> Iterator[Told]:
    sch = den.schedule
    yield Told(den.time if isinstance(den.time, str) else "as given", den.time, sch, "")
    names = [name for name in ("t", "1000t", "sigma", "c_noise") if name != den.time]
    names += ["index"] if isinstance(sch, Discrete) and den.time != "index" else []
    for name in names:
        yield Told(name, name, sch, f"time should be {name!r}: time={name!r}")
    if isinstance(sch, FlowMatching):
        other = FlowMatching(data_at=1 - sch.data_at)
        for name in ("t", "1000t"):
            extra = "" if name == den.time else f", and time={name!r}"
            yield Told(name, name, other, f"t runs the other way: schedule=logsnr.{other}{extra}")
    else:
        for text, time in _backwards(sch):
            yield Told(text, time, sch, f"t runs the other way: time={text}")
    for text, time in _further(sch):
        yield Told(text, time, sch, f"time should be {text.removeprefix('lambda t: ')}: time={text}")


def _backwards(sch: Schedule) -> list[tuple[str, Any]]:
    last = sch.domain[1]
    if isinstance(sch, Discrete):
        return [
            (f"lambda t: {last:g} - t", lambda t: last - t),
            (f"lambda t: 1 - t / {last:g}", lambda t: 1 - t / last),
        ]
    if last == 1:
        return [("lambda t: 1 - t", lambda t: 1 - t), ("lambda t: 1000 * (1 - t)", lambda t: 1000 * (1 - t))]
    return []


def _further(sch: Schedule) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [
        ("lambda t: 2 * schedule.half_logsnr(t)", lambda t: 2 * sch.half_logsnr(t)),
        ("lambda t: schedule.half_logsnr(t).neg().exp()", lambda t: sch.half_logsnr(t).neg().exp()),
        ("lambda t: 2 / torch.pi * schedule.half_logsnr(t).neg().exp().atan()", lambda t: _angle(sch, t)),
    ]
    if isinstance(sch, Discrete):
        count = len(sch.alphas_cumprod)
        found.append((f"lambda t: t / {count}", lambda t: t / count))
    return found


def _angle(sch: Schedule, t: torch.Tensor) -> torch.Tensor:
    return 2 / torch.pi * sch.half_logsnr(t).neg().exp().atan()


def heads_of(den: Denoiser, sch: Schedule, at: Level, scaled: str) -> Iterator[Form]:
    """Heads on the schedule ``sch``, which may run the other way, with either sign; F of EDM where its input is."""
    sign_told = "the answer has the other sign: lambda x, t: -net(x, t)"
    for name in HEADS:
        p, q = (np.broadcast_to(network_rate(name, sch) * np.asarray(c), len(at.alpha)) for c in from_pair(name, at))
        told = "" if name == den.prediction else f"head is {name}: prediction={name!r}"
        yield Form(name, p, q, told)
        yield Form(f"-{name}", -p, -q, "; ".join(filter(None, (told, sign_told))))
    for d, sign in product(SIGMA_DATA, ("", "-")):
        if scaled == _scaled(d):
            norm = float(f"{sign}1") * d * np.sqrt(at.sigma**2 + d * d)
            call = f"logsnr.integrations.edm_raw(net, {d:g}{', sign=-1' if sign else ''})"
            told = f"head is {sign}F of EDM: {call}"
            yield Form(f"{sign}F, sigma_data = {d:g}", at.sigma / norm, -d * d / norm, told, whole=True)
