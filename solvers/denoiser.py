"""Wrap any callable ``model(x, t)`` with its head, its schedule and its own idea of time."""

from collections.abc import Callable
from typing import Any

import torch

from ..kernels import STATE_DTYPES, transformed
from ..kernels.devices import float64_device
from .heads import HEADS, Level, from_pair, network_rate, to_pair
from .names import head_hint, nearest
from .schedules.base import Schedule, check_schedule

CHANGED = "the model has changed x in place, which is the state itself; let it work on x.clone()"

Model = Callable[[torch.Tensor, torch.Tensor], Any]
TimeMap = Callable[[torch.Tensor], torch.Tensor]


class Denoiser:
    """A model and what it means.

    model:      any callable ``model(x, t)`` that returns a tensor like ``x`` (B, ...), or one with twice the
                channels (dimension 1), whose second half, a learned variance, is left out. ``t`` has shape
                (B,). Modules are not changed; call ``.eval()`` yourself.
    schedule:   a `Schedule`.
    prediction: what the model returns: "x0", "eps", "v", "velocity" or "score" (`logsnr.solvers.heads`).
    time:       what the model wants to be told: "t" (the schedule's own time, the default; for `Discrete` the
                continuous index), "1000t", "sigma", "c_noise" (log(sigma/alpha)/4, EDM), "index" (`Discrete`
                only: rounded to int64, which decouples the model's time from the solver's), or a callable from
                float64 times (B,) to what the model wants.
    dtype:      the dtype of the model's input; by default that of its first floating parameter, or for other
                callables that of x. Times stay fp32 at least: bf16 cannot tell t = 0.998 from 1.

    A denoiser holds no state: threads may share one. Raises ValueError for unknown names.
    """

    def __init__(
        self,
        model: Model,
        schedule: Schedule,
        prediction: str = "eps",
        *,
        time: str | TimeMap = "t",
        dtype: torch.dtype | None = None,
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
        check_state(x)
        times = per_sample_times(t, x)
        output = self.predict(x.to(self.dtype(x)), self.model_times(times, x).to(x.device))
        rate = network_rate(self.prediction, self.schedule)
        if name == self.prediction:
            return rate * output.to(x.dtype)
        wide = torch.promote_types(x.dtype, torch.float32)
        a, b = convert(self.prediction, name, Level.at(self.schedule, times))
        a, b = (_column(c, x).to(x.device, wide) if isinstance(c, torch.Tensor) else c for c in (a, b))
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

    def predict(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Call the model on ``x`` and the times it is told, and check the shape of its answer."""
        version = written(x)
        answer = self.model(x, timesteps)
        if written(x) != version:
            raise ValueError(CHANGED)
        return check_output(answer, x)


def written(x: torch.Tensor) -> int:
    """How often torch has written to ``x``: by this a model that works in place is noticed, except under transforms and
    for tensors made in inference mode, which do not count."""
    return 0 if transformed() or x.is_inference() else x._version


def convert(prediction: str, head: str, level: Level) -> tuple[Any, Any]:
    """``(a, b)`` with ``head = a x + b prediction``, without touching quantities that head does not need."""
    if head == prediction:
        return 0.0, 1.0
    (p, q), (x0, eps) = from_pair(head, level), to_pair(prediction, level)
    parts = [(w, pair) for w, pair in ((p, x0), (q, eps)) if not (isinstance(w, float) and w == 0)]
    return sum(w * pair[0] for w, pair in parts), sum(w * pair[1] for w, pair in parts)


def check_state(x: torch.Tensor, name: str = "x") -> None:
    """Raise TypeError or ValueError unless ``x`` is a floating tensor with a batch dimension."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must be a torch tensor, not {type(x).__name__}")
    if x.is_nested:
        raise ValueError(f"{name} must be one dense tensor, not a nested one: run each of its tensors for itself")
    if x.is_complex():
        raise ValueError(
            f"{name} is {x.dtype}, but must be real: give torch.view_as_real({name}) and a model of such tensors; "
            "sigma is then the standard deviation of the real part and of the imaginary part, each"
        )
    if x.dtype not in STATE_DTYPES:
        raise ValueError(f"{name} must be a float tensor (fp64, fp32, fp16 or bf16), not {x.dtype}")
    if x.layout is not torch.strided:
        raise ValueError(f"{name} must be a dense tensor, not {x.layout}")
    if x.dim() < 1:
        raise ValueError(f"{name} must have a batch dimension, (B, ...), but it is a scalar")


def check_output(output: Any, x: torch.Tensor) -> torch.Tensor:
    """The model's answer for ``x``, less a learned variance; ValueError if it is not a tensor like x."""
    if not isinstance(output, torch.Tensor):
        raise TypeError(
            f"the model returned {type(output).__name__}, not a tensor; wrap it, for example "
            "lambda x, t: net(x, t).sample"
        )
    if output.device != x.device:
        raise ValueError(f"the model returned a tensor on {output.device} for x on {x.device}")
    if output.dtype not in STATE_DTYPES:
        raise ValueError(f"the model returned dtype {output.dtype}, not fp64, fp32, fp16 or bf16")
    if output.layout is not torch.strided:
        raise ValueError(f"the model returned a tensor of layout {output.layout}, not a dense one")
    if output.shape == x.shape:
        return output
    if x.dim() > 1 and output.shape == (x.shape[0], 2 * x.shape[1], *x.shape[2:]):
        return output[:, : x.shape[1]]  # the second half is a learned variance (Nichol and Dhariwal 2021)
    raise ValueError(
        f"the model returned shape {tuple(output.shape)} for x of shape {tuple(x.shape)}; it must be the same, "
        "or have twice the channels in dimension 1"
    )


def per_sample_times(t: Any, x: torch.Tensor) -> torch.Tensor:
    """``t`` as float64 times (B,) on x's device, or on the host if that has no float64."""
    times = torch.as_tensor(t, dtype=torch.float64, device=float64_device(x.device))
    if times.dim() > 1 or (times.dim() == 1 and times.shape[0] not in (1, x.shape[0])):
        raise ValueError(f"t must be a number or have shape ({x.shape[0]},), not {tuple(times.shape)}")
    return times.expand(x.shape[0])


def _column(c: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return c.reshape(-1, *[1] * (x.dim() - 1))


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
