"""The executor of rounds: calls whose questions do not need each other's answers are asked at once."""

from copy import copy
from typing import Any

import torch

from ...kernels import Seeds
from ...kernels.registers import TorchRegisters
from ..denoisers.answers import check_output
from ..denoisers.denoiser import Denoiser
from ..programs.call import NoiseKey
from ..programs.lower import Lowered
from ..runs.execution import Execution
from ..runs.noise import NoiseFunction
from ..runs.run import Observe, shown
from ..runs.solution import Solution
from ..runs.starts import Starts
from .common import asked, check_conditions, check_start
from .settings import Rounds


def rounds(
    lowered: Lowered,
    den: Denoiser,
    x: torch.Tensor,
    how: Rounds,
    *,
    noise: NoiseFunction | Seeds | None = None,
    keep: bool = False,
    observe: Observe | None = None,
) -> Solution:
    """Run a lowered program from ``x`` (B, ...), asking the model once for all calls of a round, `Program.rounds`.

    The updates are those of the sequential run, in its order. The other arguments are as for `run.run`; ``observe``
    sees the states as they come, and cannot change them. Raises what `run.run` does, and ValueError for starts that
    record gradients.
    """
    check_start(x)
    check_conditions(den.model, len(x))
    once = None if noise is None or isinstance(noise, Seeds) else Once(noise)
    execution = Execution(lowered, x.contiguous(), once or noise, functional=True, keep=keep)
    asking, told = Starts.alone(lowered, len(x)).asking(den, x)
    samples, nfe, made = torch.arange(len(x), device="cpu"), 0, 0
    for group in lowered.program.rounds:
        seen, asks = questions(execution, len(group)), [n for n in group if lowered.asks[n]]
        answers = dict[int, torch.Tensor]()
        if asks:
            rows = torch.tensor(asks, device="cpu").repeat_interleave(len(x)), samples.repeat(len(asks))
            times = torch.cat([told[n : n + 1] for n in asks])  # no index, for which a GPU would wait
            nodes = torch.cat([question for n, question in zip(group, seen, strict=True) if lowered.asks[n]])
            found = check_output(asked(asking, nodes, times.repeat_interleave(len(x)), *rows), nodes)
            answers.update(zip(asks, found.reshape(len(asks), *x.shape), strict=True))
            nfe, made = nfe + sum(asking.cost[n] for n in asks), made + 1
        for n, question in zip(group, seen, strict=True):
            answer = answers.get(n)
            execution.advance(answer)
            if observe is None or lowered.program.calls[n].node is None:
                continue
            wanted = observe.wants_x0 and answer is not None
            shown(observe, lowered, execution, n, asking.estimate(question, answer, n) if wanted else None)
            if observe.stopped is not None:
                return _solution(execution, nfe, made, lowered)
        if once is not None:
            once.made.clear()
    return _solution(execution, nfe, made, lowered)


def questions(execution: Execution, count: int) -> list[torch.Tensor]:
    """What each of the next ``count`` calls, those of a round, sees.

    They are carried out ahead, in memory of their own, with answers that do not matter: what depends on an answer is
    not seen in the round.
    """
    memory, ahead, seen = execution.memory, copy(execution), [execution.x]
    assert isinstance(memory, TorchRegisters)  # as it is functional
    ahead.memory = memory.ahead()
    while len(seen) < count:
        ahead.advance(ahead.x)
        seen.append(ahead.x)
    return seen


def _solution(execution: Execution, nfe: int, made: int, lowered: Lowered) -> Solution:
    return Solution(execution.finish(), nfe, made, lowered.program.times, program=lowered.program)


class Once:
    """A noise function that is asked once for each interval of a round, though calls are carried out twice."""

    def __init__(self, noise: NoiseFunction) -> None:
        self.noise, self.made = noise, dict[NoiseKey, Any]()

    def __call__(self, key: NoiseKey, like: torch.Tensor) -> torch.Tensor:
        if key not in self.made:
            self.made[key] = self.noise(key, like)
        return self.made[key]
