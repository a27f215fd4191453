"""Runs that choose their own steps: embedded pairs, sample by sample, and the black boxes of torchdiffeq."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..arguments import How
from ..arrays import Array
from ..catalogue.catalogue import Solver
from ..catalogue.planning import Layout
from ..denoisers.denoiser import Denoiser
from ..denoisers.heads import Level, network_rate, to_pair
from ..finite import all_finite, broken_samples, not_finite
from ..planners.gauge import Nodes
from ..planners.pairs import Pair
from ..runs.solution import Solution
from ..runs.watching import Bar, StopSampling, called
from ..schedules.base import Schedule
from ..signatures import takes_x0
from .blackbox import blackbox_solution
from .control import Control
from .run import Driven, drive

Count = Callable[[int], object]

TOLERANCE = {True: 1e-3, False: 1e-5}  # by default: of pairs, of black boxes
MARGIN = 1.5  # in lam, of the levels where steps to infinite log-SNR begin and end


def adaptive_solution(
    den: Denoiser,
    x: torch.Tensor,
    method: Solver,
    layout: Layout,
    rtol: float | None,
    atol: float | None,
    how: How,
    starts: object,
) -> Solution:
    """An adaptive run from ``x``; ValueError, before the first call, for arguments that go with fixed steps only."""
    fixed = {
        "steps": layout.steps,
        "nfe": layout.nfe,
        "parallel": how.parallel,
        "checkpoint": how.checkpoint,
        "grid": None if layout.grid in (None, "logsnr") or not isinstance(layout.grid, str) else repr(layout.grid),
    }
    for name, value in fixed.items():
        if value is not None:
            told = f"{name} = {value!s:.60} does not go with an adaptive run of {method.name}"
            raise ValueError(f"{told}: leave it out, or {_fixed_instead(method, rtol is None and atol is None)}")
    if starts is not None:
        raise ValueError(
            f"t_start of every sample does not go with an adaptive run of {method.name}: give one number, or "
            f"{_fixed_instead(method, rtol is None and atol is None)}"
        )
    callback = how.callback
    if callback and takes_x0(callback):
        raise ValueError("adaptive runs have no x0 estimate for a callback; let it take (node, t, state)")
    times = layout.span(den.schedule)
    times.setflags(write=False)
    pair = isinstance(method.adaptive, Pair)
    rtol, atol = (TOLERANCE[pair] if tol is None else tol for tol in (rtol, atol))
    check_tolerances(den.state_dtype(x), rtol=rtol, atol=atol)
    run = pair_solution if pair else blackbox_solution
    with Bar(how.progress, f"{method.name}, evaluations", None) as bar:
        found = run(den, x, method, times, rtol, atol, bar.show, how.keep)
    states = found.trajectory
    for node in range(1, len(times)):
        if callback is None or states is None:
            break
        try:
            called(callback, node, float(times[node]), states[node], None, changes=False)
        except StopSampling:
            states = states[: node + 1]
            found = replace(found, x=states[node], times=times[: node + 1], stopped=True)
            break
    return replace(found, trajectory=states.to(x.dtype) if how.trajectory and states is not None else None)


def _fixed_instead(method: Solver, intolerant: bool) -> str:
    """How to have fixed steps."""
    if method.planner is None:
        return "take a solver with fixed steps"
    return "give steps or nfe for fixed steps" if intolerant else "leave out rtol and atol for fixed steps"


def pair_solution(
    den: Denoiser, x: torch.Tensor, method: Solver, times: Array, rtol: float, atol: float, count: Count, keep: bool
) -> Solution:
    """A run of an embedded pair, with the states at ``times``.

    Where the span begins or ends at an infinite log-SNR, the steps do at a finite one (`inside`). What is left is one
    DDIM step, exact in the limit: to sigma = 0 it is the denoised state.
    """
    pair: Any = method.adaptive
    state, inner = x.to(den.state_dtype(x)), inside(den.schedule, times, rtol + atol)
    limits = {ends: limit_weights(den, *ends) for ends in ((times[0], inner[0]), (inner[-1], times[-1]))}
    nothing = np.zeros(len(x), dtype=np.int64)
    if not x.numel():
        empty = state.new_empty(len(times), *state.shape)
        return report(Driven([], nothing, nothing, nothing, ()), empty, times, 0)
    calls = 0

    def limit(y: torch.Tensor, ends: tuple[float, float]) -> torch.Tensor:
        nonlocal calls
        weights = limits[ends]
        if weights is None:
            return y
        calls += 1
        times = torch.full((len(y),), ends[0], dtype=torch.float64, device="cpu")
        a, b = weights
        end = a * y + b * den.predict(y.to(den.dtype(x)), times).to(y.dtype)
        if not (keep or all_finite(end)):
            raise not_finite(x, calls - 1, calls, ends[0], samples=broken_samples(end))
        return end

    begin = limit(state, (times[0], inner[0]))
    exponent = pair.exponent(np.zeros((len(x), 1)))
    control = Control.start(method.name, rtol, atol, exponent)
    driven = drive(
        den, pair, begin, Nodes.at(den.schedule, inner), control, keep=keep, count=lambda n: count(n + calls)
    )
    calls = calls + int(driven.nfe.max())
    end = limit(driven.states[-1], (inner[-1], times[-1]))
    return report(driven, states_at(times, inner, driven, state, end), times, calls)


def states_at(times: Array, inner: Array, driven: Driven, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """The states (len(times), B, ...): those of a run that stopped at ``inner``, between its own start and end."""
    known = dict(zip(inner.tolist(), driven.states, strict=True)) | {times[0]: start}
    known[times[-1]] = end
    return torch.stack([known[t] for t in times.tolist()])


def report(driven: Driven, states: torch.Tensor, times: Array, calls: int) -> Solution:
    """The solution. Calls that are made of the whole batch at once count for every sample."""
    together = calls - int(driven.nfe.max(initial=0))
    accepted, rejected, nfe = (torch.from_numpy(n) for n in (driven.accepted, driven.rejected, driven.nfe + together))
    ends = (times[:1], times[-1:])
    grids = tuple(np.unique(np.concatenate([g, *ends]))[:: 1 if times[0] < times[-1] else -1] for g in driven.grids)
    return Solution(
        states[-1], calls, calls, times, states,
        accepted=accepted, rejected=rejected, nfe_per_sample=nfe, grids=grids,
    )  # fmt: skip


def inside(sch: Schedule, times: Array, tol: float) -> Array:
    """``times`` with ends at infinite log-SNR, and those beyond the schedule's last level, moved inside.

    On the clean side that is to the last level, if there is one, else, as on the noisy side, to where what the DDIM
    step neglects, of the order of e^(-2 |lam|), is a share of the tolerance for data of deviation 1.
    """
    lam, last, edge = np.asarray(sch.half_logsnr(times)), sch.last_level, margin(tol)
    first, *middle, end = times.tolist()
    ahead = 1 if times[0] > times[-1] else -1

    def level(lam_end: float, neighbour: float, way: int) -> float:
        """The time of the level on the side of ``lam_end``; the next time, if that is beyond it already."""
        found = float(sch.time(math.copysign(edge, lam_end))) if last is None or lam_end == -math.inf else last
        before, after = (float(sch.half_logsnr(t)) * way * ahead for t in (neighbour, found))
        return neighbour if before <= after else found

    if np.isinf(lam[0]):
        first = level(float(lam[0]), float(times[1]), 1)
    if np.isinf(lam[-1]) or sch.last_before(first, end) is not None:
        end = level(float(lam[-1]), first if len(times) == 2 else float(times[-2]), -1)
    return np.array(list(dict.fromkeys([first, *middle, end])))


def margin(tol: float) -> float:
    """The |lam| from which what the DDIM step to infinite log-SNR neglects is a share of the tolerance."""
    return max(MARGIN - math.log(tol) / 2, 1.0)


def limit_weights(den: Denoiser, s: float, t: float) -> tuple[float, float] | None:
    """``x_t = a x_s + b prediction`` of a DDIM step; None where s is t. ValueError if the head does not say it."""
    if s == t:
        return None
    sch, level = den.schedule, Level.at(den.schedule, np.asarray(s))
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = (float(sch.alpha(t)), float(sch.sigma(t)))
        parts = [(c, pair) for c, pair in zip(scales, to_pair(den.answers, level), strict=True) if c]
        a, b = (float(sum(c * pair[k] for c, pair in parts)) for k in (0, 1))
    if not np.isfinite([a, b]).all():
        raise ValueError(
            f"prediction = {den.answers!r} does not determine the step from t = {s:.6g}, where alpha = "
            f"{sch.alpha(s):.6g} and sigma = {sch.sigma(s):.6g}; give t_start or t_end inside"
        )
    return a, network_rate(den.answers, sch) * b


def check_tolerances(state: torch.dtype, **tolerances: Any) -> None:
    for name, tol in tolerances.items():
        if isinstance(tol, bool) or not isinstance(tol, (int, float, np.number)) or not 0 < tol < math.inf:
            raise ValueError(f"{name} must be positive, not {tol!r}")
    if (rtol := tolerances["rtol"]) < (eps := torch.finfo(state).eps):
        raise ValueError(f"rtol = {rtol} is below the precision of the state, {eps:.2g} in {state}")
