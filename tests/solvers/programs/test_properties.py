"""Any legal combination of solver, schedule, grid, span, head and dtype gives finite coefficients and samples."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sampled import sampled

import logsnr
from logsnr.solvers.catalogue.planning import plan_program
from logsnr.solvers.denoisers.heads import HEADS
from logsnr.solvers.planners.gauges import Gauge

FIXED = [n for n in logsnr.solver_names() if logsnr.solver(n).planner and not logsnr.solver(n).stochastic]
AT_THE_END = {"heun", "rk4", "dopri5"}  # have a stage at the end of their steps
RUNS = 4
LEAST = 6  # evaluations with which every solver can do something
MEAN, STD = 0.3, 0.5
NOISE = torch.linspace(-2.0, 2.0, 6, dtype=torch.float64).reshape(2, 3)
FINE = [torch.float32, torch.float64]
DTYPES = [torch.float16, torch.bfloat16, *FINE]
HALF_GAIN = 1e3  # the most by which a head may amplify the roundings of fp16, whose largest number is 65504
STEPS = [*[1, 2, 3, 4] * 6, *[5, 6, 7, 9, 12] * 2, 20, 40]  # what is hard about a grid is at its ends
PLACES = list(product(["default", "domain", "inside"], ["default", "domain", "inside"], [False, False, True]))
LAYOUTS = [*product(["logsnr", "karras", "time"], ["steps", "steps", "steps", "nfe"]), *[("array", "steps")] * 4]


@dataclass(frozen=True)
class Case:
    """A plan, with the options of `logsnr.solve`, and one (head, dtype of x, dtype of the model) to run it with."""

    solver: str
    sch: logsnr.Schedule
    options: tuple[tuple[str, Any], ...]
    prediction: str
    state: torch.dtype
    model: torch.dtype | None


def power(k: float, p: float) -> logsnr.Custom:
    """alpha = e^{-k t}, sigma = t^p: for p < 1 with an infinite slope where sigma = 0, for p > 1 with none."""
    return logsnr.Custom(lambda t: torch.exp(-k * t), lambda t: t**p, domain=(0.0, 1.0))


def bent(p: float) -> logsnr.Custom:
    """alpha = 1 - t, sigma = t^p, to alpha = 0."""
    return logsnr.Custom(lambda t: 1 - t, lambda t: t**p, domain=(0.0, 1.0))


def table(rng: np.random.Generator, entries: int, beta: float) -> logsnr.Discrete:
    """Random betas up to ``beta``, every second time with zero terminal SNR."""
    alphas = np.cumprod(1 - beta * rng.uniform(0.1, 1.0, entries))
    alphas[-1] *= rng.integers(2)
    return logsnr.Discrete(alphas)


def schedules(rng: np.random.Generator, each: int) -> list[logsnr.Schedule]:
    """``each`` of every family with random parameters, and a few of torch functions."""
    pool: list[logsnr.Schedule] = []
    for _ in range(each):
        low, high = 10 ** rng.uniform([-3, 0], [0, 1.7])
        least, most = 10 ** rng.uniform([-4, 0], [-1, 2.3])
        pool += [logsnr.VPLinear(low, high), logsnr.SubVP(low, high), logsnr.VPCosine(10 ** rng.uniform(-4, -0.7))]
        pool += [logsnr.VE(least, most), logsnr.EDM(least, most), logsnr.FlowMatching(), logsnr.Trigonometric()]
        pool += [
            table(rng, int(rng.integers(2, 50)), rng.uniform(0.01, 0.5)),
            table(rng, 1000, 10 ** rng.uniform(-3, -1.7)),
        ]
    for p in (0.5, 1.0, 1.5, 2.0):
        pool += [power(rng.uniform(0.0, 5.0), p), bent(p)]
    return pool


POOL = schedules(np.random.default_rng(0), 8)


def gains(sch: logsnr.Schedule, t: float) -> dict[str, float]:
    """By how much x0 or eps amplify an error of each head: the solution of two equations, x and the head p x0 + q eps,
    for two unknowns. Infinite where the head does not determine them."""
    alpha, sigma = sch.alpha(t), sch.sigma(t)
    heads = {"x0": (1.0, 0.0), "eps": (0.0, 1.0), "score": (0.0, 1.0), "v": (-sigma, alpha)}  # the score is an eps
    heads["velocity"] = sch.dalpha(t), sch.dsigma(t)
    determinants = {head: abs(alpha * q - sigma * p) for head, (p, q) in heads.items()}
    size = max(alpha, sigma)
    return {head: size / d if 1e-300 < d < np.inf else np.inf for head, d in determinants.items()}


@st.composite
def plans(draw: st.DrawFn) -> tuple[Case, ...]:
    """A legal plan of any kind, with RUNS legal ways to run it; what is legal is decided here, from the definitions
    of the heads."""
    solver, sch = draw(st.sampled_from(FIXED)), draw(st.sampled_from(POOL))
    noisy, clean, encode = draw(st.sampled_from(PLACES))
    (kind, budget), count = draw(st.sampled_from(LAYOUTS)), draw(st.sampled_from(STEPS))
    fraction, rng = draw(st.floats(1e-8, 1.0)), np.random.default_rng(draw(st.integers(0, 2**16)))
    low, high = sch.domain
    start = {"default": sch.t_start, "domain": high, "inside": low + (high - low) * (0.2 + 0.8 * rng.random())}[noisy]
    end = {"default": sch.t_end, "domain": low, "inside": low + (high - low) * 0.15 * fraction}[clean]
    if encode:
        start, end = end, start
    options: dict[str, Any] = {"startup": ["ramp", "single-step"][rng.integers(2)]}
    if kind == "array":
        parts = rng.uniform(0.2, 1.0, count)
        times = start + (end - start) * np.concatenate([[0.0], np.cumsum(parts) / parts.sum()])
        options |= {"grid": (*times[:-1].tolist(), end)}
    else:
        options |= {"grid": kind, "t_start": start, "t_end": end, budget: count + LEAST * (budget == "nfe")}
    called = [start, end] if solver in AT_THE_END and sch.sigma(end) > 0 else [start]
    known = [gains(sch, t) for t in called]
    worst = {head: max(gain[head] for gain in known) for head in HEADS}
    edge = min(sch.alpha(start), sch.sigma(start))  # steps away from it multiply errors by its inverse, but for 0
    heads = [head for head in HEADS if np.isfinite(worst[head])]
    cases = []
    for _ in range(RUNS):
        head = heads[rng.integers(len(heads))]
        legal = DTYPES if worst[head] < HALF_GAIN and not 0 < edge < 1 / HALF_GAIN else FINE
        state, model = legal[rng.integers(len(legal))], [None, *legal][rng.integers(1 + len(legal))]
        cases.append(Case(solver, sch, tuple(options.items()), head, state, model))
    return tuple(cases)


def exact_head(case: Case, times: np.ndarray) -> tuple[list[float], list[float]]:
    """The exact head of Gaussian data is a x + b: a and b at every time."""
    sch = case.sch
    alpha, sigma = sch.alpha(times), sch.sigma(times)
    r2 = alpha**2 * STD**2 + sigma**2
    if case.prediction == "score":
        a, rest = -1 / r2, np.zeros_like(times)
    else:
        p, q = {"x0": (1.0, 0.0), "eps": (0.0, 1.0), "v": (-sigma, alpha)}.get(case.prediction, (None, None))
        p, q = (sch.dalpha(times), sch.dsigma(times)) if p is None else (p, q)
        a, rest = (p * alpha * STD**2 + q * sigma) / r2, p * np.full_like(times, MEAN)
    return a.tolist(), (rest - a * alpha * MEAN).tolist()


def run(case: Case, program: logsnr.Program, trajectory: bool = False) -> logsnr.Solution:
    """The solution with a model that computes the exact head in float64 and rounds it to its dtype."""
    coefficients = zip(*exact_head(case, np.array([call.t for call in program])), strict=True)

    def model(x: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        a, b = next(coefficients)
        return (a * x.double() + b).to(x.dtype)

    den = logsnr.Denoiser(model, case.sch, case.prediction, dtype=case.model)
    alpha, sigma = case.sch.alpha(program.grid[0]), case.sch.sigma(program.grid[0])
    x = (alpha * MEAN + np.hypot(alpha * STD, sigma) * NOISE).to(case.state)
    return logsnr.solve(den, x, solver=program, trajectory=trajectory)


def outgrown(case: Case, program: logsnr.Program) -> bool:
    """Whether the states themselves, in float64, come near the largest number of a dtype that they must fit."""
    wide = run(replace(case, state=torch.float64, model=torch.float64), program, trajectory=True)
    assert wide.trajectory is not None
    assert torch.isfinite(wide.trajectory).all()
    narrowest = min(torch.finfo(dtype).max for dtype in (case.state, case.model or case.state))
    return float(wide.trajectory.abs().max()) > narrowest / 10


def finite(case: Case, program: logsnr.Program) -> bool:
    """Whether the samples are finite; asserts what holds whether they are or not."""
    try:
        found = run(case, program)
    except logsnr.NonFiniteError:
        return False
    assert found.x.dtype == case.state
    assert found.nfe == len(program)
    return bool(torch.isfinite(found.x).all())


def hold(cases: tuple[Case, ...]) -> int:
    """How many of the cases of one plan outgrew their dtype; asserts that all others are finite."""
    grown = 0
    program = plan_program(cases[0].solver, cases[0].sch, **dict(cases[0].options))
    assert all(np.isfinite(call.matrix).all() for call in program)
    for case in cases:
        if not finite(case, program):
            assert outgrown(case, program)
            grown += 1
    return grown


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("count", [80, pytest.param(2500, marks=pytest.mark.slow)])
def test_legal_combinations_are_finite(count: int) -> None:
    """Coefficients and samples are finite for hundreds of legal combinations of everything a user chooses, but for at
    most 1 in 200 where the numbers themselves outgrow fp16: a few steps that extrapolate wildly."""
    grown = 0

    @settings(max_examples=count, derandomize=True, database=None, deadline=None)
    @given(plans())
    def all_hold(cases: tuple[Case, ...]) -> None:
        nonlocal grown
        grown += hold(cases)

    all_hold()
    assert grown <= count * RUNS / 200


def test_the_property_finds_a_planner_that_forgets_the_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the DDIM step at infinite log-SNRs the property fails within 200 plans."""
    monkeypatch.setattr(Gauge, "breaks", lambda self, sch, s, t: np.zeros(len(s.t), dtype=bool))

    @settings(
        max_examples=200,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    @given(plans())
    def all_hold(cases: tuple[Case, ...]) -> None:
        hold(cases)

    with np.errstate(all="ignore"), pytest.raises((ValueError, OverflowError), match=r"not finite|infinity|nan"):
        all_hold()


@pytest.mark.parametrize(("name", "startup"), sampled(FIXED, ["ramp", "single-step"], every=2))
def test_whole_flow_in_one_and_two_steps(name: str, startup: str) -> None:
    """From alpha = 0 to sigma = 0 one step ends in E[x0]; two DDIM steps in E[x0] + c / (1 + c) eps, c the variance."""
    sch, data = logsnr.FlowMatching(), logsnr.analysis.Gaussian(MEAN, STD**2)
    for steps, share in ((1, 0.0), (2, STD**2 / (1 + STD**2))):
        sol = logsnr.solve(data.denoiser(sch), NOISE, solver=name, steps=steps, startup=startup)  # type: ignore[arg-type]
        assert (sol.times[0], sol.times[-1]) == (1.0, 0.0)
        assert torch.isfinite(sol.x).all()
        # These are of full order in the first step from alpha = 0, the flow methods in one step of several stages, too.
        whole = name in AT_THE_END or name.startswith("flow")
        if not whole or (steps == 1 and (name in AT_THE_END or startup == "ramp")):
            assert sol.nfe == steps
            torch.testing.assert_close(sol.x, MEAN + share * NOISE, rtol=1e-12, atol=1e-12)


ROOTS = {"VPLinear": logsnr.VPLinear(), "VPCosine": logsnr.VPCosine(), "root": power(1.0, 0.5)}


@pytest.mark.parametrize(("name", "root"), sampled(sorted({"euler", *AT_THE_END}), ROOTS, every=2))
def test_encoding_from_clean_data_where_the_noise_grows_like_a_root(name: str, root: str) -> None:
    """Runge-Kutta methods on dx/dt start from sigma = 0 with a DDIM step where sigma' is infinite, say so,
    and converge at its order, 1."""
    sch = ROOTS[root]
    data = logsnr.analysis.Gaussian(MEAN, STD**2)
    x = data.sample(16, generator=torch.Generator().manual_seed(0))
    den = logsnr.Denoiser(lambda x, t: data.posterior(x, sch.alpha(t[0]), sch.sigma(t[0]))[1], sch, "eps")
    errors = []
    for steps in (8, 64):
        sol = logsnr.solve(den, x, solver=name, steps=steps, grid="time", t_start=0.0, t_end=0.5)
        assert sol.program is not None
        assert sol.program.notes[0].startswith("step 1 starts or ends at an infinite log-SNR and is first order")
        errors.append(float((sol.x - data.flow(x, sch, 0.0, 0.5)).abs().max()))
    assert errors[1] < errors[0] / 6
