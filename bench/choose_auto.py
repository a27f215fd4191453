"""What `solver="auto"` chooses, measured:

    python -m logsnr.bench.choose_auto

For every kind of range and budget: the Adams method and the grid whose errors are least over random problems, none
of which is in the bench. It writes solvers/catalogue/auto_table.py. A search takes about twenty minutes; it is
deterministic.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.progress import track

from ..analysis.problem import shares
from ..analysis.reference import reference_flow
from ..solvers import catalogue
from ..solvers.catalogue import auto
from ..solvers.catalogue.catalogue import Solver
from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.sampling import solve
from ..solvers.schedules.formulas import EDM
from .command import run_command

RANGES = {"vp": (-5.03, 4.56), "edm": (-4.38, 6.21), "latent": (-2.68, 3.53), "flow": (-7.0, 7.0)}  # lam at the ends
NFES = (4, 5, 6, 8, 10, 15, 20, 40)
STARTS = 32  # per problem
COUNT, SIZE, PARTS = 24, 24, 16
METHODS = (  # gauge, order, corrector
    *(("v", order, corrector) for order, corrector in ((2, True), (3, False), (3, True), (4, True))),
    *(("straight", order, corrector) for order, corrector in ((2, True), (3, False), (3, True), (4, False), (4, True))),
    ("eps", 3, False), ("x0", 2, True), ("x0", 3, True),
)  # fmt: skip
# What errors are compared with: the best of these for each problem, as the best of other libraries are.
USUAL = tuple(product((("eps", 3, False), ("eps", 4, False), ("x0", 2, False), ("x0", 2, True), ("x0", 3, True),
    ("eps", 2, True), ("straight", 2, False), ("straight", 3, False)), (
    ("logsnr", {}), ("karras", {}), ("logistic", {"share": 1.0, "mu": 0.0, "scale": 0.5})
)))  # fmt: skip
Method = tuple[str, int, bool]
Options = dict[str, float]
NEAR: tuple[tuple[Method, Options], ...] = tuple(  # where good ones were found
    (method, dict(zip(("spread", "share", "mu", "scale"), numbers, strict=True)))
    for method, numbers in (
        (("v", 3, False), (1.1, 1.0, 1.9, 1.4)),
        (("straight", 2, True), (0.4, 0.7, 1.1, 1.0)),
        (("straight", 3, True), (0.4, 0.95, 1.3, 1.3)),
        (("straight", 4, True), (0.5, 0.95, 1.4, 1.6)),
    )
)


@dataclass(frozen=True)
class Problems:
    """P Gaussian mixtures side by side: x is (B, P, D). ``means``, ``variances``: (P, K, D); ``weights``: (P, K)."""

    means: torch.Tensor
    variances: torch.Tensor
    weights: torch.Tensor

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """E[x0 | x] for sigma = t, the same for all B."""
        level = t[0].double() ** 2
        total, y = self.variances + level, x.transpose(0, 1)  # (P, K, D), (P, B, D)
        scaled = self.means / total
        squares = (y * y) @ (1 / total).mT - 2 * (y @ scaled.mT) + (self.means * scaled + total.log()).sum(-1)[:, None]
        share = shares(self.weights.log()[:, None] - squares / 2)
        x0 = share @ (level * scaled) + y * (share @ (self.variances / total))
        return x0.transpose(0, 1)


def problems(seed: int) -> Problems:
    """Random problems: mixtures of few and of many parts, clouds of points, low rank, spectra k^-a; with
    spreads between a quarter and one, as of images, latents and data that were normalised."""
    rng = np.random.default_rng(seed)
    means, variances = np.zeros((COUNT, PARTS, SIZE)), np.ones((COUNT, PARTS, SIZE))
    weights = np.zeros((COUNT, PARTS))
    k = np.arange(1, SIZE + 1.0)
    for p in range(COUNT):
        kind, parts = p // 3 % 4, (3, 6, PARTS)[p % 3]
        m, c = rng.standard_normal((parts, SIZE)), np.exp(rng.uniform(-6, -1, (parts, SIZE)))
        if kind == 1:  # points
            c = np.full((parts, SIZE), 0.05**2)
        elif kind == 2:  # low rank: four directions, and little elsewhere
            m *= k <= 4
            c = np.where(k <= 4, c, 0.03**2)
        elif kind == 3:  # spectra, about none or some centres
            spectrum = k ** -(0.5 + p % 3)
            c = np.tile(spectrum / spectrum.mean(), (parts, 1)) * rng.uniform(0.5, 1, (parts, 1))
            m *= np.sqrt(spectrum) * (p % 3) / 2
        share = rng.uniform(1, 3, parts)
        share /= share.sum()
        spread = np.sqrt(((m**2 + c) * share[:, None]).sum(0).mean())
        scale = np.exp(rng.uniform(np.log(0.25), 0)) / spread
        means[p, :parts], variances[p, :parts], weights[p, :parts] = m * scale, c * scale**2, share
    tensors = (torch.from_numpy(a) for a in (means, variances, weights))
    return Problems(*tensors)


@dataclass(frozen=True)
class Bench:
    """The problems on one range, with starts and exact ends."""

    den: Denoiser
    start: torch.Tensor
    end: torch.Tensor

    def errors(self, method: Solver, nfe: int, grid: str, options: Options) -> np.ndarray:
        """Of each problem, the median over its samples of their root-mean-square errors."""
        end = solve(self.den, self.start, solver=method, steps=nfe, grid=grid, grid_options=options).x
        found: np.ndarray = (end - self.end).square().mean(-1).sqrt().quantile(0.5, dim=0).numpy()
        return np.nan_to_num(found, nan=1e3)


def bench(ends: tuple[float, float], seed: int) -> Bench:
    sch = EDM(sigma_min=math.exp(-ends[1]), sigma_max=math.exp(-ends[0]))
    den = Denoiser(problems(seed), sch, "x0")
    noise = torch.randn(STARTS, COUNT, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    start = sch.sigma_max * noise
    return Bench(den, start, reference_flow(den, start, sch, sch.t_start, sch.t_end, tol=1e-7).x)


def score(errors: np.ndarray, base: np.ndarray) -> float:
    """How far behind the best of the usual ones, on average; being ahead counts half."""
    ratio = np.log(errors / base)
    return float((ratio + np.maximum(ratio, 0)).mean())


@lru_cache
def adams(method: Method, spread: float) -> Solver:
    """What a row of the table stands for."""
    return auto.adams(*method, spread)


def search(on: Bench, nfe: int, rng: np.random.Generator, warm: Sequence[tuple[Method, Options]]) -> Any:
    """(score, method, options, errors by those of the best of the usual): random settings for every method, then steps
    from the best ones."""
    base = np.min([on.errors(adams(m, 1.0), nfe, grid, options) for m, (grid, options) in USUAL], axis=0)

    def tried(method: Method, options: Options) -> tuple[float, Method, Options, np.ndarray]:
        grid = {name: value for name, value in options.items() if name != "spread"}
        errors = on.errors(adams(method, options["spread"]), nfe, "logistic", grid)
        return score(errors, base), method, options, errors / base

    def options(share: float, mu: float, scale: float, spread: float) -> Options:
        return {"spread": spread, "share": float(np.clip(share, 0, 1)), "mu": mu, "scale": scale}

    found = [tried(*entry) for entry in warm]
    for method in METHODS:
        for _ in range(6):
            share, mu, scale, spread = rng.uniform((0.5, 0, -1, -1.5), (1.2, 2.5, 0.8, 0.3))
            found.append(tried(method, options(share, mu, math.exp(scale), math.exp(spread))))
    found.sort(key=lambda entry: entry[0])
    leaders = {entry[1]: entry for entry in reversed(found)}  # the best of each method
    for leader in sorted(leaders.values(), key=lambda entry: entry[0])[:3]:
        best, width = leader, 0.35
        for _ in range(35):
            step, o = width * rng.standard_normal(4), best[2]
            moved = o["share"] + step[0] / 2, o["mu"] + step[1], o["scale"] * math.exp(step[2])
            near = tried(best[1], options(*moved, o["spread"] * math.exp(step[3])))
            best, width = (near, width * 1.1) if near[0] < best[0] else (best, width * 0.94)
        found.append(best)
    return min(found, key=lambda entry: entry[0])


def choose(
    seed: int = 2026,
    only: Annotated[list[str] | None, typer.Option(help="Ranges, by default all.")] = None,
    out: Path = Path(catalogue.__file__).parent / "auto_table.py",
) -> None:
    """Measure and write the table."""
    lines = ['"""Measured by `python -m logsnr.bench.choose_auto`, which says how."""', "", "TABLE = {"]
    for number, (name, ends) in enumerate(RANGES.items()):
        if only and name not in only:
            continue
        on, last = bench(ends, seed + number), NEAR[:0]
        lines.append(f"    {ends}: {{  # {name}")
        for nfe in track(NFES, description=name):
            best = search(on, nfe, np.random.default_rng([seed, number, nfe]), (*NEAR, *last))
            last = (best[1:3],)
            numbers = ", ".join(f"{value:.4g}" for value in best[2].values())
            print(name, nfe, f"{best[0]:.2f}", best[1], numbers, np.round(best[3], 2).tolist(), flush=True)
            gauge, order, corrector = best[1]
            lines.append(f'        {nfe}: ("{gauge}", {order}, {corrector}, {numbers}),')
        lines.append("    },")
    out.write_text("\n".join([*lines, "}", ""]), encoding="utf-8")


if __name__ == "__main__":
    run_command(choose)
