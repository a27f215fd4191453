"""Pictures of what `auto` and the best peer make of the same noise."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from matplotlib import rc_context
from matplotlib.figure import Figure
from rich.console import Console
from torch.nn.functional import pad

from ...solvers.sampling import sample
from ..gallery import STYLE, small
from ..problems import BenchProblem, load_problem
from ..references import PathReference, load_reference
from ..results import Case, Results
from .accuracy import PEER_GRIDS, cases, end_of_peer, samples_of, version_of
from .report import AUTO, best_of
from .samplers import PACKAGES, Sampler

NETWORKS = ("digits-net", "photos-net")
BUDGETS = (5, 6, 8, 10)
MAGNIFIED = 4.0  # errors, where they are drawn


class Strip(NamedTuple):
    """What is drawn in a row: ends (B, ...) float64, and the median error of all samples."""

    label: str
    end: torch.Tensor
    median: float


def pictures(
    problem: Annotated[list[str] | None, typer.Option(help=f"By default {', '.join(NETWORKS)}.")] = None,
    nfe: Annotated[list[int] | None, typer.Option(min=1, help=f"By default {', '.join(map(str, BUDGETS))}.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="That are shown: the first ones, whatever they look like.")] = 8,
    rows: Annotated[Path, typer.Option(help="Folder in which `accuracy` has left its CSV.")] = Path("report/peers"),
    out: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("docs/figures"),
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """What `auto` and the best peer of the CSV make of the same noise, beside the exact ends, and their errors."""
    known, console = Results(rows / "peers.csv", version=version_of), Console()
    out.mkdir(parents=True, exist_ok=True)
    for name in problem or NETWORKS:
        this = load_problem(name)
        if not this.images:
            raise typer.BadParameter(f"{name!r} has no images to draw", param_hint="--problem")
        reference = load_reference(this, "path", samples_of(this), seed, rows / "ends")
        assert isinstance(reference, PathReference)
        strips = strips_of(this, reference, known, tuple(nfe or BUDGETS), seed)
        with rc_context(STYLE):
            path = out / f"beside-peers-{name}.png"
            path.write_bytes(small(drawn(reference.answer[:samples], strips)))
        console.print(f"{path}")


def strips_of(
    problem: BenchProblem, reference: PathReference, known: Results, nfes: Sequence[int], seed: int
) -> list[Strip]:
    """By budget, the best peer's ends and `auto`'s. ValueError where the CSV has no peer's row."""
    planned = [entry for name in PACKAGES for entry in cases(problem, name, nfes, PEER_GRIDS, seed)]
    methods: dict[Case, Any] = dict(planned)
    best = best_of(row for case, _ in planned if (row := known.get(case)))
    start, found = reference.start, list[Strip]()
    for n in nfes:
        if n not in best:
            raise ValueError(f"{known.path} has no row of a peer for {problem.name} at {n} evaluations: run `accuracy`")
        case = best[n].case
        method = methods[case]
        assert isinstance(method, Sampler)
        ended = end_of_peer(problem.denoiser, problem.dtype, case.grid, n, start, method)
        assert ended is not None
        ours = sample(problem.denoiser, start.to(problem.dtype), solver=AUTO, nfe=n).double()
        peer = f"{n}: {case.solver.split(',')[0]}, {case.package}"  # its options are in the tables
        for label, end in ((peer, ended[0]), (f"{n}: {AUTO}", ours)):
            found.append(Strip(label, end, reference.statistics(end)["median"]))
    return found


def drawn(exact: torch.Tensor, strips: Sequence[Strip]) -> Figure:
    """A row for the exact ends (B, C, H, W), and one for as many samples of each strip, with their errors beside."""
    figure = Figure(figsize=(9.0, 0.52 * (1 + len(strips))), layout="compressed")
    axes = figure.subplots(1 + len(strips), 2)
    for ax, (label, end, median) in zip(axes, (Strip("exact ends", exact, 0.0), *strips), strict=True):
        shown = end[: len(exact)]
        error = MAGNIFIED * (shown - exact)
        for side, images, told in ((ax[0], shown, label), (ax[1], error, f"{median:.3f}")):
            side.imshow(beside(images), cmap="gray_r" if side is ax[0] else "RdBu_r", vmin=-1, vmax=1)
            side.set(xticks=[], yticks=[exact.shape[2] / 2 - 0.5], yticklabels=[told])
            side.tick_params(length=0, labelsize=10)
            side.spines[:].set_visible(False)
        ax[1].yaxis.tick_right()
    figure.delaxes(axes[0, 1])  # which have no errors
    axes[1, 1].set_title(f"errors, {MAGNIFIED:g} times; their median over all samples", fontsize=10)
    return figure


def beside(images: torch.Tensor) -> np.ndarray:
    """(H, W) in [-1, 1] of (B, 1, H, W), or (H, W, 3) in [0, 1] of (B, 3, H, W)."""
    gap = max(1, images.shape[3] // 8)
    strip = torch.cat([pad(image, (0, gap), value=np.nan) for image in images], dim=2)[..., :-gap]
    if len(strip) == 1:
        return np.asarray(strip[0])
    return np.asarray(torch.nan_to_num((strip / 2 + 0.5).clamp(0, 1), nan=1.0).permute(1, 2, 0))
