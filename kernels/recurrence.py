"""A program's calls as one linear recurrence, in the form in which whole windows of calls are carried out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch

from .table import Recent
from .updates import STATE, Update, Updates

# How often a coefficient is used over all calls of a recurrence: compiled code is made for this.
NEVER, ALWAYS, SOMETIMES = range(3)

Pattern = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Recurrence:
    """``slots <- matrices[n] @ (outputs of call n, slots, noises of call n)`` for calls n = 0, 1, ...

    matrices: (calls, S, M + S + Z) float64: S slots, M model outputs, Z noises; or (calls, S, M + S + Z, *event), by
              element of a sample, which torch carries out. As in `combine`, a column whose coefficients are 0 is left
              out of the sum, whatever it holds.
    at:       (calls + 1,): the slot on which call n evaluates the model, and last the one that holds the result.
    models:   M.

    Raises ValueError where these do not fit together.
    """

    matrices: np.ndarray
    at: np.ndarray
    models: int
    kept: Recent = field(default_factory=Recent, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, dtype in (("matrices", np.float64), ("at", np.int64)):
            values = np.array(getattr(self, name), dtype=dtype, order="C")
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        shape = self.matrices.shape
        if len(shape) < 3 or not 0 < shape[1] <= shape[2] - self.models or self.models < 1:
            raise ValueError(f"matrices must have shape (calls, S, {self.models} + S + noises), not {shape}")
        if not np.isfinite(self.matrices).all():
            raise ValueError("matrices must be finite")
        if self.at.shape != (len(self) + 1,) or not ((self.at >= 0) & (self.at < self.slots)).all():
            raise ValueError(f"at must name {len(self) + 1} slots from 0 to {self.slots - 1}, not {self.at.tolist()}")

    def __len__(self) -> int:
        return len(self.matrices)

    @property
    def by_element(self) -> bool:
        return self.matrices.ndim > 3

    @property
    def slots(self) -> int:
        return int(self.matrices.shape[1])

    @property
    def noises(self) -> int:
        return int(self.matrices.shape[2]) - self.models - self.slots

    @cached_property
    def seen(self) -> tuple[int, ...]:
        """The slots that a call ever sees."""
        return tuple(np.unique(self.at).tolist())

    def table(self, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """The matrices on a device, in the dtype of the sums."""
        return self._on(device, dtype, self.matrices)

    def places(self, device: torch.device) -> torch.Tensor:
        """``at`` on a device, int64."""
        return self._on(device, torch.int64, self.at)

    def _on(self, device: torch.device, dtype: torch.dtype, values: np.ndarray) -> torch.Tensor:
        """Copied once: a copy to a GPU makes the host wait."""

        def copy() -> torch.Tensor:
            with torch.inference_mode(False):  # for runs outside it too
                return torch.tensor(values, dtype=dtype, device=device)

        return self.kept.made((dtype, device), copy)

    def pattern(self, dtype: torch.dtype) -> Pattern:
        """(S, M + S + Z): NEVER, ALWAYS or SOMETIMES. A coefficient that ``dtype`` rounds to 0 is not used."""
        return self.kept.made(("pattern", dtype), lambda: self._pattern(dtype))

    def _pattern(self, dtype: torch.dtype) -> Pattern:
        used = self.matrices.astype(np.float64 if dtype is torch.float64 else np.float32) != 0
        often = np.where(used.all(axis=0), ALWAYS, np.where(used.any(axis=0), SOMETIMES, NEVER))
        return tuple(map(tuple, often.tolist()))


def recurrence(calls: Updates | Sequence[Update]) -> Recurrence:
    """The recurrence of consecutive calls of a program, up to its end; made once for `Updates`.

    A slot of the recurrence is not always the same slot of the program: before every call its reads come first,
    in their order, then what later calls still need. So sums are taken in the order of the sequential executor,
    a ring of history becomes a shift, and there are no more slots than are alive at a time. At the beginning of
    a program and after its end slot 0 is the state.

    Raises ValueError for calls with different numbers of model columns.
    """
    if not isinstance(calls, Updates):
        return _recurrence(calls)
    return calls.kept.made("recurrence", lambda: _recurrence(calls.calls))


def _recurrence(calls: Sequence[Update]) -> Recurrence:
    for n, call in enumerate(calls):
        if call.models != calls[0].models:
            raise ValueError(
                f"calls must have {calls[0].models} model column(s), as the first; call {n} has {call.models}"
            )
    orders = layout(calls)
    slots, models = max(map(len, orders)), max((call.models for call in calls), default=1)
    noises = max((len(call.noises) for call in calls), default=0)
    event = np.broadcast_shapes(*(call.table.shape[2:] for call in calls))
    matrices = np.zeros((len(calls), slots, models + slots + noises, *event))
    at = [order.index(call.at) for call, order in zip(calls, orders, strict=False)]
    for matrix, call, (before, after) in zip(matrices, calls, pairwise(orders), strict=True):
        m, r, own = models, len(call.reads), call.table.shape[2:]
        coefs = call.table.coefs.reshape(*call.table.shape[:2], *[1] * (len(event) - len(own)), *own)
        for row, slot in zip(matrix, after, strict=False):
            if slot in call.writes:
                given = coefs[call.writes.index(slot)]
                row[:m], row[m : m + r] = given[:m], given[m : m + r]
                row[m + slots : m + slots + len(call.noises)] = given[m + r :]
            else:
                row[m + before.index(slot)] = 1.0
    return Recurrence(matrices, np.array([*at, 0]), models)


def layout(calls: Sequence[Update]) -> list[tuple[int, ...]]:
    """Which slots of the program the slots of its recurrence are, before every call and at the end."""
    alive: tuple[int, ...] = (STATE,)
    orders = [alive]
    for call in reversed(calls):
        needed = (set(alive) - set(call.writes)) | {call.at}
        alive = (*call.reads, *sorted(needed - set(call.reads)))
        orders.append(alive)
    return orders[::-1]
