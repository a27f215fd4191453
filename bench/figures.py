"""The pictures of README.md and docs/, narrow, so that a phone shows their text as large as the page's.

python -m logsnr.bench.figures --out docs/figures
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.nn.functional import pad

from ..analysis.plots import COLOURS, growth_bar, growth_map, mark_budgets
from ..analysis.stability import stability
from ..analysis.transfer import Transfer, transfer
from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.runs.normals import randn, start
from ..solvers.sampling import sample, solve
from ..solvers.schedules.formulas import VPLinear
from .command import run_command
from .digits_net import PREDICTION, SCHEDULE, load_digits_net

STDS = np.geomspace(1e-3, 10.0, 81)
SOLVERS = ("ddim", "heun", "deis-3", "dpmpp-2m", "dpmpp-3m", "dpmpp-3s")
NFES = (10, 30)
MANY_NFES = (30, 300)  # where rounding shows
DTYPES = {None: "exact", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
MAPS = ("ddim", "heun", "dpm-2", "dpmpp-2s", "dpmpp-2m", "dpmpp-3m")
BUDGETS = (4, 5, 6, 8, 10, 15, 20)
CURVES = {
    "DDIM": "ddim",
    "Heun": "heun",
    "DPM-Solver++ 2M": "dpmpp-2m",
    "UniPC-3": "unipc-3",
    "logsnr's default": "auto",
}
# Text stays text, and the same numbers give the same file.
SVG: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "logsnr", "font.family": "DejaVu Sans"}


def solvers_figure() -> Figure:
    """Error against the standard deviation of the data, by solver, at two budgets."""
    figure, axes = panels()
    for ax, nfe in zip(axes, NFES, strict=True):
        for colour, name in zip(COLOURS, SOLVERS, strict=True):
            draw(ax, transfer(name, VPLinear(), STDS, nfe=nfe), name, colour)
    finish(figure, axes, [f"{nfe} model evaluations" for nfe in NFES], (1e-5, 2.0))
    return figure


def dtypes_figure() -> Figure:
    """Error against the standard deviation of the data, by the dtype of the network, for one solver."""
    figure, axes = panels()
    for ax, nfe in zip(axes, MANY_NFES, strict=True):
        for colour, (dtype, label) in zip((*COLOURS[:3], "black"), reversed(DTYPES.items()), strict=True):
            draw(ax, transfer("dpmpp-3s", VPLinear(), STDS, nfe=nfe, dtype=dtype), label, colour)
    finish(figure, axes, [f"dpmpp-3s, {nfe} model evaluations" for nfe in MANY_NFES], (1e-8, 0.1))
    return figure


def work_precision_figure() -> Figure:
    """Median error of digits that a network generates against its evaluations.

    The grid is the default; "auto" has its own. The exact ends are those of 300 steps of order 3.
    """
    den, x = Denoiser(load_digits_net().double(), SCHEDULE, PREDICTION), start(SCHEDULE, (64, 1, 8, 8), seed=0).double()
    exact = sample(den, x, solver="dpmpp-3m", steps=300)
    figure = Figure(figsize=(5.6, 3.3), layout="constrained")
    ax = figure.subplots()
    for (label, name), colour, marker in zip(CURVES.items(), ("black", *COLOURS), "ovsD^*P", strict=False):
        runs = [solve(den, x, solver=name, nfe=nfe) for nfe in BUDGETS]
        errors = [float((run.x - exact).flatten(1).square().mean(1).sqrt().median()) for run in runs]
        ax.loglog([run.nfe for run in runs], errors, marker=marker, color=colour, label=label, linewidth=1.6)
    mark_budgets(ax, BUDGETS)
    ax.set_xlabel("model evaluations", fontsize=11)
    ax.set_ylabel("median error", fontsize=11)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=10)
    return figure


def recipes_figure() -> Figure:
    """The digits of docs/recipes.md: a known half and what is painted, previews, and edits from several times."""
    den = Denoiser(load_digits_net(), SCHEDULE, PREDICTION)
    x = start(SCHEDULE, (8, 1, 8, 8), seed=0)
    previews: list[torch.Tensor] = []
    digits = sample(den, x, nfe=10, callback=lambda node, t, state, x0: previews.append(x0[:1].clone()))
    upper = (torch.arange(8) < 4).reshape(8, 1).expand(8, 8)

    def keep(node: int, t: float, state: torch.Tensor) -> torch.Tensor:
        return torch.where(upper, noised(digits, t, node), state)

    def noised(clean: torch.Tensor, t: float, seed: int) -> torch.Tensor:
        alpha, sigma = float(SCHEDULE.alpha(t)), float(SCHEDULE.sigma(t))
        return alpha * clean + sigma * randn(clean.shape, seed=seed)

    painted = sample(den, start(SCHEDULE, digits.shape, seed=1), solver="ddpm", steps=50, seed=2, callback=keep)
    strips = {"known": torch.where(upper, digits, -1.0), "painted": painted, "previews": torch.cat(previews)[-8:]}
    strips["digits"] = digits
    for t in (0.3, 0.5, 0.7):
        strips[f"edit, {t}"] = sample(den, noised(digits, t, 3), nfe=8, t_start=t)
    figure = Figure(figsize=(5.6, 3.9), layout="compressed")
    for ax, (name, strip) in zip(figure.subplots(len(strips), 1), strips.items(), strict=True):
        ax.imshow(torch.cat([*pad(strip[:, 0], (0, 2), value=-1.0)], dim=1), cmap="gray_r", vmin=-1, vmax=1)
        ax.set(xticks=[], yticks=[3.5], yticklabels=[name])
        ax.tick_params(length=0, labelsize=11)
        ax.spines[:].set_visible(False)
    return figure


def panels() -> tuple[Figure, Any]:
    figure = Figure(figsize=(5.2, 6.4), layout="constrained")
    return figure, figure.subplots(2, 1, sharex=True, sharey=True)


def draw(ax: Axes, found: Transfer, label: str, colour: str) -> None:
    ax.loglog(found.stds, np.where(found.error > 0, found.error, np.nan), color=colour, label=label, linewidth=1.5)


def finish(figure: Figure, axes: Any, titles: list[str], limits: tuple[float, float]) -> None:
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, loc="left", fontsize=10)
        ax.set_ylabel("relative error")
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(*limits)
    axes[-1].set_xlabel("standard deviation of the data")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=3)


def stability_figure() -> Figure:
    """Growth of the modes of Gaussian data in a step, by solver, over its length and the mode."""
    figure = Figure(figsize=(5.2, 6.4), layout="constrained")
    axes = figure.subplots(len(MAPS) // 2, 2, sharex=True, sharey=True)
    for ax, name in zip(axes.flat, MAPS, strict=True):
        found = stability(name, steps=np.linspace(0.1, 8.0, 80), modes=np.linspace(-4.0, 4.0, 121))
        image = growth_map(ax, found)
        ax.set_title(name, loc="left", fontsize=10)
    for ax in axes[:, 0]:
        ax.set_ylabel("step in lam")
    figure.supxlabel("mode: lam + log(standard deviation); 0: as much signal as noise", fontsize=10)
    growth_bar(figure, image, axes)
    return figure


def main(out: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("docs/figures")) -> None:
    """Draw all pictures of the documentation."""
    out.mkdir(parents=True, exist_ok=True)
    with rc_context(SVG):
        solvers_figure().savefig(out / "transfer-solvers.svg", metadata={"Date": None})
        dtypes_figure().savefig(out / "transfer-dtypes.svg", metadata={"Date": None})
        recipes_figure().savefig(out / "recipes.png", dpi=100)
        work_precision_figure().savefig(out / "work-precision.svg", metadata={"Date": None})
        stability_figure().savefig(out / "stability.png", dpi=110)


if __name__ == "__main__":
    run_command(main)
