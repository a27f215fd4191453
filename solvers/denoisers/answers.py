"""What models answer: a tensor like what they have seen, and what it says of the other heads."""

from typing import Any

import numpy as np
import torch

from ...kernels import STATE_DTYPES, transformed
from ..arrays import Array
from ..schedules.base import Schedule
from .heads import Level, from_pair, network_rate, to_pair

CHANGED = "the model has changed x in place, which is the state itself; let it work on x.clone()"


def convert(prediction: str, head: str, level: Level) -> tuple[Any, Any]:
    """``(a, b)`` with ``head = a x + b prediction``, without touching quantities that head does not need."""
    if head == prediction:
        return 0.0, 1.0
    (p, q), (x0, eps) = from_pair(head, level), to_pair(prediction, level)
    parts = [(w, pair) for w, pair in ((p, x0), (q, eps)) if not (isinstance(w, float) and w == 0)]
    return sum(w * pair[0] for w, pair in parts), sum(w * pair[1] for w, pair in parts)


def weights_at(prediction: str, head: str, sch: Schedule, times: Any) -> tuple[Array, Array]:
    """``(a, b)``, float64 like ``times``, with ``head = a x + b answer`` of what a network returns, on its own clock;
    infinite or NaN where that does not say it."""
    times = np.asarray(times, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (np.broadcast_to(c, times.shape) for c in convert(prediction, head, Level.at(sch, times)))
        return a, network_rate(prediction, sch) * b


def pairs_at(prediction: str, sch: Schedule, times: Array) -> Array:
    """(n, 2, 2): x0 and eps as combinations of (x, answer) of what a network returns at each of the times (n,);
    infinite or NaN where that does not say it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        (a, b), (c, d) = to_pair(prediction, Level.at(sch, times))
    rate = network_rate(prediction, sch)
    flat = np.broadcast_arrays(a, rate * b, c, rate * d, times)[:4]
    return np.stack(flat, axis=-1).reshape(-1, 2, 2)


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


def check_answers(answer: Any, x: torch.Tensor, models: int) -> tuple[torch.Tensor, ...]:
    """As many tensors as ``models`` says, each as of `check_output`."""
    answers = answer if models > 1 else (answer,)
    if len(answers) != models:
        raise ValueError(f"the model returned {len(answers)} tensors instead of {models}")
    return tuple(check_output(a, x) for a in answers)


def learned_variance(output: Any, x: torch.Tensor) -> torch.Tensor:
    """v, from -1 to 1 between the logarithms of two variances: the second half of the answer for ``x``; ValueError if
    there is none."""
    shape = getattr(output, "shape", None)
    if x.dim() < 2 or shape != (x.shape[0], 2 * x.shape[1], *x.shape[2:]):
        got = tuple(shape) if shape is not None else type(output).__name__
        raise ValueError(
            f"variance = 'learned' needs a network that returns twice the channels in dimension 1, not {got} for x of "
            f"shape {tuple(x.shape)}; take variance='beta' or 'beta-tilde'"
        )
    return output[:, x.shape[1] :]


def estimate(prediction: str, sch: Schedule, t: float, seen: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    """E[x0] at time t, of what the model has seen and its answer; infinite or NaN where the head does not say."""
    a, b = (float(c) for c in weights_at(prediction, "x0", sch, t))
    wide = torch.promote_types(seen.dtype, torch.float32)
    return a * seen.to(wide) + b * check_output(answer, seen).to(wide)


def check_state(x: torch.Tensor, name: str = "x", *, complex_too: bool = False) -> None:
    """Raise TypeError or ValueError unless ``x`` is a floating tensor with a batch dimension, or such a complex one."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must be a torch tensor, not {type(x).__name__}")
    if x.is_nested:
        raise ValueError(f"{name} must be one dense tensor, not a nested one: run each of its tensors for itself")
    if x.is_complex() and not complex_too:
        raise ValueError(
            f"{name} is {x.dtype}, but must be real: give torch.view_as_real({name}) and a model of such tensors; "
            "sigma is then the standard deviation of the real part and of the imaginary part, each"
        )
    if x.dtype not in STATE_DTYPES and x.dtype not in (torch.complex64, torch.complex128):
        raise ValueError(f"{name} must be a float tensor (fp64, fp32, fp16 or bf16), not {x.dtype}")
    if x.layout is not torch.strided:
        raise ValueError(f"{name} must be a dense tensor, not {x.layout}")
    if x.dim() < 1:
        raise ValueError(f"{name} must have a batch dimension, (B, ...), but it is a scalar")


def written(x: torch.Tensor) -> int:
    """How often torch has written to ``x``: by this a model that works in place is noticed, except under transforms and
    for tensors made in inference mode, which do not count."""
    return 0 if transformed() or x.is_inference() else x._version


def check_unwritten(x: torch.Tensor, version: int) -> None:
    """ValueError where a model has written to what is still needed, since ``written`` was ``version``."""
    if written(x) != version:
        raise ValueError(CHANGED)


def alike(now: torch.Tensor, before: torch.Tensor) -> bool:
    """Whether all elements are the same, NaN being NaN: for writes by .data, which torch does not count."""
    return torch.equal(now, before) or torch.allclose(now, before, rtol=0, atol=0, equal_nan=True)
