"""The program: a solver laid out on a grid, as an immutable table of float64 numbers.

A program is a general linear method. Its memory is a few *slots*, tensors of the state's shape: slot 0 is the
state, the others hold stages and history. Each `Call` evaluates the model once and maps what it read to new
slot values by a small matrix; a call whose answer is known, or not used, evaluates nothing. There is no control flow:
`len(program)` is the number of model evaluations, and everything that runs, parallelises, proves or explains a solver
reads this table.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..arrays import Array
from ..bases import Basis
from ..denoisers.denoiser import Denoiser
from ..planners.stochasticity import Stochasticity
from ..schedules.base import Schedule
from ..statistics.wiener import Wiener
from ..values import Value
from .as_json import read_program, write_program
from .as_plan import write_plan
from .as_text import program_text
from .call import MAX_WRITES, ONE, STATE, Call, NoiseKey, groups, integer, prune, sequence
from .checks import check_disjoint, check_nodes, checked_grid, common_event, written_slots
from .interpret import NO_NOISE, PairModel, carry_out
from .known import FAR, with_known
from .provenance import Provenance, checked

__all__ = ["MAX_WRITES", "ONE", "STATE", "Call", "NoiseKey", "Program", "prune"]

MAX_ORDER = 64


@dataclass(frozen=True, eq=False)
class Program(Value):
    """What to run: ``calls`` that carry the state along ``grid`` (times, one per node; len = steps + 1).

    order: what the formula promises. notes: where this grid or start-up keeps less. eta: of the SDE that the formula
    is derived from, on whose clock ``brownian=True`` runs; None is that of the reverse SDE. provenance: of fitted
    tables, what they were fitted to and how well: a small dict of strings and numbers. basis: in whose coordinates the
    table is, None for the elements themselves: `solve` then runs the coordinates of its states, and noise is refused.

    Computed: slots, how many there are; times, the grid as a read-only array; noises, the different normals that a run
    needs, in the order of their first use; event, the shape of per-element coefficients, () where all are numbers.

    Programs compare and hash by their numbers. Raises ValueError for fields of other types and sizes, where a call
    reads a slot that nothing has written, and for noises of one stream whose intervals overlap without being the same:
    their normals could be neither equal nor independent.
    """

    name: str
    order: int
    grid: tuple[float, ...]
    calls: tuple[Call, ...]
    notes: tuple[str, ...] = ()
    eta: Stochasticity | None = None
    provenance: Provenance = field(default_factory=dict)
    basis: Basis | None = None
    slots: int = field(init=False)
    times: Array = field(init=False, repr=False)
    noises: tuple[NoiseKey, ...] = field(init=False, repr=False)
    event: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        for text in (self.name, *sequence("notes", self.notes)):
            if not isinstance(text, str):
                raise ValueError(f"name and notes must be strings, not {text!r:.60}")
        put(self, "notes", tuple(self.notes))
        put(self, "order", integer("order", self.order, 0, MAX_ORDER))
        put(self, "grid", checked_grid(self.grid))
        if self.eta is not None and not isinstance(self.eta, Stochasticity):
            raise ValueError(f"eta must be a Stochasticity or None, not {self.eta!r:.60}")
        put(self, "provenance", checked(self.provenance))
        if self.basis is not None and not isinstance(self.basis, Basis):
            raise ValueError(f"basis must be a Basis or None, not {self.basis!r:.60}")
        calls = sequence("calls", self.calls)
        if not calls or not all(isinstance(call, Call) for call in calls):
            raise ValueError("calls must be one or more of type Call")
        for n, call in enumerate(calls):
            if call.models not in (0, 2):
                raise ValueError(f"call {n} must have 2 model columns, x0 and eps, before its reads, not {call.models}")
        put(self, "calls", tuple(prune(call.with_pair() for call in calls)))
        put(self, "slots", 1 + max(written_slots(self.calls) - {ONE}))
        put(self, "times", np.array(self.grid))
        self.times.setflags(write=False)
        put(self, "noises", tuple(dict.fromkeys(key for call in self.calls for key in call.noises)))
        put(self, "event", common_event(self.calls))
        check_nodes(self.calls, self.steps)
        check_disjoint(self.noises)
        if self.basis is not None and self.noises:
            raise ValueError("a program in a basis is of the ODE: its calls must not add noise")

    def __reduce__(self) -> tuple[Any, ...]:
        fields = self.name, self.order, self.grid, self.calls, self.notes, self.eta, dict(self.provenance), self.basis
        return Program, fields

    def __len__(self) -> int:
        return self._evaluations

    def __iter__(self) -> Iterator[Call]:
        """All ``calls``, those that evaluate nothing too: of such programs there are more than ``len(program)``."""
        return iter(self.calls)

    @cached_property
    def _evaluations(self) -> int:
        return sum(call.asks for call in self.calls)

    @property
    def steps(self) -> int:
        return len(self.grid) - 1

    @cached_property
    def constant(self) -> bool:
        """Whether a call adds a constant: the map from start to end is then affine, not linear."""
        return any(ONE in call.reads for call in self.calls)

    @cached_property
    def learned(self) -> bool:
        """Whether the network says how wide the noise is: it must return twice the channels."""
        return any(call.learned for call in self.calls)

    @cached_property
    def rounds(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of the calls, in groups of consecutive ones whose questions need no answer of their group: they
        can be asked at once, as ``parallel=logsnr.Rounds()`` does. Most solvers have one call in each."""
        return groups(self.calls)

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """All that makes two programs the same."""
        told = tuple(self.provenance.items())
        fields = self.name, self.order, self.grid, self.notes, self.eta, told, self.basis
        return *fields, *(call.key for call in self.calls)

    def interpret(
        self,
        x: Any,
        model: PairModel,
        noises: Mapping[NoiseKey, Any] = NO_NOISE,
        *,
        matrices: Sequence[Any] | None = None,
    ) -> Any:
        """The end state from ``x``, entry by entry, on anything with + and *; see `interpret.carry_out`.

        model: ``model(x, t)`` gives the pair (x0, eps) at the schedule's time t. noises: the normal of each of
        `Program.noises`. matrices: by call, in place of its coefficients, for gradients with respect to them or for
        other kinds of numbers. Of a program in a ``basis`` all of these are coordinates, the end state too:
        ``basis.forward(x)`` and ``basis.back(end)`` are outside.
        """
        slots = {STATE: x}
        for _ in carry_out(self.calls, slots, model, noises, matrices):
            pass
        return slots[STATE]

    def renamed(self, name: str, *notes: str) -> "Program":
        """The same numbers under another name, with further notes."""
        named = object.__new__(Program)  # nothing is computed or checked again
        kept = {field: value for field, value in vars(self).items() if field not in ("key", "_hash")}
        vars(named).update(kept, name=name, notes=(*self.notes, *notes))
        return named

    def with_known(self, schedule: Schedule, gaussian: Wiener, calls: int = 1, *, least: float = FAR) -> "Program":
        """The same program without its first ``calls`` evaluations: their answers are those of a Gaussian's denoiser,
        Wiener's filter ``x0 = m + alpha c (x - alpha m) / (alpha^2 c + sigma^2)``, exact where the noise is far above
        the spread of the data; `logsnr.known_error` says how wrong it is.

        schedule: what the program was made on. gaussian: a `Wiener`, the mean m and the variance c of the data, whose
        shape is that of the coefficients from then on. least: how many times its largest standard deviation
        sigma / alpha must be at each of these calls.

        Raises ValueError where there are no such calls or none would be left, where there is less noise, where a call
        takes the width of its noise from the network, and for shapes that do not fit; TypeError for other types.
        """
        return with_known(self, schedule, gaussian, calls, least)

    def __str__(self) -> str:
        """The table, 80 columns wide: one line per row written, with the coefficient of every column that it uses.

        x is the state; x0 and eps are the model's answer at the call, x0[n] and eps[n] that of call n, as long as
        a slot keeps it; s1, s2, ... are all other slots.
        """
        return program_text(self)

    def __repr__(self) -> str:
        return f"<Program {self.name}: order {self.order}, {self.steps} steps, {len(self)} model evaluations>"

    def to_json(self, den: Denoiser | None = None) -> str:
        """All that a run needs, as JSON; floats are written in full, so `from_json` gives back an equal program.

        An ``eta`` that is a function of the user's does not fit into JSON: the program then runs with addressed noise,
        and refuses ``brownian=True``.

        den: write the plan for servers without logsnr, which `from_json` does not read: the columns are what this
        denoiser's network returns, with its guidance, and each call has the time that it is told. docs/interchange.md
        is the format. Raises ValueError for a ``map_x0``, and for guidance that is no weighted sum.
        """
        return write_program(self) if den is None else write_plan(self, den)

    @classmethod
    def from_json(cls, text: str) -> "Program":
        """The program that `to_json` has written. Raises ValueError, and nothing else, for any other text."""
        try:
            fields = read_program(text)
            calls = tuple(_read_call(n, call) for n, call in enumerate(fields.pop("calls")))
            return cls(calls=calls, **fields)
        except ValueError as error:
            path = isinstance(text, str) and len(text) < 4096 and text.rstrip().endswith(".json")
            hint = f"; {text!r:.60} looks like a file: give its text, Path(...).read_text()" if path else ""
            raise ValueError(f"this is not a program: {error}{hint}") from None


def _read_call(n: int, fields: dict[str, Any]) -> Call:
    try:
        return Call(**fields)
    except ValueError as error:
        raise ValueError(f"call {n}: {error}") from None
