"""Random problems whose flow is known: what universal tables are fitted to.

Every problem is a mixture of Gaussians with diagonal covariances, up to `DIM` directions of which some may be empty.
Noise is isotropic, so a common rotation of means and covariances changes nothing: the axes stand for any basis.
"""

import math
from copy import copy
from typing import NamedTuple

import torch

from ..solvers.schedules.formulas import Trigonometric

DIM, MOST = 24, 24  # directions and components
COMPONENTS = {"broad": 8, "uneven": 8, "pair": 2, "image": 12, "photo": 12}  # if not all
SIZES = {"pair": (0.5, 8)}  # directions that are not empty, if not 8 to all
LIKE = {"pair": "broad", "uneven": "broad", "photo": "image"}
JITTER = {"uneven": 0.8, "broad": 0.35, "pair": 0.35, "image": 0.35, "photo": 0.35}  # of the spreads' logs, if not 0.05
WAVES = 16  # of which an error of a network is made
FAR = 10.0  # in lam: beyond it, errors stay as they are
COARSE = 2  # directions of a photograph that have no contrast of their own: brightness, and where it is


class Kinds(NamedTuple):
    """What a family is made of. width: the standard deviations of the widest directions, from and to; names: of the
    kinds of problems, in turn; error: the size of the networks' errors in v, where noise has the size 1; head: or in
    "eps", of which x0's are sigma / alpha times the size; rough: how many times as fast as usual they change with the
    state, and its square with lam; scales: of classifier-free guidance towards a class, from and to; sizes: how many
    directions are not empty, more than the one and up to the other, by default 8 to all."""

    width: tuple[float, float]
    names: tuple[str, ...] = ("broad", "cloud", "image", "uneven", "low-rank")
    error: float = 0.0
    scales: tuple[float, float] = (1.0, 1.0)
    sizes: tuple[float, float] | None = None
    head: str = "v"
    rough: float = 1.0

    def told(self, count: int, rows: int, seed: int) -> str:
        """In words, for the provenance of a table."""
        text = f"{count} random problems of {rows} noises, seed {seed}, widest direction {self.width[0]:g} to "
        rough = "rough " * (self.rough > 1)
        text += f"{self.width[1]:g}" + (f", with {rough}errors of {self.error:g} in {self.head}" if self.error else "")
        if self.sizes:
            text += f", in {math.ceil(self.sizes[0]):g} to {self.sizes[1]:g} dimensions"
        return text + (f", guided with scales {self.scales[0]:g} to {self.scales[1]:g}" if self.scales[1] > 1 else "")


class Family:
    """``count`` problems; ``rows`` states of each make a batch (count, rows, DIM).

    An error of v that is a smooth random function of state and lam stands for what networks do: tables whose large
    weights cancel each other on exact denoisers, and there alone, do not win then.
    """

    def __init__(self, count: int, kinds: Kinds, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        drawn = [_problem(kinds.names[i % len(kinds.names)], kinds, g) for i in range(count)]
        self.mu, self.s2, self.log_weights = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        self.event_shape = torch.Size((count, 1, DIM))
        self.waves = _waves(count, kinds, seed) if kinds.error else None
        self.head = kinds.head
        self.guidance = _classes(self.log_weights, kinds.scales, seed) if kinds.scales[1] > 1 else None

    @property
    def count(self) -> int:
        return len(self.mu)

    def some(self, which: slice) -> "Family":
        """The family of some of the problems."""
        found = copy(self)
        found.mu, found.s2, found.log_weights = self.mu[which], self.s2[which], self.log_weights[which]
        if self.waves is not None:
            found.waves = tuple(part[which] for part in self.waves)
        if self.guidance is not None:
            found.guidance = self.guidance[0][which], self.guidance[1][which]
        return found

    def starts(self, rows: int, seed: int) -> torch.Tensor:
        """Standard normals (count, rows, DIM). All problems are one event then, for `reference_flow`."""
        self.event_shape = torch.Size((self.count, rows, DIM))
        return torch.randn(self.event_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def posterior(self, u: torch.Tensor, alpha: object, sigma: object) -> tuple[torch.Tensor, torch.Tensor]:
        """(E[x0 | u], E[eps | u]) of states u (..., count, rows, DIM); alpha and sigma are numbers."""
        a, s = (torch.as_tensor(level, dtype=torch.float64) for level in (alpha, sigma))
        v = a * a * self.s2 + s * s  # (count, components, DIM)
        mean, own = self.mu / v, self.s2 / v
        constant = self.log_weights - 0.5 * (a * a * self.mu * mean + torch.log(v)).sum(-1)
        odds = -0.5 * (u * u) @ (1 / v).mT + a * u @ mean.mT + constant[:, None]
        share = torch.softmax(odds, -1)
        if self.guidance is not None:  # whose answer is linear in the shares
            scale, other = self.guidance
            share = share + scale * (torch.softmax(odds + other, -1) - share)
        x0 = s * s * (share @ mean) + a * u * (share @ own)
        eps = (u - a * x0) / s
        if self.waves is None:
            return x0, eps
        across, along, phase, size = self.waves
        lam = torch.log(a / s).clamp(-FAR, FAR)
        error = torch.sin(u @ across + along * lam + phase) @ size
        if self.head == "eps":
            error = error / a
        return x0 + s * error, eps - a * error

    def field(self, gauge: str) -> object:
        """N on the unit circle, as `tuning.run` takes it; flat batches (count * rows, DIM)."""

        def answer(u: torch.Tensor, node: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
            alpha, sigma = torch.sqrt(torch.sigmoid(2 * told)), torch.sqrt(torch.sigmoid(-2 * told))
            pair = self.posterior(u.reshape(self.count, -1, DIM), alpha, sigma)
            return pair[gauge == "eps"].reshape(u.shape)

        return answer


SCHEDULE = Trigonometric()  # the unit circle


def _waves(count: int, kinds: Kinds, seed: int) -> tuple[torch.Tensor, ...]:
    """Sines of the state (count, DIM, WAVES) and of lam, with phases, (count, 1, WAVES); (count, WAVES, DIM) is what
    each adds to v."""
    g = torch.Generator().manual_seed(seed + 77)
    across, along = (torch.randn(count, k, WAVES, generator=g, dtype=torch.float64) for k in (DIM, 1))
    phase = 2 * math.pi * torch.rand(count, 1, WAVES, generator=g, dtype=torch.float64)
    size = kinds.error * math.sqrt(2 / WAVES) * torch.randn(count, WAVES, DIM, generator=g, dtype=torch.float64)
    return across * (kinds.rough / math.sqrt(DIM)), along * kinds.rough**2, phase, size


def _classes(log_weights: torch.Tensor, scales: tuple[float, float], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale of guidance (count, 1, 1), and what takes the components that are not of the class away
    (count, 1, components)."""
    g = torch.Generator().manual_seed(seed + 55)
    count, components = log_weights.shape
    share, at = torch.rand(2, count, 1, 1, generator=g, dtype=torch.float64)
    others = torch.rand(count, 1, components, generator=g, dtype=torch.float64) > 0.15 + 0.5 * share
    others[..., 0] = False  # every class has a component
    return scales[0] * (scales[1] / scales[0]) ** at, -60.0 * others


def _problem(kind: str, kinds: Kinds, g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means (components, DIM), variances of the same shape, and log weights (components,)."""

    def uniform(low: float, high: float) -> float:
        return float(low + (high - low) * torch.rand((), generator=g, dtype=torch.float64))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    widest = math.exp(uniform(*map(math.log, kinds.width)))
    size = int(uniform(*(kinds.sizes or SIZES.get(kind, (8, DIM)))) + 0.999)
    few, like = COMPONENTS.get(kind, DIM), LIKE.get(kind, kind)
    decay = {"broad": uniform(0.0, 0.3), "cloud": uniform(0.0, 0.6), "image": uniform(1.0, 2.5), "low-rank": 0.0}[like]
    spectrum = torch.arange(1, DIM + 1, dtype=torch.float64) ** -decay
    spectrum[size:] = 0
    if kind == "low-rank":
        rank = min(int(uniform(2, 7.999)), size)
        mu = normal(MOST, rank) @ torch.linalg.qr(normal(size, rank))[0].T
        mu = torch.nn.functional.pad(mu, (0, DIM - size))
    else:
        mu = normal(MOST, DIM) * spectrum
    inner = {"broad": uniform(0.1, 0.6), "cloud": uniform(0.01, 0.1), "image": uniform(0.1, 0.7), "low-rank": 0.08}[
        like
    ]
    jitter = torch.exp(normal(MOST, DIM) * JITTER.get(kind, 0.05))
    own = inner * (spectrum if kind != "low-rank" else spectrum.clamp(max=1.0)) * jitter
    odds = normal(MOST) * 0.5
    odds[few:] = -60.0
    scale = widest / float(torch.sqrt(spectrum[0] ** 2 + (inner * spectrum[0]) ** 2))
    least = (0.02 * uniform(0.5, 2.0)) ** 2 * (spectrum > 0)
    if kind == "photo":  # fine directions are as strong as a component's contrast, and nearly centred
        contrast = torch.exp(normal(MOST, 1))
        mu[:, COARSE:] *= 0.3 * contrast
        own[:, COARSE:] *= contrast
    return mu * scale, (own * scale) ** 2 + least, torch.log_softmax(odds, 0)
