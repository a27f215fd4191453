"""Log-likelihood along the PF-ODE: the change of variables of a continuous flow.

Along the flow ``d log p(x) / dlam = -div(dx/dlam)`` (Chen et al. 2018, theorem 1; Song et al. 2021, 4.3; book 6.2), so
the log-density of data is that of the noise it comes from plus an integral of the divergence.

With z = x / sigma the flow is dz/dlam = e^lam x0, and ``u = log p(z)`` has du/dlam = -alpha div x0. So ``sigma u``
moves as an element of the state does whose x0 is ``-sigma div x0``: any table of a solver, and any adaptive one,
carries it along as some more elements of the state.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..solvers.denoisers.answers import check_state, convert
from ..solvers.denoisers.asking import column
from ..solvers.denoisers.complex_states import from_parts, of_parts, to_parts
from ..solvers.denoisers.denoiser import Denoiser, check_denoiser
from ..solvers.denoisers.heads import Level, network_rate
from ..solvers.programs.program import Program
from ..solvers.sampling import solve
from .divergence import ENOUGH, Trace, trace
from .likelihood_checks import RK4, check_numbers, check_range, span, warn_of_latent
from .likelihood_path import Frame, rk4

STEPS = 100
TINY = 1e-6  # a skewness that is none
ROUNDING = 1e-11  # of the value: what sums over hundreds of evaluations lose


@dataclass(frozen=True, eq=False)
class LogLikelihood:
    """value: float64 (B,), nats. error: (B,), its standard error by the random probes, 0 for the exact divergence. Of
    few probes it is itself uncertain: `interval` knows how much.
    latent: (B, ...), the noise that the data comes from. nfe: evaluations per sample, derivatives left out.
    estimates: how many independent ones the value is the mean of. skewness: (B,), that of these."""

    value: torch.Tensor
    error: torch.Tensor
    latent: torch.Tensor = field(repr=False)
    nfe: int
    estimates: int = 1
    skewness: torch.Tensor | float = 0.0

    def bits_per_dimension(self, offset: float = 0.0) -> torch.Tensor:
        """(B,): -value / (D log 2) + offset. Data of 256 levels that was scaled to [-1, 1] and dequantised by uniform
        noise has the offset 7. A complex number has two dimensions."""
        size = self.latent.shape[1:].numel() * (2 if self.latent.is_complex() else 1)
        return -self.value / (size * math.log(2)) + offset

    def interval(self, level: float = 0.95) -> tuple[torch.Tensor, torch.Tensor]:
        """Between which two values (B,) the exact divergence's lies with probability ``level``: by Student's t, as of
        few probes the error is itself uncertain, and less the skewness of the estimates (Hall 1992, "On the removal of
        skewness by transformation"). An end that this draws in goes half of the way, as few estimates have a skewness
        by chance. Less than 8 do not show theirs: of n the tails are those of (n / 8)^2 of the probability, by which
        the most skew ones, of one direction, are covered, and others more than covered. The error of the steps is not
        in it, that of rounding is."""
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, not {level!r}")
        from scipy.special import stdtrit

        n, rounding = self.estimates, ROUNDING * (1 + self.value.abs())
        if n < 2:
            return self.value - self.error - rounding, self.value + self.error + rounding
        tails = (1 - level) * min(n / ENOUGH, 1.0) ** 2
        far = float(stdtrit(n - 1, 1 - tails / 2)) / math.sqrt(n)
        low, high = (math.sqrt(n) * self.error * self._hall(t) for t in (far, -far))
        return self.value - low - rounding, self.value - high + rounding

    def _hall(self, t: float) -> torch.Tensor:
        """The end t of Student's interval, in deviations, without the skewness, or half of the way to that."""
        n, skew = self.estimates, torch.as_tensor(self.skewness, dtype=torch.float64)
        known = skew.abs() > TINY
        z = t - skew / (6 * n)
        cube = 1 + skew * z
        w = 3 * (cube.sign() * cube.abs() ** (1 / 3) - 1) / torch.where(known, skew, 1.0)
        w = torch.where(known, w, z)
        return torch.where(w.abs() < abs(t), (w + t) / 2, w)


def log_likelihood(
    den: Denoiser,
    x: torch.Tensor,
    *,
    method: str = "exact",
    solver: Any = RK4,
    steps: int | None = None,
    grid: Any = None,
    rtol: float | None = None,
    atol: float | None = None,
    probes: int = 8,
    seed: int = 0,
    t_start: float | None = None,
    t_end: float | None = None,
    prior: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> LogLikelihood:
    """log p(x) of ``x`` (B, ...), states at t_end, by the flow of ``den``; computed in float64.

    method: "exact" takes the divergence by one derivative per element (for small samples); "hutchinson" by random
            signs, the same along the whole path; "hutch++" takes a third of the probes to see where the divergence
            comes from, and a third to take it there, which leaves less to chance; fewer of less than 24, so that 8 are
            left where they can. Both tell their standard error.
    solver: "rk4", the classical Runge-Kutta method in lam, whose errors the score takes back; or what `logsnr.solve`
            takes: the name of a solver without noise, a program from t_end to t_start, or an adaptive solver with
            ``rtol`` and ``atol``.
    steps, grid: of the solver. For "rk4" 100 steps by default, equal in lam, of 7 evaluations each, 4 with derivatives.
    probes: derivatives at every evaluation, of the random methods.
    prior:  log-density (B,) of states at t_start; by default that of N(0, sigma^2), pure noise.

    The density is that of the marginal at t_end, a state with noise of sigma(t_end). Raises ValueError for other
    methods and numbers, for spans that end at infinite lam (the noisy end may, where the solver is not "rk4"), for x
    so large that alpha x is no small part of sigma at t_start, which N(0, sigma^2) does not describe, and for models
    through which there are no gradients. Warns where the latent is not as large as pure noise: x is then far from what
    the model was trained on.
    """
    check_denoiser(den)
    check_state(x, complex_too=True)
    check_numbers(method, steps, probes)
    if x.is_complex():  # the density of the real and imaginary parts together
        density = prior and (lambda parts: prior(from_parts(parts)))
        found = log_likelihood(
            of_parts(den, x), to_parts(x), method=method, solver=solver, steps=steps, grid=grid, rtol=rtol, atol=atol,
            probes=probes, seed=seed, t_start=t_start, t_end=t_end, prior=density,
        )  # fmt: skip
        return replace(found, latent=from_parts(found.latent))
    first, last = span(den, t_start, t_end, solver)
    state = x.detach().to(torch.float64)
    if not bool(state.isfinite().all()):
        raise ValueError("x holds infinities or NaNs, which have no likelihood")
    if prior is None:
        check_range(den, state, first, last)
    flow = Flow(den, trace(method, state, probes, seed))
    if isinstance(solver, str) and solver == RK4:
        if given := [n for n, v in (("grid", grid), ("rtol", rtol), ("atol", atol)) if v is not None]:
            raise ValueError(f"{RK4} takes steps equal in lam; leave out {' and '.join(given)}")
        clean, noisy = (float(den.schedule.half_logsnr(t)) for t in (last, first))
        frame = Frame(den.schedule, flow.x0, flow.at, den.spread)
        latent, gained = rk4(frame, state, clean, noisy, steps or STEPS)
    else:
        options = {"solver": solver, "steps": steps, "grid": grid, "rtol": rtol, "atol": atol}
        latent, gained = _solved(flow, state, first, last, options)
    sigma = den.spread * float(den.schedule.sigma(first))
    if prior is None:
        warn_of_latent(latent / sigma)
    values = (_normal(latent, sigma) if prior is None else prior(latent).double()) + gained
    return from_estimates(values, latent.to(x.dtype), flow.nfe)


def from_estimates(values: torch.Tensor, latent: torch.Tensor, nfe: int = 0) -> LogLikelihood:
    """The mean of independent estimates (n, B), and what they tell of its error."""
    known = len(values) > 1 and values.numel() > 0
    error = values.std(0) / math.sqrt(len(values)) if known else torch.zeros_like(values[0])
    return LogLikelihood(values.mean(0), error, latent, nfe, len(values), _skewness(values))


class Flow:
    """What a denoiser says of x0, and the trace of its Jacobian; nfe: evaluations so far."""

    def __init__(self, den: Denoiser, traces: Trace) -> None:
        self.den, self.traces, self.nfe = den, traces, 0

    def at(self, x: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor]:
        """What it says at one time."""
        return self(x, x.new_full((len(x),), t))

    def x0(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """The first alone, at one time."""
        with torch.no_grad():
            return self._asked(x, x.new_full((len(x),), t))[0]

    def _asked(self, y: torch.Tensor, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x0, and what the model has answered."""
        den, head = self.den, self.den.answers
        self.nfe += int(den.evaluations(times[:1].cpu().numpy())[0]) if len(times) else 0
        a, b = (np.full(len(y), c) for c in convert(head, "x0", Level.at(den.schedule, times.cpu().numpy())))
        answer = den.predict(y.to(den.dtype(y)), times)
        return column(a, y) * y + network_rate(head, den.schedule) * column(b, y) * answer.to(y.dtype), answer

    def __call__(self, x: torch.Tensor, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, ...) and (rows, B) for x at the schedule's times (B,), all float64."""
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            x0, answer = self._asked(y, times)
            if not answer.requires_grad:
                raise ValueError(
                    "likelihood needs gradients through the model, and its answer has none to x: is it, or the "
                    "caller, in no_grad or inference mode?"
                )

            def product(v: torch.Tensor) -> torch.Tensor:
                (found,) = torch.autograd.grad(x0, y, v.reshape(y.shape), retain_graph=True)
                return _flat(found)

            traces = self.traces(product).detach()
        return x0.detach(), traces


def _solved(
    flow: Flow, x: torch.Tensor, first: float, last: float, options: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by any solver, of the state with ``sigma log p(x / sigma)`` beside it."""
    sch, size, rows = flow.den.schedule, x.shape[1:].numel(), flow.traces.rows

    def model(joint: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        x0, traces = flow(joint[:, :size].reshape(x.shape), times)
        sigma = column(sch.sigma(times.cpu().numpy()), joint)
        return torch.cat([_flat(x0), -sigma * traces.T], 1)

    def refused(*_: object) -> torch.Tensor:
        raise ValueError(f"solver = {options['solver']!r} adds noise: a likelihood is that of a flow")

    joint = Denoiser(model, sch, "x0", time=_same)
    start = torch.cat([_flat(x), x.new_zeros(len(x), rows)], 1)
    ends: dict[str, Any] = {} if isinstance(options["solver"], Program) else {"t_start": last, "t_end": first}
    with torch.no_grad():
        end = solve(joint, start, noise=refused, **ends, **options).x
    sigma, before = float(sch.sigma(first)), float(sch.sigma(last))
    return end[:, :size].reshape(x.shape), size * math.log(sigma / before) - end[:, size:].T / sigma


def _same(t: torch.Tensor) -> torch.Tensor:
    return t


def _flat(x: torch.Tensor) -> torch.Tensor:
    """(B, D)."""
    return x.reshape(len(x), x.shape[1:].numel())


def _normal(x: torch.Tensor, sigma: float) -> torch.Tensor:
    flat = _flat(x) / sigma
    return -0.5 * flat.square().sum(1) - flat.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(sigma))


def _skewness(values: torch.Tensor) -> torch.Tensor:
    """(B,), of a sample (n, B), as the cumulants say it without bias; 0 where all are the same, or too few to tell."""
    n, apart = len(values), values - values.mean(0)
    square = apart.square().mean(0)
    if n < 3:
        return torch.zeros_like(square)
    known = square > 0
    skew = apart.pow(3).mean(0) / torch.where(known, square, 1.0) ** 1.5
    return torch.where(known, skew, 0.0) * (math.sqrt(n * (n - 1)) / (n - 2))
