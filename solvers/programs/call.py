"""One entry of a program: a model evaluation, if its answer is used, and the linear update that follows it.

Every field is checked here, whoever made it: a planner, a user or a file.
"""

import hashlib
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array

STATE = 0  # the slot of the state
MAX_WRITES = 3
MAX_SLOTS = 256
ONE = MAX_SLOTS  # past all slots, one that holds 1 everywhere: its column is a constant. No call writes it
MAX_STREAM = (1 << 32) - 1
HASHED = 1 << 31  # streams from here on belong to keys; those below to starts and Brownian paths
BITS = 24  # of a time that count for the address of its noise


def _rounded(t: float) -> float:
    """To `BITS` binary digits."""
    mantissa, exponent = math.frexp(t)
    return math.ldexp(round(mantissa * 2**BITS), exponent - BITS)


class NoiseKey(NamedTuple):
    """The address of a standard normal: the normalised increment of a Brownian motion over the interval from s to t.

    stream 0 is the motion that drives the SDE. What is not its increment over that interval, as noise put back by
    churn or restarts and that of Langevin steps, counts as another motion: 1, 2, ... Within a stream, intervals are
    the same or do not overlap, so that the normals of different keys are independent.
    """

    s: float
    t: float
    stream: int = 0

    @property
    def address(self) -> tuple[int, int]:
        """Interval and stream, 32 bits each, under which `kernels.normals` makes this normal.

        They are a hash of the times and the stream: the same interval has the same normals in whatever program it
        occurs, so that runs in pieces are the whole. The times are rounded, as their last digits hang on the CPU's exp
        and log, and on how a program came by them. The upper half of all streams is theirs.
        """
        times = _rounded(self.s), _rounded(self.t)
        words = hashlib.blake2b(struct.pack("<ddI", *times, self.stream), digest_size=8).digest()
        interval, stream = struct.unpack("<II", words)
        return interval, stream | HASHED

    def __str__(self) -> str:
        visit = f", {self.stream}" if self.stream else ""
        return f"noise({self.s:.6g}, {self.t:.6g}{visit})"


@dataclass(frozen=True, eq=False)
class Call:
    """One model evaluation and the linear update that follows it.

    t:      time that the model is told, by which its answer is understood: a node of the grid, or any other.
    at:     the slot on which the model is evaluated.
    reads:  slots the update reads, ONE for a constant;  writes: the slots it writes (at most 3), all after all reads.
    matrix: float64, one row per write. Columns: the model's result, then the slots read, then the noises.
            In a program the result is the pair (x0, eps), so that any head is a combination of columns and
            the limits sigma = 0 and alpha = 0 are ordinary numbers; `lower` replaces the pair by what the
            network returns. Shape (rows, columns), or (rows, columns, *event) for per-element coefficients.
            Where all coefficients of the result are 0, or it has no columns, nobody `asks` the model.
    noises: keys of the standard normals added by the last columns, `NoiseKey` or (s, t) or (s, t, stream).
    node:   index of the grid node that the state has reached after this call, None inside a step.
    learned: of a network that says how wide the noise is: with v from -1 to 1 in its answer, by element, the noises are
            multiplied by exp(learned (1 + v) / 2) (Nichol and Dhariwal 2021, eq. 15).

    Raises ValueError, naming the field, for what is none of these: slots are numbered from 0 to 255, and ONE is 256.
    """

    t: float
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    matrix: Array
    at: int = STATE
    noises: tuple[NoiseKey, ...] = ()
    node: int | None = None
    learned: float = 0.0

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "t", finite("t", self.t))
        put(self, "at", integer("at", self.at, 0, MAX_SLOTS - 1))
        put(self, "reads", tuple([_slot("reads", k) if k != ONE else ONE for k in sequence("reads", self.reads)]))
        put(self, "writes", tuple([_slot("writes", k) for k in sequence("writes", self.writes)]))
        put(self, "noises", tuple(map(_key, sequence("noises", self.noises))))
        if self.node is not None:
            put(self, "node", integer("node", self.node, 0, 1 << 31))
        put(self, "learned", finite("learned", self.learned))
        if len(set(self.writes)) < len(self.writes) or not 0 < len(self.writes) <= MAX_WRITES:
            raise ValueError(f"writes must name 1 to {MAX_WRITES} different slots, not {self.writes}")
        if len(set(self.reads)) < len(self.reads):
            raise ValueError(f"reads must name different slots, not {self.reads}")
        put(self, "matrix", self._checked(_array(self.matrix)))

    def __reduce__(self) -> tuple[Any, ...]:  # arrays come back from pickle without their flag
        return Call, (self.t, self.reads, self.writes, self.matrix, self.at, self.noises, self.node, self.learned)

    def _checked(self, matrix: Array) -> Array:
        columns = len(self.reads) + len(self.noises)
        if matrix.ndim < 2 or matrix.shape[0] != len(self.writes) or matrix.shape[1] < columns:
            raise ValueError(
                f"matrix must have {len(self.writes)} rows and at least {columns} columns "
                f"(model columns first, then {len(self.reads)} reads and {len(self.noises)} noises), "
                f"not shape {matrix.shape}"
            )
        if 0 in matrix.shape:
            raise ValueError(f"matrix must have coefficients for samples of at least one element, not {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise ValueError(f"the coefficients at t = {self.t:.6g} are not finite: {matrix.tolist()!s:.200}")
        matrix.setflags(write=False)
        return matrix

    @property
    def models(self) -> int:
        """Number of model columns."""
        return self.matrix.shape[1] - len(self.reads) - len(self.noises)

    @cached_property
    def asks(self) -> bool:
        """Whether the model is evaluated: its answer counts for something, if only for how wide the noise is."""
        return bool(self.matrix[:, : self.models].any()) or self.learned != 0

    def with_pair(self) -> "Call":
        """The same call with columns x0 and eps, which are 0 where it has none."""
        if self.models:
            return self
        zeros = np.zeros((len(self.writes), 2, *self.event))
        return replace(self, matrix=np.concatenate([zeros, self.matrix], axis=1))

    @property
    def event(self) -> tuple[int, ...]:
        """Shape of per-element coefficients; () where they are numbers."""
        return self.matrix.shape[2:]

    @cached_property
    def used(self) -> tuple[tuple[int, ...], ...]:
        """By row, the columns whose coefficients are not 0."""
        flags: Any = self.matrix != 0
        if self.event:
            flags = flags.any(axis=tuple(range(2, self.matrix.ndim)))
        rows: list[list[bool]] = flags.tolist()
        return tuple(tuple(k for k, flag in enumerate(row) if flag) for row in rows)

    @cached_property
    def numbers(self) -> Any:
        """The coefficients as Python floats, [row][column], or as arrays where they differ between elements."""
        return self.matrix if self.event else self.matrix.tolist()

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """All that makes two calls the same."""
        numbers = self.matrix.shape, self.matrix.tobytes()
        return self.t, self.at, self.reads, self.writes, self.noises, self.node, self.learned, *numbers


def prune(calls: Iterable[Call]) -> list[Call]:
    """Drop rows that nothing reads later and columns that are zero: planners need not care, kernels gain. The state is
    wanted at every node, and after the final call."""
    live, kept = {STATE}, []
    for call in reversed(list(calls)):
        rows = [r for r, slot in enumerate(call.writes) if slot in live or (slot == STATE and call.node is not None)]
        if not rows:
            raise ValueError(f"nothing reads what the call at t = {call.t:.6g} computes")
        m, used = call.models, {*range(call.models)}.union(*(call.used[r] for r in rows))
        if len(rows) < len(call.writes) or len(used) < call.matrix.shape[1]:  # most are as short as can be, and stay
            columns = [k in used for k in range(call.matrix.shape[1])]
            call = replace(
                call,
                reads=tuple(compress(call.reads, columns[m:])),
                writes=tuple(call.writes[r] for r in rows),
                noises=tuple(compress(call.noises, columns[m + len(call.reads) :])),
                matrix=call.matrix[rows][:, columns],
            )
        live.difference_update(call.writes)
        live.update(call.reads, (call.at,))
        kept.append(call)
    return kept[::-1]


def groups(calls: Iterable[Call]) -> tuple[tuple[int, ...], ...]:
    """The numbers of consecutive calls that see nothing of the answers of their group: as few groups as there can be,
    as each is as long as it can be."""
    found: list[tuple[int, ...]] = []
    late: set[int] = set()  # slots in which there is something of the group's answers
    for n, call in enumerate(calls):
        if found and call.at not in late:
            found[-1] = (*found[-1], n)
        else:
            found.append((n,))
            late = set()
        answered = {*range(call.models), *(call.models + j for j, slot in enumerate(call.reads) if slot in late)}
        written = {slot for slot, used in zip(call.writes, call.used, strict=True) if answered & set(used)}
        late = (late - set(call.writes)) | written
    return tuple(found)


def integer(name: str, value: Any, low: int, high: int) -> int:
    """``value`` as an int; ValueError unless it is a whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, not {value!r:.60}")
    return int(value)


def finite(name: str, value: Any) -> float:
    """``value`` as a float; ValueError unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ValueError(f"{name} must be a number, not {value!r:.60}")
    try:
        number = float(value)
    except OverflowError:  # an int of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, not {value!r:.60}")
    return number


def _slot(name: str, value: Any) -> int:
    return value if type(value) is int and 0 <= value < MAX_SLOTS else integer(f"{name}: slot", value, 0, MAX_SLOTS - 1)


def sequence(name: str, value: Any) -> tuple[Any, ...]:
    """``value`` as a tuple; ValueError for what is no list of things."""
    if not isinstance(value, (tuple, list, np.ndarray)):
        raise ValueError(f"{name} must be a list, not {value!r:.60}")
    return tuple(value)


def _key(value: Any) -> NoiseKey:
    words = sequence("noises: a key", value)
    if not 2 <= len(words) <= 3:
        raise ValueError(f"noises: a key must be (s, t) or (s, t, stream), not {value!r:.60}")
    s, t = (finite("noises: a time", u) for u in words[:2])
    return NoiseKey(s, t, integer("noises: a stream", words[2] if len(words) > 2 else 0, 0, MAX_STREAM))


def _array(values: Any) -> Array:
    """A float64 array of numbers; strings, ragged lists and the like are refused."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "iuf":
            raise TypeError
        return np.array(array, dtype=np.float64, order="C")
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"matrix must be an array of numbers, not {values!r:.60}") from None
