"""From data to noise and back: inversion, and translation between two denoisers."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch

from ..solvers.arrays import Array
from ..solvers.catalogue.catalogue import Solver
from ..solvers.catalogue.catalogue import solver as find_solver
from ..solvers.catalogue.planning import Layout
from ..solvers.catalogue.solver import Planner
from ..solvers.denoisers.answers import check_state
from ..solvers.denoisers.denoiser import Denoiser, check_denoiser
from ..solvers.planners.checks import flag
from ..solvers.programs.program import Program
from ..solvers.runs.solution import Solution
from ..solvers.sampling import solve
from .reversible import Reversible

LAYOUT = {f.name for f in fields(Layout)}
RUN = {"parallel", "progress", "grad", "on_nan"}  # options of `solve` that both ways take


@dataclass(frozen=True, eq=False)
class Inversion:
    """What `invert` returns.

    latent: (B, ...), the state at the noisy end, in the dtype of the state: fp32, or fp64 if x0 or the model is.
    partner: the state one node before, of a `Reversible` solver, which the exact way back starts from; else None.
    times: float64, from data to noise. nfe, rounds: of that way, see `Solution`. error: (B,), float64, the root mean
    square distance of every sample from what `decode` makes of its latent, if it was asked for. den, solver, startup:
    what it was made with; dtype: that of x0.
    """

    den: Denoiser
    solver: Solver
    latent: torch.Tensor = field(repr=False)
    partner: torch.Tensor | None = field(repr=False)
    times: Array = field(repr=False)
    nfe: int
    rounds: int
    dtype: torch.dtype
    startup: str | None = None
    error: torch.Tensor | None = None

    def decode(self, den: Denoiser | None = None, **run: Any) -> Solution:
        """From the latent back to the data, in the dtype of the start, by the same solver on the same levels.

        den: another denoiser than that of the inversion: another condition, as editing wants it, or another model. Its
        schedule may be another one: times are mapped by lam and states by the scale of theirs, which is exact for the
        PF-ODE. run: ``parallel``, ``progress``, ``grad``, ``on_nan``, and ``callback``, ``trajectory``, as for
        `logsnr.solve`. Raises TypeError for what is no denoiser, ValueError where its schedule lacks the levels.
        """
        den = self.den if den is None else den
        check_denoiser(den)
        times = moved(self.times, self.den.schedule, den.schedule)
        scales = (scale(den.schedule, times) / scale(self.den.schedule, self.times)).tolist()
        start = self.latent if scales[-1] == 1 else scales[-1] * self.latent
        if self.partner is None:
            program = self.solver.program(den.schedule, times[::-1], startup=self.startup, prediction=den.answers)
            found = solve(den, start, solver=program, **run)
        else:
            program = way_back(self.solver, den, times)
            partner = self.partner if scales[-2] == 1 else scales[-2] * self.partner
            found = solve(den, partner, solver=program, noise=lambda key, like: start.to(like.dtype), **run)
        return replace(found, x=found.x.to(self.dtype))


def invert(
    den: Denoiser,
    x0: torch.Tensor,
    *,
    solver: str | Solver | Planner = Reversible(),  # noqa: B008 - it is frozen
    round_trip: bool = False,
    **options: Any,
) -> Inversion:
    """The noise that the PF-ODE makes of the data x0, and what leads back.

    x0:      (B, ...), floating or complex: clean data, the state at the clean end of the schedule.
    solver:  a `Reversible`, the default, whose way back is the inverse of the way there, in exact arithmetic at any
             number of steps: in fp32 a few roundings are left. It needs both states of the inversion. Or any solver
             without noise that takes fixed steps, whose way back is another discretisation: the distance is of the size
             of its error. "auto" is the default too: what it chooses from noise to data is fitted to that way, and
             diverges on the other below 12 steps.
    round_trip: run back, and report the distance, at the cost of as many evaluations.
    options: ``steps``, ``nfe``, ``grid``, ``t_start`` and the other options of `logsnr.solve` that lay out the way back
             from noise to data, whose grid is taken in reverse; ``parallel``, ``progress``, ``grad``, ``on_nan``; and
             options of the solver.

    Raises ValueError or TypeError, before the first call, for arguments that do not fit, solvers with noise, and those
    that choose their own steps.
    """
    check_state(x0, "x0", complex_too=True)
    check_denoiser(den)
    flag("round_trip", round_trip)
    laid = {name: options.pop(name) for name in LAYOUT & options.keys()}
    run = {name: options.pop(name) for name in RUN & options.keys()}
    method, startup = _deterministic(solver, options), laid.get("startup")
    grid = np.array(Layout(**laid).program(method, den.schedule, den.answers).grid)[::-1]
    program = method.program(den.schedule, grid, startup=startup, prediction=den.answers)
    exact = isinstance(method.planner, Reversible)
    if exact:
        way_back(method, den, grid)  # refuses a single step
    kept = list[torch.Tensor]()

    def keep(node: int, t: float, state: torch.Tensor) -> None:
        if node == len(grid) - 2:
            kept.append(state.clone())

    start = x0.to(den.state_dtype(x0))  # the latent, too: rounded to less, it would not lead back
    found = solve(den, start, solver=program, callback=keep if exact else None, **run)
    partner = kept[0] if exact else None
    made = Inversion(den, method, found.x, partner, grid, found.nfe, found.rounds, x0.dtype, startup)
    if round_trip:
        wide = torch.promote_types(x0.dtype, torch.float64)
        apart = (made.decode(**run).x.to(wide) - x0.to(wide)).abs()
        flat = apart.reshape(len(x0), -1) if x0.numel() else apart.new_zeros(len(x0), 1)
        made = replace(made, error=flat.square().mean(1).sqrt().cpu())
    return made


def translate(
    source: Denoiser,
    target: Denoiser,
    x0: torch.Tensor,
    *,
    solver: str | Solver | Planner = Reversible(),  # noqa: B008 - it is frozen
    **options: Any,
) -> Solution:
    """Data of one denoiser as data of another: from x0 to noise by the PF-ODE of ``source``, and back by that of
    ``target`` (Su et al. 2023, dual diffusion implicit bridges).

    Between Gaussians whose covariances commute it is the optimal transport map, as far as the noise is pure. The two
    share noise alone: their schedules may differ, see `Inversion.decode`. The other arguments, and what is raised, are
    those of `invert`. The `Solution` is that of the second half, with the evaluations of both.
    """
    check_denoiser(source, "source")
    check_denoiser(target, "target")
    run = {name: options[name] for name in RUN & options.keys()}
    made = invert(source, x0, solver=solver, **options)
    found = made.decode(target, **run)
    return replace(found, nfe=found.nfe + made.nfe, rounds=found.rounds + made.rounds)


def way_back(method: Solver, den: Denoiser, times: Array) -> Program:
    planner: Any = method.planner
    program: Program = planner.back(den.schedule, times)
    return program


def scale(sch: Any, times: Array) -> Array:
    """R of a schedule: states divided by it depend on lam alone."""
    return np.hypot(sch.alpha(times), sch.sigma(times))


def moved(times: Array, sch: Any, other: Any) -> Array:
    """The times of another schedule at the same lam."""
    return times if sch == other else np.asarray(other.time(np.asarray(sch.half_logsnr(times))))


def _deterministic(solver: Any, options: dict[str, Any]) -> Solver:
    if isinstance(solver, Program):
        raise ValueError(f"a program runs one way only; give the solver that made {solver.name}")
    tolerant = [name for name in ("rtol", "atol") if options.pop(name, None) is not None]
    method = find_solver(solver, **options)
    if tolerant or method.planner is None:
        told = " and ".join(tolerant) if tolerant else method.name
        raise ValueError(
            f"{told}: an inversion takes fixed steps, to go back on the same grid; for steps that are chosen by "
            "tolerances take logsnr.control.encode and decode"
        )
    if hasattr(method.planner, "choose"):  # "auto"
        method = find_solver(Reversible())
    if method.stochastic:
        raise ValueError(f"{method.name} adds noise, and cannot be inverted; with eta=0 it adds none")
    return method
