"""Wrap any callable ``model(x, t)`` with its head, its schedule and its own idea of time."""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from types import NoneType
from typing import Any

import numpy as np
import torch

from ...kernels import STATE_DTYPES
from ...kernels.devices import float64_device
from ..names import head_hint, nearest
from ..schedules.base import Schedule, check_schedule
from .answers import check_output, check_state, check_unwritten, convert, written
from .asking import Asking
from .complex_states import from_parts, of_parts, to_parts
from .conditions import check_conditions, rows_of, tensors
from .guidance import Guidance
from .guides import MapX0, check_map
from .heads import HEADS, Level, network_rate

Model = Callable[..., Any]
TimeMap = Callable[[torch.Tensor], torch.Tensor]


def device_of(model: Any) -> torch.device | None:
    """That of the first parameter of a module; None for what has none."""
    parameters = model.parameters() if isinstance(model, torch.nn.Module) else ()
    return next((p.device for p in parameters), None)


class Denoiser:
    """A model and what it means.

    model:      any callable ``model(x, t, **conditions)`` that returns a tensor like ``x`` (B, ...), or one with twice
                the channels (dimension 1), whose second half, a learned variance, is for ``ddpm`` with
                ``variance="learned"`` and else left out. ``t`` has shape (B,). Modules are not changed; call
                ``.eval()`` yourself.
    schedule:   a `Schedule`.
    prediction: what the model returns: "x0", "eps", "v", "velocity" or "score" (`logsnr.solvers.denoisers.heads`).
    time:       what the model wants to be told: "t" (the schedule's own time, the default; for `Discrete` the
                continuous index), "1000t", "sigma", "c_noise" (log(sigma/alpha)/4, EDM), "index" (`Discrete`
                only: rounded to int64, which decouples the model's time from the solver's), or a callable from
                float64 times (B,) to what the model wants.
    dtype:      the dtype of the model's input; by default that of its first floating parameter, or for other
                callables that of x. Times stay fp32 at least: bf16 cannot tell t = 0.998 from 1.
    conditions: keywords of the model, by name. Tensors have a row for each sample, (B, ...), also within dictionaries,
                lists and tuples; the rows follow their samples wherever they are evaluated. The rest is handed on.
    guidance:   a `Guidance`: the model is asked with and without its condition.
    map_x0:     map_x0(x0, x, t), of tensors like x and times (B,), the schedule's: what is taken for the model's x0, as
                thresholds and clipping want it. Or a `Guide` (`logsnr.control`), which sees the schedule. Where it has
                ``gradients = True``, the model is called with gradients recorded to x, and x0 depends on x.

    Complex x goes to the model as it is; eps has unit power for each complex number (`complex_states`).
    A denoiser holds no state: threads may share one. Raises ValueError for unknown names.
    """

    spread = 1.0  # standard deviation of the elements of eps: less for the parts of complex numbers

    def __init__(
        self,
        model: Model,
        schedule: Schedule,
        prediction: str = "eps",
        *,
        time: str | TimeMap = "t",
        dtype: torch.dtype | None = None,
        conditions: Mapping[str, Any] | None = None,
        guidance: Guidance | None = None,
        map_x0: MapX0 | None = None,
    ) -> None:
        if not callable(model):
            raise TypeError(f"model must be a callable model(x, t), not {type(model).__name__}")
        check_schedule(schedule)
        if prediction not in HEADS:
            raise ValueError(f"prediction = {prediction!r} is not a head{head_hint(prediction)}")
        if dtype is not None and dtype not in STATE_DTYPES:
            raise ValueError(f"dtype must be one of {STATE_DTYPES}, not {dtype}")
        self.model, self.schedule, self.prediction = model, schedule, prediction
        time_map(time, schedule)  # refuses unknown names; not kept, so that a denoiser can be pickled
        self.time, self._dtype = time, dtype
        if guidance is not None and not isinstance(guidance, Guidance):
            raise TypeError(f"guidance must be a logsnr.Guidance, not {guidance!r:.60}")
        check_map(map_x0)
        self.conditions, self.guidance, self.map_x0 = check_conditions("conditions", conditions), guidance, map_x0
        if guidance is not None and guidance.model is None and not guidance.uncond:
            raise ValueError("guidance needs the other answer: give it uncond= (conditions), or model=")
        if guidance is not None and (unknown := guidance.other({}).keys() - self.conditions.keys()):
            raise ValueError(f"guidance: uncond has {sorted(unknown)}, which conditions= has not")

    @property
    def answers(self) -> str:
        """The head of what a run gets: ``prediction``, or x0 where that is mapped."""
        return self.prediction if self.map_x0 is None else "x0"

    @property
    def by_sample(self) -> bool:
        """Whether samples have conditions or scales of guidance of their own."""
        told = [self.conditions] if self.guidance is None else [self.conditions, self.guidance.other({})]
        several = self.guidance is not None and isinstance(self.guidance.rule.scale, tuple)
        return several or any(y.ndim > 0 for y in tensors(told))

    def evaluations(self, times: Any) -> np.ndarray:
        """(n,): how often the model is evaluated for an answer at each of the schedule's ``times``: 2 with guidance."""
        if self.guidance is None:
            return np.ones(len(times), dtype=np.int64)
        return np.array([sum(need) for need in self.guidance.rule.asks(self.schedule, times)[1]], dtype=np.int64)

    def like(self, model: Model, x: torch.Tensor) -> "Denoiser":
        """The same denoiser of another model, which is shown the dtype that the first one is for ``x``."""
        other = copy(self)
        other.model, other._dtype = model, self.dtype(x)
        return other

    def of_samples(self, samples: torch.Tensor) -> "Denoiser":
        """The denoiser of these samples of its batch, int64 (N,): their rows of its conditions, and of its guidance."""
        some = copy(self)
        some.conditions = rows_of(self.conditions, samples)
        some.guidance = self.guidance and self.guidance.of_samples(samples)
        return some

    def guided(self, scale: float) -> "Denoiser":
        """The same denoiser with guidance of another scale."""
        other = copy(self)
        other.guidance = self.guidance and replace(self.guidance, scale=scale)
        return other

    def asking(self, times: Any, batch: int | None, **run: bool) -> Asking:
        """What a run over calls at ``times`` asks, see `Asking`; ValueError for conditions of another batch than that
        of ``batch`` samples, if it is known."""
        return Asking(self, times, batch, **run)

    def __repr__(self) -> str:
        name = type(self.model).__name__ if isinstance(self.model, torch.nn.Module) else "model"
        return f"Denoiser({name}, {self.schedule}, prediction={self.prediction!r}, time={self.time!r})"

    def x0(self, x: torch.Tensor, t: Any) -> torch.Tensor:
        """E[x0 | x_t = x], the clean data. Here and below: x (B, ...), t a float or a tensor (B,); the result
        has x's shape and dtype. Infinite or NaN where the model's head says nothing: see `heads.to_pair`."""
        return self.head("x0", x, t)

    def eps(self, x: torch.Tensor, t: Any) -> torch.Tensor:
        """E[eps | x_t = x], the noise."""
        return self.head("eps", x, t)

    def v(self, x: torch.Tensor, t: Any) -> torch.Tensor:
        """alpha eps - sigma x0."""
        return self.head("v", x, t)

    def velocity(self, x: torch.Tensor, t: Any) -> torch.Tensor:
        """dx/dt of the PF-ODE: alpha' x0 + sigma' eps."""
        return self.head("velocity", x, t)

    def score(self, x: torch.Tensor, t: Any) -> torch.Tensor:
        """Gradient of log p_t: -eps / sigma."""
        return self.head("score", x, t)

    def head(self, name: str, x: torch.Tensor, t: Any) -> torch.Tensor:
        """The model's answer as head ``name``, book Prop. 6.3.1."""
        if name not in HEADS:
            raise ValueError(f"{name!r} is not a head{nearest(name, HEADS)}")
        check_state(x, complex_too=True)
        if x.is_complex():
            return from_parts(of_parts(self, x).head(name, to_parts(x), t))
        times = per_sample_times(t, x)
        output = self.predict(x.to(self.dtype(x)), times)
        rate, answers = network_rate(self.answers, self.schedule), self.answers
        if name == answers:
            return rate * output.to(x.dtype)
        wide = torch.promote_types(x.dtype, torch.float32)
        a, b = convert(answers, name, Level.at(self.schedule, times))
        shape = -1, *[1] * (x.dim() - 1)
        a, b = (c.reshape(shape).to(x.device, wide) if isinstance(c, torch.Tensor) else c for c in (a, b))
        state, answer = x.to(wide), rate * output.to(wide)
        return (b * answer if isinstance(a, float) and a == 0 else a * state + b * answer).to(x.dtype)

    def dtype(self, x: torch.Tensor) -> torch.dtype:
        """The dtype in which the model sees ``x``."""
        if self._dtype is not None:
            return self._dtype
        if isinstance(self.model, torch.nn.Module):
            for p in self.model.parameters():
                if p.is_floating_point():
                    return p.dtype if p.dtype in STATE_DTYPES else x.dtype
        return x.dtype

    def state_dtype(self, x: torch.Tensor) -> torch.dtype:
        """The dtype in which a run from ``x`` keeps the state: fp32, or fp64 if x or the model is."""
        return torch.promote_types(torch.promote_types(x.dtype, self.dtype(x)), torch.float32)

    def model_times(self, times: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The schedule's times, float64 (n,), as the model wants to be told them: fp32, fp64 where it sees ``x``
        in fp64, or integers. Raises TypeError or ValueError if ``time=`` does not map times to such tensors."""
        given = time_map(self.time, self.schedule)(times)
        if not isinstance(given, torch.Tensor):
            raise TypeError(f"time must return a tensor, not {type(given).__name__}")
        if given.is_complex():
            raise TypeError(f"time must return floating numbers or integers, not {given.dtype}")
        if given.shape != times.shape:
            raise ValueError(f"time must keep the shape of the times, {tuple(times.shape)}, not {tuple(given.shape)}")
        return as_timesteps(given, self.dtype(x))

    def predict(self, x: torch.Tensor, times: torch.Tensor, samples: torch.Tensor | None = None) -> torch.Tensor:
        """The answer, of head ``answers``, for rows ``x`` at the schedule's ``times``, float64 (N,).

        samples: int64 (N,), whose conditions each row has; by default one row is one sample.
        """
        version, timesteps = written(x), self.model_times(times, x).to(x.device)
        plain = self.guidance is None and self.map_x0 is None
        if plain and not self.conditions:  # also under transforms, where times have no values
            answer = self.model(x, timesteps)
        else:
            rows = torch.arange(len(x))
            asking = self.asking([] if plain else times.detach().cpu().numpy(), len(x) if samples is None else None)
            answer = asking.rows(x, timesteps, rows, rows if samples is None else samples)
        check_unwritten(x, version)
        return check_output(answer, x)


def check_denoiser(den: Any, name: str = "den") -> None:
    """Raise TypeError unless ``den``, the argument of this name, is one."""
    if not isinstance(den, Denoiser):
        hint = "; logsnr.Denoiser(model, schedule, prediction) makes one of a model" if callable(den) else ""
        raise TypeError(f"{name} must be a logsnr.Denoiser, not {type(den).__name__}{hint}")


def per_sample_times(t: Any, x: torch.Tensor) -> torch.Tensor:
    """``t`` as float64 times (B,) on x's device, or on the host if that has no float64."""
    if isinstance(t, (complex, str, NoneType)) or (isinstance(t, torch.Tensor) and t.is_complex()):
        raise TypeError(f"t must be a real number or have shape ({x.shape[0]},), not {t!r:.60}")
    times = torch.as_tensor(t, dtype=torch.float64, device=float64_device(x.device))
    if times.dim() > 1 or (times.dim() == 1 and times.shape[0] not in (1, x.shape[0])):
        raise ValueError(f"t must be a number or have shape ({x.shape[0]},), not {tuple(times.shape)}")
    return times.expand(x.shape[0])


def as_timesteps(times: torch.Tensor, model: torch.dtype) -> torch.Tensor:
    """Times as a model of dtype ``model`` is told them: integers stay, others are fp32 at least."""
    return times.to(torch.promote_types(model, torch.float32)) if times.is_floating_point() else times


def time_map(time: str | TimeMap, sch: Schedule) -> TimeMap:
    """The function from the schedule's times, float64, to what ``time=`` names."""
    if callable(time):
        return time
    maps: dict[str, TimeMap] = {
        "t": sch.clock,
        "1000t": lambda t: 1000 * sch.clock(t),
        "sigma": sch.sigma,
        "c_noise": lambda t: -sch.half_logsnr(t) / 4,
        "index": lambda t: t.clamp(min=0).round().to(torch.int64),
    }
    if not isinstance(time, str) or time not in maps:
        raise ValueError(f"time = {time!r} is not a convention{nearest(time, maps)}; a callable is one too")
    if time == "index" and type(sch).__name__ != "Discrete":
        raise ValueError(f"time = 'index' needs a Discrete schedule, not {sch}; use '1000t' or a callable")
    return maps[time]
