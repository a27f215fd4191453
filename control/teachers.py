"""What a teacher tells a student: targets and gradients of the published ways to distil a denoiser (book, chapter 10).

Everything takes times per sample, and states, samples and noise of one shape (B, ...), all floating or all complex, of
unit power, with gradients as torch has them of complex tensors; noise is an argument, so that
what is told is a function of it. Nothing records gradients: what comes back is to be compared with, or multiplied by,
what the student makes.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from ..solvers.denoisers.answers import check_state
from ..solvers.denoisers.complex_states import from_parts, of_parts, to_parts
from ..solvers.denoisers.denoiser import Denoiser, check_denoiser
from ..solvers.denoisers.heads import HEADS, Level, from_pair, network_rate
from ..solvers.names import head_hint, nearest
from ..solvers.schedules.base import Schedule
from .one_step import asked, coefficients, column, linear, part, span, step, visible

Weight = str | Callable[[torch.Tensor], torch.Tensor]
WEIGHTS = ("kl", "sigma2", "dmd")


class Progressive(NamedTuple):
    """target: what the student should return at (x, s). end: where the teacher's steps end."""

    target: torch.Tensor
    end: torch.Tensor


@torch.no_grad()
def progressive_target(
    teacher: Denoiser, x: torch.Tensor, times: Sequence[Any], *, head: str | None = None
) -> Progressive:
    """The answer with which one DDIM step from the first of ``times`` to the last ends where the teacher's DDIM steps
    through all of them end (Salimans and Ho 2022, Algorithm 2; book Lemma 10.3.1). Both like x.

    times: three or more, numbers or (B,), strictly decreasing: s, u, t for two steps of the teacher to one.
    head:  of the student; by default that of the teacher.

    The published quotient of differences loses its digits as steps shrink, and is 0/0 at alpha_s = 0 for eps. Here the
    x0 is the teacher's x0 averaged over its steps, with weights proportional to the growth of alpha/sigma, and the eps
    is its eps, with weights proportional to the fall of sigma/alpha; the head is made of both.

    Raises ValueError for times that do not decrease, and for heads that do not determine the step, as eps at alpha = 0.
    """
    check_denoiser(teacher, "teacher")
    head = teacher.prediction if head is None else head
    if head not in HEADS:
        raise ValueError(f"head = {head!r} is not one{head_hint(head)}")
    if len(times) < 3:
        raise ValueError(f"times must be three or more, s > u > t, not {len(times)}")
    check_state(x, complex_too=True)
    if x.is_complex():
        parts = progressive_target(of_parts(teacher, x), to_parts(x), times, head=head)
        return Progressive(*map(from_parts, parts))
    sch, at = teacher.schedule, _decreasing(teacher.schedule, x, times)
    coefficients(head, sch, at[0], at[-1])  # refuses a head that does not determine the step
    lam = [sch.half_logsnr(t) for t in at]
    p, q = from_pair(head, Level.at(sch, at[0]))
    state = x.to(teacher.state_dtype(x))
    x0, eps = torch.zeros_like(state), torch.zeros_like(state)
    for k, (s, t) in enumerate(pairwise(at)):
        answer, _ = asked(teacher, state, s)
        share = torch.expm1(lam[k] - lam[k + 1]) / torch.expm1(lam[0] - lam[-1])
        last, first = k == len(at) - 2, k == 0
        if _counts(p):
            of_x0 = share if last else share * torch.exp(lam[k + 1] - lam[-1])
            x0 = x0 + column(of_x0, state) * part("x0", teacher.answers, sch, s, state, answer)
        if _counts(q):
            of_eps = share if first else share * torch.exp(lam[0] - lam[k])
            eps = eps + column(of_eps, state) * part("eps", teacher.answers, sch, s, state, answer)
        state = linear(state, answer, *coefficients(teacher.answers, sch, s, t))
    target = sum(_scaled(c, value, state) for c, value in ((p, x0), (q, eps)) if _counts(c))
    return Progressive((network_rate(head, sch) * target).to(x.dtype), state.to(x.dtype))


class Consistency(NamedTuple):
    """Two states of one trajectory: the student's answers at both should agree."""

    x_s: torch.Tensor
    x_t: torch.Tensor


@torch.no_grad()
def consistency_pair(
    teacher: Denoiser | Schedule, x0: torch.Tensor, noise: torch.Tensor, s: Any, t: Any, *, solver: str = "ddim"
) -> Consistency:
    """A noised sample at s, and where it is at t < s; like x0.

    teacher: a denoiser, whose `step` leads from s to t (consistency distillation, Song et al. 2023, book 11.2.4), or a
             schedule: the same sample and noise at t (consistency training, book 11.2.5), which is the step of a
             denoiser that knows the sample.

    Raises ValueError for times in the wrong order, and what `step` raises.
    """
    if not isinstance(teacher, Schedule):
        check_denoiser(teacher, "teacher, if it is no schedule,")
    sch = teacher if isinstance(teacher, Schedule) else teacher.schedule
    check_state(x0, "x0", complex_too=True)
    s, t = span(sch, x0, s, t)
    x_s = noised(sch, x0, noise, s)
    x_t = step(teacher, x_s, s, t, solver=solver) if isinstance(teacher, Denoiser) else noised(sch, x0, noise, t)
    return Consistency(x_s, x_t)


class Matching(NamedTuple):
    """x_t: the noised samples. gradient: with respect to the samples; ``(gradient * x0).sum() / B`` is a loss that
    hands it on to the generator of x0."""

    x_t: torch.Tensor
    gradient: torch.Tensor


@torch.no_grad()
def score_gradient(
    teacher: Denoiser,
    x0: torch.Tensor,
    noise: torch.Tensor,
    t: Any,
    *,
    student: Denoiser | None = None,
    weight: Weight = "kl",
) -> Matching:
    """``w alpha (score of the student - score of the teacher)`` at the generator's samples x0, noised to times t.

    Averaged over x0 and noise it is the gradient of KL(student's p_t || teacher's p_t) for w = 1 (book 10.2.2).

    student: a denoiser of the generator's samples, trained along with it (VSD, DMD); None for score distillation,
             where it is known: the score of the one sample, -noise/sigma (Poole et al. 2023, SDS).
    weight:  "kl", w = 1; "sigma2", w = sigma^2; "dmd": the difference of both x0, over the mean of |x0 - the teacher's
             x0| in each sample (Yin et al. 2024); or a function of lam, float64 (B,), which gives w.

    Everything is taken of v, which is well conditioned at both ends. Raises ValueError where the gradient is not
    finite: "kl" at sigma = 0, "dmd" there for an exact teacher, a head of eps at alpha = 0.
    """
    for name, den in (("teacher", teacher), ("student", teacher if student is None else student)):
        check_denoiser(den, name)
    if isinstance(weight, str) and weight not in WEIGHTS:
        raise ValueError(f"weight = {weight!r} is not one{nearest(weight, WEIGHTS)}; a function of lam is one too")
    check_state(x0, "x0", complex_too=True)
    if student is not None and student.schedule != teacher.schedule:
        raise ValueError(f"student and teacher must have one schedule, not {student.schedule} and {teacher.schedule}")
    if x0.is_complex():
        _check_noise(x0, noise)
        other = student and of_parts(student, x0)
        pair, known = (to_parts(x0), to_parts(noise, "noise")), of_parts(teacher, x0)
        return Matching(*map(from_parts, score_gradient(known, *pair, t, student=other, weight=weight)))
    sch, clean = teacher.schedule, x0.to(teacher.state_dtype(x0))
    t, _ = span(sch, x0, t, t)
    x_t = noised(sch, clean, noise, t)
    alpha, sigma = sch.alpha(t), sch.sigma(t)
    v = linear(noise.to(clean), clean, alpha, -sigma) if student is None else student.v(x_t, t)
    change, norm = teacher.v(x_t, t) - v, alpha * alpha + sigma * sigma
    if weight == "dmd":
        gain = sigma / norm / _rows(clean - teacher.x0(x_t, t)).abs().mean(1).to(sigma)
    elif weight == "sigma2":
        gain = sigma * alpha * alpha / norm / teacher.spread**2
    else:
        w = weight(sch.half_logsnr(t)) if callable(weight) else 1.0
        gain = w * alpha * alpha / (sigma * norm * teacher.spread**2)
    gradient = column(gain, clean) * change
    if visible(gradient) and not (finite := _rows(gradient).isfinite().all(1)).all():
        n = int((~finite).nonzero()[0])
        raise ValueError(f"the gradient of sample {n} is not finite at t = {float(t[n]):.6g}: take times inside")
    return Matching(x_t.to(x0.dtype), gradient.to(x0.dtype))


def noised(sch: Schedule, x0: torch.Tensor, noise: torch.Tensor, t: Any) -> torch.Tensor:
    """``alpha_t x0 + sigma_t noise`` for times t, a number or (B,): like x0, computed in fp32 at least."""
    check_state(x0, "x0", complex_too=True)
    _check_noise(x0, noise)
    if x0.is_complex():
        return from_parts(noised(sch, to_parts(x0), to_parts(noise, "noise"), t))
    t, _ = span(sch, x0, t, t)
    wide = torch.promote_types(x0.dtype, torch.float32)
    return linear(x0.to(wide), noise.to(x0.device, wide), sch.alpha(t), sch.sigma(t)).to(x0.dtype)


def _check_noise(x0: torch.Tensor, noise: torch.Tensor) -> None:
    if noise.shape != x0.shape:
        raise ValueError(f"noise must have the shape of x0, {tuple(x0.shape)}, not {tuple(noise.shape)}")
    if noise.is_complex() and not x0.is_complex():
        raise ValueError(f"noise is {noise.dtype}, and x0 is real: {x0.dtype}")


def _rows(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1) if x.ndim > 1 else x[:, None]


def _decreasing(sch: Schedule, x: torch.Tensor, times: Sequence[Any]) -> list[torch.Tensor]:
    pairs = [span(sch, x, s, t) for s, t in pairwise(times)]
    for k, (s, t) in enumerate(pairs):
        if visible(s) and (s == t).any():
            raise ValueError(f"times must decrease, but times {k} and {k + 1} are both {float(s[s == t][0]):.6g}")
    return [pairs[0][0], *(t for _, t in pairs)]


def _counts(weight: Any) -> bool:
    return not (isinstance(weight, float) and weight == 0)


def _scaled(c: Any, value: Any, like: torch.Tensor) -> Any:
    return c * value if isinstance(c, float) else column(c, like) * value
