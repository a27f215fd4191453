"""Edit data with a denoiser: noise and solve again (SDEdit), and fill in what a mask leaves open."""

from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..kernels import Noise, standard_normals
from ..solvers.arguments import check_times_given
from ..solvers.catalogue.catalogue import solver as find_solver
from ..solvers.denoisers.answers import check_state
from ..solvers.denoisers.conditions import column
from ..solvers.denoisers.denoiser import Denoiser, check_denoiser
from ..solvers.grids.grids import end_time
from ..solvers.planners.checks import choice
from ..solvers.programs.lower import PURE
from ..solvers.programs.program import NoiseKey, Program
from ..solvers.runs.normals import Seed, drawn_seed, randn, seeds_of
from ..solvers.runs.solution import Solution
from ..solvers.sampling import solve
from .masked import Filled, Known

KNOWN = 1 << 16  # the stream of the noise on known data


def sdedit(
    den: Denoiser,
    x0: torch.Tensor,
    strength: Any = None,
    *,
    t_start: Any = None,
    seed: Seed | None = None,
    **options: Any,
) -> Solution:
    """Noise the data x0 up to a time and solve from there: ``alpha x0 + sigma xi`` (Meng et al. 2022, SDEdit).

    x0:       (B, ...), floating or complex.
    strength: how far to go, in (0, 1], a share of the schedule's time from its clean end to its noisy one: a number or
              a tensor (B,), one per sample. Or  t_start: that time itself. More changes more; for Gaussian data of
              variance c the result keeps ``c alpha^2 / (c alpha^2 + sigma^2)`` of where x0 was in distance squared.
    seed:     of xi, and of the run if it is stochastic: as for `logsnr.solve`, from torch's own numbers by default.
    options:  those of `logsnr.solve`. All ``steps`` are taken, whatever the strength.

    Raises ValueError or TypeError for arguments that do not fit, and what `logsnr.solve` raises.
    """
    _check(den, x0, "x0")
    if (strength is None) == (t_start is None):
        raise ValueError("give either strength or t_start")
    check_times_given(x0, bool(options.get("grad")), strength=strength, t_start=t_start)
    sch = den.schedule
    if strength is not None:
        share = _shares(strength, len(x0))
        clean = end_time("t_end", options.get("t_end"))
        clean = sch.t_end if clean is None else clean
        t_start = clean + share * (sch.t_start - clean)
    several = isinstance(t_start, (torch.Tensor, np.ndarray))
    times: Any = torch.as_tensor(t_start).detach().double().cpu() if several else end_time("t_start", t_start)
    if isinstance(times, torch.Tensor) and times.shape not in ((), (len(x0),)):
        raise ValueError(f"t_start must be a number or have shape ({len(x0)},), not {tuple(times.shape)}")
    seed = _seed(seed, options)
    wide = x0.to(den.state_dtype(x0))
    xi = randn(x0.shape, seed=seed, sample_ids=options.get("sample_ids"), dtype=wide.dtype, device=x0.device)
    alpha, sigma = (_scale(f(times), wide) for f in (sch.alpha, sch.sigma))
    return solve(den, (alpha * wide + sigma * xi).to(x0.dtype), t_start=times, **_seeded(seed, options))


def inpaint(
    den: Denoiser,
    known: torch.Tensor,
    mask: torch.Tensor,
    *,
    x: torch.Tensor | None = None,
    seed: Seed | None = None,
    method: str = "x0",
    **options: Any,
) -> Solution:
    """A sample that is ``known`` where ``mask`` says so, in one call, with every solver and executor.

    known:  (B, ...), floating, or complex for "x0". What it holds elsewhere does not matter, where the mask is of
            booleans.
    mask:   booleans, or floating numbers from 0 to 1, that broadcast to the shape of ``known``: True, or 1, is known.
    x:      the start, like ``known``: by default noise of this ``seed``, which is also that of stochastic solvers.
    method: "x0", the default: the model's x0 is taken for ``mask known + (1 - mask) x0``. Then the known part obeys the
            equation that the solver solves, the PF-ODE or a reverse SDE of data that are known: its noise fits the
            start, the history of multistep solvers is of the same path, and parallel and adaptive runs have it too.
            "replace": the state at each node is replaced by ``alpha known + sigma xi`` with new noise, addressed by the
            node's time (Song et al. 2021, appendix I.2), which needs a solver that goes on from its nodes, one after
            the other. Neither draws from the exact conditional law, as the network is told of the known part by the
            state alone.
    options: those of `logsnr.solve`; ``t_start`` must be pure noise if no x is given.

    At the clean end of the schedule the result is ``known`` to the bit where the mask is 1, without the noise that the
    schedule leaves; a run that ends before keeps its state, so that another can go on. Raises ValueError or TypeError,
    before the first call, for masks of another shape, numbers outside [0, 1], and "replace" in parallel or adaptive
    runs; and what `logsnr.solve` raises.
    """
    _check(den, known, "known")
    choice("method", method, ("x0", "replace"))
    keep = Known(known, mask)
    seed = _seed(seed, options)
    x = _start(den, keep, seed, options) if x is None else x
    check_state(x, complex_too=known.is_complex())
    if x.shape != known.shape:
        raise ValueError(f"x must have the shape of known, {tuple(known.shape)}, not {tuple(x.shape)}")
    if x.is_complex() != known.is_complex():
        raise ValueError(f"x and known must both be complex, not {x.dtype} and {known.dtype}")
    if method == "x0":
        other = copy(den)
        other.map_x0 = Filled(keep, den.map_x0)
        found = solve(other, x, **_seeded(seed, options))
    else:
        _check_replaces(options, known)
        seeds = seeds_of(len(x), x.device, seed, options.get("sample_ids"))

        def noised(t: float, state: torch.Tensor) -> torch.Tensor:
            xi = standard_normals(Noise(*seeds, (NoiseKey(t, t, KNOWN).address,)), 0, state)
            return den.schedule.alpha(t) * keep.data.to(state) + den.schedule.sigma(t) * xi

        options["callback"] = keep.replaced(noised, options.get("callback"))
        found = solve(den, x, **_seeded(seed, options))
    if np.max(found.times[-1]) > den.schedule.t_end:  # it has not come to the end, or was stopped before
        return found
    end, states = keep.put(found.x), found.trajectory
    if states is not None:
        states[-1] = end
    return replace(found, x=end)


def _start(den: Denoiser, keep: Known, seed: Seed, options: dict[str, Any]) -> torch.Tensor:
    """Noise, and in it what is known."""
    sch, like = den.schedule, keep.data
    first: Any = options.get("t_start")
    levels = any(options.get(name) is not None for name in ("sigmas", "lams"))
    if levels or isinstance(options.get("solver"), Program) or np.ndim(first) > 0:
        raise ValueError("give x, as the start of this run is not told by t_start")
    t: Any
    grid, t = options.get("grid"), options.get("t_start")
    given = grid is not None and not isinstance(grid, str) and not callable(grid)
    t = float(np.asarray(grid)[0]) if given else sch.t_start if t is None else end_time("t_start", t)
    alpha, sigma = float(sch.alpha(t)), float(sch.sigma(t))
    if alpha > PURE * sigma:
        raise ValueError(f"t_start = {t:.6g} is not pure noise: give x, or a later t_start")
    wide = like.to(torch.promote_types(like.dtype, torch.float32))
    xi = randn(like.shape, seed=seed, sample_ids=options.get("sample_ids"), dtype=wide.dtype, device=like.device)
    return (alpha * wide + sigma * xi).to(like.dtype)


def _check_replaces(options: dict[str, Any], known: torch.Tensor) -> None:
    given = [name for name in ("parallel", "rtol", "atol") if options.get(name) is not None]
    if known.is_complex():
        raise ValueError(f"method = 'replace' is for real states, and known is {known.dtype}; method = 'x0' takes both")
    told = getattr(options.get("t_start"), "ndim", 0) > 0
    unplanned = all(options.get(name) is None for name in ("steps", "nfe", "grid", "sigmas", "lams"))
    solver = options.get("solver", "auto")
    if not given and unplanned and not isinstance(solver, Program) and find_solver(solver).adaptive:
        given = [f"solver = {solver!r:.40} without steps"]
    if given or told:
        what = " and ".join(given) if given else "t_start of every sample"
        raise ValueError(f"method = 'replace' changes the state, which does not go with {what}; method = 'x0' does")


def _check(den: Any, x: Any, name: str) -> None:
    check_denoiser(den)
    check_state(x, name, complex_too=True)


def _shares(strength: Any, batch: int) -> Any:
    """A number, or a tensor (B,), in (0, 1]."""
    several = isinstance(strength, (torch.Tensor, np.ndarray)) and strength.ndim > 0
    share = torch.as_tensor(strength, dtype=torch.float64, device="cpu") if several else strength
    if several:
        fits = share.shape == (batch,) and bool(((share > 0) & (share <= 1)).all())
    else:
        share = float(share) if isinstance(share, (torch.Tensor, np.ndarray, np.number)) else share
        fits = isinstance(share, (int, float)) and not isinstance(share, bool) and 0 < share <= 1
    if not fits:
        raise ValueError(f"strength must be a number in (0, 1], or a tensor ({batch},) of them, not {strength!r:.80}")
    return share


def _scale(c: Any, like: torch.Tensor) -> Any:
    """A number, or (B,) as (B, 1, ...)."""
    return column(c.numpy(), like) if isinstance(c, torch.Tensor) and c.ndim else float(c)


def _seed(seed: Seed | None, options: dict[str, Any]) -> Seed:
    """The seed that is given, or one of the generator, or of torch's own numbers."""
    generator = options.pop("generator", None)
    if seed is not None and generator is not None:
        raise ValueError("give one of seed and generator, not both")
    return drawn_seed(generator) if seed is None else seed


def _seeded(seed: Seed, options: dict[str, Any]) -> dict[str, Any]:
    return options if options.get("noise") is not None else {**options, "seed": seed}
