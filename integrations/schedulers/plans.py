"""From a config and a number of steps to a program with what a model is told at each of its calls; kept by both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...solvers.arrays import Array
from ...solvers.catalogue.catalogue import solver as find_solver
from ...solvers.programs.checks import check_times
from ...solvers.programs.program import Program
from ...solvers.schedules.base import Schedule
from ...solvers.schedules.formulas import EDM, Trigonometric
from ...solvers.schedules.straight import FlowMatching
from ...solvers.schedules.tabulated import Discrete
from .configs import HEADS
from .grids import SPACINGS, edm_grid, flow_grid, level_at, table_grid, told_between
from .tables import discrete, levels_of, table_of

CHOICES = {
    "prediction_type": tuple(HEADS),
    "timestep_spacing": SPACINGS,
    "final_sigmas_type": ("zero", "sigma_min"),
    "frame": ("vp", "ve"),
    "timestep_type": ("discrete", "continuous", "cosine"),
    "sigma_schedule": ("karras", "exponential"),
    "time_shift_type": ("exponential", "linear"),
}
KEPT = 64  # plans of one scheduler


@dataclass(frozen=True, eq=False)
class Plan:
    """A program, ready for a loop that makes one model call per timestep.

    timesteps, told: what the model is told, (calls,), as a tensor and as floats. sigmas: the levels at the calls and
    at the end, (calls + 1,), on the CPU; levels: of the calls, as floats. nodes: levels of the grid, (n + 1,).
    begins: by call, the node at which a step begins there, or None within a step.
    """

    program: Program
    schedule: Schedule
    timesteps: torch.Tensor
    told: tuple[float, ...]
    sigmas: torch.Tensor
    levels: tuple[float, ...]
    nodes: Array
    begins: tuple[int | None, ...]

    def check_begin(self, first: int) -> None:
        """ValueError unless a step begins at call ``first``."""
        if not isinstance(first, int) or not 0 <= first < len(self.begins):
            raise ValueError(f"begin_index = {first!r} is not one of the {len(self.begins)} timesteps")
        if self.begins[first] is None:
            starts = [n for n, node in enumerate(self.begins) if node is not None]
            near = [n for n in starts if n < first][-1:] + [n for n in starts if n > first][:1]
            raise ValueError(
                f"timestep {first} is within a step of {self.program.name}, which begins at another: "
                f"take {' or '.join(map(str, near))}"
            )


class Setup:
    """What follows from a config alone, and the plans made from it. Raises ValueError for keys that do not fit."""

    def __init__(self, config: Any) -> None:
        self.config = config
        for name, legal in CHOICES.items():
            if config[name] not in legal:
                raise ValueError(f"{name} = {config[name]!r:.60} is not one of {', '.join(map(repr, legal))}")
        self.head = HEADS[config.prediction_type]
        self.flow = self.head == "velocity"
        if not self.flow and (config.shift != 1 or config.use_dynamic_shifting or config.use_flow_sigmas):
            raise ValueError(
                f"prediction_type = {config.prediction_type!r} is of a table of betas, but shift, use_dynamic_shifting "
                "and use_flow_sigmas are of flow models: prediction_type='flow_prediction'"
            )
        if min(config.shift, config.flow_shift) <= 0:
            raise ValueError(f"shift and flow_shift must be positive, not {config.shift} and {config.flow_shift}")
        self.bounds = bool(config.thresholding or config.clip_sample)
        self.planned = "x0" if self.head == "x0" else "eps"  # as if v said no more: sigma = 0 is not to be asked
        self.ve = config.frame == "ve" and not self.flow
        self.edm = config.sigma_data is not None
        self.sign = -1.0 if self.edm and self.head == "eps" else 1.0
        if self.edm:
            if self.ve or self.head not in ("eps", "v") or config.sigma_min is None or config.sigma_max is None:
                raise ValueError("sigma_data needs sigma_min, sigma_max, frame='vp', and 'epsilon' or 'v_prediction'")
            self.head = "v"  # what diffusers calls epsilon there is -v
        self.bars = None if self.flow or self.edm else table_of(config)
        self.table = None if self.bars is None else levels_of(self.bars)
        if self.ve and self.table is not None and math.isinf(self.table[-1]):
            raise ValueError("frame = 've' has no zero terminal SNR, which rescale_betas_zero_snr makes; take 'vp'")
        text = config.solver
        self.program = Program.from_json(text) if text.lstrip().startswith("{") else None
        if self.program is None:
            self.method = find_solver(text, compat=config.compat, **dict(config.solver_options or {}))
            self.order = self.method.evaluations
        else:
            check_times(self.own_schedule, self.program)
            if len(self.program) < len(self.program.calls):
                raise ValueError("solver is a program with calls that ask no model, and a pipeline would ask it there")
            self.order = round(len(self.program) / self.program.steps)
        self.plans: dict[Any, Plan] = {}

    @property
    def own_schedule(self) -> Schedule:
        """That of the model, on its clock: of tuned programs, and of `diffusers.schedule`."""
        if self.bars is None:
            if self.edm:
                return Trigonometric()
            return FlowMatching(data_at=1) if self.config.invert_sigmas else FlowMatching()
        return Trigonometric() if self.config.timestep_type == "continuous" else discrete(self.bars)

    @property
    def schedule(self) -> Schedule:
        """On which named solvers are laid out. Methods in lam do not see the clock, and `Trigonometric` serves every
        model with alpha^2 + sigma^2 = 1, with exact limits at both ends."""
        if self.flow:
            return self.own_schedule
        return EDM(1e-4, 1e4) if self.ve else Trigonometric()

    def plan(self, n: Any, timesteps: Any, sigmas: Any, mu: float | None, device: Any) -> Plan:
        """See `LogSNRScheduler.set_timesteps`."""
        key = n, _key(timesteps), _key(sigmas), mu, None if device is None else str(device)
        plan = self.plans.get(key)
        if plan is None:
            if len(self.plans) >= KEPT:
                self.plans.clear()
            plan = self.plans[key] = self._made(*key[:4], device)
        return plan

    def _made(
        self, n: Any, timesteps: Sequence[float] | None, sigmas: Sequence[float] | None, mu: float | None, device: Any
    ) -> Plan:
        n = self._count(n, timesteps, sigmas)
        if self.program is not None:
            if n != self.program.steps:
                raise ValueError(f"solver is a program of {self.program.steps} steps, not of {n}; tune one for them")
            sch, times = self.own_schedule, [call.t for call in self.program]
            told_at = {t: max(t, 0.0) for t in times} if isinstance(sch, Discrete) else {}
            return self._laid_out(self.program, sch, told_at, self._levels(self.program.times), device)
        told, sigma = (None if values is None else np.array(values) for values in (timesteps, sigmas))
        if self.edm:
            told, levels = edm_grid(self.config, n, told, sigma)
        elif self.bars is None or self.table is None:
            told, levels = flow_grid(self.config, n, told, sigma, mu)
        else:
            told, levels = table_grid(self.config, self.bars, self.table, n, told, sigma)
        falls = -np.diff(levels)
        if not (falls >= 0).all() or np.isnan(levels).any():
            raise ValueError(f"timesteps and sigmas must go from noise to data, not be at levels {levels.tolist()}")
        keep = np.append(falls > 0, True)  # stock grids have steps of length 0
        told, levels = told[keep[:-1]], levels[keep]
        if len(levels) < 2:
            raise ValueError("there is no step from noise to data in this grid")
        grid = levels if self.flow or self.ve else np.arctan(levels)
        program = self.method.program(self.schedule, grid, prediction=self.planned)
        return self._laid_out(program, self.schedule, dict(zip(grid[:-1].tolist(), told, strict=True)), levels, device)

    def _count(self, n: Any, timesteps: Sequence[float] | None, sigmas: Sequence[float] | None) -> int:
        given = {"timesteps": timesteps, "sigmas": sigmas}
        lengths = {name: len(values) for name, values in given.items() if values is not None}
        if sigmas is not None and not self.flow:
            lengths["sigmas"] -= 1
        if len(set(lengths.values())) > 1 or (len(lengths) == 2 and not self.flow):
            raise ValueError("give one of timesteps and sigmas; of a flow model both, of the same length")
        known = next(iter(lengths.values()), n)
        if n is not None and n != known:
            raise ValueError(f"num_inference_steps = {n} does not fit {' and '.join(lengths)} for {known} steps")
        if isinstance(known, bool) or not isinstance(known, (int, np.integer)) or known < 1:
            raise ValueError(f"num_inference_steps must be an integer of at least 1, not {known!r}")
        return int(known)

    def _levels(self, times: Any) -> Array:
        """The levels of times of `own_schedule`."""
        sch, times = self.own_schedule, np.asarray(times, dtype=np.float64)
        with np.errstate(divide="ignore"):
            return np.asarray(times if self.flow else np.asarray(sch.sigma(times)) / np.asarray(sch.alpha(times)))

    def _laid_out(
        self, program: Program, sch: Schedule, told_at: dict[float, float], nodes: Array, device: Any
    ) -> Plan:
        begins: list[int | None] = []
        node: int | None = 0
        for call in program:
            begins.append(node)
            node = call.node
        times = np.array([*(call.t for call in program), program.grid[-1]])
        levels = self._levels(times) if self.program is not None else times if self.flow or self.ve else np.tan(times)
        if isinstance(sch, Trigonometric):
            levels[times >= sch.domain[1]] = np.inf
        calls = zip(times[:-1].tolist(), levels.tolist(), strict=False)
        told = np.array([told_at[t] if t in told_at else told_between(self.config, self.table, v) for t, v in calls])
        whole = not (self.flow or self.ve or self.config.timestep_type != "discrete") or self.config.use_flow_sigmas
        whole = whole and bool((told == np.rint(told)).all())
        return Plan(
            program=program,
            schedule=sch,
            timesteps=torch.from_numpy(told.astype(np.int64 if whole else np.float32)).to(device),
            told=tuple(told.tolist()),
            sigmas=torch.from_numpy(levels.astype(np.float32)),
            levels=tuple(levels[:-1].tolist()),
            nodes=nodes,
            begins=tuple(begins),
        )

    def level(self, told: float, plan: Plan | None) -> float:
        """The level that a model is told, of the run if that has it."""
        if plan is not None:
            near = min(range(len(plan.told)), key=lambda n: abs(plan.told[n] - told))
            if abs(plan.told[near] - told) <= 1e-3 * max(1.0, abs(told)):
                return plan.levels[near]
        if self.table is not None:
            return float(level_at(self.table, np.array([told]))[0])
        if self.edm:
            raise ValueError(f"timestep {told:g} is not one of this run: call set_timesteps first")
        part = told / self.config.num_train_timesteps
        if not -1e-6 <= part <= 1 + 1e-6:
            raise ValueError(f"timestep {told:g} must lie between 0 and {self.config.num_train_timesteps}")
        return 1 - part if self.config.invert_sigmas else part

    def scales(self, levels: Array) -> tuple[Array, Array]:
        """alpha and sigma of samples at the levels."""
        if self.flow:
            return 1 - levels, levels
        if self.edm:
            angle = np.arctan(levels)
            return np.cos(angle) / self.config.sigma_data, np.sin(angle)
        angle = np.arctan(levels)
        return (np.ones_like(levels), levels) if self.ve else (np.sin(np.pi / 2 - angle), np.sin(angle))

    def rest(self, plan: Plan, first: int) -> Program:
        """The program from call ``first`` on, with a new start. ValueError where none begins there."""
        if first == 0:
            return plan.program
        plan.check_begin(first)
        if self.program is not None:
            raise ValueError(f"solver is a program, which cannot begin at timestep {first}: take a named solver")
        node = plan.begins[first]
        grid = plan.program.times[node:]
        program = self.method.program(plan.schedule, grid, prediction=self.planned)
        if len(program) != len(plan.program) - first:
            raise ValueError(f"{program.name} cannot begin at timestep {first}: its calls would be others")
        return program


def _key(values: Any) -> tuple[float, ...] | None:
    if values is None:
        return None
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double()
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"timesteps and sigmas must be 1-D lists of numbers, not {values!s:.60}")
    return tuple(array.tolist())
