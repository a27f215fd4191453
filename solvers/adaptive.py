"""Adaptive black-box solvers: torchdiffeq on dx/dt = velocity(x, t), with the evaluations counted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .catalogue import Solver
from .denoiser import Denoiser, convert
from .finite import not_finite
from .heads import Level
from .planning import Layout
from .solution import Solution
from .watching import Bar, Callback, called, takes_x0


def adaptive_solution(
    den: Denoiser,
    x: torch.Tensor,
    method: Solver,
    layout: Layout,
    rtol: float | None,
    atol: float | None,
    parallel: object,
    bar: Bar,
    callback: Callback | None,
    trajectory: bool,
) -> Solution:
    """An adaptive run from ``x``; ValueError for arguments that go with fixed steps only.

    A run to sigma = 0 takes adaptive steps down to the schedule's last level with noise, if it has one, and goes on
    from there in one step of DDIM, one evaluation more.
    """
    for name, value in (("steps", layout.steps), ("nfe", layout.nfe), ("parallel", parallel)):
        if value is not None:
            raise ValueError(f"{name} = {value} does not go with an adaptive run of {method.name}; give rtol and atol")
    if callback and takes_x0(callback):
        raise ValueError("adaptive runs have no x0 estimate for a callback; let it take (node, t, state)")
    times = layout.span(den.schedule)
    times.setflags(write=False)
    rtol, atol = (1e-5 if tol is None else tol for tol in (rtol, atol))
    sch, stops = den.schedule, times.copy()
    if sch.last_level is not None and sch.sigma(times[-1]) == 0 and times[-2] > sch.last_level:
        stops[-1] = sch.last_level
    states, nfe = adaptive_solve(den, x, str(method.adaptive), stops, rtol=rtol, atol=atol, count=bar.show)
    if stops[-1] != times[-1]:
        end = float(sch.alpha(times[-1])) * den.x0(states[-1], stops[-1])
        states = torch.cat([states[:-1], end[None]])
        nfe += 1
    if callback:
        for node in range(1, len(times)):
            called(callback, node, float(times[node]), states[node], None, changes=False)
    return Solution(states[-1], nfe, nfe, times, states.to(x.dtype) if trajectory else None)


def adaptive_solve(
    den: Denoiser,
    x: torch.Tensor,
    method: str,
    times: np.ndarray,
    *,
    rtol: float,
    atol: float,
    count: Callable[[int], object] = lambda nfe: None,
) -> tuple[torch.Tensor, int]:
    """States (len(times), B, ...) at ``times`` by torchdiffeq's ``method``, and the NFE, told to ``count`` as it grows.

    One error norm over the whole batch chooses the steps, so a sample's answer depends on its batch. Raises
    ValueError for tolerances that are not positive or too fine for the dtype, and for spans at whose ends the
    head does not determine the velocity (sigma = 0 or alpha = 0), NonFiniteError if the model returns a
    non-finite value, RuntimeError if the tolerances cannot be met.
    """
    with torch.device("cpu"):  # where its tables are made, at its first import
        from torchdiffeq import odeint

    _check_positive(rtol=rtol, atol=atol)
    state = x.to(den.state_dtype(x))
    if rtol < (eps := torch.finfo(state.dtype).eps):
        raise ValueError(f"rtol = {rtol} is below the precision of the state, {eps:.2g} in {state.dtype}")
    for t in times[[0, -1]].tolist():
        with np.errstate(divide="ignore", invalid="ignore"):
            a, b = convert(den.prediction, "velocity", Level.at(den.schedule, np.asarray(t)))
        if not np.isfinite([a, b]).all():
            raise ValueError(
                f"prediction = {den.prediction!r} does not determine dx/dt at t = {t:.6g}, where alpha = "
                f"{den.schedule.alpha(t):.6g} and sigma = {den.schedule.sigma(t):.6g}; give t_start or t_end inside"
            )
    if not x.numel():
        return state.new_empty(len(times), *state.shape), 0
    nfe, low, high = 0, times.min(), times.max()

    def velocity(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        nonlocal nfe
        nfe += 1
        count(nfe)
        try:
            dx = den.velocity(y, t.clamp(low, high))  # the guess of the first step may look beyond the end
        except (TypeError, ValueError) as error:
            error.add_note(f"at call {nfe}, t = {float(t):.6g}")
            raise
        if not torch.isfinite(dx).all():
            raise not_finite(x, nfe - 1, nfe, float(t))
        return dx

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


def _check_positive(**tolerances: Any) -> None:
    for name, tol in tolerances.items():
        if not isinstance(tol, (int, float, np.number)) or not tol > 0:
            raise ValueError(f"{name} must be positive, not {tol!r}")
