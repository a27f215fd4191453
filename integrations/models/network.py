"""Networks as a `Denoiser` calls them: ``model(x, t, **conditions)`` that returns a tensor; and times they are told."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

HALF = (torch.float16, torch.bfloat16)


def answer_in(returned: Any) -> Any:
    """The tensor in what a network returns: itself, ``.sample`` (diffusers), ``.mean`` (azula), or the first."""
    if isinstance(returned, torch.Tensor):
        return returned
    for name in ("sample", "mean"):
        if isinstance(found := getattr(returned, name, None), torch.Tensor):
            return found
    return returned[0] if isinstance(returned, (tuple, list)) and returned else returned


def dtype_of(net: Any) -> torch.dtype | None:
    """That of the first floating parameter."""
    parameters = net.parameters() if isinstance(net, torch.nn.Module) else ()
    return next((p.dtype for p in parameters if p.is_floating_point()), None)


class Network(torch.nn.Module):
    """``scale * net(x / scale, t)``; a module, so that the dtype of its parameters is seen. ``net`` is not changed.

    keyword: the name by which ``net`` takes the time; by default it is the second argument.
    """

    def __init__(self, net: Any, *, keyword: str | None = None, scale: float = 1.0) -> None:
        super().__init__()
        self.net, self.keyword, self.scale = net, keyword, scale
        self.bound = net.func if isinstance(net, partial) else None  # a module, whose parameters are these

    def forward(self, x: torch.Tensor, t: torch.Tensor, **conditions: Any) -> Any:
        x = x if self.scale == 1 else x / self.scale
        timed = {} if self.keyword is None else {self.keyword: t}
        answer = answer_in(self.net(x, **timed, **conditions) if timed else self.net(x, t, **conditions))
        return answer if self.scale == 1 else self.scale * answer


class Preconditioned(torch.nn.Module):
    """D(x, sigma) = c_skip x + c_out F(c_in x, told), Karras et al., arXiv:2206.00364, table 1, of x = x0 + sigma eps.

    sign:  -1 for networks that return -F, as v-prediction has it.
    noise: what F is told, as a function of sigma.
    """

    def __init__(self, net: Any, sigma_data: float, sign: float, noise: Any) -> None:
        super().__init__()
        self.net, self.sigma_data, self.sign, self.noise = Network(net), sigma_data, sign, noise

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, **conditions: Any) -> torch.Tensor:
        s, d = sigma.reshape(-1, *[1] * (x.ndim - 1)), self.sigma_data
        norm = (s * s + d * d).sqrt()
        seen = (x / norm).to(dtype_of(self.net) or x.dtype)
        answer = self.net(seen, self.noise(sigma), **conditions)
        if not isinstance(answer, torch.Tensor):
            return answer  # the caller refuses it
        answer = answer[:, : x.shape[1]] if x.ndim > 1 else answer  # less a learned variance
        return ((d / norm) ** 2 * x + self.sign * s * d / norm * answer.to(x.dtype)).to(x.dtype)


def quarter_log(sigma: torch.Tensor) -> torch.Tensor:
    """c_noise of EDM."""
    return sigma.log() / 4


def angle(sigma: torch.Tensor) -> torch.Tensor:
    """From 0 at the data to 1 at the noise, of v-diffusion and Stable Audio."""
    return sigma.atan() * (2 / torch.pi)


@dataclass(frozen=True)
class Times:
    """The time ``factor * t``."""

    factor: float

    def __call__(self, t: torch.Tensor) -> torch.Tensor:
        return self.factor * t


@dataclass(frozen=True)
class OneMinus:
    """The time ``factor * (1 - t)``."""

    factor: float = 1.0

    def __call__(self, t: torch.Tensor) -> torch.Tensor:
        return self.factor * (1 - t)


@dataclass(frozen=True)
class Entries:
    """The entries of a longer table that a respaced one has kept, straight lines between them; times ``factor``."""

    kept: tuple[float, ...]
    factor: float = 1.0

    def __call__(self, t: torch.Tensor) -> torch.Tensor:
        kept = torch.tensor(self.kept, dtype=t.dtype, device=t.device)
        low = t.floor().clamp(0, len(kept) - 2)
        at, part = low.long(), (t - low).clamp(0, 1)
        return self.factor * (kept[at] * (1 - part) + kept[at + 1] * part)
