"""From a program to what a network and a state dtype make of it: head conversion as columns of the matrix."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...kernels import Table, Update, Updates
from ..arrays import Array
from ..denoisers.answers import pairs_at
from ..denoisers.guidance import Rule
from ..denoisers.guidance_rules import ALONE, Weights
from ..denoisers.heads import Level
from ..schedules.base import Schedule
from .call import MAX_WRITES, ONE, STATE, Call, prune
from .checks import check_elements

if TYPE_CHECKING:
    from .program import Program

LOOKS = 4  # calls, the last of which looks whether the state is finite: at all of them it would cost a tenth of a step
PURE = 0.1  # alpha / sigma of a start that counts as pure noise


@dataclass(frozen=True, eq=False)
class Lowered:
    """A program ready to run: calls whose model columns are what the network returns.

    program: the table; entry n of ``updates`` is what its call n does with memory. pure_noise: sigma at the start of
    a run from the noisy end of a schedule, where there is hardly anything else; else 0. timesteps: (n, 1), the
    times as the model wants to be told them, where that depends on nothing else. guided: whether columns combine two
    answers. learned: whether the network says how much noise is added.

    Computed, by call: asks, whether the model is asked; times, when: of a call that does not ask, that of the next
    which does, as not every model can be told its own.
    """

    program: "Program"
    updates: Updates
    pure_noise: float = 0.0
    timesteps: torch.Tensor | None = None
    guided: bool = False
    learned: bool = False
    asks: tuple[bool, ...] = field(init=False)
    times: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        times = [call.t for call in self.program]
        for n in reversed(range(len(times) - 1)):
            times[n] = times[n] if self.program.calls[n].asks else times[n + 1]
        object.__setattr__(self, "asks", tuple(call.asks for call in self.program))
        object.__setattr__(self, "times", tuple(times))


def lower(
    program: "Program",
    sch: Schedule,
    prediction: str,
    *,
    state: torch.dtype,
    model: torch.dtype,
    rule: Rule | None = None,
    spread: float = 1.0,
    coordinates: bool = False,
) -> Lowered:
    """Replace the columns (x0, eps) by columns of a network that returns head ``prediction``.

    rule: of a guidance whose weights are columns of the program: the head is then a sum of what the network returns.
    spread: the standard deviation of the elements of eps, see `complex_states`.
    coordinates: whether the states of the run are those of the program's basis, if it has one.
    state, model: dtypes. Where they differ, one more output row casts the next model input in the same pass.
    Raises ValueError, naming the time, if the head does not determine what a call needs, and if a coefficient is too
    large for the state; and for a program in a basis that is to run in elements.
    """
    if not coordinates:
        check_elements(program)
    times, given = np.array([call.t for call in program]), [ALONE] * len(program.calls)
    if rule is not None:
        given = [rule.weights(w) for w in rule.scales(np.asarray(sch.half_logsnr(times)))]
        if rule.splits:
            program = replace(program, calls=tuple(_split(call, sch) for call in program))
    pairs = pairs_at(prediction, sch, times)  # infinities are refused where they are needed
    weights = [w if call.asks else ALONE for call, w in zip(program, given, strict=True)]
    calls = [_spread(call, spread) for call in program] if spread != 1 else program.calls
    calls = [_convert(*one, prediction, sch) for one in zip(calls, pairs, weights, strict=True)]
    dtypes, one, cast = [state] * program.slots, None, None
    if any(ONE in call.reads for call in calls):
        one = len(dtypes)
        dtypes.append(state)
        calls = [_with_one(call, one) for call in calls]
    if model != state:
        cast = len(dtypes)
        dtypes.append(model)
        calls = _with_casts(calls, cast)
    calls = prune(calls)
    for call in calls:
        if (largest := np.abs(call.matrix).max()) > torch.finfo(state).max:
            raise ValueError(f"a coefficient at t = {call.t:.6g} is {largest:.3g}, too large for a state in {state}")
    updates = tuple(
        _update(n, call, dtypes, row.asks) for n, (call, row) in enumerate(zip(calls, program, strict=True))
    )
    level = Level.at(sch, program.grid[0])
    pure = program.grid[0] >= sch.t_start and level.alpha <= PURE * level.sigma
    sigma = float(level.sigma) if pure else 0.0
    memory = Updates(updates, tuple(dtypes), cast, one)
    return Lowered(program, memory, sigma, guided=rule is not None, learned=program.learned)


def _split(call: Call, sch: Schedule) -> Call:
    """The same call with what it has seen, where it reads that, as ``alpha x0 + sigma eps``: of one answer the same, of
    an x0 and an eps of two answers the step from the x0 of one along the eps of the other."""
    if call.at not in call.reads or not call.asks:
        return call
    j, matrix = call.models + call.reads.index(call.at), call.matrix.copy()
    for k, share in enumerate((sch.alpha(call.t), sch.sigma(call.t))):
        matrix[:, k] += share * matrix[:, j]
    matrix[:, j] = 0.0
    return replace(call, matrix=matrix)


def _spread(call: Call, spread: float) -> Call:
    """The same call with less noise."""
    matrix, first = call.matrix.copy(), call.models + len(call.reads)
    matrix[:, first:] *= spread
    return replace(call, matrix=matrix)


def _update(n: int, call: Call, dtypes: Sequence[torch.dtype], asks: bool) -> Update:
    addresses = tuple(key.address for key in call.noises)
    written = tuple(dtypes[k] for k in call.writes)
    looks = n % LOOKS == LOOKS - 1 and call.reads[:1] == (STATE,)
    checked = call.models + looks if asks else 0  # what nobody asks for may be too large for the model's dtype
    return Update(call.at, call.models, call.reads, addresses, call.writes, written, Table(call.matrix), checked)


def _convert(call: Call, pair: Array, weights: Weights, prediction: str, sch: Schedule) -> Call:
    """One call: ``matrix[:, :2] @ (x0, eps)`` in terms of the slot the model saw and its outputs."""
    used = np.asarray(call.matrix[:, :2].reshape(len(call.writes), 2, -1).any(axis=(0, 2)))
    if not np.isfinite(pair[used]).all():
        blind = "x0" if used[0] and not np.isfinite(pair[0]).all() else "eps"
        raise ValueError(
            f"prediction = {prediction!r} does not determine {blind} at t = {call.t:.6g}, where alpha = "
            f"{float(sch.alpha(call.t)):.6g} and sigma = {float(sch.sigma(call.t)):.6g}; "
            "use another head or another span"
        )
    pair = np.where(used[:, None], pair, 0.0)
    terms = np.concatenate([pair[:, :1], pair[:, 1:] * np.array(weights)], axis=1)
    seen, *answers = np.moveaxis(np.tensordot(call.matrix[:, :2], terms, axes=(1, 0)), -1, 0)
    reads, rest = call.reads, call.matrix[:, 2:]
    if call.at in reads:
        rest = rest.copy()
        rest[:, reads.index(call.at)] += seen
    else:
        reads = (call.at, *reads)
        rest = np.concatenate([seen[:, None], rest], axis=1)
    return replace(call, reads=reads, matrix=np.concatenate([np.stack(answers, axis=1), rest], axis=1))


def _with_one(call: Call, slot: int) -> Call:
    """The same call with ``slot`` in the place of ONE, after the other slots: the state comes first in every sum."""
    if ONE not in call.reads:
        return call
    order = sorted(range(len(call.reads)), key=lambda j: call.reads[j] == ONE)
    columns = [*range(call.models), *(call.models + j for j in order)]
    columns += range(len(columns), call.matrix.shape[1])
    reads = tuple(slot if call.reads[j] == ONE else call.reads[j] for j in order)
    return replace(call, reads=reads, matrix=call.matrix[:, columns])


def _with_casts(calls: Sequence[Call], cast: int) -> list[Call]:
    """Let every call also write the next model input, in the model's dtype, to slot ``cast``."""
    result = []
    for call, following in zip(calls, [*calls[1:], None], strict=True):
        moved = replace(call, at=cast)
        if following is not None:
            if len(call.writes) == MAX_WRITES:
                raise ValueError(
                    f"the call at t = {call.t:.6g} writes {MAX_WRITES} slots, and there is no row left for what the "
                    "model sees in its own dtype: write fewer, or let model and state have the same, fp32 or fp64"
                )
            source = following.at
            if source in call.writes:
                row = call.matrix[call.writes.index(source)]
            else:
                moved = _reading(moved, source)
                row = np.zeros_like(moved.matrix[0])
                row[moved.models + moved.reads.index(source)] = 1.0
            moved = replace(moved, writes=(*moved.writes, cast), matrix=np.concatenate([moved.matrix, row[None]]))
        result.append(moved)
    return result


def _reading(call: Call, slot: int) -> Call:
    """The same call with ``slot`` among its reads."""
    if slot in call.reads:
        return call
    column = call.models + len(call.reads)
    zeros = np.zeros_like(call.matrix[:, :1])
    matrix = np.concatenate([call.matrix[:, :column], zeros, call.matrix[:, column:]], axis=1)
    return replace(call, reads=(*call.reads, slot), matrix=matrix)
