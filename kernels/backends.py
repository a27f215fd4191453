"""Which implementation of an operation serves a call: the one place where that is decided."""

import os
from collections.abc import Callable, Mapping
from typing import Literal

import torch

Backend = Literal["torch", "cpu", "triton"]

BACKENDS = ("torch", "cpu", "triton")
VARIABLE = "LOGSNR_BACKEND"
FASTEST = {"cpu": "cpu", "cuda": "triton"}  # by the type of the device

Refusals = Mapping[str, Callable[[], str | None]]


def choose(backend: str | None, device: torch.device, refusals: Refusals) -> str:
    """The backend for one call: "torch", which serves everything, or a name in ``refusals``.

    backend:  what the caller asks for; None asks the environment variable ``LOGSNR_BACKEND``, and if that is not
              set takes the fastest for the device if it serves the call, else torch.
    device:   of the tensors.
    refusals: for every compiled backend that has this operation a function that says why it cannot serve the
              call, or None if it can. They are called only if needed.

    Raises ValueError for an unknown name and RuntimeError if the backend asked for cannot serve the call.
    """
    source, asked = "backend", backend
    if asked is None and (asked := os.environ.get(VARIABLE)) is not None:
        source = VARIABLE
    if asked is None:
        name = FASTEST.get(device.type, "torch")
        return name if name in refusals and refusals[name]() is None else "torch"
    if asked not in BACKENDS:
        raise ValueError(f"{source} must be one of {', '.join(map(repr, BACKENDS))}, not {asked!r}")
    if asked == "torch":
        return asked
    reason = refusals[asked]() if asked in refusals else "it has no such operation"
    if reason is not None:
        raise RuntimeError(f"{source} = {asked!r} cannot serve this call: {reason}")
    return asked
