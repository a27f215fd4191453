"""How probable the steps of a stochastic run are, given the states that it went through: what policy gradients need.

A call adds normals times coefficients of the table, so every slot is ``known + sum_k c_k xi_k``, and a state that the
model has not looked at in between is Gaussian given the states before. Normals may enter several calls, and then also
what comes later: a state tells something of them. What is known of those that still count is their Gaussian law given
all states so far, which every new state corrects (Kalman 1960): its density is that of its own part alone,

    log p(x_1, ..., x_n | x_0) = sum_k log N(x_k; m_k, v_k I),   m_k = E[x_k | x_0 .. x_k-1],   v_k its variance.

Black et al. (2024, DDPO) and Liu et al. (2025, Flow-GRPO) do this for one solver each, whose normals enter one step.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint as recomputed

from ..kernels.devices import in_float64
from ..kernels.recurrence import layout
from ..solvers.arrays import Array
from ..solvers.denoisers.answers import check_state
from ..solvers.denoisers.complex_states import REAL, from_parts, of_parts, to_parts
from ..solvers.denoisers.denoiser import Denoiser, check_denoiser
from ..solvers.programs.call import STATE, NoiseKey
from ..solvers.programs.checks import check_event, check_times
from ..solvers.programs.lower import Lowered, lower
from ..solvers.programs.program import Program
from ..solvers.runs.execution import checked_answers
from ..solvers.runs.run import timesteps

TINY = 1e-10  # of the variance of all its normals: what is left of it where a state is known by those before


@dataclass(frozen=True, eq=False)
class LogProb:
    """steps: float64 (steps, B), nats: the log-density of each state given those before, summed over its elements.
    mean: float64 (steps, B, ...), the expectation of each state. std: float64 (steps,), or (steps, *event) with
    coefficients by element: its standard deviation in every element. Where that is 0 the step adds no noise, and has
    no density: it counts 0, whatever the state. Of complex states it is that of each of the two parts."""

    steps: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    @property
    def value(self) -> torch.Tensor:
        """(B,), the log-density of the path from its start."""
        return self.steps.sum(0)


class Form(NamedTuple):
    """``known + sum of noise[key] xi_key``; the numbers are floats, or arrays by element."""

    known: torch.Tensor | float
    noise: Mapping[NoiseKey, Any]


def log_prob(den: Denoiser, trajectory: torch.Tensor, program: Program, *, checkpoint: bool = False) -> LogProb:
    """The log-density of each step of ``program`` in a run of ``den``.

    trajectory: (steps + 1, B, ...), fp32 or fp64: `Solution.trajectory`, of this run or of one with another denoiser.
    program:    stochastic: `Solution.program`. For solvers that keep nothing from step to step any part will do:
                ``trajectory[k : k + 2]`` and the program of the grid of these two times.
    checkpoint: keep nothing of a model call, and make it again for the gradients.

    Gradients to the model's weights, to conditions and to a guidance scale are recorded as the caller's mode says; one
    model call per entry of the program is made, on the states of the trajectory. Sums are float64.

    Raises ValueError for programs that add no noise; for those that ask the model, before the next state of the grid,
    about a stage to which noise has been added: the law of the next state is then not Gaussian; for programs that do
    not say when they reach the nodes; and for trajectories of other shapes and of half precision, whose rounding would
    count as noise.
    """
    _check(den, trajectory, program)
    if trajectory.is_complex():  # the density of the real and imaginary parts together
        parts = log_prob(of_parts(den, trajectory[0]), to_parts(trajectory), program, checkpoint=checkpoint)
        return replace(parts, mean=from_parts(parts.mean))
    rule = den.guidance.rule if den.guidance else None
    rule = rule if rule and rule.columns and den.map_x0 is None else None
    wide = torch.float64
    lowered = lower(program, den.schedule, den.answers, state=wide, model=wide, rule=rule, spread=den.spread)
    states, x = in_float64(trajectory), trajectory[0]
    asking = den.asking(lowered.times, len(x), columns=lowered.guided, ordered=not checkpoint)
    told = timesteps(lowered, den, x)
    ask = partial(recomputed, asking.call, use_reentrant=False) if checkpoint else asking.call
    calls, rows, alive = lowered.updates.calls, lowered.program.calls, layout(lowered.updates.calls)
    slots, normals, found = _start(lowered, states[0]), Normals(), list[tuple[torch.Tensor, torch.Tensor, Array]]()
    for n, (call, row) in enumerate(zip(calls, rows, strict=True)):
        seen = normals.told(slots[call.at]) if row.asks else x
        if seen is None:
            raise ValueError(
                f"{program.name} has no log-density of its steps: call {n + 1} of {len(calls)} asks the model about a "
                "stage to which noise has been added, so that the next state is not Gaussian given those before"
            )
        seen = seen.to(x.device, den.dtype(x))
        answer = ask(seen, told[n], n) if row.asks else seen  # any tensor, whose coefficients are 0
        answers = checked_answers(answer, seen, call.models, n, len(calls), row.t)
        columns = [Form(in_float64(a), {}) for a in answers]
        columns += [*(slots[k] for k in call.reads), *(Form(0.0, {key: 1.0}) for key in row.noises)]
        normals.add(row.noises)
        slots |= {k: _sum(coefs, columns) for k, coefs in zip(call.writes, call.table.coefs, strict=True)}
        slots = {k: slots[k] for k in {*alive[n + 1], STATE}}
        if row.node is not None:
            left = {key for later in rows[n + 1 :] for key in later.noises}
            left.update(key for k, form in slots.items() if k != STATE for key in form.noise)
            found.append(normals.observe(slots[STATE], states[row.node], left))
            slots[STATE] = Form(states[row.node], {})
    steps, mean, variance = zip(*found, strict=True)
    std = torch.from_numpy(np.sqrt(np.stack(np.broadcast_arrays(*variance))))
    return LogProb(torch.stack(steps), torch.stack(mean), std.to(states.device))


class Normals:
    """The law of the normals that still count, given the states so far: means (B, ...), and one covariance for all
    samples, (K, K), or (K, K, *event) by element."""

    def __init__(self) -> None:
        self.keys: list[NoiseKey] = []
        self.means: list[torch.Tensor | float] = []
        self.cov: Array = np.zeros((0, 0))

    def add(self, keys: Sequence[NoiseKey]) -> None:
        """Normals of which nothing is known."""
        for key in keys:
            if key not in self.keys:
                k = len(self.keys)
                wider = np.zeros((k + 1, k + 1, *self.cov.shape[2:]))
                wider[:k, :k], wider[k, k] = self.cov, 1.0
                self.cov = wider
                self.keys.append(key)
                self.means.append(0.0)

    def told(self, form: Form) -> torch.Tensor | None:
        """The value of a form whose normals are known from the states; None if they are not."""
        weights, _, variance = self._law(form)
        return self._mean(form) if (variance <= TINY * np.sum(weights**2, axis=0)).all() else None

    def observe(self, form: Form, state: torch.Tensor, left: set[NoiseKey]) -> tuple[torch.Tensor, torch.Tensor, Array]:
        """The log-density (B,) of a ``state``, its mean and its variance; what it tells of the normals that are
        ``left`` is kept, the others are dropped."""
        weights, shared, variance = self._law(form)
        mean = self._mean(form)
        noisy = variance > TINY * np.sum(weights**2, axis=0)
        variance = np.where(noisy, variance, 0.0)
        share = np.divide(1.0, variance, out=np.zeros_like(variance), where=noisy)
        miss = state - mean
        constant = np.where(noisy, np.log(2 * np.pi * np.where(noisy, variance, 1.0)), 0.0)
        each = _times(share, miss.square()) + _tensor(constant, miss)
        keep = [k for k, key in enumerate(self.keys) if key in left]
        self.means = [self.means[k] + _times(shared[k] * share, miss) for k in keep]
        self.cov = (self.cov - shared[:, None] * shared[None] * share)[np.ix_(keep, keep)]
        self.keys = [self.keys[k] for k in keep]
        return -0.5 * each.reshape(len(each), math.prod(each.shape[1:])).sum(1), mean, variance

    def _law(self, form: Form) -> tuple[Array, Array, Array]:
        """The coefficients of the normals (K, ...), their covariances with the form, and its variance."""
        event = np.broadcast_shapes(self.cov.shape[2:], *(np.shape(c) for c in form.noise.values()))
        weights = np.zeros((len(self.keys), *event))
        for k, key in enumerate(self.keys):
            weights[k] = form.noise.get(key, 0.0)
        cov = self.cov.reshape(*self.cov.shape, *[1] * (len(event) + 2 - self.cov.ndim))
        shared = np.einsum("ij...,j...->i...", cov, weights)
        return weights, shared, np.sum(weights * shared, axis=0)

    def _mean(self, form: Form) -> torch.Tensor:
        total: Any = form.known
        for key, mean in zip(self.keys, self.means, strict=True):
            if key in form.noise and isinstance(mean, torch.Tensor):
                total = total + _times(form.noise[key], mean)
        found: torch.Tensor = total
        return found


def _start(lowered: Lowered, x: torch.Tensor) -> dict[int, Form]:
    one = lowered.updates.one
    return {STATE: Form(x, {})} | ({} if one is None else {one: Form(torch.ones_like(x), {})})


def _sum(coefs: Array, columns: Sequence[Form]) -> Form:
    """A row of a table times what its columns hold; what is 0 in it is left out, as everywhere."""
    known: torch.Tensor | float = 0.0
    noise: dict[NoiseKey, Any] = {}
    for c, form in zip(coefs, columns, strict=True):
        if not c.any():
            continue
        if isinstance(form.known, torch.Tensor):
            known = known + _times(c, form.known)
        for key, weight in form.noise.items():
            noise[key] = noise.get(key, 0.0) + c * weight
    return Form(known, noise)


def _times(c: Any, x: torch.Tensor) -> torch.Tensor:
    return x * (float(c) if np.ndim(c) == 0 else _tensor(c, x))


def _tensor(c: Any, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.array(c)).to(like.device).expand_as(like)


def _check(den: Any, trajectory: Any, program: Any) -> None:
    check_denoiser(den)
    if not isinstance(program, Program):
        raise TypeError(f"program must be a logsnr.Program, as Solution.program is, not {type(program).__name__}")
    check_state(trajectory, "trajectory", complex_too=True)
    if trajectory.dtype not in (torch.float32, torch.float64, *REAL):
        raise ValueError(f"trajectory must be fp32 or fp64: {trajectory.dtype} rounds by as much as steps add noise")
    if trajectory.ndim < 2 or len(trajectory) != program.steps + 1:
        raise ValueError(
            f"trajectory must have the shape ({program.steps + 1}, B, ...), a state for every node of the program, not "
            f"{tuple(trajectory.shape)}"
        )
    if not program.noises:
        raise ValueError(f"{program.name} adds no noise: its steps have no density; log_likelihood is that of its flow")
    if program.learned:
        raise ValueError(f"{program.name} takes how much noise it adds from the network: it has no log_prob yet")
    reached = sum(call.node is not None for call in program)
    if reached < program.steps:
        raise ValueError(f"{program.name} reaches {reached} of the {program.steps} nodes of its grid; all are needed")
    check_times(den.schedule, program)
    if not trajectory.is_complex():
        check_event(program.event, trajectory[0])
