"""Adaptive black-box solvers: torchdiffeq on dx/dt = velocity(x, t), with the evaluations counted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..arrays import Array
from ..catalogue.catalogue import Solver
from ..denoisers.answers import weights_at
from ..denoisers.denoiser import Denoiser
from ..finite import not_finite
from ..runs.solution import Solution


def blackbox_solution(
    den: Denoiser,
    x: torch.Tensor,
    method: Solver,
    times: Array,
    rtol: float,
    atol: float,
    count: Callable[[int], object],
    keep: bool,
) -> Solution:
    """A run of torchdiffeq, with the states at ``times``. One error norm chooses the steps of the whole batch, so all
    samples take the same ones, and ``keep`` changes nothing: what is not finite stops all.

    A run that passes the schedule's last level takes adaptive steps down to it, and goes on from there in one step of
    DDIM, one evaluation more.
    """
    sch, stops = den.schedule, times
    level = sch.last_before(float(times[0]), float(times[-1]))
    if level is not None and times[-2] >= level:
        stops = np.unique([*times[:-1], level])[::-1].copy()
    ended: list[list[float]] = [[], []]  # times of steps that were accepted, and of those that were not
    states, nfe = adaptive_solve(
        den, x, str(method.adaptive), stops, rtol=rtol, atol=atol, count=count, accepted=ended[0].append,
        rejected=ended[1].append,
    )  # fmt: skip
    if stops[-1] != times[-1]:
        left = float(sch.sigma(times[-1]) / sch.sigma(stops[-1]))  # of the noise
        end = left * states[-1] + float(sch.alpha(times[-1]) - left * sch.alpha(stops[-1])) * den.x0(states[-1], level)
        states = torch.cat([states[: len(times) - 1], end[None]])
        nfe += int(den.evaluations([stops[-1]])[0])
    accepted, rejected, calls = (torch.full((len(x),), n) for n in (len(ended[0]), len(ended[1]), nfe))
    grid = np.unique([*ended[0], *times[[0, -1]], *stops[[0, -1]]])[:: 1 if times[0] < times[-1] else -1]
    return Solution(
        states[-1], nfe, nfe, times, states,
        accepted=accepted, rejected=rejected, nfe_per_sample=calls, grids=(grid,) * len(x),
    )  # fmt: skip


def adaptive_solve(
    den: Denoiser,
    x: torch.Tensor,
    method: str,
    times: np.ndarray,
    *,
    rtol: float,
    atol: float,
    count: Callable[[int], object] = lambda nfe: None,
    accepted: Callable[[float], object] = lambda t: None,
    rejected: Callable[[float], object] = lambda t: None,
) -> tuple[torch.Tensor, int]:
    """States (len(times), B, ...) at ``times`` by torchdiffeq's ``method``, and the NFE, told to ``count`` as it grows.
    ``accepted`` and ``rejected`` are told when each step began.

    One error norm over the whole batch chooses the steps, so a sample's answer depends on its batch. Raises
    ValueError for spans at whose ends the head does not determine the velocity (sigma = 0 or alpha = 0),
    NonFiniteError if the model returns a non-finite value, RuntimeError if the tolerances cannot be met.
    """
    with torch.device("cpu"):  # where its tables are made, at its first import
        from torchdiffeq import odeint

    state = x.to(den.state_dtype(x))
    for t in times[[0, -1]].tolist():
        if not np.isfinite(weights_at(den.answers, "velocity", den.schedule, t)).all():
            raise ValueError(
                f"prediction = {den.answers!r} does not determine dx/dt at t = {t:.6g}, where alpha = "
                f"{den.schedule.alpha(t):.6g} and sigma = {den.schedule.sigma(t):.6g}; give t_start or t_end inside"
            )
    if not x.numel():
        return state.new_empty(len(times), *state.shape), 0
    nfe, low, high = 0, times.min(), times.max()

    def velocity(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        nonlocal nfe
        nfe += int(den.evaluations([float(t)])[0])
        count(nfe)
        try:
            dx = den.velocity(y, t.clamp(low, high))  # the guess of the first step may look beyond the end
        except (TypeError, ValueError) as error:
            error.add_note(f"at call {nfe}, t = {float(t):.6g}")
            raise
        if not torch.isfinite(dx).all():
            raise not_finite(x, nfe - 1, nfe, float(t.detach()))
        return dx

    steps: Any = velocity  # torchdiffeq's way to tell
    steps.callback_accept_step = lambda t, y, dt: accepted(float(t.detach()))
    steps.callback_reject_step = lambda t, y, dt: rejected(float(t.detach()))
    grid = torch.tensor(times, dtype=torch.float64, device=x.device)
    # step_t: steps end at the times; torchdiffeq would step over them, out of the schedule after the last, and
    # interpolate the others by a quartic, which is less exact than its steps are.
    options = {"step_t": grid[1:]}
    try:
        with torch.device(x.device):  # torchdiffeq names no device for some of its tensors
            states = odeint(velocity, state, grid, rtol=rtol, atol=atol, method=method, options=options)
    except AssertionError as error:  # what torchdiffeq says when a step gets too short to change t
        raise RuntimeError(
            f"{method} cannot meet rtol = {rtol}, atol = {atol} in {state.dtype} ({error}); ask for less"
        ) from error
    return states, nfe
