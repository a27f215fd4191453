"""Training-free guidance by functions: classifiers, energies, thresholds, and several maps one after the other."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..solvers.denoisers.conditions import check_conditions, check_rows
from ..solvers.denoisers.guides import At, Guide, MapX0, check_map, made, usual, wants_gradients
from ..solvers.programs.call import finite, integer
from .inverse_methods import Scale, check_scale

Function = Callable[..., torch.Tensor]


@dataclass(frozen=True, eq=False)
class ByFunction(Guide):
    """A guide by a function of tensors (N, ...) whose values are (N,), one per row.

    scale:      a number, or a function of lam = log(alpha/sigma): float64 arrays in and out.
    conditions: keywords of the function, as those of a `Denoiser`: tensors have a row for each sample.
    """

    function: Function
    scale: Scale = 1.0
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"{type(self).__name__} takes a function of tensors, not {type(self.function).__name__}")
        check_scale(self.scale)
        object.__setattr__(self, "conditions", check_conditions("conditions", self.conditions))

    def check(self, x: torch.Tensor) -> None:
        check_rows("conditions", dict(self.conditions), len(x))

    def slope(self, z: torch.Tensor, at: At, *given: torch.Tensor) -> torch.Tensor:
        """The gradient of the function at ``z``, by row. ValueError if it has none."""
        name = getattr(self.function, "__name__", type(self.function).__name__)
        with torch.inference_mode(False), torch.enable_grad():
            y = z if at.recorded and z.requires_grad else usual(z.detach()).clone().requires_grad_()
            value = self.function(y, *map(usual, given), **at.rows(dict(self.conditions)))
            if not isinstance(value, torch.Tensor) or value.shape != (len(z),):
                shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
                raise ValueError(f"{name} must return one number per row, shape ({len(z)},), not {shape}")
            (found,) = _gradient(value, y, at.recorded)
        if found is None:
            raise ValueError(
                f"{name} has no gradient with respect to x: it must be made of operations that torch differentiates, "
                "without torch.no_grad, .detach() or argmax"
            )
        return found


@dataclass(frozen=True, eq=False)
class Classifier(ByFunction):
    """Classifier guidance (Dhariwal and Nichol 2021; book (8.2.3)): the score plus scale grad_x log p(y | x_t, t).

    function: log_prob(x, t, **conditions), of noisy states (N, ...) and times (N,) of the schedule: log p(y | x_t) of
              what is wanted. Not through the diffusion model, which costs no gradients.

    With the exact log-probability and scale 1 this is the exact conditional denoiser. With another scale it is not the
    law p p(y | .)^scale (book, remark of 8.1; erratum 8.1). Where alpha = 0 nothing is changed.
    """

    def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
        return x0 + at.scale(self.scale) * at.gain * self.slope(x, at, at.t)


@dataclass(frozen=True, eq=False)
class FreeDoM(ByFunction):
    """Energy guidance through the model (Yu et al. 2023; book 8.4.1, B): the score less scale grad_x E(x0(x_t)).

    function: energy(x0, **conditions), of clean data. Time travel, which puts noise back, is a solver: `TimeTravel`.
    The book's (8.4.2) changes the noise alone, and goes the wrong way: erratum 8.2. Here x0 and eps both follow.
    """

    gradients = True

    def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
        return x0 - at.scale(self.scale) * at.gain * at.pulled_back(x0, x, self.slope(x0, at))


@dataclass(frozen=True, eq=False)
class MGPD(ByFunction):
    """Energy guidance of x0 itself (He et al. 2024, manifold preserving guided diffusion; book 8.4.1, A): x0 less
    scale grad_x0 E(x0), ``iterations`` times. No gradients through the model.

    function: energy(x0, **conditions). x stays, and eps follows, so that this has a limit for many steps.
    """

    iterations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("iterations", self.iterations, 1, 1 << 31)

    def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
        for _ in range(self.iterations):
            x0 = x0 - at.scale(self.scale) * self.slope(x0, at)
        return x0


def universal(
    energy: Function,
    forward: Scale = 1.0,
    backward: Scale = 0.0,
    iterations: int = 1,
    conditions: Mapping[str, Any] | None = None,
) -> Guide:
    """Universal guidance (Bansal et al. 2023, UGD): `FreeDoM` by ``forward``, then `MGPD` by ``backward``. Its
    self-recurrence, which puts noise back, is the solver's: `TimeTravel`."""
    given = dict(conditions or {})
    return chain(FreeDoM(energy, forward, given), MGPD(energy, backward, given, iterations))


def threshold_static(limit: float = 1.0) -> Guide:
    """x0 cut off to [-limit, limit] (book 9.5.2)."""
    return Static(_positive("limit", limit))


def threshold_dynamic(quantile: float = 0.995, limit: float = 1.0) -> Guide:
    """x0 cut off where the ``quantile`` of its absolute values is, by sample, and scaled to [-limit, limit]; within
    that nothing is changed (Saharia et al. 2022, 2.3; book 9.5.2)."""
    if not 0 < finite("quantile", quantile) <= 1:
        raise ValueError(f"quantile must be in (0, 1], not {quantile!r:.60}")
    return Dynamic(float(quantile), _positive("limit", limit))


@dataclass(frozen=True, eq=False)
class Static(Guide):
    limit: float

    def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
        return x0.clamp(-self.limit, self.limit)


@dataclass(frozen=True, eq=False)
class Dynamic(Guide):
    quantile: float
    limit: float

    def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
        # torch.quantile refuses more than 16 million elements
        size = x0.abs().reshape(len(x0), math.prod(x0.shape[1:])).sort(1).values
        place = self.quantile * (size.shape[1] - 1)
        low = int(place)
        bound = torch.lerp(size[:, low], size[:, min(low + 1, size.shape[1] - 1)], place - low)
        bound = bound.clamp(min=self.limit).reshape(-1, *[1] * (x0.ndim - 1))
        return torch.maximum(-bound, torch.minimum(x0, bound)) * (self.limit / bound)


@dataclass(frozen=True, eq=False)
class Chain(Guide):
    maps: tuple[MapX0, ...]
    gradients: bool

    def check(self, x: torch.Tensor) -> None:
        for m in self.maps:
            check_map(m, x)

    def guide(self, x0: torch.Tensor, x: torch.Tensor, at: At) -> torch.Tensor:
        for m in self.maps:
            x0 = made(m, x0, x, at)
        return x0


def chain(*maps: MapX0) -> Guide:
    """Several maps of x0 in sequence: each is given what the one before it has made."""
    for m in maps:
        if not (isinstance(m, Guide) or callable(m)):
            raise TypeError(f"chain takes guides and functions (x0, x, t), not {type(m).__name__}")
    return Chain(maps, any(map(wants_gradients, maps)))


def _gradient(value: torch.Tensor, y: torch.Tensor, recorded: bool) -> tuple[torch.Tensor | None, ...]:
    if not value.requires_grad:
        return (None,)
    return torch.autograd.grad(value.sum(), y, create_graph=recorded, retain_graph=True, allow_unused=True)


def _positive(name: str, value: Any) -> float:
    if not finite(name, value) > 0:
        raise ValueError(f"{name} must be positive, not {value!r:.60}")
    return float(value)
