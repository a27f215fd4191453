"""The sequential executor: a program carried out one model call at a time, by one fused update per entry."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch

from ...kernels import Seeds, registers
from ..denoisers.answers import check_answers, check_state, estimate, learned_variance
from ..denoisers.complex_states import REAL, SPREAD, from_parts, noise_of_parts, to_parts
from ..denoisers.heads import HEADS
from ..finite import not_finite
from ..names import head_hint
from ..programs.call import STATE, NoiseKey
from ..programs.checks import check_event, check_times
from ..programs.lower import Lowered, lower
from ..programs.program import Program
from ..schedules.base import Schedule, check_schedule
from .noise import Addressed, NoiseFunction, noise_source
from .normals import Seed

_lowered = lru_cache(maxsize=256)(lower)  # planning takes longer than many a step


class Execution:
    """A lowered program on its way from ``x`` (B, ...): `run` and `Stepper` are made of it.

    n: the next call. memory: the slots, see `kernels.registers`, also for ``twice``. The other arguments are
    as for `run.run`.
    """

    def __init__(
        self,
        lowered: Lowered,
        x: torch.Tensor,
        noise: NoiseFunction | Seeds | None = None,
        *,
        functional: bool = False,
        keep: bool = False,
        twice: Sequence[bool] = (),
    ) -> None:
        self.calls, self.rows, self.asks = lowered.updates.calls, lowered.program.calls, lowered.asks
        if lowered.learned and isinstance(noise, Seeds):  # the kernels know of no factor
            noise = Addressed(noise)
        self.begun, self.noise, self.keep, self.n = x, noise, keep, 0
        seeds = noise if isinstance(noise, Seeds) else None
        self.memory = registers(lowered.updates, x, seeds, functional=functional, twice=twice)

    @property
    def x(self) -> torch.Tensor:
        """What the model is asked next, or at the end the result: memory that later calls write to."""
        slot = self.calls[self.n].at if self.n < len(self.calls) else STATE
        return self.memory.slots[slot]

    seen = x  # in memory, where `x` may be shown in another form

    @property
    def done(self) -> bool:
        return self.n == len(self.calls)

    def advance(self, answer: Any = None, variance: torch.Tensor | None = None) -> None:
        """Carry out the next call with the model's answer, if it asks for one; see `run.run` for what is raised.

        variance: of a call whose noise is learned, what `learned_variance` takes from the answer."""
        n = self.n
        answer = answer if self.asks[n] else self.seen  # any tensor will do: its coefficients are 0
        status = self.memory.step(n, answer)
        if status < 0:
            call, row, seen = self.calls[n], self.rows[n], self.seen
            outputs = checked_answers(answer, seen, call.models, n, len(self.calls), row.t)
            normals = added(self.noise, row.noises, seen)
            if variance is not None and row.learned:
                factor = torch.exp(row.learned / 2 * (1 + variance.to(normals[0].dtype)))
                normals = [factor * z for z in normals]
            status = self.memory.update(n, outputs, normals)
        if status and not self.keep:
            answers = answer if self.calls[n].models > 1 else (answer,)
            state = self.memory.slots[STATE]
            raise not_finite(self.begun, n, len(self.calls), self.rows[n].t, [*answers], state=state)
        self.n = n + 1

    def finish(self) -> torch.Tensor:
        """The result, after the last call; NonFiniteError if an answer was not finite and nobody could know before."""
        if not self.keep and (bad := self.memory.first_bad()) is not None:
            raise not_finite(self.begun, bad, len(self.calls), self.rows[bad].t)
        return self.memory.result()


class Stepper(Execution):
    """A program carried out one call at a time, for loops that own the model: with the bits of `logsnr.sample`.

        stepper = logsnr.Stepper(program, schedule, "eps", x, seed=0)
        while not stepper.done:
            stepper.step(model(stepper.x, stepper.t))
        stepper.x

    program:    a `Program`. schedule: what it was made on. prediction: the head that the model returns.
    x:          (B, ...), floating or complex: the start, see `logsnr.solve`; it is copied. Complex ones are kept as
                parts; ``.x``, ``.x0``, answers and noise are complex.
    seed, sample_ids, brownian, noise: of stochastic programs, as for `logsnr.solve`.
    dtype:      in which ``.x`` is handed to the model; by default that of the state: fp32, or fp64 if x is. Of complex
                x, that of its parts: fp32 or fp64.
    x0:         whether `x0` is kept, which costs a pass over memory at every step.

    Calls that ask nothing are carried out at once. ``t`` is the schedule's time of the next call;
    `Denoiser.model_times` says what a model wants to be told. Raises ValueError or TypeError for arguments that do not
    fit.
    """

    def __init__(
        self,
        program: Program,
        schedule: Schedule,
        prediction: str,
        x: torch.Tensor,
        *,
        seed: Seed | None = None,
        sample_ids: Iterable[int] | None = None,
        noise: NoiseFunction | None = None,
        brownian: bool = False,
        dtype: torch.dtype | None = None,
        x0: bool = True,
    ) -> None:
        if not isinstance(program, Program):
            raise TypeError(f"program must be a logsnr.Program, not {type(program).__name__}: solver(...).program(...)")
        check_schedule(schedule)
        check_state(x, complex_too=True)
        if prediction not in HEADS:
            raise ValueError(f"prediction = {prediction!r} is not a head{head_hint(prediction)}")
        check_times(schedule, program)
        self.parts = x.is_complex()
        if self.parts:
            if dtype not in (None, *REAL.values()):
                raise ValueError(f"dtype = {dtype} does not go with complex x, whose parts are fp32 or fp64")
            x, noise = to_parts(x).contiguous(), noise and noise_of_parts(noise)
        check_event(program.event, x)
        state = torch.promote_types(torch.promote_types(x.dtype, dtype or x.dtype), torch.float32)
        spread = SPREAD if self.parts else 1.0
        lowered = _lowered(program, schedule, prediction, state=state, model=dtype or state, spread=spread)
        source = noise_source(program, schedule, x, seed, sample_ids, None, brownian, noise)
        with torch.no_grad():
            super().__init__(lowered, x, source)
        self.program, self.schedule, self.prediction = program, schedule, prediction
        self.cast, self.node = lowered.updates.cast, 0
        self._x0: torch.Tensor | None = None
        self._keeps = x0
        self._pass()

    @property
    def x(self) -> torch.Tensor:
        return from_parts(self.seen) if self.parts else self.seen

    @property
    def t(self) -> float:
        """The time of the next call; at the end that of the result."""
        return self.program.grid[-1] if self.done else self.rows[self.n].t

    @property
    def x0(self) -> torch.Tensor:
        """E[x0] by the last answer, where its head says it. ValueError before the first step."""
        if self._x0 is None:
            raise ValueError("there is no x0 before the first step, and none is kept with x0=False")
        return from_parts(self._x0) if self.parts else self._x0

    def step(self, answer: Any) -> torch.Tensor:
        """Carry out the next call with the model's ``answer``, like ``.x``; returns the new ``.x``.

        Raises ValueError after the last call and for other shapes, and NonFiniteError for infinities and NaNs.
        """
        if self.done:
            raise ValueError(f"all {len(self.calls)} calls of {self.program.name} are done")
        row, seen = self.rows[self.n], self.seen
        answer = to_parts(answer, "the answer") if self.parts else answer
        with torch.no_grad():
            if self._keeps:
                first, *_ = checked_answers(answer, seen, 1, self.n, len(self.calls), row.t)
                self._x0 = estimate(self.prediction, self.schedule, row.t, seen, first)
            self.advance(answer, learned_variance(answer, seen) if self.program.learned else None)
        self.node = self.node if row.node is None else row.node
        self._pass()
        if self.n == len(self.calls):
            self.finish()
        return self.x

    def _pass(self) -> None:
        """Carry out the calls up to the next one that asks the model."""
        while not self.done and not self.asks[self.n]:
            node = self.rows[self.n].node
            with torch.no_grad():
                self.advance()
            self.node = self.node if node is None else node

    def replace(self, x: torch.Tensor) -> None:
        """Go on from another ``x``: the caller has changed what the model will see.

        Within a step it takes the place of a stage. Raises ValueError for other shapes, for complex numbers in the
        place of real ones, and within a step where the model's dtype is not the state's; TypeError for what is no
        tensor.
        """
        check_state(x, "what replaces it", complex_too=self.parts)
        if x.shape != self.x.shape:
            raise ValueError(f"x must have the shape {tuple(self.x.shape)}, not {tuple(x.shape)}")
        x = to_parts(x, "what replaces it") if self.parts else x
        slot = STATE if self.done else self.rows[self.n].at
        if slot != STATE and self.cast is not None:
            raise ValueError(f"call {self.n + 1} is within a step, whose stage cannot be replaced in {self.seen.dtype}")
        with torch.no_grad():
            self.memory.replace(x, slot)


def checked_answers(
    answer: Any, seen: torch.Tensor, models: int, n: int, total: int, t: float
) -> tuple[torch.Tensor, ...]:
    """The tensors that call n is carried out with; errors say which call it was."""
    try:
        return check_answers(answer, seen, models)
    except (TypeError, ValueError) as error:
        raise type(error)(f"call {n + 1} of {total}, t = {t:.6g}: {error}") from None


def added(noise: NoiseFunction | Seeds | None, keys: Sequence[NoiseKey], like: torch.Tensor) -> list[torch.Tensor]:
    """What the executor must be given: nothing if the registers make it."""
    if isinstance(noise, Seeds) or not keys:
        return []
    if noise is None:
        raise ValueError("this program adds noise; give seed= or noise=")
    return [noise(key, like) for key in keys]
