"""Samplers of k-diffusion that take both ends of sigma and lay the steps between them themselves.

    sample_dpm_adaptive(model, x, sigma_min, sigma_max, extra_args=None, callback=None, disable=None, **options)

chooses them by the error of an embedded pair, one step for the whole batch; `logsnr.solve` with ``solver="dpm-23"``
does so sample by sample.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...solvers.arrays import Array
from ...solvers.denoisers.answers import check_state
from ...solvers.finite import NonFiniteError
from ...solvers.planners.ancestral import kept
from ...solvers.planners.checks import nonnegative, number
from ...solvers.planners.gauges import Nodes
from ...solvers.planners.pairs import Row, RungeKuttaPair
from ...solvers.planners.tableaux import DPM_12, DPM_23

PAIRS = {2: RungeKuttaPair("eps", DPM_12), 3: RungeKuttaPair("eps", DPM_23)}
PAST = np.zeros((1, 0))
END, LEAST, MOST = 1e-5, 1e-8, 10_000  # in lam, where a run is done; added to errors; steps


def levels_of(sigmas: Any) -> Array:
    """float64 sigmas that decrease, equal neighbours made one; ValueError for others."""
    values = sigmas.detach().double().cpu().numpy() if isinstance(sigmas, torch.Tensor) else sigmas
    levels = np.asarray(values, dtype=np.float64)
    if levels.ndim != 1 or not np.isfinite(levels).all():
        raise ValueError(f"sigmas must be a list of finite numbers, not {sigmas!r:.60}")
    levels = levels[np.concatenate([[True], np.diff(levels) != 0])] if len(levels) else levels
    if (np.diff(levels) > 0).any() or (levels < 0).any():
        raise ValueError(f"sigmas must decrease, the last may be 0, not {levels.tolist()!s:.80}")
    return levels


def between(function: Callable[..., Any], counted: bool, fixed: dict[str, Any]) -> Callable[..., Any]:
    """``sample(model, x, sigmas, ...)`` of a function of both ends, as ComfyUI has it: from the first sigma to the last
    that is not 0. counted: whether it takes the number of steps as well."""

    def sample(
        model: Any,
        x: torch.Tensor,
        sigmas: Any,
        extra_args: dict[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        disable: bool | None = None,
        **options: Any,
    ) -> Any:
        check_state(x)
        levels = levels_of(sigmas)
        if len(levels) < 2:
            return x
        ends = float(levels[levels > 0][-1]), float(levels[0])
        steps = (len(levels) - 1,) * counted
        return function(model, x, *ends, *steps, extra_args, callback, disable, **{**fixed, **options})

    sample.__name__ = sample.__qualname__ = function.__name__
    return sample


@dataclass
class Steps:
    """k-diffusion's controller: a step is followed by one that is 1 + atan(f - 1) times as long, where f is the product
    of the inverse errors of this and the last two accepted steps, to the powers. A step for which that is less than
    ``least`` is not accepted."""

    size: float
    powers: tuple[float, float, float]
    least: float
    past: tuple[float, float] | None = None

    def accept(self, error: float) -> bool:
        inverse = 1 / (error + LEAST)
        before = self.past or (inverse, inverse)
        raw = math.prod(e**power for e, power in zip((inverse, *before), self.powers, strict=True))
        factor = 1 + math.atan(raw - 1)
        self.size *= factor
        good = factor >= self.least
        self.past = (inverse, before[0]) if good else before
        return good


def sample_dpm_adaptive(
    model: Any,
    x: torch.Tensor,
    sigma_min: float,
    sigma_max: float,
    extra_args: dict[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None,
    disable: bool | None = None,
    order: int = 3,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    pcoeff: float = 0.0,
    icoeff: float = 1.0,
    dcoeff: float = 0.0,
    accept_safety: float = 0.81,
    eta: float = 0.0,
    s_noise: float = 1.0,
    noise_sampler: Callable[[Any, Any], torch.Tensor] | None = None,
    return_info: bool = False,
) -> Any:
    """DPM-Solver-12 or 23 (Lu et al. 2022a, appendix C) from sigma_max to sigma_min, with k-diffusion's controller.

    All samples take the same steps in log sigma, the first of length ``h_init``; the error is the root mean square over
    the batch of what the two orders differ by, each over max(atol, rtol |x|). ``eta`` adds noise by ancestral steps, of
    noise_sampler(sigma, sigma_next), else of torch's generator with ``extra_args["seed"]``. If sigma_max is the smaller
    one the run goes back to the noise. callback gets {"x", "i", "sigma", "sigma_hat", "denoised", "error", "h",
    "steps", "nfe", "n_accept", "n_reject"} after each step, and so does the caller the last four for ``return_info``.

    Raises ValueError for arguments that are none, NonFiniteError where an answer is not finite, and RuntimeError after
    10,000 steps.
    """
    del disable
    check_state(x)
    given = {"rtol": rtol, "atol": atol, "pcoeff": pcoeff, "icoeff": icoeff, "dcoeff": dcoeff, "s_noise": s_noise}
    rtol, atol, pcoeff, icoeff, dcoeff, s_noise = (nonnegative(name, value) for name, value in given.items())
    eta = number("eta", eta, 0.0, 1.0, "a number from 0 (no noise) to 1")
    start, end = (_lam(name, value) for name, value in (("sigma_max", sigma_max), ("sigma_min", sigma_min)))
    way = 1.0 if end > start else -1.0
    if isinstance(order, bool) or order not in PAIRS:
        raise ValueError(f"order = {order!r} must be 2 or 3")
    if not (rtol or atol):
        raise ValueError("rtol and atol are both 0: one of them must be positive")
    if eta and way < 0:
        raise ValueError(f"eta = {eta} adds noise: sigma_max = {sigma_max} must be above sigma_min = {sigma_min}")
    if noise_sampler is not None and not callable(noise_sampler):
        raise TypeError(f"noise_sampler must be a callable of two sigmas, not {type(noise_sampler).__name__}")
    powers = tuple(c / (1.5 if eta else order) for c in (pcoeff + icoeff + dcoeff, -pcoeff - 2 * dcoeff, dcoeff))
    size = abs(number("h_init", h_init, -1e3, 1e3, "a length in log sigma, not 0")) or _refused(h_init)
    least = number("accept_safety", accept_safety, 0.0, 1.0, "a number from 0 to 1")
    steps = Steps(size, powers, least)  # type: ignore[arg-type]
    with torch.no_grad():
        return _run(model, x, start, end, extra_args or {}, callback, PAIRS[order], steps, (rtol, atol), eta, s_noise,
                    noise_sampler, return_info)  # fmt: skip


def _refused(h_init: float) -> float:
    raise ValueError(f"h_init = {h_init!r} must be a length in log sigma, not 0")


def _lam(name: str, sigma: Any) -> float:
    value = float(sigma)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} = {value!r} must be positive and finite: dpm_adaptive takes steps in log sigma")
    return -math.log(value)


def _run(
    model: Any, x: torch.Tensor, start: float, end: float, extra: dict[str, Any], callback: Any, pair: RungeKuttaPair,
    steps: Steps, tolerances: tuple[float, float], eta: float, s_noise: float, noise_sampler: Any, return_info: bool,
) -> Any:  # fmt: skip
    way, s, ones = math.copysign(1.0, end - start), start, x.new_ones(x.shape[0])
    draw = noise_sampler or _generator(x, extra.get("seed"))
    y, before = x.to(torch.promote_types(x.dtype, torch.float32)), x
    info = {"steps": 0, "nfe": 0, "n_accept": 0, "n_reject": 0}
    while way * (end - s) > END:
        t = s + way * min(steps.size, way * (end - s))
        better, worse, denoised, landed = _step(model, y, s, t, end, eta, pair, extra, ones)
        allowed = torch.maximum(torch.maximum(worse.abs(), before.abs()) * tolerances[0], y.new_tensor(tolerances[1]))
        error = float(((worse - better) / allowed).double().square().mean().sqrt())
        if not math.isfinite(error):
            raise NonFiniteError(f"the model's answer is not finite in the step from sigma = {math.exp(-s):.6g}")
        good = steps.accept(error)
        if good:
            before, s_from, s = worse, s, t
            up = math.sqrt(max(math.exp(-2 * t) - math.exp(-2 * landed), 0.0))
            noise = draw(*(x.new_tensor(math.exp(-u)) for u in (s_from, t))) if up else 0.0
            y = better + s_noise * up * noise
        info["n_accept" if good else "n_reject"] += 1
        info["nfe"] += pair.stages
        info["steps"] += 1
        if callback is not None:
            at = x.new_tensor(math.exp(-s))
            told = {"x": y, "i": info["steps"] - 1, "sigma": at, "sigma_hat": at, "denoised": denoised, "error": error}
            callback({**told, "h": way * steps.size, **info})
        if info["steps"] >= MOST:
            raise RuntimeError(f"dpm_adaptive stands at sigma = {math.exp(-s):.6g} after {MOST} steps; ask for less")
    found = y.to(x.dtype)
    return (found, info) if return_info else found


def _step(
    model: Any, y: torch.Tensor, s: float, t: float, end: float, eta: float, pair: RungeKuttaPair,
    extra: dict[str, Any], ones: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:  # fmt: skip
    """The better and the worse result, x0 at the start, and lam where they are: beyond t if noise follows."""
    here, there = _at(s), _at(t)
    landed = min(end, t - float(np.log(kept(here, there, eta))[0])) if eta else t
    target, slots, denoised = _at(landed), list[torch.Tensor](), y
    for stage in range(pair.stages):
        at = _at(s + pair.node(stage) * (landed - s))
        seen = y if stage == 0 else _combined(y, slots, pair.stage(stage, here, at, PAST))
        x0 = model(seen.to(ones.dtype), ones * float(at.sigma[0]), **extra).to(y.dtype)
        slots.append((seen - x0) / float(at.sigma[0]))
        denoised = x0 if stage == 0 else denoised
    row, errors = pair.result(here, target, PAST)
    return _combined(y, slots, row), _combined(y, slots, Row(row.ratio, row.weights - errors)), denoised, landed


def _combined(y: torch.Tensor, slots: list[torch.Tensor], row: Row) -> torch.Tensor:
    total = float(row.ratio[0]) * y
    for weight, value in zip(row.weights[0].tolist(), slots, strict=False):
        total = total + weight * value
    return total


def _at(lam: float) -> Nodes:
    sigma = np.exp([-lam])
    return Nodes(sigma, np.ones(1), sigma, np.array([lam]))


def _generator(x: torch.Tensor, seed: int | None) -> Callable[[Any, Any], torch.Tensor]:
    generator = None if seed is None else torch.Generator(x.device).manual_seed(seed)
    return lambda s, t: torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
