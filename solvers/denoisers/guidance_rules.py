"""The kinds of guidance: what is made of the unconditional answer u and the conditional one c, with the scale w."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class Weights(NamedTuple):
    """By answer of a call, in which part each enters x0, and eps. Each sums to 1."""

    x0: tuple[float, ...]
    eps: tuple[float, ...]


ALONE = Weights((1.0,), (1.0,))


def _guided(u: torch.Tensor, c: torch.Tensor, w: Any) -> torch.Tensor:
    return u + w * (c - u)


def _plain(u: torch.Tensor, c: torch.Tensor, w: Any) -> torch.Tensor:
    """A sample of scale 1 has the bits that it has alone, where nobody asks for u."""
    guided = _guided(u, c, w)
    return torch.where(w == 1, c, guided) if isinstance(w, torch.Tensor) and not w.requires_grad else guided


def _rescaled(u: torch.Tensor, c: torch.Tensor, w: Any, rescale: float = 0.7) -> torch.Tensor:
    """The guided answer with the standard deviation of the conditional one, in part (Lin et al. 2024, 3.4); one that
    has none, as a single element, stays."""
    guided = _guided(u, c, w)
    least = torch.finfo(torch.float64).tiny
    wanted, found = (_square(y).clamp_min(least) for y in (c, guided))
    ratio = torch.where(found > least, (wanted / found).sqrt(), 1.0).to(c.dtype)
    return guided * (rescale * ratio + (1 - rescale))


def _zero_star(u: torch.Tensor, c: torch.Tensor, w: Any) -> torch.Tensor:
    """The unconditional answer scaled to be nearest to the conditional one (Fan et al. 2025, CFG-Zero*)."""
    s = (_dot(c, u) / _dot(u, u).clamp_min(torch.finfo(torch.float64).tiny)).to(u.dtype)
    return _guided(s * u, c, w)


def _damped(u: torch.Tensor, c: torch.Tensor, w: Any) -> torch.Tensor:
    """The unconditional answer projected on the direction that both share most, the first right singular vector of
    (u, c) (Kwon et al. 2025, tangential damping), from the angle of the eigenvectors of their 2 x 2 Gram matrix."""
    difference, twice = _dot(u, u) - _dot(c, c), 2 * _dot(u, c)
    norm = torch.hypot(difference, twice).clamp_min(torch.finfo(torch.float64).tiny)
    cos, sin = (difference / norm).to(u.dtype), (twice / norm).to(u.dtype)
    return _guided(((1 + cos) * u + sin * c) / 2, c, w)


def _projected(
    u: torch.Tensor,
    c: torch.Tensor,
    w: Any,
    eta: float = 0.0,
    threshold: float = 0.0,
    momentum: float = 0.0,
    memory: dict[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """The difference less (1 - eta) of its part along the conditional answer, its norm at most ``threshold`` if that is
    not 0 (Sadat et al. 2025, adaptive projected guidance). It is added to ``momentum`` times the sum before, which is
    in the ``memory`` of the run."""
    d = c - u
    if momentum and memory is not None:
        d = d + momentum * memory["sum"] if "sum" in memory else d
        memory["sum"] = d
    if threshold:
        d = d * (threshold / _dot(d, d).sqrt().clamp_min(threshold)).to(d.dtype)
    along = (_dot(d, c) / _dot(c, c).clamp_min(torch.finfo(torch.float64).tiny)).to(c.dtype) * c
    return c + (w - 1) * (d - (1 - eta) * along)


def _perpendicular(u: torch.Tensor, c: torch.Tensor, w: Any) -> torch.Tensor:
    """The negative condition's direction less its part along the positive one is what guidance leaves."""
    d = u - c
    along = (_dot(d, c) / _dot(c, c).clamp_min(torch.finfo(torch.float64).tiny)).to(c.dtype) * c
    return c - (w - 1) * (d - along)


def _square(y: torch.Tensor) -> torch.Tensor:
    """(B, 1, ...), in float64: of the distance from the mean. Torch's std has other bits in other batches."""
    away = y - y.mean(tuple(range(1, y.ndim)), keepdim=True)
    return _dot(away, away)


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(B, 1, ...), in float64."""
    return (a.double() * b.double()).sum(tuple(range(1, a.ndim)), keepdim=True)


COLUMNS: dict[str, Callable[[float], Weights]] = {
    "cfg": lambda w: Weights((1 - w, w), (1 - w, w)),
    "cfg++": lambda w: Weights((1 - w, w), (1.0, 0.0)),
}
RULES: dict[str, Callable[..., torch.Tensor]] = {
    "cfg": _plain,
    "rescale": _rescaled,
    "zero-star": _zero_star,
    "apg": _projected,
    "tcfg": _damped,
    "perpendicular": _perpendicular,
}
KINDS = tuple(dict.fromkeys([*COLUMNS, *RULES]))
