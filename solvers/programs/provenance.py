"""Where a program comes from: a few words and numbers that travel with it, and the denoiser that it was fitted to."""

import hashlib
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary

import torch

from ..denoisers.complex_states import Parts
from .call import finite

Provenance = Mapping[str, str | int | float]
MOST, LONGEST = 64, 1000  # entries, and characters of one
DENOISER = "denoiser"  # the entry that holds a fingerprint
WIDEST = "widest direction"  # the entry with the largest standard deviation of the data that a table is for
ENOUGH, FAR = 8, 2.0  # samples that tell how wide they are, and by which factor they may be wider
SAMPLED = 8  # weights of a tensor that a fingerprint looks at
TENSORS = 16

_known: "WeakKeyDictionary[Any, str]" = WeakKeyDictionary()


def checked(values: Any) -> Provenance:
    """``values`` as a read-only mapping; ValueError unless it is a small one of names to strings and finite numbers."""
    if not isinstance(values, Mapping) or len(values) > MOST:
        raise ValueError(f"provenance must be a dict of at most {MOST} entries, not {values!r:.60}")
    for name, value in values.items():
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 40:
            raise ValueError(f"provenance: a name must be a string of 1 to 40 characters, not {name!r:.60}")
        if isinstance(value, str):
            if len(value) > LONGEST or not value.isprintable():
                raise ValueError(f"provenance: {name} must be one line of at most {LONGEST} characters")
        elif type(value) is not int or not abs(value) < 1 << 63:
            finite(f"provenance: {name}", value)
    return MappingProxyType(dict(values))


def fingerprint(den: Any) -> str:
    """The denoiser in words: its model's name and size, a checksum of a few weights, head and schedule.

    No model call. Functions are told apart by their names alone, and a model whose weights change later keeps the
    checksum that it had when it was asked for first.
    """
    model = den.model.model if isinstance(den.model, Parts) else den.model
    return f"{_model(model)}, {den.prediction}, {den.schedule}"


def _model(model: Any) -> str:
    try:
        return _known.setdefault(model, _known.get(model) or _described(model))
    except TypeError:  # no weak references to it
        return _described(model)


def _described(model: Any) -> str:
    model = getattr(model, "_orig_mod", model)  # what torch.compile has compiled
    if not isinstance(model, torch.nn.Module):
        return str(getattr(model, "__qualname__", type(model).__name__))
    parameters = list(model.parameters())
    some = [p.detach().reshape(-1)[:SAMPLED] for p in parameters[:: max(1, len(parameters) // TENSORS)]]
    digest = hashlib.blake2b(digest_size=4)
    for part in some:  # in fp32: the same network in another precision is the same
        digest.update(part.to("cpu", torch.float32).numpy().tobytes())
    count = sum(p.numel() for p in parameters)
    return f"{type(model).__name__} ({count} weights, {digest.hexdigest()})"


def warn_of_another(program: Any, den: Any) -> None:
    """Warn where ``program`` was fitted to another denoiser than ``den``."""
    fitted, given = program.provenance.get(DENOISER), None
    if fitted is not None and fitted != (given := fingerprint(den)):
        warnings.warn(
            f"{program.name} was fitted to the denoiser {fitted}, and is used with {given}: its error is not known "
            "there; logsnr.tune fits a table to it",
            stacklevel=5,
        )


def warn_of_wide(program: Any, end: torch.Tensor) -> None:
    """Warn where the samples ``end`` (B, ...) are wider than the data that ``program`` is for."""
    most = program.provenance.get(WIDEST)
    if most is None or len(end) < ENOUGH or (found := widest(end)) <= FAR * most:
        return
    warnings.warn(
        f"{program.name}: the samples have a standard deviation of {found:.3g} in their widest direction, and the "
        f"table is for data up to {most:.3g}: its error may be large there; say width={found:.2g} (logsnr.data_width "
        "measures it), or name a solver",
        stacklevel=4,
    )


def widest(x: torch.Tensor) -> float:
    """The standard deviation of samples (B, ...) in their widest direction, less what it seems to be among so few of
    many equal ones."""
    flat = x.detach().reshape(len(x), -1).to(torch.float32)
    flat = flat - flat.mean(0)
    values = torch.linalg.eigvalsh((flat @ flat.mT).cpu().double() / (len(flat) - 1))
    return float((values[-1] - values[len(values) // 2]).clamp_min(0).sqrt())
