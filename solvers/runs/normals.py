"""Normals that a seed says: of starts, and the seeds of every sample of a run."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ...kernels import STATE_DTYPES, Noise, Seeds, standard_normals
from ..denoisers.complex_states import REAL, SPREAD, from_parts
from ..schedules.base import Schedule, check_schedule

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
