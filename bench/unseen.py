"""How fitted tables do on what they were not fitted to:

    python -m logsnr.bench.unseen [--problem digits] [--range flow] [--tune 192]

Median and root-mean-square errors on noise that nothing was fitted to, as ratios to the best named solver without noise
on its best grid at the same budget: of what `auto` takes for the width that `data_width` finds, and of the universal
table for the problem's width.
"""

import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Annotated, Any

import numpy as np
import torch
import typer

from ..analysis.digits import load_digits
from ..analysis.empirical import Empirical
from ..analysis.estimates import sample_errors
from ..analysis.mixture import GaussianMixture
from ..solvers.catalogue.catalogue import solver, solver_names
from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.denoisers.guidance import Guidance
from ..solvers.grids.grids import grid
from ..solvers.runs.normals import start
from ..solvers.sampling import sample
from ..solvers.schedules.base import Schedule
from ..solvers.schedules.formulas import EDM, FlowMatching, VPCosine, VPLinear
from ..solvers.schedules.tabulated import Discrete
from ..solvers.statistics.width import data_width
from ..solvers.tuning.teacher import ends
from ..solvers.tuning.tune import tune
from ..solvers.tuning.universal import Universal
from .command import run_command
from .networks.perceptron import trained_perceptron
from .problems import digits_net, photos_net

ROOT = np.sqrt(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2))  # alpha of Stable Diffusion
RANGES: dict[str, Schedule] = {
    "edm": EDM(0.002, 80.0), "vp": VPLinear(), "flow": FlowMatching(), "sd": Discrete(ROOT**2),
    "zero": Discrete(((ROOT - ROOT[-1]) * ROOT[0] / (ROOT[0] - ROOT[-1])) ** 2),  # no signal at first (Lin et al. 2023)
    "cosine": VPCosine(), "sigma-700": EDM(0.002, 700.0), "sigma-50": EDM(0.01, 50.0),  # that no table was made for
}  # fmt: skip
GRIDS = ("logsnr", "karras", "time", "flow")
HELD_OUT, SEED = 128, 99  # noises, of a seed that no fit uses


Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # means, variances and weights of Gaussians


def mixture(dim: int, components: int, seed: int, spread: float = 0.5) -> Parts:
    """Broad Gaussians; not drawn as those of `family` are."""
    g = torch.Generator().manual_seed(seed)
    shape = components, dim
    mu, s2, odds = (torch.randn(*s, generator=g, dtype=torch.float64) for s in (shape, shape, (components,)))
    return spread * mu, torch.exp(0.7 * s2 - 3), torch.softmax(odds, 0)


def image(dim: int, components: int, seed: int, width: float, decay: float) -> Parts:
    """Means and variances with the spectrum k^-decay."""
    g = torch.Generator().manual_seed(seed)
    spectrum = width * torch.arange(1, dim + 1, dtype=torch.float64) ** -decay
    mu, odds = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((components, dim), (components,)))
    s2 = ((0.45 * spectrum) ** 2 + 0.02**2).expand(components, dim)
    return 0.9 * mu * spectrum, s2, torch.softmax(0.3 * odds, 0)


def rings() -> torch.Tensor:
    """Points on three rings in the plane, (600, 2), of the spread 1."""
    g = torch.Generator().manual_seed(17)
    angle, radius = 2 * torch.pi * torch.rand(600, generator=g, dtype=torch.float64), 1 + torch.arange(600) % 3
    x = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], 1)
    return (x - x.mean(0)) / x.std()


def points(parts: Parts) -> torch.Tensor:
    """3000 of them."""
    return GaussianMixture(*parts).sample(3000, generator=torch.Generator().manual_seed(7))


def plain(parts: Parts, sch: Schedule) -> Denoiser:
    """Of the mixture."""
    return GaussianMixture(*parts).denoiser(sch)


def guided(parts: Parts, sch: Schedule, scale: float) -> Denoiser:
    """Guidance of this scale to the first half of the components; `HELD_OUT` samples."""
    mu, s2, weights = parts
    components, half = len(mu), len(mu) // 2
    both, one = (GaussianMixture(mu[:k], s2[:k], weights[:k] / weights[:k].sum()) for k in (components, half))

    def model(x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        levels = (level(t.reshape(-1, 1)) for level in (sch.alpha, sch.sigma))
        alpha, sigma = (torch.as_tensor(level) for level in levels)
        return torch.where(label > 0, one.posterior(x, alpha, sigma)[0], both.posterior(x, alpha, sigma)[0])

    label = torch.ones(HELD_OUT, 1)
    guidance = Guidance(scale, uncond={"label": torch.zeros_like(label)})
    return Denoiser(model, sch, "x0", conditions={"label": label}, guidance=guidance)


PROBLEMS: dict[str, tuple[Callable[[Schedule], Denoiser], tuple[int, ...], float]] = {  # with the shape and the width
    "mixture-1": (lambda sch: plain(mixture(1, 4, 15, 1.0), sch), (1,), 0.7),
    "rings": (lambda sch: Empirical(rings(), 0.05).denoiser(sch), (2,), 0.7),
    "mixture-16": (lambda sch: plain(mixture(16, 8, 3), sch), (16,), 2.0),
    "mixture-64": (lambda sch: plain(mixture(64, 10, 11), sch), (64,), 3.0),
    "mixture-256": (lambda sch: plain(mixture(256, 10, 13), sch), (256,), 6.0),
    "digits": (lambda sch: Empirical(load_digits()[0], 0.05).denoiser(sch), (1, 8, 8), 2.0),
    "image-7": (lambda sch: plain(image(64, 20, 5, 7.0, 1.2), sch), (64,), 7.0),
    "image-15": (lambda sch: plain(image(64, 20, 6, 15.0, 1.5), sch), (64,), 15.0),
    "image-40": (lambda sch: plain(image(64, 20, 7, 40.0, 1.2), sch), (64,), 40.0),
    "guided-4": (lambda sch: guided(mixture(16, 8, 3), sch, 4.0), (16,), 2.0),
    "guided-8": (lambda sch: guided(mixture(16, 8, 3), sch, 8.0), (16,), 2.0),
    "pair-4": (lambda sch: guided(mixture(2, 2, 3, 2.0), sch, 4.0), (2,), 2.0),
    "pair-8": (lambda sch: guided(mixture(2, 2, 3, 2.0), sch, 8.0), (2,), 2.0),
    "image-15-guided-4": (lambda sch: guided(image(64, 20, 6, 15.0, 1.5), sch, 4.0), (64,), 15.0),
    "image-40-guided-8": (lambda sch: guided(image(64, 20, 7, 40.0, 1.2), sch, 8.0), (64,), 40.0),
    "rings-net": (lambda _: trained_perceptron(rings()), (2,), 0.7),  # which says eps
    "mixture-16-net": (lambda _: trained_perceptron(points(mixture(16, 8, 3))), (16,), 2.0),
    "digits-net": (lambda _: digits_net().denoiser, (1, 8, 8), 2.0),
    "photos-net": (lambda _: photos_net().denoiser, (3, 16, 16), 14.0),
}


def errors_of(den: Denoiser, x: torch.Tensor, end: torch.Tensor, how: Any, **options: Any) -> tuple[float, float]:
    """Median and root-mean-square distance of the samples that a solver makes of x from ``end``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of samples that end in another mode
        found = sample(den, x, solver=how, on_nan="keep", **options)
    return _errors(found, end)


def errors_of_peers(den: Denoiser, x: torch.Tensor, end: torch.Tensor, nfe: int) -> list[tuple[float, float, str, str]]:
    """As `errors_of`, with its name and grid, of every sampler of the other libraries that are installed; those that
    cannot take the budget are left out."""
    from .peers.accuracy import PEER_GRIDS, end_of_peer
    from .peers.samplers import PACKAGES, missing

    found = list[tuple[float, float, str, str]]()
    made = [make for package, make in PACKAGES.items() if missing(package) is None]
    if not made:
        raise typer.BadParameter(f"none of {', '.join(PACKAGES)} is installed", param_hint="--peers")
    for sampler in (sampler for make in made for sampler in make()):
        for kind in sampler.grids(PEER_GRIDS):
            if ended := end_of_peer(den, den.dtype(x), kind, nfe, x, sampler):
                found.append((*_errors(ended[0], end), sampler.name, kind))
    return found


def _errors(found: torch.Tensor, end: torch.Tensor) -> tuple[float, float]:
    apart = torch.from_numpy(sample_errors(found, end))
    return float(apart.median()), float(apart.square().mean().sqrt())


def unseen(
    problem: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(PROBLEMS)}; all if none.")] = None,
    nfe: Annotated[list[int] | None, typer.Option(help="Budgets; 5, 6, 8 and 10 if none.")] = None,
    span: Annotated[str, typer.Option("--range", help=f"Of {', '.join(RANGES)}; networks have their own.")] = "edm",
    beside: Annotated[list[str] | None, typer.Option("--named", help="Solvers; all without noise if none.")] = None,
    peers: Annotated[bool, typer.Option("--peers", help="Beside all samplers of other libraries instead.")] = False,
    noises: Annotated[int, typer.Option(min=2, help="To measure on; 128 for guided ones.")] = HELD_OUT,
    tune_on: Annotated[int, typer.Option("--tune", help="Noises that `tune` fits to; 0 leaves it out.")] = 0,
    each: Annotated[str | None, typer.Option(help="Of `tune`: channel, band or element.")] = None,
    gauge: Annotated[str | None, typer.Option(help="Of `tune`: x0 or eps; both are tried if none.")] = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of these noises, of which the worst counts.")] = 1,
    levels: Annotated[
        tuple[float, float] | None, typer.Option(help="sigma/alpha at the start and the end, if not the range's.")
    ] = None,
) -> None:
    """Ratios of the errors of fitted tables to those of the best named solver."""
    if span not in RANGES:
        raise typer.BadParameter(f"{span!r} is none of {', '.join(RANGES)}", param_hint="--range")
    if peers and levels:
        raise typer.BadParameter("other libraries run a whole schedule; leave it out", param_hint="--levels")
    for name in problem or PROBLEMS:
        make, shape, width = PROBLEMS[name]
        den = make(RANGES[span])
        sch = den.schedule
        first, last = map(float, sch.time(-np.log(levels))) if levels else (sch.t_start, sch.t_end)
        between: dict[str, Any] = {"t_start": first, "t_end": last}
        x = start(sch, (noises, *shape), seed=SEED, t_start=first, dtype=torch.float64)
        end = ends(den, x, first, last).end
        measured = {"width": data_width(den, x)}
        errors = partial(errors_of, den, x, end)
        for n in nfe or (5, 6, 8, 10):
            rivals = () if peers else product(beside or _named(n), GRIDS)
            named = [(*errors(s, nfe=n, grid=kind, **between), s, kind) for s, kind in rivals]
            best = min(errors_of_peers(den, x, end, n) if peers else named)
            line = f"{name:10s} {n:2d}  best {best[0]:.1e} ({best[1]:.1e}) {best[2]}, {best[3]}"
            tried: list[tuple[str, Any, dict[str, Any]]] = [("auto", "auto", {"nfe": n, **measured, **between})]
            program = solver(Universal(width).suited(shape, den.guidance is not None, den.answers)).program(
                sch, grid(sch, n, **between)
            )
            tried += [(f"width={width:g}", program, {})] if program.provenance else []
            for label, how, options in tried:
                found = errors(how, **options)
                line += f"  {label} {found[0] / best[0]:.3f} ({found[1] / best[1]:.2f})"
            if tune_on:
                began, tuned = time.process_time(), list[tuple[float, float]]()
                for seed in range(1, draws + 1):
                    some = start(sch, (tune_on, *shape), seed=seed, t_start=first, dtype=torch.float64)
                    tuned.append(errors(tune(den, some, n, each=each, gauge=gauge, **between)))
                found, spent = max(tuned), (time.process_time() - began) / draws
                line += f"  tuned {found[0] / best[0]:.3f} ({found[1] / best[1]:.2f}) {spent:.0f} s"
            print(line, flush=True)


def _named(nfe: int) -> list[str]:
    """The solvers without noise whose steps fit the budget, each set of numbers once."""
    found: list[str] = []
    for name in solver_names():
        method = solver(name)
        if (
            method.planner
            and not method.stochastic
            and method.evaluations <= nfe
            and not set(method.equals) & set(found)
        ):
            found.append(name)
    return found


if __name__ == "__main__":
    run_command(unseen)
