"""The memory that windows take, and the largest that there is room for."""

import math
import os
from contextlib import suppress
from pathlib import Path

import torch

from .anderson import PAST
from .lower import Lowered

SYSTEM = Path("/")  # where Linux tells, below /proc and /sys
GROUPS = {  # its control groups, of version 2 and 1: where, the limit, what is used, what of that is cached files
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
SHARE = 0.5  # of the memory that is free; the rest is for the model, whose needs `Picard.batch` limits


def window_bytes(lowered: Lowered, x: torch.Tensor, size: int, *, anderson: bool = False) -> int:
    """What windows of ``size`` calls take at most for x (B, ...), without what the model needs for itself.

    Of every call of a window of every sample there are at a time: its node, twice what it sees, the model's answers as
    they come, as they are kept and as they were, how much what it sees has changed, twice the noise, and the past
    that Anderson acceleration mixes. Or, while a sample sweeps, less of these and its new nodes and their change, and
    two tensors of passing values.
    """
    samples, elements = len(x), x[:1].numel()
    rec, dtypes = lowered.updates.recurrence, lowered.updates.dtypes
    wide, seen, models, noises = dtypes[0].itemsize, dtypes[-1].itemsize, rec.models, rec.noises
    kept = wide + 2 * noises * wide + anderson * PAST * (wide + seen)
    asking = samples * (3 * seen + 3 * models * seen + kept)
    sweeping = samples * (2 * seen + 2 * models * seen + kept) + seen + 3 * wide
    return elements * (size * max(asking, sweeping) + samples * rec.slots * wide)


def auto_window(lowered: Lowered, x: torch.Tensor, *, anderson: bool = False) -> int:
    """The most calls, at least one, whose windows fit into `SHARE` of the memory that is free on the device of x."""
    none, one = (window_bytes(lowered, x, size, anderson=anderson) for size in (0, 1))
    room = SHARE * free_bytes(x.device) - none
    return max(1, min(len(lowered.times), int(room // max(one - none, 1))))


def free_bytes(device: torch.device) -> int:
    """Memory that can be had: of a GPU what the driver has and what torch holds unused; else what the system tells, and
    on Linux no more than a container or a batch job may still take. ValueError where nobody tells."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    told = SYSTEM / "proc" / "meminfo"
    if device.type == "cpu" and told.exists():
        return int(min(_numbers(told)["MemAvailable:"] * 1024, _allowed()))
    if device.type == "cpu" and "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    raise ValueError(f'window = "auto" cannot tell how much memory is free on {device}; give a number')


def _allowed() -> float:
    """The least that a control group of this process, or one around it, may still take."""
    least = math.inf
    with suppress(OSError):
        for line in (SYSTEM / "proc" / "self" / "cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            for top, limit, used, cached in (GROUPS[key] for key in controllers.split(",") if key in GROUPS):
                group = SYSTEM / top / name.lstrip("/")
                for folder in (group, *group.parents):  # in a container the name may mean nothing, but its top does
                    with suppress(OSError, ValueError):  # no such group, or its limit is "max"
                        room = int((folder / limit).read_text()) - int((folder / used).read_text())
                        least = min(least, max(room, 0) + _numbers(folder / "memory.stat").get(cached, 0))
    return least


def _numbers(table: Path) -> dict[str, int]:
    """The first word of every line, and the number after it."""
    return {words[0]: int(words[1]) for words in map(str.split, table.read_text().splitlines())}
