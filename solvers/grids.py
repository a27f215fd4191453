"""Grids: the times at which a solver stops, float64, from noisy to clean (or back, to encode data)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from .arrays import Array
from .names import nearest
from .schedules.base import Schedule, check_schedule

# Where a schedule itself does not end at a finite log-SNR: t from 0.999 to 0.001 for flow matching.
WINDOW = 7.0
KARRAS_RHO = 7.0


def grid(
    sch: Schedule,
    steps: int,
    kind: str = "logsnr",
    *,
    t_start: float | None = None,
    t_end: float | None = None,
) -> Array:
    """``steps + 1`` times from t_start to t_end (by default the schedule's own span).

    kind: "logsnr" uniform in lam (Lu et al. 2022a); "karras" uniform in (sigma/alpha)^(1/7) (Karras et al.
    2022, eq. 5); "time" uniform in t. A grid to sigma = 0 is laid out down to the last level at which the network
    is asked, with one step less, and goes on to the end in the last step (Karras et al. 2022, as other libraries).
    Where there is no such level, or an end has alpha = 0, the first two kinds are laid out up to |lam| = 7 and the
    outermost node is moved to the true end.

    Raises ValueError for steps < 1, unknown kinds and ends outside the schedule.
    """
    check_schedule(sch)
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ValueError(f"steps must be an integer of at least 1, not {steps!r}")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"grid = {kind!r} is neither an array of times nor a known name{nearest(kind, _KINDS)}")
    ends, last = _ends(sch, t_start, t_end), sch.last_level
    if last is not None and sch.sigma(ends[1]) == 0 and ends[0] > last:  # the last step goes on to sigma = 0
        inner = grid(sch, steps - 1, kind, t_start=t_start, t_end=last) if steps > 1 else ends[:1]
        return check_grid(sch, [*inner, ends[1]])
    times = _KINDS[kind](sch, int(steps), ends)
    times[0], times[-1] = ends  # exactly, whatever the inverse of lam rounds to
    return check_grid(sch, times)


def _ends(sch: Schedule, t_start: float | None, t_end: float | None) -> Array:
    given = (sch.t_start if t_start is None else t_start), (sch.t_end if t_end is None else t_end)
    try:
        return check_grid(sch, given)
    except ValueError as error:
        raise ValueError(f"t_start = {given[0]!r:.60} to t_end = {given[1]!r:.60}: {error}") from None


def end_time(name: str, t: Any) -> float | None:
    """An end of the span as a number, or None. ValueError for what is neither; whether it lies in the schedule is seen
    later."""
    if t is None or isinstance(t, float):
        return t
    if isinstance(t, (str, bool)) or getattr(t, "ndim", False):
        raise ValueError(f"{name} must be a number, not {t!r:.60}")
    try:
        return float(t)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a number, not {t!r:.60}") from None


def check_grid(sch: Schedule, times: Any) -> Array:
    """``times`` as a float64 array; ValueError unless it is 1-D, finite, strictly monotone and in the domain."""
    check_schedule(sch)
    if isinstance(times, torch.Tensor):
        times = times.detach().cpu().double().numpy()
    try:
        t = np.array(times, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"times must be numbers, not {times!s:.60}") from None
    if t.ndim != 1 or len(t) < 2:
        raise ValueError(f"a grid is a 1-D array of at least 2 times, not an array of shape {t.shape}")
    if not np.isfinite(t).all():
        raise ValueError(f"grid[{int(np.argmin(np.isfinite(t)))}] is not finite")
    low, high = sch.domain
    slack = 1e-6 * (high - low)  # what a rounding to fp32 may add
    outside = (t < low - slack) | (t > high + slack)
    if outside.any():
        i = int(np.argmax(outside))
        raise ValueError(f"grid[{i}] = {t[i]:.6g} is outside the times of {sch}, {low:.6g} to {high:.6g}")
    t = np.clip(t, low, high)
    steps = np.diff(t)
    wrong = steps * np.sign(t[-1] - t[0]) <= 0
    if wrong.any():
        i = int(np.argmax(wrong))
        what = "a duplicate" if steps[i] == 0 else "not monotone"
        raise ValueError(
            f"the grid must be strictly monotone; grid[{i}] = {t[i]:.6g}, grid[{i + 1}] = {t[i + 1]:.6g} is {what}"
        )
    return t


def _lam_window(sch: Schedule, ends: Array) -> tuple[float, float]:
    """lam at the ends, with infinities replaced by the edge of the part that is laid out."""
    lam = np.asarray(sch.half_logsnr(ends))
    noisy, clean = (float(sch.half_logsnr(t)) for t in (sch.t_start, sch.t_end))
    low = noisy if np.isfinite(noisy) else -WINDOW
    high = clean if np.isfinite(clean) else WINDOW
    finite = lam[np.isfinite(lam)]
    if len(finite):  # a span that starts beyond the window still needs room for its steps
        low, high = min(low, finite[0] - 1), max(high, finite[0] + 1)
    first, last = np.where(np.isfinite(lam), lam, np.clip(lam, low, high))
    return float(first), float(last)


def _logsnr(sch: Schedule, steps: int, ends: Array) -> Array:
    return np.asarray(sch.time(np.linspace(*_lam_window(sch, ends), steps + 1)))


def _karras(sch: Schedule, steps: int, ends: Array) -> Array:
    first, last = (np.exp(-lam / KARRAS_RHO) for lam in _lam_window(sch, ends))
    return np.asarray(sch.time(-KARRAS_RHO * np.log(np.linspace(first, last, steps + 1))))


def _time(sch: Schedule, steps: int, ends: Array) -> Array:
    return np.linspace(ends[0], ends[1], steps + 1)


_KINDS: dict[str, Callable[[Schedule, int, Array], Array]] = {"logsnr": _logsnr, "karras": _karras, "time": _time}
GRIDS: Sequence[str] = tuple(_KINDS)
