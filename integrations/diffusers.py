"""A scheduler of the library diffusers that runs a logsnr program, and schedules and grids of its other schedulers."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np
import torch

try:  # SchedulerMixin must be a name of this module: pipelines look for it here when they load a scheduler
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin, SchedulerOutput
except ImportError as error:
    raise ImportError(
        "logsnr.integrations.diffusers needs the library diffusers: pip install 'logsnr[diffusers]'"
    ) from error

from ..solvers.programs.program import Program
from .schedulers.configs import with_own_keys
from .schedulers.plans import Plan, Setup
from .schedulers.runs import Local, Run
from .schedulers.schedules import grid, schedule

__all__ = ["LogSNRScheduler", "grid", "schedule"]

OTHERS = ("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "SASolver", "LCM", "TCD", "DDIMParallel", "DDPMParallel",
          "EDMEuler", "EDMDPMSolverMultistep", "CosineDPMSolverMultistep")  # fmt: skip


class LogSNRScheduler(SchedulerMixin, ConfigMixin):
    """Any solver of logsnr as a scheduler of diffusers.

        pipe.scheduler = LogSNRScheduler.from_config(pipe.scheduler.config, solver="dpmpp-2m")

    solver:  a name, a `logsnr.Program` made on ``schedule(scheduler)``, or its JSON. solver_options: of a name, such as
             {"eta": 0.5}. compat: as of `logsnr.solver`.
    grid:    a name of `logsnr.grid_names` in place of the spacing of diffusers. grid_options: of it.
    frame:   "vp"; or "ve", in which methods that depend on the clock are those of EulerDiscreteScheduler, of Heun's,
             KDPM2's and LMS's: they solve for x0 + sigma eps in sigma, with the grids of those schedulers.
    seed:    of stochastic solvers in pipelines that give no generator. None draws from torch's own numbers.

    All other arguments are those of diffusers' schedulers, and mean the same; "leading" and the grids of flow models
    are those of the scheduler that the config is from, by itself DDIMScheduler's and FlowMatchEulerDiscreteScheduler's.
    A run is one thread's own; its state is fp32 whatever the pipeline's dtype. Raises ValueError for values that do not
    fit, naming the argument.
    """

    _compatibles = [e.name for e in KarrasDiffusionSchedulers] + [f"{name}Scheduler" for name in OTHERS]

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Sequence[float] | None = None,
        prediction_type: str = "epsilon",
        rescale_betas_zero_snr: bool = False,
        snr_shift_scale: float = 1.0,
        timestep_spacing: str = "linspace",
        timestep_type: str = "discrete",
        steps_offset: int = 0,
        final_sigmas_type: str = "zero",
        lambda_min_clipped: float = -float("inf"),
        use_karras_sigmas: bool = False,
        use_exponential_sigmas: bool = False,
        use_beta_sigmas: bool = False,
        use_lu_lambdas: bool = False,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        sigma_data: float | None = None,
        sigma_schedule: str = "karras",
        rho: float = 7.0,
        shift: float = 1.0,
        use_dynamic_shifting: bool = False,
        base_shift: float = 0.5,
        max_shift: float = 1.15,
        base_image_seq_len: int = 256,
        max_image_seq_len: int = 4096,
        shift_terminal: float | None = None,
        time_shift_type: str = "exponential",
        invert_sigmas: bool = False,
        use_flow_sigmas: bool = False,
        flow_shift: float = 1.0,
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        solver: str | Program = "dpmpp-2m",
        solver_options: Mapping[str, Any] | None = None,
        compat: bool | str = False,
        grid: str | None = None,
        grid_options: Mapping[str, Any] | None = None,
        frame: str = "vp",
        seed: int | None = None,
    ) -> None:
        if isinstance(solver, Program):
            self.register_to_config(solver=solver.to_json())
        elif not isinstance(solver, str):
            raise TypeError(f"solver must be a name, a Program or its JSON, not {type(solver).__name__}")
        self._local = Local()
        bars = self._setup.bars
        self.alphas_cumprod = self.betas = None
        if bars is not None:
            self.alphas_cumprod = torch.from_numpy(bars.astype(np.float32))
            self.betas = torch.from_numpy((1 - bars / np.append(1.0, bars[:-1])).astype(np.float32))

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """A scheduler with the config of any other; flow models are known by their keys. ``kwargs`` go first."""
        if isinstance(config, Mapping):
            parameters = signature(cls.__init__).parameters
            config = with_own_keys(config, {name: p.default for name, p in parameters.items()})
        return super().from_config(config, return_unused_kwargs, **kwargs)

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)

    @property
    def _setup(self) -> Setup:
        """Of the config as it is: pipelines put another in its place."""
        config = self._internal_dict
        kept: Setup | None = self.__dict__.get("_kept_setup")
        if kept is None or kept.config is not config:
            kept = self._kept_setup = Setup(config)
        return kept

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_kept_setup"}

    @property
    def _run(self) -> Run:
        if self._local.run is None:
            raise ValueError("call set_timesteps first")
        run: Run = self._local.run
        return run

    @property
    def _plan(self) -> Plan | None:
        return None if self._local.run is None else self._local.run.plan

    @property
    def order(self) -> int:
        """Model calls per step."""
        return self._setup.order

    @property
    def timesteps(self) -> torch.Tensor:
        """One for every model call of the run, (calls,)."""
        if self._local.run is None:
            ladder = torch.arange(len(self) - 1, -1, -1)
            return (ladder + 1).float() if self._setup.flow else ladder
        return self._local.run.timesteps

    @timesteps.setter
    def timesteps(self, value: torch.Tensor) -> None:
        self._run.timesteps = value

    @property
    def num_inference_steps(self) -> int | None:
        return None if self._local.run is None else self._local.run.count

    @num_inference_steps.setter
    def num_inference_steps(self, value: int | None) -> None:
        self._run.count = value

    @property
    def sigmas(self) -> torch.Tensor | None:
        """sigma / alpha, of flow models sigma, at every call and at the end: (calls + 1,), on the CPU."""
        return None if self._plan is None else self._plan.sigmas

    @property
    def step_index(self) -> int | None:
        return None if self._local.run is None else self._local.run.index

    @property
    def begin_index(self) -> int | None:
        return None if self._local.run is None else self._local.run.begin

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Where the next run begins. ValueError before `set_timesteps`, and where no step begins."""
        self._run.plan.check_begin(begin_index)
        self._run.begin = begin_index

    @property
    def init_noise_sigma(self) -> float:
        """The standard deviation to start from: 1, but in the frame "ve" as EulerDiscreteScheduler has it."""
        setup = self._setup
        if setup.edm:
            most, unit = self.config.sigma_max, self.config.sigma_data
            return float(((most**2 + 1) / (most**2 + unit**2)) ** 0.5)
        if not setup.ve or setup.table is None:
            return 1.0
        largest = float(setup.table[-1]) if self._plan is None else self._plan.levels[0]
        return largest if self.config.timestep_spacing != "leading" else (largest**2 + 1) ** 0.5

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
    ) -> None:
        """Begin a run of this thread.

        timesteps: what the model is told at each step, (n,), in place of the spacing. sigmas: levels: of flow models
        (n,), which are shifted, of others (n + 1,) with the end, as EulerDiscreteScheduler. mu: of dynamic shifting. A
        solver that is a program has its own levels, and only their number is looked at. Raises ValueError for numbers
        that do not fit together.
        """
        setup = self._setup
        self._local.run = Run(setup, setup.plan(num_inference_steps, timesteps, sigmas, mu, device))

    # What pipelines call in a run.

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """What the model sees: of the frame "ve" sample / sqrt(1 + sigma^2)."""
        if not self._setup.ve:
            return sample
        run = self._local.run
        level = self._setup.level(float(timestep), None) if run is None else run.plan.levels[run.place(timestep)]
        return sample / (1 + level**2) ** 0.5

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
        **others: Any,
    ) -> Any:
        """Carry out one model call: (B, ...) for (B, ...), in the dtype of ``sample``; see `SchedulerMixin`.

        generator: one, or one by sample. Raises ValueError out of order and before `set_timesteps`, IndexError after
        the end, TypeError for settings of other schedulers, NonFiniteError for answers that are not finite.
        """
        if others and any(others.values()):  # some pipelines give eta=0.0 to all schedulers
            raise TypeError(f"{others} are not of this scheduler: noise is an option of the solver, solver_options=")
        out = self._run.advance(model_output, timestep, sample, generator)
        return SchedulerOutput(prev_sample=out) if return_dict else (out,)

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: Any) -> torch.Tensor:
        """alpha x0 + sigma eps at each sample's timestep, (B,) or (1,); in the frame "ve" x0 + sigma eps."""
        told = torch.as_tensor(timesteps).double().reshape(-1).tolist()
        setup, run = self._setup, self._local.run
        levels = np.array([setup.level(t, None if run is None else run.plan) for t in told])
        alpha, sigma = setup.scales(levels)
        shape = (-1, *[1] * (original_samples.dim() - 1))
        a, s = (torch.as_tensor(v, dtype=torch.float32).to(noise.device).reshape(shape) for v in (alpha, sigma))
        return (a * original_samples + s * noise).to(original_samples.dtype)

    def scale_noise(self, sample: torch.Tensor, timestep: Any, noise: torch.Tensor) -> torch.Tensor:
        """`add_noise`, as flow pipelines call it."""
        return self.add_noise(sample, noise, timestep)
