"""One step of the PF-ODE, from a time to a time of each sample's own, with gradients: what distillation is made of.

A DDIM step is the whole PF-ODE for a frozen pair (x0, eps), ``x_t = alpha_t x0 + sigma_t eps`` (book 9.2.3). With a
network that returns ``p x0 + q eps`` at s it reads ``x_t = P x_s + Q answer``,

    P = (alpha_t q - sigma_t p) / M,    Q = (alpha_s sigma_t - alpha_t sigma_s) / M,    M = alpha_s q - sigma_s p,

for every head: one division by a number that is 0 only where the head does not determine the step.
"""

from typing import Any

import torch

from ..kernels import transformed
from ..solvers.denoisers.answers import check_state
from ..solvers.denoisers.complex_states import from_parts, of_parts, to_parts
from ..solvers.denoisers.denoiser import Denoiser, check_denoiser, per_sample_times
from ..solvers.denoisers.heads import Level, from_pair, network_rate
from ..solvers.names import nearest
from ..solvers.schedules.base import Schedule

SOLVERS = ("ddim", "heun-rho")
SLACK = 1e-6  # of the span of times: what a rounding to fp32 may add


def step(
    den: Denoiser, x: torch.Tensor, s: Any, t: Any, *, solver: str = "ddim", reverse: bool = False
) -> torch.Tensor:
    """Phi_{s->t}(x) by one step: what ``logsnr.sample(den, x, solver=solver, grid=[s, t])`` gives, for times of each
    sample's own and with gradients to x and the model's weights.

    x:      (B, ...), floating or complex; the result has its shape and dtype, and is computed in fp32 at least.
    s, t:   numbers or tensors (B,), times of the schedule; s = t leaves a sample as it is.
    solver: "ddim", one evaluation, or "heun-rho", two: the trapezoidal rule for x/alpha in sigma/alpha (Heun of Karras
            et al. 2022, the teacher of Song et al. 2023), which is a DDIM step where alpha_s or sigma_t is 0.
    reverse: let steps go to more noise too, as encoding does.

    Coefficients are float64. Raises ValueError for times outside the schedule and in the wrong order, and where the
    model's head does not determine the step, as eps does not at alpha = 0; nobody can look at times inside torch.func,
    torch.compile and CUDA graphs.
    """
    check_denoiser(den)
    check_state(x, complex_too=True)
    if x.is_complex():
        return from_parts(step(of_parts(den, x), to_parts(x), s, t, solver=solver, reverse=reverse))
    if solver not in SOLVERS:
        raise ValueError(f"solver = {solver!r} is not a one-step solver of flow maps{nearest(solver, SOLVERS)}")
    s, t = span(den.schedule, x, s, t, reverse=reverse)
    answer, wide = asked(den, x, s)
    end = linear(x.to(wide), answer, *coefficients(den.answers, den.schedule, s, t))
    if solver == "heun-rho":
        end = _corrected(den, x.to(wide), answer, end, s, t)
    return end.to(x.dtype)


def span(sch: Schedule, x: torch.Tensor, s: Any, t: Any, *, reverse: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Both times as float64 (B,) in the schedule's domain; ValueError for others, and unless t <= s or ``reverse``."""
    low, high = sch.domain
    slack, times = SLACK * (high - low), []
    on_device = any(isinstance(given, torch.Tensor) and not given.is_cpu for given in (s, t))
    like = x if on_device else torch.empty(len(x), 0)  # looked at without a device that would have to wait
    for name, given in (("s", s), ("t", t)):
        try:
            time = per_sample_times(given, like)
        except (TypeError, RuntimeError):
            raise TypeError(f"{name} must be a number or numbers (B,), not {given!r:.60}") from None
        if visible(time):
            wrong = ~((time >= low - slack) & (time <= high + slack))
            if wrong.any():
                n = int(wrong.nonzero()[0])
                raise ValueError(
                    f"{name}[{n}] = {float(time[n]):.6g} is outside the times of {sch}, {low:.6g} to {high:.6g}"
                )
        times.append(time.clamp(low, high))
    if not reverse and visible(times[0]) and (times[1] > times[0]).any():
        n = int((times[1] > times[0]).nonzero()[0])
        raise ValueError(
            f"sample {n} would go from s = {float(times[0][n]):.6g} to t = {float(times[1][n]):.6g}, where there is "
            "more noise: a step goes from s, noisier, to t, cleaner"
        )
    return times[0], times[1]


def visible(time: torch.Tensor) -> bool:
    """Whether the values of times can be looked at."""
    return not (transformed() or (time.is_cuda and torch.cuda.is_current_stream_capturing()) or time.is_meta)


def asked(den: Denoiser, x: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.dtype]:
    """The head `Denoiser.answers` at times s (B,), on the schedule's clock, and the dtype to go on in."""
    wide = den.state_dtype(x)
    return network_rate(den.answers, den.schedule) * den.predict(x.to(den.dtype(x)), s).to(wide), wide


def coefficients(head: str, sch: Schedule, s: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(P, Q), float64 (B,), with ``x_t = P x_s + Q answer`` for a frozen ``head``; 1 and 0 where s = t."""
    at = Level.at(sch, s)
    alpha, sigma, still = sch.alpha(t), sch.sigma(t), s == t
    p, q = from_pair(head, at)
    norm = at.alpha * q - at.sigma * p
    share, gain = (alpha * q - sigma * p) / norm, -advance(sch, s, t) / norm
    share, gain = torch.where(still, 1.0, share), torch.where(still, 0.0, gain)
    if visible(share) and (blind := ~(share.isfinite() & gain.isfinite())).any():
        n = int(blind.nonzero()[0])
        raise ValueError(
            f"the head {head!r} does not determine the step of sample {n} from s = {float(s[n]):.6g}, where alpha = "
            f"{float(at.alpha[n]):.6g} and sigma = {float(at.sigma[n]):.6g}: use another head or another time"
        )
    return share, gain


def advance(sch: Schedule, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """``alpha_t sigma_s - alpha_s sigma_t``, float64 (B,), without cancellation, the ends of the schedule included."""
    h = sch.half_logsnr(t) - sch.half_logsnr(s)
    cleaner = -sch.alpha(t) * sch.sigma(s) * torch.expm1(-h)
    noisier = sch.alpha(s) * sch.sigma(t) * torch.expm1(h)
    return torch.where(s == t, 0.0, torch.where(h > 0, cleaner, noisier))


def linear(x: torch.Tensor, answer: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``a x + b answer`` with a and b (B,), in x's dtype."""
    a, b = column(a, x), column(b, x)
    return a * x + b * answer


def column(c: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Numbers (B,) as (B, 1, ...), in the dtype and on the device of x."""
    return c.to(x.device, x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def part(name: str, head: str, sch: Schedule, s: torch.Tensor, x: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    """What an answer of ``head`` at times s (B,) says of "x0" or "eps"; infinite or NaN where it says nothing."""
    if head == name:
        return answer
    at = Level.at(sch, s)
    p, q = from_pair(head, at)
    a, b = (q, -at.sigma) if name == "x0" else (-p, at.alpha)
    norm = at.alpha * q - at.sigma * p
    return linear(x, answer, a / norm, b / norm)


def _corrected(
    den: Denoiser, x: torch.Tensor, answer: torch.Tensor, end: torch.Tensor, s: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    """The step ``x_t' = end`` with the mean of eps at both ends in place of that at s, where both are known."""
    sch = den.schedule
    known = (s != t) & (sch.alpha(s) > 0) & (sch.alpha(t) > 0) & (sch.sigma(s) > 0) & (sch.sigma(t) > 0)
    inside = sch.time(torch.zeros_like(s))  # a time to ask at where neither is used
    a, b = torch.where(known, s, inside), torch.where(known, t, inside)
    later, _ = asked(den, end, b)
    change = part("eps", den.answers, sch, b, end, later) - part("eps", den.answers, sch, a, x, answer)
    gain = torch.where(known, -advance(sch, a, b) / sch.alpha(a) / 2, 0.0)
    mask = column(known, x) != 0
    return torch.where(mask, end + column(gain, x) * change, end)
