"""What parallel runs share: what they return, how they ask the model, and the noise of their calls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ...kernels import Seeds, recurrence, transformed
from ..denoisers.answers import check_answers, check_output
from ..denoisers.asking import Asking
from ..programs.call import NoiseKey
from ..programs.lower import Lowered
from ..runs.noise import Addressed, NoiseFunction

Evaluate = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], list[torch.Tensor]]  # nodes, calls, samples


@dataclass(frozen=True, eq=False)
class Certificate:
    """How far a parallel run is from the sequential one, sample by sample.

    change:      (calls, B), float64: how much the last sweep changed what each call sees, relative to its norm. What
                 calls see up to the first where it is not 0 is exact.
    distance:    (B,), float64: an estimate, not a bound, of the relative distance of the end state: for every end of
                 an accepted stretch what a geometric series with the last observed contraction leaves, carried to
                 the end as the state's norm is. 0 is exact: then every change is.
    rounds, nfe: (B,), int64: what each sample took.

    What is a bound, of a `Picard`: the answer is that of a sequential run of a model whose answers differ from the
    given one's, at every call, by at most ``(L + |slope|) change`` times the norm of what it sees, L being the
    Lipschitz constant of the model between the last two values of that, and slope how `kernels.scan` has followed it.
    """

    change: torch.Tensor
    distance: torch.Tensor
    rounds: torch.Tensor
    nfe: torch.Tensor


def check_start(x: torch.Tensor) -> None:
    """Raise ValueError for what parallel runs cannot start from."""
    if x.requires_grad or transformed():
        raise ValueError("parallel runs record no gradients and cannot be transformed or compiled")


def evaluate(
    asking: Asking,
    timesteps: torch.Tensor,
    batch: int | None,
    models: int,
    nodes: torch.Tensor,
    calls: torch.Tensor,
    samples: torch.Tensor,
) -> list[torch.Tensor]:
    """The model's answers, one tensor like ``nodes`` (N, ...) for every tensor that it returns.

    timesteps: what it is told at every call. calls, samples: int64 (N,) on the CPU, whose nodes these are.
    """
    size, kept = batch or len(nodes), list[torch.Tensor]()
    for k, part in enumerate(nodes.split(size)):
        here = slice(k * size, k * size + len(part))
        answer = asked(asking, part, timesteps[calls[here].to(timesteps.device)], calls[here], samples[here])
        answers = check_answers(answer, part, models)
        kept = kept or [a.new_empty(nodes.shape) for a in answers]
        for rows, a in zip(kept, answers, strict=True):
            rows[here] = a  # a copy: models may use their memory again
    return kept


def where_asked(ask: Evaluate, asks: Sequence[bool], models: int) -> Evaluate:
    """The same answers for calls that ask the model, by their numbers; of others, where they do not count, anything."""
    wanted = torch.tensor(asks, device="cpu")

    def evaluate_some(nodes: torch.Tensor, calls: torch.Tensor, samples: torch.Tensor) -> list[torch.Tensor]:
        rows = wanted[calls].nonzero().flatten()
        if len(rows) == len(calls):
            return ask(nodes, calls, samples)
        if not len(rows):
            return [nodes] * models
        at = rows.to(nodes.device)
        found = ask(nodes[at], calls[rows], samples[rows])
        return [torch.zeros_like(nodes, dtype=a.dtype).index_copy(0, at, a) for a in found]

    return evaluate_some


def asked(
    asking: Asking, nodes: torch.Tensor, timesteps: torch.Tensor, calls: torch.Tensor, samples: torch.Tensor
) -> Any:
    """The model's answer; errors say that there are more rows than samples."""
    try:
        answer = asking.rows(nodes, timesteps, calls, samples)
        return check_output(answer, nodes) if isinstance(answer, torch.Tensor) else answer
    except Exception as error:
        error.add_note(
            f"a parallel run has given the model {len(nodes)} rows, samples times calls of the window: conditions "
            "that it has caught in a closure do not follow; give them as Denoiser(..., conditions={name: tensor})"
        )
        raise


def check_conditions(model: Any, batch: int) -> None:
    """ValueError for a `functools.partial` with tensors that look like one row per sample, of several."""
    given = [*model.args, *model.keywords.values()] if isinstance(model, partial) else []
    if batch > 1 and any(isinstance(y, torch.Tensor) and y.ndim and len(y) == batch for y in given):
        raise ValueError(
            f"the model is a partial with a tensor of {batch} rows, as many as there are samples; a parallel run asks "
            "for samples times calls of the window at once: give it as Denoiser(..., conditions={name: tensor})"
        )


class Noises:
    """What the calls add, made for the whole batch as the sequential run does: by its address, or, of a function, in
    the order of the calls, and kept while it may be needed again: to the end if what a function gave is to be had
    from `again`."""

    def __init__(
        self, lowered: Lowered, source: NoiseFunction | Seeds | None, like: torch.Tensor, keep: bool = False
    ) -> None:
        if lowered.program.noises and source is None:
            raise ValueError("this program adds noise; give seed= or noise=")
        self.lowered, self.source, self.like = lowered, source, like
        self.keep = keep and not isinstance(source, Seeds)
        self.columns = recurrence(lowered.updates).noises
        self.made: dict[int, list[torch.Tensor]] = {}
        self.next = 0

    def call(self, n: int) -> list[torch.Tensor]:
        """(B, ...) per column."""
        if not self.columns:
            return []
        if isinstance(self.source, Seeds) and n not in self.made:
            self.made[n] = self._make(n)
        while self.next <= n and not isinstance(self.source, Seeds):
            self.made[self.next] = self._make(self.next)
            self.next += 1
        return self.made[n]

    def rows(self, calls: slice, sample: int) -> list[torch.Tensor]:
        """(W, 1, ...) per column."""
        of_calls = [self.call(n) for n in range(calls.start, calls.stop)] if self.columns else []
        return [torch.stack([z[sample : sample + 1] for z in column]) for column in zip(*of_calls, strict=True)]

    def drop(self, first: int) -> None:
        for n in [n for n in self.made if n < first and not self.keep]:
            del self.made[n]

    def again(self) -> NoiseFunction | Seeds | None:
        """A source of the same noise for another run."""
        if isinstance(self.source, Seeds):
            return self.source
        given: dict[NoiseKey, torch.Tensor] = {}
        for n, added in self.made.items():
            keys = self.lowered.program.calls[n].noises
            given.update(zip(keys, added, strict=False))  # columns that the call does not have are 0
        return lambda key, like: given[key]

    def _make(self, n: int) -> list[torch.Tensor]:
        ask: Any = Addressed(self.source) if isinstance(self.source, Seeds) else self.source
        wide = self.lowered.updates.dtypes[0]
        found = [ask(key, self.like).to(wide) for key in self.lowered.program.calls[n].noises]
        return found + [torch.zeros_like(self.like, dtype=wide)] * (self.columns - len(found))
