"""Exact networks of Gaussian data in the conventions of other libraries, each written from its own formulas."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from logsnr.analysis import Gaussian

MEAN = torch.linspace(-0.5, 1.0, 16, dtype=torch.float64).reshape(2, 8)
DATA = Gaussian(MEAN, torch.logspace(-2, 0, 8, dtype=torch.float64).expand(2, 8))
LINEAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
ROOTS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def column(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return values.double().reshape(-1, *[1] * (x.ndim - 1))


def pair(x: torch.Tensor, alpha: Any, sigma: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """E[x0 | x] and E[eps | x]."""
    return DATA.posterior(x, alpha, sigma)


def edm_d(x: torch.Tensor, sigma: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    return pair(x, 1.0, sigma)[0]


def raw(sigma_data: float, noise: str = "log", sign: int = 1) -> Any:
    """F of D = c_skip x + c_out F, told c_noise."""

    def net(y: torch.Tensor, told: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        sigma = column(torch.exp(4 * told) if noise == "log" else torch.tan(told * math.pi / 2), y)
        norm = (sigma**2 + sigma_data**2).sqrt()
        x = y * norm
        d = pair(x, 1.0, sigma.flatten())[0]
        return sign * (d - sigma_data**2 / norm**2 * x) / (sigma * sigma_data / norm)

    return net


def trig(sigma_data: float) -> Any:
    def net(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        x0, eps = pair(sigma_data * y, torch.cos(t), sigma_data * torch.sin(t))
        return torch.cos(column(t, y)) * eps - torch.sin(column(t, y)) * x0 / sigma_data

    return net


def velocity(data_at: int, factor: float = 1.0, sign: int = 1, told_noise: bool = False) -> Any:
    """u of a straight path, told ``factor`` times its time, which is that of the noise if ``told_noise``."""

    def net(x: torch.Tensor, t: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        noise = t / factor if told_noise or not data_at else 1 - t / factor
        x0, eps = pair(x, 1 - noise, noise)
        return x0 - eps if data_at else eps - x0

    return net


def song(kind: str) -> Any:
    """Networks of Song et al.: eps told 999 t, or the score told sigma."""

    def net(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if kind == "ve":
            return -pair(x, 1.0, labels)[1] / column(labels, x)
        t = labels / 999
        log_mean = -0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1
        root = torch.sqrt if kind == "vp" else (lambda v: v)
        return pair(x, log_mean.exp(), root(-torch.expm1(2 * log_mean)))[1]

    return net


def table(bars: np.ndarray, head: str = "eps", *, twice: bool = False, scale: float = 1.0) -> Any:
    """A network that looks its whole index up in a table of alpha^2."""

    def net(x: torch.Tensor, t: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        index = t.double() / scale
        assert (index - index.round()).abs().max() < 1e-3
        bar = torch.from_numpy(np.array(bars))[index.round().long()]
        x0, eps = pair(x, bar.sqrt(), (1 - bar).sqrt())
        v = column(bar.sqrt(), x) * eps - column((1 - bar).sqrt(), x) * x0
        answer = {"x0": x0, "eps": eps, "v": v}[head]
        return torch.cat([answer, torch.zeros_like(answer)], 1) if twice else answer

    return net


class Holder:
    """A model of another library: callable, with attributes."""

    def __init__(self, call: Any, **attributes: Any) -> None:
        self.call = call
        self.__dict__.update(attributes)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)


def diffusers_like(name: str, net: Any, *, config: Any = None, first: str = "hidden_states") -> Any:
    """A model whose time is a keyword that does not come second, and whose answer is in ``.sample``."""

    def forward(
        self: Any, hidden_states: Any, encoder_hidden_states: Any = None, timestep: Any = None, **kwargs: Any
    ) -> Any:
        return SimpleNamespace(sample=net(hidden_states, timestep))

    kind = type(name, (torch.nn.Module,), {"forward": forward})
    model = kind()
    model.config = config
    return model


def azula_like(alpha_min: float = 1e-3, sigma_min: float = 1e-3) -> Any:
    """Azula's rectified schedule and a denoiser that returns a posterior."""

    def schedule(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return t * alpha_min + (1 - t), t + (1 - t) * sigma_min

    return Holder(lambda x, t, **kwargs: SimpleNamespace(mean=pair(x, *schedule(t))[0]), schedule=schedule)
