"""Runs that stop being finite: where that began, and in which samples."""

from collections.abc import Sequence

import torch

MANY = 8  # samples that an error names


class NonFiniteError(FloatingPointError):
    """The model returned an infinity or a NaN, or the state overflowed.

    call: counts from 0. calls: of the program. t: the schedule's time of the call. samples: those that are not finite,
    as far as that is known. state: whether it was the state, and not the model's answer.
    """

    def __init__(
        self, call: int, calls: int, t: float, samples: Sequence[int] = (), batch: int = 0, state: bool = False
    ) -> None:
        super().__init__(call, calls, t, tuple(samples), batch, state)  # what pickle makes it again with
        self.call, self.calls, self.t = call, calls, float(t)
        self.samples, self.batch, self.state = tuple(samples), batch, state

    def __str__(self) -> str:
        what = "the state is no longer finite" if self.state else "the model returned a non-finite value"
        return f"{what} at call {self.call + 1} of {self.calls}, t = {self.t:.6g}{named(self.samples, self.batch)}"


def named(samples: Sequence[int], batch: int) -> str:
    """The end of a sentence about some samples of a batch."""
    if not samples:
        return ""
    more = f" and {len(samples) - MANY} more" if len(samples) > MANY else ""
    listed = ", ".join(map(str, samples[:MANY]))
    hint = '; on_nan="keep" returns the others' if len(samples) < batch else ""
    return f", in sample{'s' * (len(samples) > 1)} {listed}{more} of {batch}{hint}"


def broken_samples(*tensors: torch.Tensor) -> tuple[int, ...]:
    """The numbers of the samples in which one of the tensors (B, ...) is not finite. It reads values: a GPU stops."""
    bad = torch.zeros(len(tensors[0]), dtype=torch.bool, device=tensors[0].device)
    for x in tensors:
        bad |= ~x.detach().isfinite().reshape(len(x), -1).all(1)
    return tuple(bad.nonzero().flatten().tolist())


def not_finite(
    x: torch.Tensor, call: int, calls: int, t: float, answers: Sequence[torch.Tensor] = ()
) -> ValueError | NonFiniteError:
    """The error for call number ``call``, whose ``answers`` are looked at, if they are known, for the samples.

    x is looked at only now, as reading it before would cost a pass and stop a GPU.
    """
    if found := broken_samples(x):
        return ValueError(f"x holds infinities or NaNs{named(found, len(x))}")
    samples = broken_samples(*answers) if answers else ()
    return NonFiniteError(call, calls, t, samples, len(x), state=bool(answers) and not samples)
