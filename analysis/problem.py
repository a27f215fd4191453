"""What an exact problem is: a distribution of data whose denoiser is known in closed form."""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch

from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.denoisers.heads import Level, from_pair, network_rate
from ..solvers.programs.interpret import PairModel
from ..solvers.schedules.base import Schedule
from .reference import reference_flow


class Problem(ABC):
    """A distribution of data x0 with exact E[x0 | x] and E[eps | x] for x = alpha x0 + sigma eps.

    States have shape (..., *event_shape); an event shape of () means that every coordinate of a state of any
    shape is an independent draw. Parameters are float64. Problems are immutable and compare by identity.
    """

    event_shape: torch.Size

    def __repr__(self) -> str:
        return f"{type(self).__name__}(event_shape={tuple(self.event_shape)})"

    @abstractmethod
    def posterior(self, x: torch.Tensor, alpha: Any, sigma: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """(E[x0 | x], E[eps | x]) with x's shape and dtype.

        `alpha` and `sigma` are numbers >= 0, not both 0, or tensors of shape () or (B,), B being x's first
        size. Both expectations are finite at alpha = 0 and at sigma = 0, and neither is obtained from the
        other by division. Raises ValueError when x does not end in the event shape.
        """

    @abstractmethod
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> torch.Tensor:
        """n independent draws of the data, float64 of shape (n, *event_shape)."""

    def sample_at(self, sch: Schedule, t: float, n: int, *, generator: torch.Generator | None = None) -> torch.Tensor:
        """n independent draws of x_t = alpha x0 + sigma eps, float64 of shape (n, *event_shape)."""
        clean = self.sample(n, generator=generator)
        noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
        return sch.alpha(t) * clean + sch.sigma(t) * noise

    def reference(self, x: torch.Tensor, sch: Schedule, s: float, t: float) -> torch.Tensor:
        """Where the PF-ODE takes the states x from time s to time t, noisier or cleaner.

        float64, to about 1e-10; `reference_flow` tells the error and takes another tolerance.
        """
        return reference_flow(self, x, sch, s, t).x

    def pair(self, sch: Schedule) -> PairModel:
        """The model that `Program.interpret` calls: from (x, t) to the exact (x0, eps)."""
        return lambda x, t: self.posterior(x, float(sch.alpha(t)), float(sch.sigma(t)))

    def denoiser(self, sch: Schedule, prediction: str = "x0") -> Denoiser:
        """The exact denoiser for `sch`, evaluated in float64 for x of any dtype, as a network that returns the
        head `prediction`: "x0", "eps", "v", "velocity" or "score".

        Every head is a combination of the exact pair (E[x0 | x], E[eps | x]); the one division, that of the
        score by sigma, is of a quantity known to full precision. Not finite where the schedule's own numbers
        are not: the score at sigma = 0, the velocity where alpha' or sigma' is infinite.
        It is told the time on the schedule's clock for networks, and its velocity is along that: with
        ``FlowMatching(data_at=1)`` it is told 1 - t and returns x0 - eps.
        Raises ValueError for a name that is not a head.
        """

        def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            t = t.to(torch.float64)
            t = t if sch.clock_rate == 1 else sch.clock(t)  # a clock that runs back, 1 - t, is its own inverse
            slopes = (sch.dalpha(t), sch.dsigma(t)) if prediction == "velocity" else (None, None)  # used by no other
            level = Level(sch.alpha(t), sch.sigma(t), *slopes)
            x0, eps = self.posterior(x, level.alpha, level.sigma)
            if prediction in ("x0", "eps"):
                return x0 if prediction == "x0" else eps
            p, q = (columns(network_rate(prediction, sch) * c, x) for c in from_pair(prediction, level))
            return (p * x0 + q * eps).to(x.dtype)

        return Denoiser(model, sch, prediction, dtype=torch.float64)

    def _check_event(self, x: torch.Tensor) -> None:
        n = len(self.event_shape)
        if x.shape[x.ndim - n :] != self.event_shape:
            raise ValueError(f"x has shape {tuple(x.shape)}; it must end in {tuple(self.event_shape)}")


def columns(a: Any, x: torch.Tensor) -> torch.Tensor:
    """A number, or one per sample, as a float64 tensor that broadcasts against x."""
    a = torch.as_tensor(a, dtype=torch.float64, device=x.device)
    return a.reshape(a.shape + (1,) * (x.ndim - a.ndim)) if a.ndim else a


def shares(log_odds: torch.Tensor) -> torch.Tensor:
    """softmax over the last dimension.

    torch.softmax waits for all threads even when a tensor is tiny: 4 microseconds become 15 milliseconds on a
    machine that is busy otherwise.
    """
    odds = torch.exp(log_odds - log_odds.amax(-1, keepdim=True))
    return odds / odds.sum(-1, keepdim=True)


def parameter(name: str, value: Any) -> torch.Tensor:
    """`value` as a float64 tensor of the problem's own. Raises ValueError unless it is real and finite."""
    if value.is_complex() if isinstance(value, torch.Tensor) else np.iscomplexobj(value):
        raise ValueError(f"{name} must be real, but it is complex")
    tensor = torch.as_tensor(value, dtype=torch.float64).detach().cpu().clone()
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} must be finite, but holds {tensor[~torch.isfinite(tensor)][0].item()}")
    return tensor


def spectrum(name: str, cov: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(eigenvalues (..., D), eigenvectors in columns (..., D, D)) of covariances of shape (..., D, D).

    Raises ValueError unless they are symmetric and positive semidefinite up to rounding (1e-12 of the largest
    entry).
    """
    scale = cov.abs().amax()
    asymmetry = (cov - cov.mT).abs().amax()
    if asymmetry > 1e-12 * scale:
        raise ValueError(f"{name} must be symmetric, but differs from its transpose by {asymmetry.item():.3g}")
    values, vectors = torch.linalg.eigh((cov + cov.mT) / 2)
    if values.amin() < -1e-12 * scale * math.sqrt(cov.shape[-1]):
        raise ValueError(f"{name} must be positive semidefinite, but has the eigenvalue {values.amin().item():.6g}")
    return values.clamp(min=0), vectors
