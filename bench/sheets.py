"""Contact sheets: what the solvers' digits look like at each budget, and what a classifier makes of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from .classify import Verdict, judge
from .plots import data_uri
from .problems import BenchProblem
from .tables import Board, Line
from .work_precision import Reference, run_case

ACROSS, DOWN = 4, 2  # digits in one cell of a sheet
SCALE = 4  # screen pixels per pixel of a digit
PAPER, INK = 1.0, 0.0


@dataclass(frozen=True)
class Pictures:
    """What the solvers made of the same noise, each on its best grid, and the exact: images (n, 1, 8, 8)."""

    made: Mapping[tuple[Line, int], torch.Tensor]
    exact: torch.Tensor

    def verdicts(self) -> dict[tuple[Line, int], Verdict]:
        return {at: judge(images) for at, images in self.made.items()}


def take_pictures(problem: BenchProblem, board: Board, reference: Reference) -> Pictures:
    """Run the best row of every line and budget once more, for its images."""
    start = reference.start.to(problem.dtype)
    made = {at: run_case(problem.denoiser, row.case, start).x.double() for at, row in board.best.items()}
    return Pictures(made, reference.end)


def contact_sheet(pictures: Pictures, board: Board) -> str:
    """A PNG data URI: the same noise in one row per solver, one column per NFE; the exact at the right."""
    shown = board.lines
    blank = np.full((8 * DOWN + DOWN, 8 * ACROSS + ACROSS), PAPER)
    columns = [*board.nfes, None]
    rows = [
        [_cell(pictures.made.get((line, nfe)) if nfe else pictures.exact, blank) for nfe in columns]
        for line in shown
    ]
    picture = np.block(
        [[np.pad(cell, ((2, 2), (3, 3)), constant_values=PAPER) for cell in row] for row in rows]
    )
    high, wide = picture.shape
    figure = Figure(figsize=((wide * SCALE + 110) / 100, (high * SCALE + 30) / 100), dpi=100)
    ax = figure.add_axes(
        (110 / (wide * SCALE + 110), 0, 1 - 110 / (wide * SCALE + 110), 1 - 30 / (high * SCALE + 30))
    )
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    ax.set_yticks(_centres(len(shown), high), list(map(str, shown)), fontsize=9)
    ax.set_xticks(_centres(len(columns), wide), [f"NFE {n}" if n else "exact" for n in columns], fontsize=9)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return data_uri(figure, "png")


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
