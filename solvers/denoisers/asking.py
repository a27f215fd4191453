"""What a run asks a denoiser: its conditions by sample, its guidance by call, its map of x0."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...kernels import transformed
from ..arrays import Array
from ..schedules.base import Schedule
from .answers import check_output, check_unwritten, estimate, learned_variance, weights_at, written
from .conditions import Conditions, check_rows, column, joined, joins, rows_of
from .guidance import Rule
from .guides import At, applied, check_recorded, recording

if TYPE_CHECKING:
    from .denoiser import Denoiser

Ask = Callable[[torch.Tensor, torch.Tensor], Any]


class Asking:
    """A denoiser bound to a run: ``times`` (calls,) of its calls, and a ``batch`` of samples.

    scales: (calls,) or (calls, B), of its guidance. columns: whether the run combines the answers by its own columns:
    they are then the pair of both. cost: of each call, evaluations per sample. ordered: whether the
    calls are made one after the other, by `call`. learned: whether the network's second
    half is wanted: ``variance`` is that of the last call, with guidance of the conditional answer. both: of the run's
    memory, x twice over where it has that, see `kernels.Registers`. doubled: by call, whether one call of the model,
    with twice the rows, is asked for both answers. No cached properties here: torch.compile cannot trace them.
    """

    def __init__(
        self,
        den: "Denoiser",
        times: Any,
        batch: int | None,
        *,
        columns: bool = False,
        ordered: bool = False,
        learned: bool = False,
    ) -> None:
        self.den, self.guidance, self.columns = den, den.guidance, columns
        if batch is not None:
            check_rows("conditions", den.conditions, batch)
        self.cost, self.times = [1] * len(times), times
        self.both: Callable[[torch.Tensor], torch.Tensor | None] = lambda x: None
        self.memory: dict[str, torch.Tensor] = {}
        self.learned: bool = learned
        self.reuses = not transformed()  # whether the model may write its answers to the same memory: seen at call 1
        self.variance: torch.Tensor | None = None
        if self.guidance is not None:
            if not columns:
                self.guidance.rule.check_answer()
            self.guidance.check_order(ordered)
            self.scales, self.numbers, self.needs = _scales(self.guidance.rule, den.schedule, times)
            if batch is not None:
                check_rows("uncond", self.guidance.other({}), batch)
                if self.scales.ndim > 1 and self.scales.shape[1] != batch:
                    raise ValueError(f"guidance: scale has {self.scales.shape[1]} numbers for a batch of {batch}")
            self.cost = [sum(need) for need in self.needs]
        self.doubled = self._doubled()
        self.together: Conditions | None = None
        if den.map_x0 is not None:
            self.to_x0 = x0_map(den, times)

    def call(self, x: torch.Tensor, timesteps: torch.Tensor, n: int) -> Any:
        """The answer of call n for the whole batch, or both of its answers where the run combines them."""
        if self.den.map_x0 is None:
            return self._whole(x, timesteps, n)
        return self._mapped(partial(self._whole, n=n), x, timesteps, np.full(1, n))

    def rows(self, x: torch.Tensor, timesteps: torch.Tensor, calls: torch.Tensor, samples: torch.Tensor) -> Any:
        """One answer for every row of ``x``, each of a call and a sample: int64 (N,) on the CPU."""
        if self.den.map_x0 is None:
            return self._rows(x, timesteps, calls, samples)
        ask = partial(self._rows, calls=calls, samples=samples)
        return self._mapped(ask, x, timesteps, calls.numpy(), samples)

    def _whole(self, x: torch.Tensor, timesteps: torch.Tensor, n: int) -> Any:
        if self.guidance is None:
            return self._asked(self.den.model, x, timesteps, self.den.conditions)
        return self._guided(x, timesteps, n)

    def _rows(self, x: torch.Tensor, timesteps: torch.Tensor, calls: torch.Tensor, samples: torch.Tensor) -> Any:
        den, version = self.den, written(x)
        answer = first = den.model(own(x), timesteps, **rows_of(den.conditions, samples))
        if self.guidance is not None:
            c, numbers = self._kept(check_output(first, x)), calls.numpy()
            scales = self.scales[numbers] if self.scales.ndim < 2 else self.scales[numbers, samples.numpy()]
            some = torch.from_numpy(np.flatnonzero([self.needs[n][0] for n in numbers]))
            answer = c.to(torch.promote_types(c.dtype, torch.float32))  # as a guided answer is
            if len(some):
                check_unwritten(x, version)
                at = some.to(x.device)
                others = rows_of(self.guidance.other(den.conditions), samples[some])
                u = check_output((self.guidance.model or den.model)(x[at], timesteps[at], **others), x[at])
                self._look(first, u)
                w = self.guidance.weight(scales[some.numpy()], samples[some], c)
                answer = answer.index_copy(0, at, self.guidance.combined(u, c[at], w))
        return answer

    def estimate(self, seen: torch.Tensor, answer: Any, n: int) -> torch.Tensor:
        """E[x0] at call n, of what it has seen and its answer."""
        if not isinstance(answer, torch.Tensor):
            answer = answer[0] if self.guidance is None else answer[0] + self.scales[n] * (answer[1] - answer[0])
        return estimate(self.den.answers, self.den.schedule, self.times[n], seen, answer)

    def _asked(self, model: Any, x: torch.Tensor, timesteps: torch.Tensor, conditions: Conditions) -> Any:
        try:
            answer = model(x, timesteps, **conditions)
        except (TypeError, RuntimeError) as error:
            if not torch.compiler.is_compiling():
                error.add_note(_called(x, timesteps, conditions))
            raise
        if self.learned:
            self.variance = learned_variance(answer, x)
        return answer

    def _guided(self, x: torch.Tensor, timesteps: torch.Tensor, n: int) -> Any:
        assert self.guidance is not None
        without, with_ = self.needs[n]
        given, others = self.den.conditions, self.guidance.other(self.den.conditions)
        model, other = self.den.model, self.guidance.model or self.den.model
        if not with_:
            return self._asked(other, x, timesteps, others)
        if not without:
            return self._asked(model, x, timesteps, given)
        if self.doubled[n]:
            kept, twice = self.both(x), torch.cat([timesteps, timesteps])
            doubled = torch.cat([x, x]) if kept is None else kept
            u, c = self._both(doubled, twice).chunk(2)
            self.variance = None if self.variance is None else self.variance[len(x) :]
        else:
            version = written(x)
            first = check_output(other(own(x), timesteps, **others), x)  # whose variance, if it has any, does not count
            check_unwritten(x, version)
            u = self._kept(first)
            c = check_output(self._asked(model, own(x), timesteps, given), x)
            self._look(first, c)
        if self.columns:
            return u, c
        return self.guidance.combined(u, c, self.guidance.weight(self.numbers[n], None, c), self.memory)

    def _both(self, doubled: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Both answers in one; errors say that there are more rows than samples. The conditions are put together when
        they are first wanted: gradients keep their order."""
        assert self.guidance is not None
        try:
            if self.together is None:
                self.together = joined([self.guidance.other(self.den.conditions), self.den.conditions])
            return check_output(self._asked(self.den.model, doubled, timesteps, self.together), doubled)
        except Exception as error:
            if not torch.compiler.is_compiling():
                error.add_note(
                    f"guidance has given the model {len(doubled)} rows, both answers of {len(doubled) // 2} samples: "
                    "conditions that it has caught in a closure do not follow; give them as Denoiser(..., "
                    "conditions={name: tensor}), or ask for the answers in two calls, Guidance(..., batched=False)"
                )
            raise

    def _kept(self, first: torch.Tensor) -> torch.Tensor:
        """The first of two answers, with memory of its own where the second may be written to the same."""
        return first.clone() if self.reuses else first

    def _look(self, first: Any, second: torch.Tensor) -> None:
        self.reuses = self.reuses and first.data_ptr() == second.data_ptr()

    def _doubled(self) -> tuple[bool, ...]:
        guidance = self.guidance
        if guidance is None or not guidance.batched or (guidance.model or self.den.model) is not self.den.model:
            return (False,) * len(self.times)
        one = joins([guidance.other(self.den.conditions), self.den.conditions])
        return tuple(one and all(need) for need in self.needs)

    def _mapped(
        self, ask: Ask, x: torch.Tensor, timesteps: torch.Tensor, calls: Array, samples: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The x0 that the user's map makes of the answer's."""
        map_x0, wide = self.den.map_x0, torch.promote_types(x.dtype, torch.float32)
        assert map_x0 is not None
        recorded, times = torch.is_grad_enabled(), np.asarray(self.times, dtype=np.float64)[calls]
        with recording(map_x0, x, timesteps) as (seen, told):
            version = written(seen)
            answer = check_output(ask(own(seen.to(x.dtype)), told), x)
            check_unwritten(seen, version)
            check_recorded(map_x0, answer)
            a, b = (column(c[calls], x).to(wide) for c in self.to_x0)
            x0 = a * seen.to(wide) + b * answer.to(wide)
            new = applied(map_x0, x0, seen, At(self.den.schedule, times, x0, samples, recorded))
        shape = getattr(new, "shape", None)
        if shape != x.shape:
            got = type(new).__name__ if shape is None else tuple(shape)
            raise ValueError(f"map_x0 must return a tensor of the shape of x0, {tuple(x.shape)}, not {got}")
        return check_output(new, x)


def own(x: torch.Tensor) -> torch.Tensor:
    """``x`` for one use of it: its gradients are summed before those of other uses are added. So sums have the same
    bits in whatever order the answers of guidance are asked for, in one call or in two."""
    return x.view_as(x) if x.requires_grad and torch.is_grad_enabled() else x


def _scales(rule: Rule, sch: Schedule, times: Any) -> tuple[Array, list[Any], list[tuple[bool, bool]]]:
    """`Rule.asks`, the scales as numbers too, which torch.compile takes for constants."""
    scales, needs = rule.asks(sch, times)
    return scales, scales.tolist(), needs


setattr(_scales, "_dynamo_marked_constant", True)  # noqa: B010  as in `plans`


def x0_map(den: "Denoiser", times: Any) -> tuple[Array, Array]:
    """(a, b), each like ``times``: x0 as ``a x + b answer``; ValueError where the head does not say it."""
    a, b = weights_at(den.prediction, "x0", den.schedule, times)
    if not (told := np.isfinite(a) & np.isfinite(b)).all():
        t = float(np.asarray(times)[~told][0])
        raise ValueError(f"map_x0: prediction = {den.prediction!r} does not determine x0 at t = {t:.6g}")
    return a, b


def _called(x: torch.Tensor, timesteps: torch.Tensor, conditions: Conditions) -> str:
    """How a model was called that raised an error of arguments or dtypes."""
    keywords = "".join(f", {name}=..." for name in conditions)
    return (
        f"the model was called as model(x, t{keywords}) with x {_told(x)} and t {_told(timesteps)}; of the Denoiser, "
        "dtype= is that of x, and conditions= are the keywords"
    )


def _told(x: torch.Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
