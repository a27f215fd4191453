"""Runs of programs in a basis: states are coordinates, x' = Q x; the model, and those who watch, see samples.

Only what goes in and out is transformed: the denoiser is asked as it is, with its conditions, guidance and map of x0,
at x = Q^T x', and what it answers is Q times that.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ..bases import Basis
from ..denoisers.answers import alike, check_output, check_unwritten, written
from ..denoisers.asking import Asking
from ..denoisers.denoiser import Denoiser
from ..signatures import watching
from .solution import Solution
from .watching import StopSampling


class InCoordinates(Denoiser):
    """``den`` as a denoiser of coordinates in the dtype of the run's state, for runs that ask by `asking`."""

    def __init__(self, den: Denoiser, basis: Basis, x: torch.Tensor) -> None:
        self.__dict__.update(vars(den))
        self.asked, self.basis = den.like(den.model, x), basis
        self._dtype = den.state_dtype(x)

    def model_times(self, times: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.asked.model_times(times, x)

    def asking(self, times: Any, batch: int | None, **run: bool) -> Asking:
        return _Asking(self, times, batch, **run)


class _Asking(Asking):
    """Coordinates for x, coordinates for answers; their x0 is one, too."""

    def __init__(self, den: InCoordinates, times: Any, batch: int | None, **run: bool) -> None:
        super().__init__(den.asked, times, batch, **run)
        self.basis, self.shown = den.basis, den.asked.dtype

    def call(self, x: torch.Tensor, timesteps: torch.Tensor, n: int) -> Any:
        return self._turned(x, lambda samples: super(_Asking, self).call(samples, timesteps, n))

    def rows(self, x: torch.Tensor, timesteps: torch.Tensor, calls: torch.Tensor, samples: torch.Tensor) -> Any:
        return self._turned(x, lambda seen: super(_Asking, self).rows(seen, timesteps, calls, samples))

    def _turned(self, x: torch.Tensor, ask: Callable[[torch.Tensor], Any]) -> Any:
        samples = self.basis.back(x)
        samples = samples.to(self.shown(samples))
        version = written(samples)
        answer = ask(samples)
        check_unwritten(samples, version)
        if isinstance(answer, (tuple, list)):
            return tuple(self._coordinates(a, samples, x) for a in answer)
        return self._coordinates(answer, samples, x)

    def _coordinates(self, answer: Any, samples: torch.Tensor, x: torch.Tensor) -> Any:
        try:
            answer = check_output(answer, samples)
        except (TypeError, ValueError):
            return answer  # x has the same shape: the executor refuses it too, and says at which call
        return self.basis.forward(answer.to(x.dtype))


def in_coordinates(
    basis: Basis, den: Denoiser, x: torch.Tensor, callback: Callable[..., Any] | None
) -> tuple[Denoiser, torch.Tensor, Callable[..., Any] | None]:
    """What `solve` is given, as it runs it in a basis."""
    state = basis.forward(x.to(den.state_dtype(x)))
    return InCoordinates(den, basis, x), state, callback and watching(callback, basis.back, partial(_changed, basis))


def out_of_coordinates(basis: Basis, found: Solution, x: torch.Tensor) -> Solution:
    """What a run from the coordinates of ``x`` has found, for samples like x."""
    states = found.trajectory
    if states is not None:
        later = [basis.back(state) for state in states[1:]]
        states = torch.stack([x.to(states.dtype), *later]).to(x.dtype)
    return replace(found, x=basis.back(found.x), trajectory=states)


def _changed(basis: Basis, state: torch.Tensor, call: Callable[[torch.Tensor], Any]) -> torch.Tensor | None:
    """What takes the place of the state: what the callback returns, or what it has written to."""
    samples = _counted(basis.back(state))
    version, before = written(samples), samples.detach().clone() if samples.is_cpu else None

    def edited() -> bool:  # torch counts no writes by .data: they are seen on the CPU, as a GPU would have to stop
        return written(samples) != version or (before is not None and not alike(samples.detach(), before))

    try:
        new = call(samples)
    except StopSampling:
        if edited():
            state.copy_(basis.forward(samples))
        raise
    if not isinstance(new, torch.Tensor) or new is samples:
        return basis.forward(samples) if edited() else None
    fits = new.shape == state.shape and new.device == state.device and new.is_floating_point()
    return basis.forward(new.to(state.dtype)) if fits else new


def _counted(samples: torch.Tensor) -> torch.Tensor:
    """The same, but for a tensor made in inference mode, which does not count how often it is written to, a copy."""
    if not samples.is_inference():
        return samples
    with torch.inference_mode(False), torch.no_grad():
        return samples.clone()
