"""Grids: the times at which a solver stops, float64, from noisy to clean (or back, to encode data)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arrays import Array
from ..names import grid_hint
from ..schedules.base import Schedule, check_schedule
from ..schedules.tabulated import Discrete
from .levels import Shift, as_shift, check_monotone, check_noisiest, is_straight, numbers
from .lists import LISTS
from .shapes import SHAPES, Shape, of_callable

# Where a schedule itself does not end at a finite log-SNR: t from 0.999 to 0.001 for flow matching.
WINDOW = 7.0
KINDS = SHAPES | LISTS
GRIDS: Sequence[str] = ("logsnr", "karras", "time")  # what comparisons take unless they are told


def grid_names() -> tuple[str, ...]:
    """The names that ``grid=`` takes."""
    return tuple(KINDS)


def grid(
    sch: Schedule,
    steps: int,
    kind: str | Callable[[float], Any] = "logsnr",
    *,
    t_start: float | None = None,
    t_end: float | None = None,
    shift: float | Shift | None = None,
    **options: Any,
) -> Array:
    """``steps + 1`` times from t_start to t_end (by default the schedule's own span).

    kind: "logsnr" uniform in lam (Lu et al. 2022a); "karras" uniform in (sigma/alpha)^(1/7) (Karras et al.
    2022, eq. 5); "time" uniform in t; others, and their options: `grid_names` and docs/grids.md. Or a function from
    the fraction of the run to the fraction of the span in lam (of="time": in t), both 0 at the start and 1 at the end.
    shift: of flow models, a number or a `Shift`; the ends stay where they are.

    A grid to sigma = 0 is laid out down to the last level at which the network is asked, with one step less, and goes
    on to the end in the last step (Karras et al. 2022, as other libraries). Where there is no such level, or an end has
    alpha = 0, most kinds in lam are laid out up to |lam| = 7 and the outermost node is moved to the true end.

    Raises ValueError for steps < 1, unknown kinds and options, ends outside the schedule, lists above it, spacings of
    tables that are none, and a shift where alpha + sigma is not 1.
    """
    check_schedule(sch)
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ValueError(f"steps must be an integer of at least 1, not {steps!r}")
    shape, by = find_shape(kind, options), as_shift(shift)
    _check_fits(sch, kind, shape, by, int(steps), t_start)
    if shape.noisiest is not None:
        check_noisiest(sch, f"the list {kind}", shape.noisiest)
    ends = _ends(sch, t_start, t_end)
    if by is None:
        times = _laid_out(sch, int(steps), shape, ends, options)
    else:
        times = by.moved(sch, _laid_out(sch, int(steps), shape, by.moved(sch, ends, back=True), options))
        times[0], times[-1] = ends
        times = by.stretched(sch, times)
    return check_grid(sch, times)


def find_shape(kind: Any, options: dict[str, Any]) -> Shape:
    """The shape with this name, or of this function. ValueError for unknown names and options, and bad values."""
    if callable(kind):
        shape, known = of_callable(kind, of=options.get("of", "lam")), {"of": "lam"}
    elif isinstance(kind, str) and kind in KINDS:
        shape, known = KINDS[kind], dict(KINDS[kind].options)
    else:
        raise ValueError(f"grid = {kind!r} is neither an array of times nor a known name{grid_hint(kind, KINDS)}")
    for name, value in options.items():
        if name not in known:
            told = f"its options are {' and '.join(known)}" if known else "it has none"
            raise ValueError(f"the grid {kind!r:.60} has no option {name!r}; {told}")
        if told := _wrong(name, value):
            raise ValueError(f"{name} = {value!r:.60} of the grid {kind!r:.60} must be {told}")
    return shape


def _wrong(name: str, value: Any) -> str:
    """What an option must be, if it is not; else nothing."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    amount = float(value) if number else np.nan
    rules = {
        "of": (value in ("lam", "time"), "'lam' or 'time'"),
        "dpm": (isinstance(value, bool), "True or False"),
        "mu": (abs(amount) < np.inf, "a number"),
        "share": (0 <= amount <= 1, "a number from 0 to 1"),
        "offset": (amount in (0, 1), "0 or 1"),
        "linear_steps": (value is None or (amount > 0 and amount % 1 == 0), "a number of steps, or None"),
        **dict.fromkeys(("threshold", "pivot", "middle"), (0 < amount < 1, "a number between 0 and 1")),
    }
    legal, told = rules.get(name, (0 < amount < np.inf, "a positive number"))
    return "" if legal else told


def _check_fits(sch: Schedule, kind: Any, shape: Shape, by: Shift | None, steps: int, t_start: float | None) -> None:
    if shape.of == "index":
        if not isinstance(sch, Discrete):
            raise ValueError(f"the grid {kind!r} is for tables, logsnr.Discrete, not for {sch}; take 'time'")
        if t_start is not None:
            raise ValueError(f"the grid {kind!r} is of the whole table; leave out t_start = {t_start}")
        if steps >= len(sch.alphas_cumprod):
            raise ValueError(f"steps = {steps} is too many for a table of {len(sch.alphas_cumprod)} entries")
    if by is not None and shape.noisiest is not None:
        raise ValueError(f"the list {kind!r} has its shift already; leave out shift")
    if by is not None and not is_straight(sch):
        raise ValueError(f"shift is for flow models, where alpha + sigma = 1, not for {sch}")


def _laid_out(sch: Schedule, steps: int, shape: Shape, ends: Array, options: dict[str, Any]) -> Array:
    """The nodes, the ends exact but for the start of an "index"."""
    whole, last = shape.of == "index" or shape.noisiest is not None, sch.last_before(*ends.tolist())
    if not whole and last is not None:  # the last step goes on from it
        inner = _laid_out(sch, steps - 1, shape, np.array([ends[0], last]), options) if steps > 1 else ends[:1]
        return np.append(inner, ends[1])
    if shape.of == "lam":
        span = np.asarray(sch.half_logsnr(ends)).tolist() if shape.infinite else lam_window(sch, ends)
    else:
        span = ends.tolist()
    told = {name: value for name, value in options.items() if name != "of"}
    nodes = shape.lay(*span, steps, **told)
    times = nodes
    if shape.of == "lam":  # the outer nodes no farther out than the ends, past which they may be rounded
        times = np.asarray(sch.time(np.clip(nodes, *sorted(np.asarray(sch.half_logsnr(ends)).tolist()))))
    first = times[0] if shape.of == "index" else ends[0]
    times[0], times[-1] = first, ends[1]  # exactly, whatever the inverse of lam rounds to
    return times


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
        return float(t.detach() if hasattr(t, "detach") else t)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a number, not {t!r:.60}") from None


def check_grid(sch: Schedule, times: Any) -> Array:
    """``times`` as a float64 array; ValueError unless it is 1-D, finite, strictly monotone and in the domain."""
    check_schedule(sch)
    t = numbers("times must be numbers", times)
    if t.ndim != 1 or len(t) < 2:
        hint = "" if t.ndim else f"; logsnr.grid(schedule, {t:g}) makes one of that many steps"
        raise ValueError(f"a grid is a 1-D array of at least 2 times, not an array of shape {t.shape}{hint}")
    if not np.isfinite(t).all():
        raise ValueError(f"grid[{int(np.argmin(np.isfinite(t)))}] is not finite")
    low, high = sch.domain
    slack = 1e-6 * (high - low)  # what a rounding to fp32 may add
    outside = (t < low - slack) | (t > high + slack)
    if outside.any():
        i = int(np.argmax(outside))
        raise ValueError(f"grid[{i}] = {t[i]:.6g} is outside the times of {sch}, {low:.6g} to {high:.6g}")
    t = np.clip(t, low, high)
    check_monotone("the grid", "grid", t)
    return t


def lam_window(sch: Schedule, ends: Array) -> tuple[float, float]:
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
