"""States of several tensors, each with a schedule of its own, that one model sees together: video and sound, say.

Each leaf of the tree has its own table, from the same solver and number of steps, so that all are asked for at the same
calls: one call of the model serves all leaves. A leaf runs as it would alone, bit for bit, with the seed `leaf_seed`.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..solvers.answers import check_state, learned_variance
from ..solvers.call import STATE
from ..solvers.catalogue import solver as find_solver
from ..solvers.complex_states import from_parts, of_parts, to_parts
from ..solvers.conditions import check_conditions, check_rows
from ..solvers.denoiser import CHANGED, Denoiser
from ..solvers.execution import Execution
from ..solvers.noise import Seed, drawn_seed, noise_source, start
from ..solvers.planning import layout_key
from ..solvers.plans import lowered_for
from ..solvers.program import Program
from ..solvers.run import timesteps, writes
from ..solvers.solution import Solution, finished

Path = tuple[Any, ...]  # the keys and numbers on the way to a leaf


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
    """x: the tree of end states. nfe: calls of the model, for all leaves together. leaves: the `Solution` of each, by
    the keys on the way to it."""

    x: Any
    nfe: int
    leaves: dict[Path, Solution]


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
    seed: Seed | None = None,
    sample_ids: Iterable[int] | None = None,
    brownian: bool = False,
    trajectory: bool = False,
    grad: bool = False,
    parallel: None = None,
) -> TreeSolution:
    """Solve for all leaves of ``x``, a tree like the denoiser's schedules of tensors (B, ...), real or complex.

    solver, grid, t_start, t_end: as of `logsnr.solve`, one for all leaves or a tree; a grid of times is an array or a
    tensor, not a list. The programs of all leaves must have the same number of calls, and reach their nodes at the
    same ones. seed: that of a leaf is its `leaf_seed`, so that no two leaves have the same noise. The others are as of
    `logsnr.solve`, for all leaves; parallel runs and adaptive ones cannot share their calls, and are refused.
    """
    if parallel is not None:
        raise ValueError("trees run one call after the other: leave out parallel")
    if not isinstance(den, TreeDenoiser):
        raise TypeError(f"den must be a TreeDenoiser, not {type(den).__name__}")
    states = matched("x", x, den.schedules)
    for path, leaf in states.items():
        check_state(leaf, f"x[{named(path)!r}]", complex_too=True)
    sizes = {len(leaf) for leaf in states.values()}
    if len(sizes) > 1:
        raise ValueError(f"x must have one batch size, not {sorted(sizes)}")
    check_rows("conditions", den.conditions, *sizes)
    given = {"solver": solver, "grid": grid, "t_start": t_start, "t_end": t_end}
    options = {name: each(name, value, den.schedules) for name, value in given.items()}
    if seed is None:
        seed = drawn_seed()
    grad = grad or any(leaf.requires_grad for leaf in states.values())
    with torch.set_grad_enabled(grad):
        runs = {}
        for path, leaf in states.items():
            own = {name: value[path] for name, value in options.items()}
            ends = own["grid"], own["t_start"], own["t_end"], startup
            layout = layout_key(steps, nfe, *ends, None, None, None, None)
            noise = leaf_seed(seed, path), sample_ids, None, brownian, None
            runs[path] = Leaf(den.leaves[path], leaf, own["solver"], layout, noise, grad, trajectory)
        calls = _shared_calls(runs)
        for n in range(calls):
            _call(den, x, runs, n)
        found = {path: leaf.solution() for path, leaf in runs.items()}
    return TreeSolution(rebuilt(x, {path: one.x for path, one in found.items()}), calls, found)


def _call(den: TreeDenoiser, x: Any, runs: Mapping[Path, "Leaf"], n: int) -> None:
    """Ask the model once, and carry out call n of every leaf."""
    seen = {path: leaf.seen for path, leaf in runs.items()}
    versions = {path: writes(leaf) for path, leaf in seen.items()}
    times = {path: leaf.told[n] for path, leaf in runs.items()}
    answer = den.model(rebuilt(x, seen), rebuilt(x, times), **den.conditions)
    answers = matched("the model's answer", answer, x)
    for path, leaf in runs.items():
        if writes(seen[path]) != versions[path]:
            raise ValueError(f"call {n + 1}, leaf {named(path)!r}: {CHANGED}")
        try:
            leaf.advance(answers[path])
        except (TypeError, ValueError, ArithmeticError) as error:
            error.add_note(f"in the leaf {named(path)!r}")
            raise


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


class Leaf:
    """One leaf on its way: a program of its own, carried out with answers from outside."""

    def __init__(
        self, den: Denoiser, x: torch.Tensor, solver: Any, layout: Any, noise: Any, grad: bool, trajectory: bool
    ) -> None:
        self.begun, self.parts = x, x.is_complex()
        if self.parts:
            den, x = of_parts(den, x), to_parts(x).contiguous()
        method = solver if isinstance(solver, Program) else find_solver(solver)
        lowered = lowered_for(method, den, x, layout, False)
        self.program: Program = lowered.program
        self.x, self.told = x, timesteps(lowered, den, x)
        source = noise_source(self.program, den.schedule, x, *noise)
        self.run = Execution(lowered, x, source, functional=grad)
        self.states = [x.to(den.state_dtype(x), copy=True)] if trajectory else []

    @property
    def seen(self) -> torch.Tensor:
        return from_parts(self.run.x) if self.parts else self.run.x

    def advance(self, answer: Any) -> None:
        reached = self.program.calls[self.run.n].node is not None
        answer = to_parts(answer, "the model's answer") if self.parts else answer
        self.run.advance(answer, learned_variance(answer, self.run.x) if self.program.learned else None)
        if reached and self.states:
            self.states.append(self.run.memory.slots[STATE].clone())

    def solution(self) -> Solution:
        states = torch.stack(self.states).to(self.x.dtype) if self.states else None
        calls = len(self.program)
        found = Solution(self.run.finish(), calls, calls, self.program.times, states, self.program)
        return finished(found, self.x, False, self.parts)


def _shared_calls(runs: Mapping[Path, Leaf]) -> int:
    """How many calls there are; ValueError unless all leaves have the same."""
    nodes = {named(path): [call.node for call in leaf.program.calls] for path, leaf in runs.items()}
    first, *others = nodes.values()
    if any(other != first for other in others):
        told = ", ".join(f"{name or 'x'} {len(calls)}" for name, calls in nodes.items())
        raise ValueError(
            f"all leaves must make the same calls, and reach their nodes at the same ones; there are {told}"
        )
    return len(first)


def leaves(tree: Any, path: Path = ()) -> dict[Path, Any]:
    """The leaves of a tree of dictionaries, lists and tuples, by the keys on the way to them."""
    if not isinstance(tree, (Mapping, list, tuple)):
        return {path: tree}
    parts = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    return {inner: leaf for key, part in parts for inner, leaf in leaves(part, (*path, key)).items()}


def rebuilt(tree: Any, found: Mapping[Path, Any], path: Path = ()) -> Any:
    """A tree of the same form with other leaves."""
    if not isinstance(tree, (Mapping, list, tuple)):
        return found[path]
    if isinstance(tree, Mapping):
        return {key: rebuilt(part, found, (*path, key)) for key, part in tree.items()}
    parts = [rebuilt(part, found, (*path, k)) for k, part in enumerate(tree)]
    return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)


def matched(name: str, tree: Any, like: Any) -> dict[Path, Any]:
    """The leaves of ``tree``; ValueError unless they are those of ``like``."""
    found, wanted = leaves(tree), leaves(like)
    if found.keys() != wanted.keys():
        raise ValueError(f"{name} must be a tree with the leaves {[*map(named, wanted)]}, not {[*map(named, found)]}")
    return {path: found[path] for path in wanted}


def each(name: str, value: Any, like: Any) -> dict[Path, Any]:
    """What ``value`` is for every leaf: a tree, or one for all."""
    if isinstance(value, (Mapping, list, tuple)):
        return matched(name, value, like)
    return dict.fromkeys(leaves(like), value)


def named(path: Path) -> str:
    return "/".join(map(str, path))
