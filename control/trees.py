"""States of several tensors, each with a schedule of its own, that one model sees together: video and sound, say.

Each leaf of the tree has its own table, from the same solver and number of steps, so that all are asked for at the same
calls: one call of the model serves all leaves. A leaf runs as it would alone, bit for bit, with the seed `leaf_seed`.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..solvers.arguments import check_times_given
from ..solvers.catalogue.catalogue import solver as find_solver
from ..solvers.catalogue.planning import Layout, layout_key
from ..solvers.denoisers.answers import check_state
from ..solvers.denoisers.conditions import check_conditions, check_rows
from ..solvers.denoisers.denoiser import Denoiser
from ..solvers.parallel.settings import Picard
from ..solvers.programs.program import Program
from ..solvers.runs.normals import Seed, drawn_seed, start
from ..solvers.runs.solution import Solution
from ..solvers.sampling import is_adaptive
from .tree_adaptive import AdaptiveTree, check_adaptive, check_path
from .tree_leaf import Leaf, PlannedLeaf, ask, within
from .tree_parallel import solve_in_parallel
from .tree_shapes import Path, each, leaves, matched, named, rebuilt


class TreeDenoiser:
    """A model of several tensors.

    model:      ``model(x, t, **conditions)``: x is a tree like ``schedules``, a dictionary, list or tuple, nested or
                not, of tensors (B, ...); t such a tree of times (B,), and so is the answer, of tensors like those of x.
    schedules:  the tree: a `Schedule` for each leaf.
    prediction, time, dtype: as of `Denoiser`, one for all leaves or a tree.
    conditions: as of `Denoiser`. Guidance is the model's own affair.

    Raises what `Denoiser` raises, and ValueError for trees of other forms.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        schedules: Any,
        prediction: Any = "eps",
        *,
        time: Any = "t",
        dtype: Any = None,
        conditions: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.schedules, self.conditions = model, schedules, check_conditions("conditions", conditions)
        heads, clocks, dtypes = (
            each(name, value, schedules)
            for name, value in (("prediction", prediction), ("time", time), ("dtype", dtype))
        )
        self.leaves = {
            path: Denoiser(model, sch, heads[path], time=clocks[path], dtype=dtypes[path])
            for path, sch in leaves(schedules).items()
        }
        if len({named(path) for path in self.leaves}) < len(self.leaves) or not self.leaves:
            raise ValueError(f"schedules must have leaves of different names, not {[*map(named, self.leaves)]}")

    def start(self, shapes: Any, *, seed: Seed, **options: Any) -> Any:
        """Pure noise for every leaf, as by `logsnr.start` with its `leaf_seed`. shapes: a tree of shapes (B, ...)."""
        found = {}
        for path, den in self.leaves.items():
            shape = shapes
            try:
                for key in path:
                    shape = shape[key]
            except (KeyError, IndexError, TypeError):
                raise ValueError(f"shapes must have a shape for {named(path)!r}: {shapes!r:.60}") from None
            found[path] = start(den.schedule, shape, seed=leaf_seed(seed, path), **options)
        return rebuilt(self.schedules, found)


@dataclass(frozen=True, eq=False)
class TreeSolution:
    """x: the tree of end states. nfe: evaluations of a sample, for all leaves together. leaves: the `Solution` of each,
    by the keys on the way to it. rounds: batched calls of the model, one after the other."""

    x: Any
    nfe: int
    leaves: dict[Path, Solution]
    rounds: int


def solve_tree(
    den: TreeDenoiser,
    x: Any,
    *,
    solver: Any = "dpmpp-2m",
    steps: int | None = None,
    nfe: int | None = None,
    grid: Any = None,
    t_start: Any = None,
    t_end: Any = None,
    startup: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    seed: Seed | None = None,
    sample_ids: Iterable[int] | None = None,
    brownian: bool = False,
    trajectory: bool = False,
    grad: bool = False,
    parallel: Picard | None = None,
) -> TreeSolution:
    """Solve for all leaves of ``x``, a tree like the denoiser's schedules of tensors (B, ...), real or complex.

    solver, grid, t_start, t_end: as of `logsnr.solve`, one for all leaves or a tree; a grid of times is an array or a
    tensor, not a list. The programs of all leaves must have the same number of calls, and reach their nodes at the
    same ones. seed: that of a leaf is its `leaf_seed`, so that no two leaves have the same noise. The others are as of
    `logsnr.solve`, for all leaves.

    parallel: a `Picard`, without ranks: a sample moves on when all of its leaves have converged. rtol, atol, or a
    solver without a number of steps: an embedded pair ("dpm-23", "adams-34") that all leaves take together. Their
    states are then on a straight line in the half-log-SNRs of all leaves, from each time of ``grid`` to the next, or
    from start to end; in the times with ``grid="time"``, which is one time for all where they have the same ends. The
    model must know them so. For other paths give arrays of times along them. The worst leaf decides on a step, sample
    by sample.
    """
    states = _checked(den, x, parallel, grad)
    given = {"solver": solver, "grid": grid, "t_start": t_start, "t_end": t_end}
    options = {name: each(name, value, den.schedules) for name, value in given.items()}
    methods = {p: m if isinstance(m, Program) else find_solver(m) for p, m in options["solver"].items()}
    layouts = {}
    for path, leaf in states.items():
        check_times_given(leaf, grad, **{name: options[name][path] for name in ("grid", "t_start", "t_end")})
        ends = options["grid"][path], options["t_start"][path], options["t_end"][path], startup
        layouts[path] = layout_key(steps, nfe, *ends, None, None, None, None)
    seed = drawn_seed() if seed is None else seed
    grad = grad or any(leaf.requires_grad for leaf in states.values())
    free = [path for path, m in methods.items() if _is_free(m, Layout(*layouts[path]), rtol, atol)]
    with torch.set_grad_enabled(grad):
        if free or rtol is not None or atol is not None:
            method = check_adaptive(methods, steps=steps, nfe=nfe, parallel=parallel)
            check_path(options["grid"])
            leaves_of = {path: Leaf(den.leaves[path], state) for path, state in states.items()}
            times = {p: Layout(*layouts[p]).span(one.den.schedule) for p, one in leaves_of.items()}
            run = AdaptiveTree(den, x, leaves_of, method, times, options["grid"], (rtol, atol))
            return _adaptive(run, trajectory)
        runs = {}
        for path, leaf in states.items():
            noise = leaf_seed(seed, path), sample_ids, None, brownian, None
            runs[path] = PlannedLeaf(den.leaves[path], leaf, methods[path], layouts[path], noise, grad, trajectory)
        return _planned(den, x, runs, parallel)


def _planned(den: TreeDenoiser, x: Any, runs: Mapping[Path, PlannedLeaf], parallel: Picard | None) -> TreeSolution:
    asks = _shared_calls(runs)
    if parallel:
        if not all(all(leaf.run.asks) for leaf in runs.values()):
            raise ValueError("programs with calls that ask nothing run one call after the other: leave out parallel=")
        if any(leaf.program.learned for leaf in runs.values()):
            raise ValueError("variance = 'learned' runs one call after the other: leave out parallel=")
        found, rounds = solve_in_parallel(den, x, runs, parallel)
        nfe = max(one.nfe for one in found.values())
    else:
        for n, asked in enumerate(asks):
            _call(den, x, runs, n, asked)
        found, rounds = {path: leaf.solution() for path, leaf in runs.items()}, sum(asks)
        nfe = rounds
    return TreeSolution(rebuilt(x, {path: one.x for path, one in found.items()}), nfe, found, rounds)


def _checked(den: Any, x: Any, parallel: Any, grad: bool) -> dict[Path, torch.Tensor]:
    """The states of all leaves; TypeError or ValueError for arguments that do not fit."""
    if not isinstance(den, TreeDenoiser):
        raise TypeError(f"den must be a TreeDenoiser, not {type(den).__name__}")
    states = matched("x", x, den.schedules)
    for path, leaf in states.items():
        check_state(leaf, f"x[{named(path)!r}]", complex_too=True)
    sizes = {len(leaf) for leaf in states.values()}
    if len(sizes) > 1:
        raise ValueError(f"x must have one batch size, not {sorted(sizes)}")
    check_rows("conditions", den.conditions, *sizes)
    if parallel is None:
        return states
    if not isinstance(parallel, Picard):
        raise TypeError(f"parallel must be a logsnr.Picard, not {type(parallel).__name__}")
    if parallel.ranks:
        raise ValueError("parallel: trees run on one rank; leave out ranks = True")
    if grad or any(leaf.requires_grad for leaf in states.values()):
        raise ValueError("gradients do not go with parallel=, which records none")
    return states


def _is_free(method: Any, layout: Layout, rtol: Any, atol: Any) -> bool:
    """Whether a leaf's method chooses its own steps."""
    return not isinstance(method, Program) and is_adaptive(method, layout, rtol, atol)


def _adaptive(run: AdaptiveTree, trajectory: bool) -> TreeSolution:
    found = {}
    for path, one in run.solve().items():
        leaf = run.leaves[path]
        states = one.trajectory.to(leaf.x.dtype) if trajectory and one.trajectory is not None else None
        found[path] = leaf.finished(replace(one, trajectory=states))
    nfe = next(iter(found.values())).nfe
    return TreeSolution(rebuilt(run.form, {path: one.x for path, one in found.items()}), nfe, found, nfe)


def _call(den: TreeDenoiser, x: Any, runs: Mapping[Path, PlannedLeaf], n: int, asked: bool) -> None:
    """Ask the model once, if a leaf does, and carry out call n of every leaf."""
    seen = {path: leaf.run.x for path, leaf in runs.items()}
    told = {path: leaf.told[n] for path, leaf in runs.items()}
    answers = ask(den, x, runs, seen, told, den.conditions, f"call {n + 1}") if asked else seen
    for path, leaf in runs.items():
        with within(path):
            leaf.advance(answers[path])


def sample_tree(den: TreeDenoiser, x: Any, **options: Any) -> Any:
    """The tree of end states: ``solve_tree(den, x, **options).x``."""
    return solve_tree(den, x, **options).x


def leaf_seed(seed: Seed, path: Path) -> Any:
    """The seed of a leaf: a hash of the seed and of the leaf's name, its keys with slashes between; the seed itself
    where the tree is one tensor. Of several seeds, one per sample, each."""
    if isinstance(seed, Iterable):
        return [leaf_seed(int(one), path) for one in seed]
    if not path:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed}:{named(path)}".encode(), digest_size=8).digest(), "little")


def _shared_calls(runs: Mapping[Path, PlannedLeaf]) -> list[bool]:
    """By call, whether a leaf asks the model; ValueError unless all leaves have the same calls."""
    nodes = {named(path): [call.node for call in leaf.program.calls] for path, leaf in runs.items()}
    first, *others = nodes.values()
    if any(other != first for other in others):
        told = ", ".join(f"{name or 'x'} {len(calls)}" for name, calls in nodes.items())
        raise ValueError(
            f"all leaves must make the same calls, and reach their nodes at the same ones; there are {told}"
        )
    return [any(asks) for asks in zip(*(leaf.run.asks for leaf in runs.values()), strict=True)]
