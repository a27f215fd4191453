"""Pairs (noise, sample) of a teacher, for knowledge distillation, in shards on a disk.

Noise is addressed by sample, so a shard is a function of the setting: what an interrupted run goes on with has the bits
that it would have had.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from ..solvers.denoisers.conditions import Conditions, tensors
from ..solvers.denoisers.denoiser import Denoiser, check_denoiser, device_of
from ..solvers.grids.grids import check_grid
from ..solvers.grids.levels import level_times
from ..solvers.planners.checks import count as whole
from ..solvers.planners.checks import flag
from ..solvers.programs.program import Program
from ..solvers.programs.provenance import fingerprint
from ..solvers.runs.normals import start
from ..solvers.runs.watching import Bar
from ..solvers.sampling import sample, solve
from ..solvers.schedules.base import Schedule
from .shards import MANIFEST, Pairs, write, written

OWN = ("x", "den", "seed", "sample_ids", "generator", "noise", "callback", "trajectory", "grad", "progress")


def pairs(
    den: Denoiser,
    folder: str | Path,
    count: int,
    batch: int,
    shape: Sequence[int],
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    progress: bool = False,
    **options: Any,
) -> Pairs:
    """Write ``count`` pairs (noise, sample) to ``folder``, or those of them that are not there yet.

    shape:    of one sample, without the batch. Sample i starts from ``logsnr.start`` with this ``seed`` and the id i;
              the noise of stochastic solvers has them too.
    batch:    samples a run and a shard.
    dtype:    of the state and of both tensors. device: that of the model's parameters, or else the CPU.
    options:  of `logsnr.solve`: solver, steps, grid, t_start, ... Conditions of ``den`` have a row for each of the
              ``count`` samples, and are written with them.
    progress: show a bar of the shards.

    The same call goes on where it was interrupted, and with a larger count adds to what is there. One process at a time
    writes to a folder. Raises ValueError for a folder of another setting, which it names, and for options that a
    resumed run could not repeat; what `logsnr.solve` raises for its options, with the first shard.
    """
    check_denoiser(den)
    flag("progress", progress)
    count, batch = whole("count", count), whole("batch", batch)
    _check(den, seed, options, count)
    setting = _setting(den, batch, tuple(shape), seed, dtype, options)
    found = _opened(Path(folder), setting, batch)
    total, first = -(-count // batch), _first(den.schedule, options)
    where = device if device is not None else device_of(den.model) or torch.device("cpu")
    with Bar(progress, "pairs, shards", total) as bar:
        for k in range(total):
            ids = torch.arange(k * batch, min((k + 1) * batch, count))
            some = den.of_samples(ids)
            conditions = _named(some.conditions)
            if not written(found.shard(k), len(ids), conditions):
                key: dict[str, Any] = {"seed": seed, "sample_ids": ids.tolist()}
                noise = start(den.schedule, (len(ids), *shape), t_start=first, dtype=dtype, device=where, **key)
                made = {"noise": noise, "sample": sample(some, noise, **key, **options), **conditions}
                write(found.shard(k), save({name: y.detach().cpu().contiguous() for name, y in made.items()}))
            found = replace(found, count=max(found.count, int(ids[-1]) + 1))
            found.write()
            bar.show(k + 1)
    for left in found.folder.glob("*.tmp"):  # of runs that were killed
        left.unlink(missing_ok=True)
    return found


def _check(den: Denoiser, seed: Any, options: Mapping[str, Any], count: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seed must be one whole number for all samples, not {seed!r:.60}")
    if own := sorted(options.keys() & set(OWN)):
        raise ValueError(
            f"{' and '.join(own)}: pairs has no such option, as each shard must be what any run makes of it"
        )
    if getattr(options.get("t_start"), "ndim", 0) > 0:
        raise ValueError("t_start must be one number for all pairs")
    for name, tree in den.conditions.items():
        for y in tensors(tree):
            if y.ndim and len(y) < count:
                raise ValueError(f"conditions[{name!r}] has {len(y)} rows for {count} pairs: it has one for each")


def _opened(folder: Path, setting: dict[str, Any], batch: int) -> Pairs:
    """The folder with a manifest of this setting; ValueError if it has another, or shards and none."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MANIFEST).exists():
        if any(folder.glob("pairs-*.safetensors")):
            raise ValueError(f"{folder} holds shards and no {MANIFEST}, so nobody knows of what: give another folder")
        found = Pairs(folder, 0, batch, setting)
        found.write()
        return found
    found = Pairs.open(folder)
    names = [name for name in {**found.setting, **setting} if found.setting.get(name) != setting.get(name)]
    if names:
        changes = "; ".join(f"{name} was {_short(found.setting, name)}, not {_short(setting, name)}" for name in names)
        raise ValueError(f"{folder} holds pairs of another setting: {changes}. Give another folder")
    return found


def _short(setting: Mapping[str, Any], name: str) -> str:
    return f"{setting[name]!r:.100}" if name in setting else "given"


def _setting(
    den: Denoiser, batch: int, shape: tuple[int, ...], seed: Any, dtype: torch.dtype, options: Mapping[str, Any]
) -> dict[str, Any]:
    """All that makes the pairs what they are, as JSON has it. Functions are told apart by their names alone."""
    told = {"denoiser": fingerprint(den), "time": den.time, "guidance": den.guidance, "map_x0": den.map_x0}
    fixed = {"conditions": sorted(den.conditions), "batch": batch, "shape": shape, "seed": seed, "dtype": dtype}
    defaults = {name: p.default for name, p in signature(solve).parameters.items()}
    given = {name: value for name, value in options.items() if name not in defaults or value is not defaults[name]}
    setting: dict[str, Any] = json.loads(
        json.dumps({n: _told(value) for n, value in {**told, **fixed, **given}.items()})
    )
    return setting


def _told(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Program):
        return f"{value.name} {blake2b(value.to_json().encode(), digest_size=8).hexdigest()}"
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _told(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_told(part) for part in value]
    return getattr(value, "__qualname__", None) or re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _first(sch: Schedule, options: Mapping[str, Any]) -> float | None:
    """The time that runs start from; None for the schedule's own."""
    solver, grid = options.get("solver"), options.get("grid")
    if isinstance(solver, Program):
        return solver.grid[0]
    for name in ("sigmas", "lams"):
        if options.get(name) is not None:
            return float(level_times(sch, name, options[name])[0])
    if grid is None or isinstance(grid, str) or callable(grid):
        return options.get("t_start")
    return float(check_grid(sch, grid)[0])


def _named(conditions: Conditions) -> dict[str, torch.Tensor]:
    """The tensors with rows, by name; those within dictionaries and lists are numbered."""
    found = {}
    for name, tree in conditions.items():
        for k, y in enumerate(tensors(tree)):
            if y.ndim:
                found[f"condition.{name}" + ("" if y is tree else f".{k}")] = y
    return found
