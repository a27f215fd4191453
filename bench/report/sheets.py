"""Pictures: what the solvers make of the same noise, at a size to look at, with a slider over the budgets.

The slider is a row of radio buttons, which the arrow keys move as they move a slider; it needs no script.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from io import BytesIO

import numpy as np
import torch
from PIL import Image

from ...solvers.sampling import sample
from ..problems import BenchProblem
from ..references import Reference
from ..results import Case, Compared
from ..work_precision import options
from .tables import Board, Line, short

TINY = 16  # pixels to a side: pictures up to here are shown of all solvers, larger ones of the best
MANY, FEW = (4, 2), (2, 1)  # pictures in one cell, across and down, of tiny and of larger ones
LARGEST = 96  # pixels to a side on the page
BEST = 8  # solvers of which larger pictures are shown
WIDTH = 176  # of a cell on the page, in pixels
ANSWERS: dict[Compared, str] = {"path": "exact", "law": "real"}


@dataclass(frozen=True)
class Pictures:
    """What the solvers made of the same noise, each on its best grid, and the reference's answer, (n, C, H, W) each.

    ink: whether +1 is black, as it is of digits."""

    made: Mapping[tuple[Line, int], torch.Tensor]
    answer: torch.Tensor
    ink: bool = True


def take_pictures(
    problem: BenchProblem, board: Board, reference: Reference, ends: Mapping[Case, torch.Tensor]
) -> Pictures:
    """The first images of the best row of every line and budget: its end states, or if not at hand made once more:
    addressed noise makes the same, but for the network's rounding in another batch."""
    tiny = max(problem.event_shape[1:]) <= TINY
    across, down = MANY if tiny else FEW
    shown = across * down
    start = reference.start[:shown].to(problem.dtype)

    def images(case: Case) -> torch.Tensor:
        return ends[case][:shown] if case in ends else sample(problem.denoiser, start, **options(case)).double()

    chosen = board.best if tiny else {at: board.best[at] for nfe in board.nfes for at in _nearest(board, nfe)}
    return Pictures({at: images(row.case) for at, row in chosen.items()}, reference.answer[:shown], problem.ink)


def _nearest(board: Board, nfe: int) -> list[tuple[Line, int]]:
    """The best few of a budget, in the order of the table."""
    lines = [line for line in board.lines if (line, nfe) in board.best]
    kept = set(sorted(lines, key=lambda line: board.error(board.best[line, nfe]))[:BEST])
    return [(line, nfe) for line in lines if line in kept]


def gallery(pictures: Pictures, board: Board, group: str) -> str:
    """A slider over the budgets of the board, and of each the pictures of every solver, beside the answer. group: an
    identifier that no other slider of the page has."""
    nfes = [nfe for nfe in board.nfes if any(n == nfe for _, n in pictures.made)]
    middle = min(nfes, key=lambda nfe: abs(nfe - 10))
    stops = "".join(
        f'<input type="radio" name="{group}" id="{group}-{nfe}"{" checked" * (nfe == middle)}>'
        f'<label for="{group}-{nfe}">{nfe}</label>'
        for nfe in nfes
    )
    answer = _figure(pictures.answer, pictures.ink, f"<b>{ANSWERS[board.compared]}</b>")
    frames = "".join(f'<div class="frame">{answer}{_frame(pictures, board, nfe)}</div>' for nfe in nfes)
    return f'<div class="slider" role="radiogroup" aria-label="model evaluations"><span>NFE</span>{stops}{frames}</div>'


def _frame(pictures: Pictures, board: Board, nfe: int) -> str:
    """Best first."""
    here = sorted((line for line, n in pictures.made if n == nfe), key=lambda line: board.error(board.best[line, nfe]))
    return "".join(
        _figure(
            pictures.made[line, nfe], pictures.ink,
            f"<code>{escape(str(line))}</code> {short(board.error(board.best[line, nfe]))}",
        )
        for line in here
    )  # fmt: skip


def _figure(images: torch.Tensor, ink: bool, caption: str) -> str:
    uri, (wide, high) = picture(images, ink)
    factor = max(WIDTH // wide, 1)
    size = f'width="{wide * factor}" height="{high * factor}"'
    return f'<figure><img src="{uri}" {size} alt=""><figcaption>{caption}</figcaption></figure>'


def picture(images: torch.Tensor, ink: bool) -> tuple[str, tuple[int, int]]:
    """A data URI of a block of the images (n, C, H, W), from -1 to 1, C = 1 or 3, and its width and height."""
    across, down = MANY if max(images.shape[2:]) <= TINY else FEW
    values = images[: across * down].double().nan_to_num(nan=-1.0).clamp(-1, 1).cpu()
    while max(values.shape[2:]) > LARGEST:
        values = torch.nn.functional.avg_pool2d(values, 2)
    levels = np.rint((1 - values.numpy() if ink else values.numpy() + 1) * 127.5).astype(np.uint8)
    _, channels, high, wide = levels.shape
    block = np.full((down * (high + 1) - 1, across * (wide + 1) - 1, channels), 255, np.uint8)
    for i, level in enumerate(levels):
        top, left = (i // across) * (high + 1), (i % across) * (wide + 1)
        block[top : top + high, left : left + wide] = level.transpose(1, 2, 0)
    kind = "png" if channels == 1 or max(high, wide) <= TINY else "jpeg"
    buffer = BytesIO()
    Image.fromarray(block[..., 0] if channels == 1 else block).save(buffer, kind, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", (block.shape[1], block.shape[0])
