"""Random problems with exact denoisers: what universal tables are fitted to.

Every problem is a mixture of Gaussians with diagonal covariances, up to `DIM` directions of which some may be empty.
Noise is isotropic, so a common rotation of means and covariances changes nothing: the axes stand for any basis.
"""

import math

import torch

from ..solvers.schedules.formulas import Trigonometric

DIM, COMPONENTS = 24, 24
KINDS = ("broad", "cloud", "image", "low-rank")


class Family:
    """``count`` problems of the kinds in turn, whose widest directions have standard deviations from ``width[0]`` to
    ``width[1]``; ``rows`` states of each make a batch (count, rows, DIM)."""

    def __init__(self, count: int, width: tuple[float, float], seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        drawn = [_problem(KINDS[i % len(KINDS)], width, g) for i in range(count)]
        self.mu, self.s2, self.log_weights = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        self.count, self.event_shape = count, torch.Size((count, 1, DIM))

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
        odds = torch.exp(odds - odds.amax(-1, keepdim=True))
        share = odds / odds.sum(-1, keepdim=True)
        x0 = s * s * (share @ mean) + a * u * (share @ own)
        return x0, (u - a * x0) / s

    def field(self, gauge: str) -> object:
        """N on the unit circle, as `solvers.tune_run` takes it; flat batches (count * rows, DIM)."""

        def answer(u: torch.Tensor, node: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
            alpha, sigma = torch.sqrt(torch.sigmoid(2 * told)), torch.sqrt(torch.sigmoid(-2 * told))
            pair = self.posterior(u.reshape(self.count, -1, DIM), alpha, sigma)
            return pair[gauge == "eps"].reshape(u.shape)

        return answer


SCHEDULE = Trigonometric()  # the unit circle


def _problem(
    kind: str, width: tuple[float, float], g: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means (components, DIM), variances of the same shape, and log weights (components,)."""

    def uniform(low: float, high: float) -> float:
        return float(low + (high - low) * torch.rand((), generator=g, dtype=torch.float64))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    widest = math.exp(uniform(math.log(width[0]), math.log(width[1])))
    size = int(uniform(8, DIM + 0.999))
    components = {"broad": 8, "cloud": COMPONENTS, "image": 12, "low-rank": COMPONENTS}[kind]
    decays = {"broad": uniform(0.0, 0.3), "cloud": uniform(0.0, 0.6), "image": uniform(1.0, 2.5), "low-rank": 0.0}
    decay = decays[kind]
    spectrum = torch.arange(1, DIM + 1, dtype=torch.float64) ** -decay
    spectrum[size:] = 0
    if kind == "low-rank":
        rank = int(uniform(2, 7.999))
        mu = normal(COMPONENTS, rank) @ torch.linalg.qr(normal(size, rank))[0].T
        mu = torch.nn.functional.pad(mu, (0, DIM - size))
    else:
        mu = normal(COMPONENTS, DIM) * spectrum
    inner = {"broad": uniform(0.1, 0.6), "cloud": uniform(0.01, 0.1), "image": uniform(0.1, 0.7), "low-rank": 0.08}[
        kind
    ]
    jitter = torch.exp(normal(COMPONENTS, DIM) * (0.35 if kind in ("broad", "image") else 0.05))
    own = inner * (spectrum if kind != "low-rank" else spectrum.clamp(max=1.0)) * jitter
    odds = normal(COMPONENTS) * 0.5
    odds[components:] = -60.0
    scale = widest / float(torch.sqrt(spectrum[0] ** 2 + (inner * spectrum[0]) ** 2))
    least = (0.02 * uniform(0.5, 2.0)) ** 2 * (spectrum > 0)
    return mu * scale, (own * scale) ** 2 + least, torch.log_softmax(odds, 0)
