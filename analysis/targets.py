"""What every solver of a comparison is given, and where it should end: starts, exact ends, and their law."""

import hashlib
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from ..solvers.answers import check_state
from ..solvers.arrays import Array
from ..solvers.denoiser import Denoiser, device_of
from ..solvers.schedules.base import Schedule
from .estimates import Estimate, jackknife, per_sample_rms
from .metrics import slices, slices_w2, w2_fitted
from .problem import Problem
from .reference import reference_flow

CHECKED = 4  # samples on which a problem's reference is checked
PROJECTIONS = 256
REPLICAS = 8  # of exact samples behind a noise level


@dataclass(frozen=True, eq=False)
class Target:
    """The denoiser, its starts x (N, *event), and the exact ends of the same paths, float64 on the CPU.

    name, begun, reference: in words, the problem, what the starts are and where the ends come from. error: by
    how much the ends may be off.
    """

    name: str
    den: Denoiser
    x: torch.Tensor
    end: torch.Tensor
    begun: str
    reference: str
    error: float
    seed: int

    def w2(self, y: torch.Tensor) -> Estimate:
        """The distance between the Gaussians fitted to the end states y and to the exact ends."""
        return jackknife(lambda kept: w2_fitted(y[kept], self.end[kept]), len(y))

    def sliced_w2(self, y: torch.Tensor) -> Estimate:
        """The sliced distance between the end states y and the exact ends."""
        a, b = (_slices(z, self.seed) for z in (y, self.end))
        return jackknife(lambda kept: slices_w2(a[:, kept], b[:, kept]), len(y))


class Noise(NamedTuple):
    """The noise level: `w2` and `sliced_w2` between two independent exact samples."""

    w2: float
    sliced_w2: float

    @classmethod
    def between(cls, ones: Sequence[torch.Tensor], others: Sequence[torch.Tensor], seed: int) -> "Noise":
        """The level as the root mean square over pairs of samples."""
        pairs = list(zip(ones, others, strict=True))
        gaussian = [w2_fitted(one, other) for one, other in pairs]
        sliced = [slices_w2(_slices(one, seed), _slices(other, seed)) for one, other in pairs]
        return cls(*(float(np.sqrt(np.mean(np.square(found)))) for found in (gaussian, sliced)))


def of_problem(problem: Problem, sch: Schedule, s: float, t: float, samples: int, seed: int) -> tuple[Target, Noise]:
    """Starts from the exact marginal at s, ends at t, and the noise level of samples of this size.

    The reference is the problem's own; the first few samples are integrated as well, and `error` is the
    difference plus what that integration says of itself.
    """
    generator = torch.Generator().manual_seed(seed)
    x = problem.sample_at(sch, s, samples, generator=generator)
    end = problem.reference(x, sch, s, t)
    check = reference_flow(problem, x[:CHECKED], sch, s, t)
    error = float(per_sample_rms(end[:CHECKED] - check.x).max()) + check.error
    how = f"{type(problem).__name__}.reference"
    target = Target(_told(problem), problem.denoiser(sch), x, end, "exact marginal", how, error, seed)
    draws = [problem.sample_at(sch, t, samples, generator=generator) for _ in range(2 * REPLICAS)]
    return target, Noise.between(draws[::2], draws[1::2], seed)


def of_denoiser(
    den: Denoiser, s: float, t: float, start: torch.Tensor | Sequence[int], samples: int, seed: int,
    precise: Denoiser | None,
) -> tuple[Target, Noise]:  # fmt: skip
    """Starts given, or noise of an event shape; ends integrated at tolerance sqrt(eps) of the model's dtype; the
    noise level is that between halves of the ends, divided by sqrt(2) for their size."""
    sch = den.schedule
    given = isinstance(start, torch.Tensor)
    x = start if isinstance(start, torch.Tensor) else _noise(den, float(sch.sigma(s)), start, samples, seed)
    source = den.like(den.model, x) if precise is None else precise
    wide = x.detach().double()
    dtype = source.dtype(x if precise is None else wide)
    tol = float(torch.finfo(dtype).eps ** 0.5)
    if dtype not in (torch.float64, torch.float32):
        raise ValueError(
            f"a model in {dtype} is too coarse to be integrated to its own reference; give precise=, a Denoiser "
            "with the same network in float32 or float64"
        )
    found = reference_flow(source, wide, sch, s, t, tol=tol)
    how = f"DOP853 in {str(dtype).removeprefix('torch.')}, tolerance {tol:.1e}"
    begun = f"given, {_digest(wide)}" if given else "pure noise"
    end = found.x.cpu()
    target = Target(_told_model(den), den, x, end, begun, how, found.error, seed)
    half = len(end) // 2
    noise = Noise.between([end[:half]], [end[half : 2 * half]], seed)
    return target, Noise(*(level / math.sqrt(2) for level in noise))


def check_start(den: Denoiser, x: Any, event_shape: Any) -> torch.Tensor | tuple[int, ...]:
    """The one of the two that was given; ValueError unless it is one, and fits."""
    if (x is None) == (event_shape is None):
        raise ValueError("a denoiser needs either x, start states (B, ...), or event_shape, to start from noise")
    if x is None:
        shape = tuple(event_shape)
        if not all(isinstance(n, int) and n > 0 for n in shape):
            raise ValueError(f"event_shape must hold positive integers, not {shape}")
        return shape
    check_state(x)
    return x


def _slices(y: torch.Tensor, seed: int) -> Array:
    return slices(y.numpy(), PROJECTIONS, seed)


def _noise(den: Denoiser, sigma: float, shape: Sequence[int], samples: int, seed: int) -> torch.Tensor:
    """sigma times normals, in the model's dtype but at least float32, where the model's parameters are."""
    generator = torch.Generator().manual_seed(seed)
    noise = sigma * torch.randn(samples, *shape, dtype=torch.float64, generator=generator)
    return noise.to(device_of(den.model) or noise.device, torch.promote_types(den.dtype(noise.float()), torch.float32))


def _told(problem: Problem) -> str:
    """The repr, and eight digits of a digest of what the problem was made of: two Gaussians differ in it."""
    made_of = [getattr(problem, name, None) for name in inspect.signature(type(problem)).parameters]
    tensors = [torch.as_tensor(value) for value in made_of if isinstance(value, (torch.Tensor, float))]
    return f"{problem!r} {_digest(*tensors)}"


def _told_model(den: Denoiser) -> str:
    return f"{getattr(den.model, '__name__', type(den.model).__name__)}, predicting {den.prediction}"


def _digest(*tensors: torch.Tensor) -> str:
    content = b"".join(str(tuple(t.shape)).encode() + t.cpu().numpy().tobytes() for t in tensors)
    return hashlib.sha256(content).hexdigest()[:8]
