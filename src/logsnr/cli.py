"""The command line. What only one command needs is imported when it runs."""

import gc
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Column, Table

from ._version import __version__
from .bench.command import interruptible, run_app
from .bench.doctor.sheet import doctor
from .solvers.planners.multistep import Startup

app = typer.Typer(
    name="logsnr",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # joins the lines of a paragraph
    pretty_exceptions_enable=False,
)
app.command()(doctor)


def _tell_version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Sample from diffusion and flow models by solving their differential equations."""


RAMP_NOTE = (
    "--startup ramp begins with lower orders: no evaluations more, but a global order of at most 2; "
    "--startup single-step begins with Runge-Kutta steps, whose evaluations count, and keeps the order."
)


@app.command()
@interruptible("stopped; the same command goes on from here")
def bench(
    rest: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    problem: Annotated[
        list[str] | None, typer.Option(help="digits, digits-net, mixture, gaussian, all if none; or photos-net.")
    ] = None,
    denoiser: Annotated[str | None, typer.Option(help="One's own instead: file.py:name, a logsnr.Denoiser.")] = None,
    shape: Annotated[str, typer.Option(help="Of one of its samples: 3 32 32, or 3,32,32.")] = "",
    solvers: Annotated[list[str] | None, typer.Option(help="Names as `logsnr solvers` lists them, or all.")] = None,
    nfe: Annotated[list[int] | None, typer.Option(help="Budgets; 5, 6, 8, 10, 15, 20 and 40 if none.")] = None,
    grid: Annotated[
        list[str] | None, typer.Option(help="logsnr, karras, time; all three if none, in law logsnr.")
    ] = None,
    rtol: Annotated[list[float] | None, typer.Option(help="For adaptive solvers; 1e-2 to 1e-5 if none.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Per problem; each has its own number.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the starts and of all noise.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for index.html, results.csv and the cached references.")] = Path(
        "report"
    ),
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what is in results.csv already.")] = False,
) -> None:
    """NFE against error of the solvers, measured from the same noise against exact answers.

    Stochastic solvers are measured by the law of what they generate, and deterministic ones named with them in both
    ways. Without --solvers that is all deterministic ones, and a few in law on digits and digits-net; --solvers all is
    all of both. Options that take several values are repeated: --nfe 5 --nfe 8.

    --denoiser net.py:den --shape 3 32 32 measures your own network, against a fine solve of it; without --solvers that
    is eight quick ones. `logsnr.analysis.compare` does the same in Python.

    Several processes share the work and find the same: torchrun --nproc-per-node 4 -m logsnr.cli bench.
    """
    from .bench.job import run_bench
    from .bench.problems import PROBLEMS
    from .bench.ranks import launched_ranks
    from .bench.tuning import own_problem
    from .bench.work_precision import NFES, RTOLS, Plan

    plan = Plan(
        solvers=tuple(solvers or ()),
        nfes=tuple(sorted(set(nfe or NFES))),
        grids=tuple(grid or ()),
        rtols=tuple(rtol or RTOLS),
        samples=samples,
        seed=seed,
    )
    if denoiser is None and (shape or rest):
        raise ValueError(f"{' '.join(rest or [shape])!r} goes with --denoiser file.py:name --shape 3 32 32")
    if denoiser is not None and problem:
        raise ValueError("give either --problem or --denoiser")
    own = [] if denoiser is None else [own_problem(denoiser, " ".join([shape, *(rest or [])]))]
    command = ["logsnr", *sys.argv[1:]]
    with launched_ranks():
        run_bench(
            own or list(dict.fromkeys(problem or PROBLEMS)), plan, out, fresh=fresh, command=command, console=Console()
        )


@app.command("solvers")
@interruptible()
def list_solvers(
    name: Annotated[str | None, typer.Argument(help="A solver, here or elsewhere: 'DPM++ 2M Karras'.")] = None,
) -> None:
    """Every solver that there is, by family: order, model evaluations a step (NFE), what it is; then their names in
    other libraries. With a name, that one.

    deis-{1,2} stands for deis-1 and deis-2. `logsnr explain NAME` prints a table.
    """
    from .solvers.catalogue.catalogue import families, solver, solver_names
    from .solvers.catalogue.listing import rows
    from .solvers.names_elsewhere import ELSEWHERE, known_elsewhere, names_elsewhere

    console = Console(highlight=False)
    if name is not None:
        known, grid = known_elsewhere(name)
        found = solver(name if known is None or name in solver_names() else known)
        count = f"{found.evaluations} model evaluation{'s' * (found.evaluations != 1)} a step"
        console.print(f"{found.name}: order {found.order}, {count}", markup=False)
        told = (f"{library}: {', '.join(names)}" for library, names in names_elsewhere(found.name).items())
        console.print("\n".join([found.summary, *told, *([f"grid: {grid}"] if grid else [])]), markup=False)
        return
    for title, names in families().items():
        numbers = (Column(head, justify="right") for head in ("order", "NFE"))
        table = Table(Column("solver", no_wrap=True), *numbers, "", box=None, padding=(0, 2, 0, 0))
        for row in rows(map(solver, names)):
            table.add_row(*row)
        console.print(f"\n[bold]{title}[/bold]", table, sep="\n")
    for library, known_as in ELSEWHERE.items():
        told = (f"{' or '.join(others)} is {own}" for own, others in known_as.items())
        console.print(f"\n[bold]Names in {library}[/bold]", ", ".join(told), sep="\n")


@app.command()
@interruptible()
def order(
    name: Annotated[str, typer.Argument(help="A solver.")],
    startup: Annotated[str, typer.Option(help="single-step or ramp: how multistep solvers start.")] = "single-step",
) -> None:
    """Measure a solver's order of convergence on a mixture of Gaussians and a non-uniform grid.

    Of a stochastic solver it is the weak order, of the law of what it generates from Gaussian data.
    """
    from .analysis.orders import convergence_order, two_gaussians
    from .analysis.weak import weak_order
    from .bench.work_precision import startups
    from .solvers.catalogue.catalogue import solver
    from .solvers.schedules.formulas import VPLinear

    method, sch = solver(name), VPLinear()
    if method.planner is None:
        raise ValueError(f"{name} chooses its own steps, so there is no grid to refine")
    if method.stochastic:
        found = weak_order(method, None, sch, startup=cast(Startup, startup))
    else:
        found = convergence_order(method, two_gaussians(), sch, startup=cast(Startup, startup))
    table = Table(*(Column(head, justify="right") for head in ("steps", "NFE", "error", "slope")), box=None)
    slopes = ["", *(f"{slope:.3f}" for slope in found.slopes)]
    for steps, nfe, error, slope in zip(found.steps, found.nfe, found.errors, slopes, strict=True):
        table.add_row(str(steps), str(nfe), f"{error:.3e}", slope)
    console = Console()
    console.print(table)
    console.print(f"{found.solver}: {found.verdict}", highlight=False)
    if len(startups(method, sch)) > 1:
        console.print(RAMP_NOTE)


@app.command()
@interruptible()
def explain(
    name: Annotated[str, typer.Argument(help="A solver.")],
    steps: Annotated[int, typer.Option(help="Steps of the grid.")] = 5,
    grid: Annotated[str, typer.Option(help="A name of logsnr.grid_names().")] = "logsnr",
    startup: Annotated[str, typer.Option(help="ramp or single-step.")] = "ramp",
) -> None:
    """Print a solver's table on VPLinear, its order and cost, and the solvers it equals."""
    from .analysis.explain import explain as explained

    found = explained(name, grid=grid, steps=steps, startup=cast(Startup, startup))
    Console(highlight=False, soft_wrap=True).print(str(found), markup=False)


@app.command()
@interruptible()
def rank(
    stds: Annotated[
        list[float] | None, typer.Option(help="Standard deviations along the data's axes; those of the digits if none.")
    ] = None,
    nfe: Annotated[int | None, typer.Option(help="A budget of model evaluations.")] = None,
    target: Annotated[float | None, typer.Option(help="A relative error to reach.")] = None,
    best: Annotated[int, typer.Option(min=1, help="How many to show.")] = 10,
) -> None:
    """Which solver and grid suits data with this spectrum, by exact moments: no network, no sampling.

    --stds 0.1 --stds 1 --nfe 10 ranks by error; --target 1e-2 by evaluations. Exact for Gaussian data on VPLinear;
    data with several modes may rank otherwise: `logsnr bench` measures those.
    """
    from .bench.ranking import ranking

    console = Console(highlight=False)
    console.print(ranking(stds, nfe, target, best))
    console.print("For Gaussian data of this spectrum; logsnr.analysis.compare measures a model.")


@app.command()
@interruptible()
def tune(
    rest: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    nfe: Annotated[list[int] | None, typer.Option(help="Budgets; 8 if none.")] = None,
    rounds: Annotated[
        list[int] | None, typer.Option(help="So many rounds of two calls at once, in place of --nfe.")
    ] = None,
    problem: Annotated[str | None, typer.Option(help="digits, digits-net, photos-net, mixture or gaussian.")] = None,
    denoiser: Annotated[str | None, typer.Option(help="One's own: file.py:name, a logsnr.Denoiser.")] = None,
    shape: Annotated[str, typer.Option(help="Of one of its samples: 3 32 32, or 3,32,32.")] = "",
    out: Annotated[Path, typer.Option(help="The program's file; of several budgets, with the budget added.")] = Path(
        "table.json"
    ),
    noises: Annotated[int, typer.Option(help="How many to draw; a quarter is held out and decides.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the noises.")] = 1,
    batch: Annotated[int | None, typer.Option(help="Samples that the model is asked for at once; all if none.")] = None,
    gauge: Annotated[str | None, typer.Option(help="What a fit starts in, x0 or eps; both are tried if none.")] = None,
    iterations: Annotated[int, typer.Option(help="At most.")] = 40,
    told: Annotated[bool, typer.Option("--told", help="Fit the times that the model is told, too.")] = False,
    smooth: Annotated[bool, typer.Option("--smooth", help="One fit for all budgets.")] = False,
    each: Annotated[str | None, typer.Option(help="Corrections for each channel, band or element.")] = None,
) -> None:
    """Fit a table to a denoiser, and write it as JSON, which `logsnr.Program.from_json` reads.

    Ctrl-C writes what there is so far.
    """
    from .bench.tuning import sheet, tuned_on, written
    from .solvers.tuning.tune import tune as tuned

    den, x = tuned_on(problem, denoiser, " ".join([shape, *(rest or [])]), noises, seed)
    budgets = {name: list(dict.fromkeys(given)) for name, given in (("nfe", nfe), ("rounds", rounds)) if given}
    given: dict[str, Any] = budgets or {"nfe": [8]}
    programs = tuned(
        den, x, gauge=gauge, batch=batch, iterations=iterations, told=told, smooth=smooth, each=each, progress=True,
        **given,
    )  # fmt: skip
    paths = written(programs, out)
    console = Console(highlight=False)
    console.print(sheet(programs))
    console.print("written:", ", ".join(map(str, paths)), soft_wrap=True)


def main() -> None:
    """The console command."""
    gc.freeze()  # torch is a million objects that stay: collections take half a second less without them
    run_app(app)


if __name__ == "__main__":
    main()
