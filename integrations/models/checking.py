"""`check`: which head, time, direction and input a model has, measured on clean samples of its user."""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch

from ...solvers.arrays import Array
from ...solvers.denoisers.answers import check_state
from ...solvers.denoisers.conditions import check_rows
from ...solvers.denoisers.denoiser import Denoiser, check_denoiser
from ...solvers.denoisers.heads import Level
from ...solvers.runs.normals import randn
from ...solvers.schedules.base import Schedule
from .candidates import Form, Told, data_scales, heads_of, inputs, times_told
from .network import Preconditioned
from .selfcheck import place_of, plain

LEVELS = 6
WIDEST = 3.0  # |lam| beyond which all conventions are alike at one end
FEW = 400  # numbers, with fewer of which errors differ more by chance
SAME = 0.03  # by how much errors may differ at a level and be chance
TIE = 0.01  # likewise over all levels: what comes first is taken, and what the denoiser is comes before all
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
    noised at six levels, and the model is asked some twenty times with 6 B rows: under some ten conventions of time,
    each with two or three scales of the input. Heads cost nothing. Guidance and map_x0 are left out; the noise is that
    of ``seed``.

    Raises ValueError for x0 that is constant or not finite, and what the model raises under every convention.
    """
    check_state(x0, "x0")
    check_denoiser(den)
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
    at_level, over_all = (1 + least * max(1, FEW / x0.numel()) ** 0.5 for least in (SAME, TIE))
    likely = [found for found in given if (found.errors <= at_level * best.errors).all()] or [best]
    if as_is.error <= over_all * best.error:
        likely = [as_is]
    chosen = min(likely, key=lambda found: (len(found.advice), found.error > best.error * over_all))
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
    for (data, change), (scaled, divide), told in product(data_scales(x0), inputs(at), times_told(den)):
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
        for form in heads_of(den, told.schedule, at, scaled):
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
