"""Where the noise of a run comes from: seeds of every sample, a generator, a Brownian path, or the user."""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ...kernels import STATE_DTYPES, Noise, Seeds, standard_normals, transformed
from ..denoisers.complex_states import REAL, SPREAD, from_parts
from ..planners.stochasticity import Window
from ..programs.program import NoiseKey, Program
from ..schedules.base import Schedule, check_schedule
from .brownian import BrownianNoise

NoiseFunction = Callable[[NoiseKey, torch.Tensor], torch.Tensor]
FEW, FEWEST = 1 << 14, 64  # elements whose spread is looked at, and that tell something
START = 2  # the stream of `randn`: runs draw from others

Seed = int | Iterable[int]


def randn(
    shape: Sequence[int],
    *,
    seed: Seed,
    sample_ids: Iterable[int] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Standard normals (B, ...) to start from, addressed as the noise of runs is: sample i has the same bits alone,
    in any batch and on any device. ``seed`` and ``sample_ids`` mean what they mean for `logsnr.solve`.

    Complex ones have unit power, as those of torch.randn: parts of the standard deviation sqrt(1/2).

    Raises ValueError for shapes and dtypes of no such tensor, and for seeds and ids that do not fit the shape.
    """
    sizes = _plain(shape)
    if not isinstance(sizes, tuple) or not sizes or not all(type(n) is int and n >= 0 for n in sizes):
        raise ValueError(f"shape must have a batch dimension, (B, ...), and whole numbers, not {shape!r}")
    if dtype in REAL:
        parts = randn((*sizes, 2), seed=seed, sample_ids=sample_ids, dtype=REAL[dtype], device=device)
        return from_parts(parts * SPREAD)
    if dtype not in STATE_DTYPES:
        raise ValueError(f"dtype must be fp64, fp32, fp16, bf16, complex64 or complex128, not {dtype}")
    like = torch.empty(sizes, dtype=torch.float32, device=device)
    noise = Noise(*seeds_of(sizes[0], like.device, seed, sample_ids), ((0, START),))
    return standard_normals(noise, 0, like).to(dtype)


def start(
    schedule: Schedule,
    shape: Sequence[int],
    *,
    seed: Seed,
    t_start: float | None = None,
    sample_ids: Iterable[int] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Pure noise to start a run from, (B, ...): sigma(t_start) times the normals of `randn`.

    t_start: by default the schedule's own. On EDM's schedule the start has the standard deviation 80, not 1. Raises
    what `randn` raises, and TypeError for what is no schedule.
    """
    check_schedule(schedule)
    sigma = float(schedule.sigma(schedule.t_start if t_start is None else float(t_start)))
    z = randn(shape, seed=seed, sample_ids=sample_ids, dtype=torch.promote_types(dtype, torch.float32), device=device)
    return (sigma * z).to(dtype)


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


def seeds_of(batch: int, device: torch.device, seed: Seed, sample_ids: Iterable[int] | None) -> Seeds:
    """One seed and one id for each of ``batch`` samples.

    One number as ``seed`` serves all samples, which are then told apart by their ids, by default 0, 1, ...; of a list
    each sample has its own, and ids are 0 unless they are given. Raises ValueError for numbers out of range and lists
    of the wrong length.
    """
    several = _plain(seed)
    alone = not isinstance(several, tuple)
    numbers = _numbers("seed", (several,) if alone else several, 1 if alone else batch, 64)
    if sample_ids is not None:
        ids = _numbers("sample_ids", _plain(sample_ids), batch, 32)
    else:
        ids = tuple(range(batch)) if alone else (0,) * batch
    return _seeds(numbers * batch if alone else numbers, ids, device)


@lru_cache(maxsize=64)  # a copy to a GPU makes the host wait, which a captured loop must not
def _seeds(numbers: tuple[int, ...], ids: tuple[int, ...], device: torch.device) -> Seeds:
    signed = [n - (1 << 64) if n >= 1 << 63 else n for n in numbers]
    with torch.inference_mode(False):  # for all later runs
        return Seeds(*(torch.tensor(column, dtype=torch.int64, device=device) for column in (signed, ids)))


def _numbers(name: str, given: Any, batch: int, bits: int) -> tuple[int, ...]:
    if not isinstance(given, tuple) or len(given) != batch:
        found = len(given) if isinstance(given, tuple) else f"{given!r} alone"
        raise ValueError(f"{name} must have one number for each of the {batch} samples, not {found}")
    for n in given:
        if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < 1 << bits:
            raise ValueError(f"{name} must be integers from 0 to 2^{bits} - 1, not {n!r}")
    return given


def _plain(given: Any) -> Any:
    """A number of numpy or torch as Python's, and several numbers as a tuple."""
    if type(given) is int:
        return given
    if isinstance(given, (torch.Tensor, np.ndarray, np.generic)):
        given = given.tolist()
    several = isinstance(given, Iterable) and not isinstance(given, str)
    return tuple(map(_plain, given)) if several else given


def drawn_seed(generator: torch.Generator | None = None) -> int:
    """A seed from ``generator``, or from torch's own numbers."""
    device = generator.device if generator is not None else "cpu"
    return int(torch.randint(1 << 62, (), generator=generator, device=device))


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
