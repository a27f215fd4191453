"""Where the noise of a run comes from: seeds of every sample, a generator, a Brownian path, or the user."""

import math
import warnings
from collections.abc import Callable, Iterable

import torch

from ...kernels import Noise, Seeds, standard_normals, transformed
from ..planners.stochasticity import Window
from ..programs.call import NoiseKey
from ..programs.program import Program
from ..schedules.base import Schedule
from .brownian import BrownianNoise
from .normals import Seed, drawn_seed, seeds_of

NoiseFunction = Callable[[NoiseKey, torch.Tensor], torch.Tensor]
FEW, FEWEST = 1 << 14, 64  # elements whose spread is looked at, and that tell something


def warn_of_spread(x: torch.Tensor, program: Program, sigma: float, unit: float = 1.0) -> None:
    """Warn where a run that starts in pure noise starts from another amount of it than ``sigma``, in elements of eps of
    the standard deviation ``unit``."""
    if x.device.type != "cpu" or transformed():
        return
    some = x if x.numel() <= FEW else x[: max(FEW * len(x) // x.numel(), 1)].reshape(-1)[:FEW]
    spread = float(torch.linalg.vector_norm(some.detach())) / max(some.numel(), 1) ** 0.5 / unit
    if some.numel() >= FEWEST and not sigma / 2 < spread < 2 * sigma and spread < math.inf:
        warnings.warn(
            f"x has a root mean square of {spread:.3g}, but pure noise at t = {program.grid[0]:.6g} has {sigma:.3g}: "
            "logsnr.start(schedule, shape, seed=...) makes it",
            stacklevel=5,
        )


def noise_source(
    program: Program,
    sch: Schedule,
    x: torch.Tensor,
    seed: Seed | None,
    sample_ids: Iterable[int] | None,
    generator: torch.Generator | None,
    brownian: bool,
    noise: NoiseFunction | None,
) -> Seeds | NoiseFunction | None:
    """What `run` draws the noise of ``program`` from; None if it adds none.

    A Brownian path runs on the clock of the program's eta, or else of the reverse SDE. Raises ValueError for more than
    one source, TypeError for what is none, and what `seeds_of` raises.
    """
    if not program.noises:
        return None
    given = [n for n, v in (("seed", seed), ("generator", generator), ("noise", noise)) if v is not None]
    if len(given) > 1:
        raise ValueError(f"give one of seed, generator and noise, not {' and '.join(given)}")
    if noise is not None and (brownian or sample_ids is not None):
        raise ValueError("noise= brings its own: leave out brownian and sample_ids")
    if noise is not None and not callable(noise):
        raise TypeError(f"noise must be a callable noise(key, like), not {type(noise).__name__}")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, not {type(generator).__name__}")
    if noise is not None:
        return _Asked(noise, program)
    if seed is None:  # from torch's own numbers, so that torch.manual_seed decides
        seed = drawn_seed(generator)
    return addressed(program, sch, seeds_of(x.shape[0], x.device, seed, sample_ids), brownian)


def addressed(program: Program, sch: Schedule, seeds: Seeds, brownian: bool) -> Seeds | NoiseFunction:
    """The source of the noise that ``seeds`` say; ValueError for a path that a program does not go along."""
    if not brownian:
        return seeds
    if backwards := [key for key in program.noises if key.stream == 0 and key.s < key.t]:
        raise ValueError(
            f"brownian = True goes with noise from s to t < s, and {backwards[0]} goes back to more noise: write "
            f"noise({backwards[0].t:.6g}, {backwards[0].s:.6g}), or give it another stream than 0"
        )
    path, others = BrownianNoise(sch, program.eta or Window(1.0), seeds), Addressed(seeds)
    return lambda key, like: path(key, like) if key.stream == 0 else others(key, like)


class Addressed:
    """The normals of ``seeds``, for who is given tensors."""

    def __init__(self, seeds: Seeds) -> None:
        self.seeds = seeds

    def __call__(self, key: NoiseKey, like: torch.Tensor) -> torch.Tensor:
        return standard_normals(Noise(*self.seeds, (key.address,)), 0, like)


class _Asked:
    """The user's function, asked once for every key: what it returns is kept while calls are left that add it."""

    def __init__(self, noise: NoiseFunction, program: Program) -> None:
        self.noise = noise
        self.kept: dict[NoiseKey, torch.Tensor] = {}
        self.left = dict.fromkeys(program.noises, 0)
        for call in program.calls:
            for key in call.noises:
                self.left[key] += 1

    def __call__(self, key: NoiseKey, like: torch.Tensor) -> torch.Tensor:
        z = self.kept.pop(key, None)
        z = self._made(key, like) if z is None else z
        self.left[key] -= 1
        if self.left[key]:
            self.kept[key] = z
        return z

    def _made(self, key: NoiseKey, like: torch.Tensor) -> torch.Tensor:
        z = self.noise(key, like)
        if not isinstance(z, torch.Tensor) or z.shape != like.shape or z.device != like.device:
            got = f"{tuple(z.shape)} on {z.device}" if isinstance(z, torch.Tensor) else type(z).__name__
            raise ValueError(
                f"noise({key.s:.6g}, {key.t:.6g}) must return a tensor {tuple(like.shape)} on {like.device}, not {got}"
            )
        if not z.is_floating_point():
            raise ValueError(f"noise({key.s:.6g}, {key.t:.6g}) must return floating numbers, not {z.dtype}")
        if z.device.type == "cpu" and not transformed() and not torch.isfinite(z).all():  # a GPU would have to stop
            raise ValueError(f"noise({key.s:.6g}, {key.t:.6g}) returned infinities or NaNs")
        return z.clone()  # a function may use its memory again
