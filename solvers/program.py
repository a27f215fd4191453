"""The program: a solver laid out on a grid, as an immutable table of float64 numbers.

A program is a general linear method. Its memory is a few *slots*, tensors of the state's shape: slot 0 is the
state, the others hold stages and history. Each `Call` evaluates the model once and maps what it read to new
slot values by a small matrix. There is no control flow: `len(program)` is the number of model evaluations,
and everything that runs, parallelises, proves or explains a solver reads this table.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress, pairwise
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np

from .planners.gauges import Array

STATE = 0
MAX_WRITES = 3


class NoiseKey(NamedTuple):
    """Which standard normal: the increment over the interval from time s to time t of a Brownian motion, normalised.

    stream 0 is the motion that drives the SDE. What is not its increment over that interval, as noise put back by
    churn or restarts and that of Langevin steps, counts as another motion: 1, 2, ... Within a stream, intervals are
    the same or do not overlap, so that the normals of different keys are independent.
    """

    s: float
    t: float
    stream: int = 0

    def __str__(self) -> str:
        visit = f", {self.stream}" if self.stream else ""
        return f"noise({self.s:.6g}, {self.t:.6g}{visit})"


@dataclass(frozen=True, eq=False)
class Call:
    """One model evaluation and the linear update that follows it.

    t:      time of the evaluation.
    at:     the slot on which the model is evaluated.
    reads:  slots the update reads;  writes: the slots it writes (at most 3), all after all reads.
    matrix: float64, one row per write. Columns: the model's result, then the slots read, then the noises.
            In a program the result is the pair (x0, eps), so that any head is a combination of columns and
            the limits sigma = 0 and alpha = 0 are ordinary numbers; `lower` replaces the pair by what the
            network returns. Shape (rows, columns), or (rows, columns, *event) for per-element coefficients.
    noises: keys of the standard normals added by the last columns, `NoiseKey` or (s, t) or (s, t, stream).
    node:   index of the grid node that the state has reached after this call, None inside a step.
    """

    t: float
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    matrix: Array
    at: int = STATE
    noises: tuple[NoiseKey, ...] = ()
    node: int | None = None

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "noises", tuple(NoiseKey(*key) for key in self.noises))
        columns = len(self.reads) + len(self.noises)
        if matrix.ndim < 2 or matrix.shape[0] != len(self.writes) or matrix.shape[1] <= columns:
            raise ValueError(
                f"matrix must have {len(self.writes)} rows and more than {columns} columns "
                f"(model columns first, then {len(self.reads)} reads and {len(self.noises)} noises), "
                f"not shape {matrix.shape}"
            )
        if len(set(self.writes)) < len(self.writes) or not 0 < len(self.writes) <= MAX_WRITES:
            raise ValueError(f"writes must name 1 to {MAX_WRITES} different slots, not {self.writes}")
        if not np.isfinite(matrix).all():
            raise ValueError(f"the coefficients at t = {self.t:.6g} are not finite: {matrix.tolist()}")

    @property
    def models(self) -> int:
        """Number of model columns."""
        return self.matrix.shape[1] - len(self.reads) - len(self.noises)

    @cached_property
    def used(self) -> tuple[tuple[int, ...], ...]:
        """By row, the columns whose coefficients are not 0."""
        return tuple(tuple(j for j, c in enumerate(row) if np.any(c)) for row in self.matrix)

    @cached_property
    def numbers(self) -> Sequence[Any]:
        """The coefficients as Python floats, [row][column], or as arrays where they differ between elements."""
        return self.matrix.tolist() if self.matrix.ndim == 2 else self.matrix

    def _key(self) -> tuple[Any, ...]:
        return (
            self.t,
            self.at,
            self.reads,
            self.writes,
            self.noises,
            self.node,
            self.matrix.shape,
            self.matrix.tobytes(),
        )


@dataclass(frozen=True, eq=False)
class Program:
    """What to run: ``calls`` that carry the state along ``grid`` (times, one per node; len = steps + 1).

    order is what the formula promises; notes say where this grid or start-up keeps less. Programs compare and
    hash by their numbers. Raises ValueError where a call reads a slot that nothing has written, and for noises of
    one stream whose intervals overlap without being the same: their normals could be neither equal nor independent.
    """

    name: str
    order: int
    grid: tuple[float, ...]
    calls: tuple[Call, ...]
    notes: tuple[str, ...] = ()
    slots: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "calls", tuple(prune(self.calls)))
        written = {STATE}
        for n, call in enumerate(self.calls):
            if missing := {call.at, *call.reads} - written:
                raise ValueError(f"call {n} reads slots {sorted(missing)} that nothing has written")
            written.update(call.writes)
        if self.calls and STATE not in self.calls[-1].writes:
            raise ValueError("the last call must write the state, slot 0")
        object.__setattr__(self, "slots", 1 + max(written))
        _check_disjoint(self.noises)

    def __len__(self) -> int:
        return len(self.calls)

    def __iter__(self) -> Iterator[Call]:
        return iter(self.calls)

    @cached_property
    def times(self) -> Array:
        """The grid as a float64 array, read-only."""
        times = np.array(self.grid)
        times.setflags(write=False)
        return times

    @property
    def steps(self) -> int:
        return len(self.grid) - 1

    @cached_property
    def noises(self) -> tuple[NoiseKey, ...]:
        """The different normals that a run needs, in the order of their first use."""
        return tuple(dict.fromkeys(key for call in self.calls for key in call.noises))

    def interpret(
        self, x: Any, model: Any, noises: Mapping[NoiseKey, Any] | None = None, *, matrices: Sequence[Any] | None = None
    ) -> Any:
        """The end state from ``x``, by `interpret.carry_out`, on anything with + and *: ``model(x, t)`` gives the pair
        (x0, eps) at the schedule's time t, ``noises`` the normal of each key of `noises`; ``matrices``, by call, take the
        place of the coefficients, for gradients with respect to them or for other numbers."""
        from .interpret import carry_out  # which is made of calls

        slots = {STATE: x}
        for _ in carry_out(self.calls, slots, model, noises or {}, matrices):
            pass
        return slots[STATE]

    def _key(self) -> tuple[Any, ...]:
        return (self.name, self.order, self.grid, *(call._key() for call in self.calls))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        """The table, 80 columns wide: one line per row written, with the coefficient of every column that it uses.

        x is the state; x0 and eps are the model's answer at the call, x0[n] and eps[n] that of call n, as long as
        a slot keeps it; s1, s2, ... are all other slots.
        """
        lines = [f"{self.name}: order {self.order}, {self.steps} steps, {len(self)} model evaluations"]
        for note in self.notes:
            lines += wrap(f"note: {note}", 80, subsequent_indent="      ")
        kept: dict[int, str] = {}  # slots that hold the answer of a call
        for n, call in enumerate(self.calls):
            reads = [kept.get(k, _slot(k)) for k in call.reads]
            names = ["x0", "eps", *reads, *(str(key).replace(" ", "\N{NO-BREAK SPACE}") for key in call.noises)]
            head = f"{n:4d}  t = {call.t:<10.6g} model({_slot(call.at)})"
            for slot, row in zip(call.writes, call.matrix, strict=True):
                used = sorted(np.flatnonzero([np.any(c) for c in row]), key=lambda j: names[j] != "x")
                kept.pop(slot, None)
                if slot != STATE and len(call.writes) > 1 and len(used) == 1 and used[0] < 2 and np.all(row[used] == 1):
                    kept[slot] = f"{names[used[0]]}[{n}]"
                    continue
                terms = " ".join(f"{np.ravel(row[j])[0]:+.6g}\N{NO-BREAK SPACE}{names[j]}" for j in used)
                first, *rest = wrap(terms, 80 - 37) or ["0"]
                lines += [f"{head:31s}{_slot(slot):>2s} <- {first}", *(" " * 37 + more for more in rest)]
                head = ""
        return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")

    def to_json(self) -> str:
        """The whole table as JSON; floats are written in full, so `from_json` gives back an equal program."""
        calls = [
            {"t": c.t, "at": c.at, "reads": c.reads, "writes": c.writes, "matrix": c.matrix.tolist(),
             "noises": c.noises, "node": c.node}
            for c in self.calls
        ]  # fmt: skip
        return json.dumps(
            {"name": self.name, "order": self.order, "grid": self.grid, "notes": self.notes, "calls": calls}
        )

    @classmethod
    def from_json(cls, text: str) -> "Program":
        data = json.loads(text)
        calls = tuple(
            Call(
                t=c["t"], at=c["at"], reads=tuple(c["reads"]), writes=tuple(c["writes"]),
                matrix=np.array(c["matrix"]), noises=tuple(NoiseKey(*key) for key in c["noises"]), node=c["node"],
            )
            for c in data["calls"]
        )  # fmt: skip
        return cls(data["name"], data["order"], tuple(data["grid"]), calls, tuple(data["notes"]))


def _slot(index: int) -> str:
    return "x" if index == STATE else f"s{index}"


def _check_disjoint(keys: Iterable[NoiseKey]) -> None:
    """ValueError if two different intervals of a stream overlap."""
    ordered = sorted(keys, key=lambda key: (key.stream, min(key.s, key.t)))
    for one, other in pairwise(ordered):
        if one.stream == other.stream and min(other.s, other.t) < max(one.s, one.t):
            raise ValueError(f"{one} and {other} overlap; split them into the same parts, or give one another stream")


def prune(calls: Iterable[Call], last: frozenset[int] = frozenset({STATE})) -> list[Call]:
    """Drop rows that nothing reads later and columns that are zero: planners need not care, kernels gain.

    ``last`` are the slots wanted after the final call; the state is wanted at every node too.
    """
    live, kept = set(last), []
    for call in reversed(list(calls)):
        rows = [r for r, slot in enumerate(call.writes) if slot in live or (slot == STATE and call.node is not None)]
        if not rows:
            raise ValueError(f"nothing reads what the call at t = {call.t:.6g} computes")
        matrix, m = call.matrix[rows], call.models
        columns = np.array(matrix.reshape(*matrix.shape[:2], -1).any(axis=(0, 2)))
        columns[:m] = True
        if len(rows) < len(call.writes) or not columns.all():  # most calls are as short as can be, and stay
            call = replace(
                call,
                reads=tuple(compress(call.reads, columns[m:])),
                writes=tuple(call.writes[r] for r in rows),
                noises=tuple(compress(call.noises, columns[m + len(call.reads) :])),
                matrix=matrix[:, columns],
            )
        live = (live - set(call.writes)) | set(call.reads) | {call.at}
        kept.append(call)
    return kept[::-1]
