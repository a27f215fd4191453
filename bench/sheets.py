"""Contact sheets: what the solvers' digits look like at each budget."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from ..solvers.sampling import sample
from .plots import data_uri
from .problems import BenchProblem
from .references import Reference
from .results import Case, Compared
from .tables import Board, Line
from .work_precision import options

ACROSS, DOWN = 4, 2  # digits in one cell of a sheet
SCALE = 3  # pixels of the page per pixel of a digit
LEFT, TOP = 110, 30  # for the names, in pixels of the page
PAPER, INK = 1.0, 0.0
ANSWERS: dict[Compared, str] = {"path": "exact", "law": "real"}


@dataclass(frozen=True)
class Pictures:
    """What the solvers made of the same noise, each on its best grid, and the reference's answer, (n, 1, 8, 8) each."""

    made: Mapping[tuple[Line, int], torch.Tensor]
    answer: torch.Tensor


def take_pictures(
    problem: BenchProblem, board: Board, reference: Reference, ends: Mapping[Case, torch.Tensor]
) -> Pictures:
    """The first images of the best row of every line and budget: its end states, or if not at hand made once more:
    addressed noise makes the same, but for the network's rounding in another batch."""
    shown = ACROSS * DOWN
    start = reference.start[:shown].to(problem.dtype)

    def images(case: Case) -> torch.Tensor:
        return ends[case][:shown] if case in ends else sample(problem.denoiser, start, **options(case)).double()

    return Pictures({at: images(row.case) for at, row in board.best.items()}, reference.answer)


def contact_sheet(pictures: Pictures, board: Board) -> tuple[str, int]:
    """A PNG data URI and its width on the page. Every cell starts from the same noise.

    One row per solver, one column per NFE, and the answer at the right: the exact one, or for laws real digits.
    """
    blank = np.full((9 * DOWN, 9 * ACROSS), PAPER)
    columns = [*board.nfes, None]
    cells = [
        [_cell(pictures.made.get((line, nfe)) if nfe else pictures.answer, blank) for nfe in columns]
        for line in board.lines
    ]
    picture = np.block([[np.pad(cell, ((2, 2), (3, 3)), constant_values=PAPER) for cell in row] for row in cells])
    high, wide = picture.shape
    height, width = TOP + SCALE * high, LEFT + SCALE * wide
    figure = Figure(figsize=(width / 100, height / 100))
    ax = figure.add_axes((LEFT / width, 0, SCALE * wide / width, SCALE * high / height))
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    ax.set_yticks(_centres(len(board.lines), high), list(map(str, board.lines)), fontsize=9)
    ax.set_xticks(
        _centres(len(columns), wide), [f"NFE {n}" if n else ANSWERS[board.compared] for n in columns], fontsize=9
    )
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return data_uri(figure, "png"), width


def _centres(count: int, extent: int) -> np.ndarray:
    return (np.arange(count) + 0.5) * extent / count - 0.5


def _cell(images: torch.Tensor | None, blank: np.ndarray) -> np.ndarray:
    """The first digits of a batch as one block, ink dark; blank where the solver cannot meet the budget."""
    cell = blank.copy()
    if images is None:
        return cell
    grey = INK + (PAPER - INK) * (1 - images[:, 0].clamp(-1, 1).numpy()) / 2
    for i, digit in enumerate(grey[: ACROSS * DOWN]):
        top, left = 9 * (i // ACROSS), 9 * (i % ACROSS)
        cell[top : top + 8, left : left + 8] = digit
    return cell
