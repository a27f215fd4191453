"""Runs that stop being finite: where that began, and in which samples."""

import math
from collections.abc import Sequence

import numpy as np
import torch

MANY = 8  # samples that an error names


class NonFiniteError(FloatingPointError):
    """The model returned an infinity or a NaN, or the state or the result stopped being finite.

    call: the number of the call, from 0, if it is known; of a state, of the call that has noticed, as every fourth call
    looks. t: the schedule's time of it. samples: those that are not finite, as far as that is known.
    """

    def __init__(self, text: str, call: int | None = None, t: float | None = None, samples: Sequence[int] = ()) -> None:
        super().__init__(text, call, t, tuple(samples))  # what pickle makes it again with
        self.call, self.t, self.samples = call, t, tuple(samples)

    def __str__(self) -> str:
        return str(self.args[0])

    @classmethod
    def at(
        cls, call: int, calls: int, t: float, samples: Sequence[int], batch: int, *, state: bool = False
    ) -> "NonFiniteError":
        """At call number ``call`` of ``calls``; ``state``: it was the state, and not the model's answer."""
        what = "the state is no longer finite" if state else "the model returned a non-finite value"
        text = f"{what} at call {call + 1} of {calls}, t = {t:.6g}{named(samples, batch)}"
        return cls(text, call, float(t), samples)


def named(samples: Sequence[int], batch: int, *, hint: bool = True) -> str:
    """The end of a sentence about some samples of a batch, with what to do about them."""
    if not samples:
        return ""
    more = f" and {len(samples) - MANY} more" if len(samples) > MANY else ""
    listed = ", ".join(map(str, samples[:MANY]))
    advice = '; on_nan="keep" returns the others' if hint and len(samples) < batch else ""
    return f", in sample{'s' * (len(samples) > 1)} {listed}{more} of {batch}{advice}"


def all_finite(x: torch.Tensor) -> bool:
    """Whether all elements are finite; on the CPU without torch's threads, which a forked child would wait for."""
    x = x.detach()
    if not x.is_cpu:
        return math.isfinite(float(x.sum())) or bool(x.isfinite().all())
    if x.dtype is torch.bfloat16:
        return not ((x.view(torch.int16).numpy() & 0x7F80) == 0x7F80).any()
    with np.errstate(all="ignore"):  # a finite sum has no infinity and no NaN in it
        return math.isfinite(x.numpy().sum()) or bool(np.isfinite(x.numpy()).all())


def broken_samples(*tensors: torch.Tensor) -> tuple[int, ...]:
    """The numbers of the samples in which one of the tensors (B, ...) is not finite. It reads values: a GPU stops."""
    bad = torch.zeros(len(tensors[0]), dtype=torch.bool, device=tensors[0].device)
    for x in tensors:
        bad |= ~x.detach().isfinite().reshape(len(x), -1).all(1)
    return tuple(bad.nonzero().flatten().tolist())


def not_finite(
    x: torch.Tensor,
    call: int,
    calls: int,
    t: float,
    answers: Sequence[torch.Tensor] = (),
    samples: Sequence[int] = (),
    state: torch.Tensor | None = None,
) -> ValueError | NonFiniteError:
    """The error for call number ``call`` and these ``samples``, or those in which its ``answers`` are not finite, or
    else the ``state`` behind it.

    x is looked at only now, as reading it before would cost a pass and stop a GPU.
    """
    if found := broken_samples(x):
        return ValueError(f"x holds infinities or NaNs{named(found, len(x))}")
    samples = samples or (broken_samples(*answers) if answers else ())
    if samples or not answers:
        return NonFiniteError.at(call, calls, t, samples, len(x))
    samples = () if state is None else broken_samples(state)
    return NonFiniteError.at(call, calls, t, samples, len(x), state=True)
