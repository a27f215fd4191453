"""Where a thread is in its run: one model call per `advance`."""

import math
import threading
import warnings
from typing import Any

import torch

from ...solvers.catalogue.solver import FEW
from ...solvers.denoisers.answers import estimate
from ...solvers.runs.execution import Stepper
from ...solvers.runs.normals import drawn_seed
from .plans import Plan, Setup


class Run:
    """The run of one thread, from `set_timesteps` on. The state is kept in fp32 (fp64 of fp64 samples)."""

    def __init__(self, setup: Setup, plan: Plan) -> None:
        self.setup, self.plan = setup, plan
        self.timesteps: Any = plan.timesteps
        self.count: int | None = plan.program.steps
        self.begin: int | None = None
        self.index: int | None = None
        self.stepper: Stepper | None = None
        self.returned: torch.Tensor | None = None
        self.version: float = 0
        for note in plan.program.notes:
            if note.startswith(FEW):
                warnings.warn(f"{plan.program.name}, {plan.program.steps} steps: {note}", stacklevel=3)

    def __deepcopy__(self, memo: Any) -> "Run":
        if self.stepper is not None and not self.stepper.done:
            raise TypeError("a scheduler cannot be copied within a run: copy it before, or after the last step")
        copied = Run(self.setup, self.plan)
        copied.begin = self.begin
        return copied

    def place(self, timestep: Any) -> int:
        """The next call; the first is where ``timestep`` begins a step, or the begin index."""
        if self.index is None:
            self.index = self._found(timestep) if self.begin is None else self.begin
            self.plan.check_begin(self.index)
        return self.index

    def _found(self, timestep: Any) -> int:
        t, told = float(timestep), self.plan.told
        near = min((n for n, node in enumerate(self.plan.begins) if node is not None), key=lambda n: abs(told[n] - t))
        if not _same(told[near], t):
            raise ValueError(f"timestep {t:g} is not one of this run, {[round(t, 4) for t in told]}")
        return near

    def start(self, timestep: Any, sample: torch.Tensor, generator: Any) -> Stepper:
        """The stepper for a run from ``sample``."""
        first = self.place(timestep)
        program = self.setup.rest(self.plan, first)
        if program.learned and (self.setup.ve or self.setup.edm):
            raise ValueError("variance = 'learned' is of models with a table of betas, in the frame 'vp'")
        if isinstance(generator, (list, tuple)) and len(generator) != len(sample):
            raise ValueError(f"generator is a list of {len(generator)} for {len(sample)} samples: give one for each")
        seed = self._seed(generator) if program.noises else None
        head = "x0" if self.setup.bounds else self.setup.head
        self.stepper = Stepper(program, self.plan.schedule, head, sample, seed=seed, x0=False)
        return self.stepper

    def _seed(self, generator: Any) -> int | list[int] | None:
        if isinstance(generator, (list, tuple)):
            return [_drawn(g) for g in generator]
        return _drawn(generator) if generator is not None else self.setup.config.seed

    def advance(self, answer: torch.Tensor, timestep: Any, sample: torch.Tensor, generator: Any) -> torch.Tensor:
        """The sample that the model sees next."""
        for name, value in (("model_output", answer), ("sample", sample)):
            if not isinstance(value, torch.Tensor):
                raise TypeError(f"{name} must be a tensor, as model(...)[0] or .sample is, not {type(value).__name__}")
        stepper, setup = self.stepper, self.setup
        if stepper is None:
            stepper = self.start(timestep, sample, generator)
        elif stepper.done:
            raise IndexError(f"all {len(self.plan.told)} steps are done; call set_timesteps for another run")
        else:
            self._check_order(timestep)
            if sample is not self.returned or _version(sample) != self.version:
                self._take(stepper, sample)
        if answer.shape != sample.shape and not stepper.program.learned and _is_twice(answer, sample):
            answer = answer[:, : sample.shape[1]]  # the rest is a learned variance
        if setup.ve and setup.head == "v":  # theirs is normalised: of x / sqrt(1 + sigma^2)
            answer = answer.to(stepper.x.dtype) * math.hypot(1.0, stepper.t)
        if setup.sign < 0:
            answer = -answer
        x = stepper.step(self._bounded(stepper, answer) if setup.bounds else answer)
        if setup.edm and stepper.done:  # back from data of standard deviation 1
            x = x * (setup.config.sigma_data * math.hypot(1.0, self.plan.nodes[-1]))
        out = x.to(sample.dtype, copy=True)
        self.index = (self.index or 0) + 1
        self.returned, self.version = out, _version(out)
        return out

    def _bounded(self, stepper: Stepper, answer: torch.Tensor) -> torch.Tensor:
        """The x0 that the config bounds, and behind it a learned variance that is wanted."""
        unit = self.setup.config.sigma_data if self.setup.edm else 1.0
        x0 = estimate(self.setup.head, self.plan.schedule, stepper.t, stepper.x, answer)
        x0 = bounded(self.setup.config, unit * x0) / unit
        return torch.cat([x0, answer[:, x0.shape[1] :].to(x0.dtype)], dim=1) if stepper.program.learned else x0

    def _check_order(self, timestep: Any) -> None:
        """ValueError for another timestep than the next, where looking at it does not stop a GPU."""
        if isinstance(timestep, torch.Tensor) and timestep.device.type != "cpu":
            return
        due, t = self.plan.told[self.index or 0], float(timestep)
        if not _same(due, t):
            raise ValueError(f"step was called with timestep {t:g}, but {due:g} is next; call set_timesteps to restart")

    def _take(self, stepper: Stepper, sample: torch.Tensor) -> None:
        """The caller has changed the sample: what is not changed keeps what its dtype has cut off."""
        state = stepper.x
        if sample.dtype == state.dtype:
            stepper.replace(sample)
        else:
            stepper.replace(torch.where(sample == state.to(sample.dtype), state, sample.to(state.dtype)))


class Local(threading.local):
    """What belongs to one thread; a copy starts with that of the thread that copies."""

    run: Run | None = None

    def __deepcopy__(self, memo: Any) -> "Local":
        copied = Local()
        copied.run = None if self.run is None else self.run.__deepcopy__(memo)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        return Local, ()


def bounded(config: Any, x0: torch.Tensor) -> torch.Tensor:
    """x0 within clip_sample_range; or, by thresholding, divided by a quantile of its size, by sample, which counts
    between 1 and sample_max_value (Saharia et al. 2022, 2.3)."""
    if not config.thresholding:
        return x0.clamp(-config.clip_sample_range, config.clip_sample_range)
    size = torch.quantile(x0.abs().flatten(1), config.dynamic_thresholding_ratio, dim=1)
    size = size.clamp(min=1).clamp(max=config.sample_max_value).reshape(-1, *[1] * (x0.dim() - 1))
    return x0.clamp(-size, size) / size


def _version(x: torch.Tensor) -> int | float:
    """How often the tensor was written to; NaN, which equals nothing, in inference mode, where nobody counts."""
    return math.nan if x.is_inference() else x._version


def _is_twice(answer: torch.Tensor, sample: torch.Tensor) -> bool:
    """Whether it has twice the channels."""
    return answer.dim() == sample.dim() and answer.shape[1] == 2 * sample.shape[1]


def _same(told: float, t: float) -> bool:
    """Whether ``t`` is what was told, maybe in bf16."""
    return abs(told - t) <= 2**-7 * max(1.0, abs(t))


def _drawn(generator: Any) -> int:
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, or a list of them, not {type(generator).__name__}")
    return drawn_seed(generator)
