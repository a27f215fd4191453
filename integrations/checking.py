"""`check`: which head, time, direction and input a model has, measured on clean samples of its user."""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch

from ..solvers.answers import check_state
from ..solvers.arrays import Array
from ..solvers.conditions import check_rows
from ..solvers.denoiser import Denoiser
from ..solvers.heads import HEADS, Level, from_pair, network_rate
from ..solvers.noise import randn
from ..solvers.schedules.base import Schedule
from ..solvers.schedules.straight import FlowMatching
from ..solvers.schedules.tabulated import Discrete
from .network import Preconditioned
from .selfcheck import place_of, plain

LEVELS = 6
WIDEST = 3.0  # |lam| beyond which all conventions are alike at one end
SAME = 0.03  # by how much errors may differ at a level and be chance; more, if x0 has few numbers
TIE = 1.01  # up to this ratio the convention that comes first is taken
SIGMA_DATA = (0.5, 1.0)  # of EDM, and of v-prediction
POOR = 1.2  # an error above this is worse than what mean and standard deviation alone know


@dataclass(frozen=True)
class Check:
    """What `check` has found.

    ok:         whether the denoiser as it is fits as well as any.
    error:      of the denoiser as it is; ``best``: of the convention that fits best. Root mean square error of x0 over
                the levels, each divided by that of the best linear denoiser that knows the mean and the standard
                deviation of x0 alone: below 1 the model knows more.
    prediction, time, input, data: that convention. advice: what to write.
    lam:        the levels, with the errors there: ``errors``, and ``best_errors``.
    """

    ok: bool
    error: float
    best: float
    prediction: str
    time: str
    input: str
    data: str
    advice: tuple[str, ...]
    lam: tuple[float, ...]
    errors: tuple[float, ...]
    best_errors: tuple[float, ...]

    def __str__(self) -> str:
        head = "ok: the model fits what is said of it" if self.ok else "not ok: " + "; ".join(self.advice)
        rows = {"lam": self.lam, "error as given": self.errors}
        if not self.ok:
            rows["error at best"] = self.best_errors
        lines = [f"{name:>15}" + "".join(f"{value:9.3g}" for value in row) for name, row in rows.items()]
        return "\n".join([head, *lines, "errors of x0; 1: knows mean and standard deviation of the data alone"])


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


class Found(NamedTuple):
    """One convention: the advice it comes to, its parts, and its errors by level."""

    advice: tuple[str, ...]
    names: tuple[str, str, str, str]
    errors: Array

    @property
    def error(self) -> float:
        worst = float(np.sqrt(np.mean(np.square(self.errors))))
        return worst if np.isfinite(worst) else np.inf


def check(den: Denoiser, x0: torch.Tensor, *, seed: int = 0) -> Check:
    """What fits the model of ``den`` best: its head, its time and direction, the scale of its input and of the data.

    x0: clean samples (B, ...) as the model was trained on, a few; rows of the conditions belong to them. They are
    noised at six levels, and the model is asked under some ten conventions of time, each with 6 B rows at once; heads
    cost nothing. Guidance and map_x0 are left out. Noise is that of ``seed``.

    Raises ValueError for x0 that is constant or not finite, and what the model raises under every convention.
    """
    check_state(x0, "x0")
    if not isinstance(den, Denoiser):
        raise TypeError(f"den must be a logsnr.Denoiser, not {type(den).__name__}; logsnr.wrap makes one of a model")
    if not torch.isfinite(x0).all() or not x0.double().std(correction=0) > 0:
        raise ValueError("x0 must be finite, and not constant: clean samples (B, ...) of the data")
    check_rows("conditions", den.conditions, len(x0))
    given = list(_conventions(den, x0, seed))
    as_is = next(found for found in given if not found.advice)
    if isinstance(den.model, Preconditioned):  # its own sigma_data and sign may be wrong
        bare = copy(den)
        bare.model, bare.time, bare.prediction = den.model.net, "sigma", ""
        given = [as_is, *_conventions(bare, x0, seed)]
    best = min(given, key=lambda found: found.error)
    most = (1 + max(SAME, 0.5 / x0.numel() ** 0.5)) * best.errors
    likely = [found for found in given if (found.errors <= most).all()] or [best]
    chosen = min(likely, key=lambda found: (len(found.advice), found.error > best.error * TIE))
    advice = chosen.advice
    if chosen.error > POOR:
        near = f" (nearest: {'; '.join(advice)})" if advice else ""
        advice = (f"no known convention fits{near}; conditions, the data's scale or the schedule may be others",)
    rows = map(_floats, (_lams(den.schedule), as_is.errors, chosen.errors))
    return Check(not advice, as_is.error, chosen.error, *chosen.names, advice, *rows)


def _floats(values: Array) -> tuple[float, ...]:
    return tuple(np.asarray(values, dtype=np.float64).tolist())


def _lams(sch: Schedule) -> Array:
    clean = sch.t_end if sch.last_level is None else sch.last_level
    low, high = float(sch.half_logsnr(sch.t_start)), float(sch.half_logsnr(clean))
    return np.linspace(max(low, -WIDEST), min(high, WIDEST), LEVELS)


def _conventions(den: Denoiser, x0: torch.Tensor, seed: int) -> Iterator[Found]:
    """All that are tried, what ``den`` says first. Raises what the model raises, if it does so every time."""
    seen, device, x0 = den.dtype(x0), place_of(den, x0.device), x0.detach().cpu().double()
    t = np.asarray(den.schedule.time(_lams(den.schedule)))
    at, samples = Level.at(den.schedule, t), torch.arange(len(x0)).repeat(LEVELS)
    noise = randn((LEVELS * len(x0), *x0.shape[1:]), seed=seed, dtype=torch.float64)
    times = torch.from_numpy(t).repeat_interleave(len(x0))
    failed: Exception | None = None
    answered = False
    for (data, change), (scaled, divide), told in product(_data(x0), _inputs(at), _told(den)):
        clean = change(x0)[samples]
        x = _rows(at.alpha, clean) * clean + _rows(at.sigma, clean) * noise
        try:
            answer = _asked(den, told, (x / _rows(divide, x)).to(seen).to(device), times, samples)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            failed = failed or error
            answer = torch.full_like(x, torch.nan)
        else:
            answered = True
        spread, gram = float(change(x0).std(correction=0)), _gram(answer, clean, noise)
        for form in _forms(den, told.schedule, at, scaled):
            changed = [data != "x0" and f"the data should be {data}", form.advice]
            changed.append(not (form.whole and told.text == "c_noise") and told.advice)
            changed.append(scaled != "x" and not form.whole and f"input should be scaled: the model wants {scaled}")
            names = form.text, told.text, scaled, data
            yield Found(tuple(c for c in changed if c), names, _errors(form, at, gram, spread))
    if failed is not None and not answered:
        raise failed


def _asked(den: Denoiser, told: Told, x: torch.Tensor, times: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
    other = copy(plain(den))
    other.schedule, other.time = told.schedule, told.time
    with torch.no_grad():
        return other.predict(x, times, samples).cpu().double()


def _gram(*parts: torch.Tensor) -> Array:
    """(LEVELS, 3, 3): mean products of answer, x0 and noise, from which the error of every head follows."""
    flat = torch.stack([part.reshape(LEVELS, -1) for part in parts], 1)
    return np.asarray((flat @ flat.mT / flat.shape[2]).cpu().numpy())


def _errors(form: Form, at: Level, gram: Array, spread: float) -> Array:
    """By level: the root mean square error of x0 that the answer means, over that of the best linear denoiser."""
    off = np.stack([np.ones(LEVELS), -form.p, -form.q], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.sqrt(np.einsum("la,lab,lb->l", off, gram, off).clip(min=0))
        scale = np.sqrt(at.alpha**2 * spread**2 + at.sigma**2) / spread
        return np.asarray(size * scale / np.abs(form.p * at.sigma - form.q * at.alpha))


def _rows(values: Any, like: torch.Tensor) -> torch.Tensor:
    """(LEVELS,) by the rows of ``like``."""
    column = torch.from_numpy(np.broadcast_to(values, LEVELS).copy()).repeat_interleave(len(like) // LEVELS)
    return column.to(like.device).reshape(-1, *[1] * (like.ndim - 1))


def _data(x0: torch.Tensor) -> list[tuple[str, Callable[[torch.Tensor], torch.Tensor]]]:
    found: list[tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = [("x0", lambda x: x)]
    low, high, spread = float(x0.min()), float(x0.max()), float(x0.std(correction=0))
    if low >= 0 and 0.5 < high <= 1:
        found.append(("2 * x0 - 1", lambda x: 2 * x - 1))
    if -1 <= low < -0.5 and high <= 1:
        found.append(("(x0 + 1) / 2", lambda x: (x + 1) / 2))
    if not 0.2 < spread < 2:
        found.append((f"x0 * {1 / spread:.3g}", lambda x: x / spread))
    return found


def _inputs(at: Level) -> list[tuple[str, Array]]:
    found = [("x", np.ones(LEVELS))]
    if (at.alpha == 1).all():
        found += [(_scaled(d), np.sqrt(d * d + at.sigma**2)) for d in SIGMA_DATA]
    else:
        found.append(("x / alpha", np.asarray(at.alpha)))
    return found


def _scaled(sigma_data: float) -> str:
    return f"x / sqrt({sigma_data**2:g} + sigma^2)"


def _told(den: Denoiser) -> Iterator[Told]:
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


def _forms(den: Denoiser, sch: Schedule, at: Level, scaled: str) -> Iterator[Form]:
    """Heads on the schedule ``sch``, which may run the other way, with either sign; F of EDM where its input is."""
    sign_told = "the answer has the other sign: lambda x, t: -net(x, t)"
    for name in HEADS:
        p, q = (np.broadcast_to(network_rate(name, sch) * np.asarray(c), LEVELS) for c in from_pair(name, at))
        told = "" if name == den.prediction else f"head is {name}: prediction={name!r}"
        yield Form(name, p, q, told)
        yield Form(f"-{name}", -p, -q, "; ".join(filter(None, (told, sign_told))))
    for d, sign in product(SIGMA_DATA, ("", "-")):
        if scaled == _scaled(d):
            norm = float(f"{sign}1") * d * np.sqrt(at.sigma**2 + d * d)
            call = f"logsnr.integrations.edm_raw(net, {d:g}{', sign=-1' if sign else ''})"
            told = f"head is {sign}F of EDM: {call}"
            yield Form(f"{sign}F, sigma_data = {d:g}", at.sigma / norm, -d * d / norm, told, whole=True)
