"""Look at a run of images while it goes on: PNG files of the x0 estimate, or pictures in a notebook."""

import math
import struct
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..solvers.planners.checks import count

Preview = Callable[[int, float, torch.Tensor, torch.Tensor | None], None]


def previews(folder: str | Path | None = None, every: int = 1) -> Preview:
    """A callback that shows the model's estimate of the clean data at every ``every``-th node.

    folder: where ``0001.png``, numbered by node, are written; it is made if it is not there. None shows them in a
    notebook, one in the place of the other, and needs IPython. Images are (B, 1 or 3, height, width) in [-1, 1], beyond
    which they are cut; the samples of a batch are put side by side. No other package is needed. Looking waits for a
    GPU. Raises ValueError for other shapes, and ImportError, at once, where there is no IPython to show them.
    """
    count("every", every)
    target = None if folder is None else Path(folder)
    display: Any = None
    shown: Any = None
    if target is None:
        display = import_module("IPython.display")
    else:
        target.mkdir(parents=True, exist_ok=True)

    def callback(node: int, t: float, state: torch.Tensor, x0: torch.Tensor | None) -> None:
        nonlocal shown
        if node % every or x0 is None:  # a call that asked nobody has no estimate
            return
        data = png(tiled(x0))
        if target is not None:
            (target / f"{node:04d}.png").write_bytes(data)
            return
        image = display.Image(data=data)
        shown = display.display(image, display_id=True) if shown is None else shown.update(image) or shown

    return callback


def tiled(x: torch.Tensor) -> torch.Tensor:
    """Images (B, C, H, W) in [-1, 1] as one (rows H, columns W, C) of bytes, nearly square, black where none is left.
    NaN is black, too."""
    if x.ndim != 4 or x.shape[1] not in (1, 3) or 0 in x.shape:
        raise ValueError(f"previews need images of shape (B, 1 or 3, height, width), not {tuple(x.shape)}")
    levels = ((x.detach().float().cpu().nan_to_num(-1.0).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    batch, channels, height, width = levels.shape
    columns = math.ceil(math.sqrt(batch))
    rows = math.ceil(batch / columns)
    sheet = levels.new_zeros(rows * columns, channels, height, width)
    sheet[:batch] = levels
    return (
        sheet.reshape(rows, columns, channels, height, width)
        .permute(0, 3, 1, 4, 2)
        .reshape(rows * height, columns * width, channels)
    )


def png(image: torch.Tensor) -> bytes:
    """The file of an image (H, W, 1 or 3), uint8, as the PNG specification has it (ISO/IEC 15948): one filter byte, 0,
    before each line."""
    height, width, channels = image.shape
    lines = torch.zeros(height, 1 + width * channels, dtype=torch.uint8)
    lines[:, 1:] = image.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(lines.numpy().tobytes())), (b"IEND", b"")
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
