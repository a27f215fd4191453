"""The memory that windows take, and the largest that there is room for."""

import os
from pathlib import Path

import torch

from .anderson import PAST
from .lower import Lowered

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
    """Memory that can be had: of a GPU what the driver has and what torch holds unused; else what the system tells.
    ValueError where nobody tells."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    told = Path("/proc/meminfo")
    if device.type == "cpu" and told.exists():
        fields = dict(line.split(":", 1) for line in told.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    if device.type == "cpu" and "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    raise ValueError(f'window = "auto" cannot tell how much memory is free on {device}; give a number')
