"""Solvers of the reverse SDE against their published loops, written out here by hand, with the same normals."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from loops import X, by_schedule, check, inside, levels, net
from scipy.integrate import quad

import logsnr
from logsnr.analysis import Gaussian
from logsnr.solvers.planners.stochasticity import er_sde

PAIRS = [
    ("sde-dpmpp-1", "dpmpp-1"), ("sde-dpmpp-2s", "dpmpp-2s"), ("sde-dpmpp-2m", "dpmpp-2m"),
    ("sde-dpmpp-3m", "dpmpp-3m"), ("seeds-1", "dpm-1"),
    ("sde-dpm-1", "dpm-1"), ("seeds-2", "dpm-2"), ("seeds-3", "dpm-3"), ("er-sde-1", "ddim"),
    ("euler-maruyama", "euler"),
]  # fmt: skip


@by_schedule
@pytest.mark.parametrize(("noisy", "plain"), PAIRS)
@pytest.mark.parametrize("startup", ["ramp", "single-step"])
def test_without_noise_they_are_the_deterministic_solvers(
    noisy: str, plain: str, startup: str, sch: logsnr.Schedule
) -> None:
    """With eta = 0 the table is that of the solver of the ODE bit for bit, infinite ends included, and so its order."""
    found, other = logsnr.solver(noisy, eta=0), logsnr.solver(plain)
    assert (found.stochastic, found.order) == (False, other.order)
    for grid in (inside(sch), logsnr.grid(sch, 5, t_start=sch.domain[1], t_end=sch.domain[0])):
        mine, theirs = (s.program(sch, grid, startup=startup) for s in (found, other))  # type: ignore[arg-type]
        assert mine.order == theirs.order
        assert [c.key for c in mine] == [c.key for c in theirs]


@by_schedule
def test_seeds(sch: logsnr.Schedule) -> None:
    """SEEDS-1 and -2 are those of Gonzalez et al. (2023), with each part of a step's noise where it is due."""

    def seeds_1(grid: list[float], xi: Callable) -> np.ndarray:
        x = X
        for s, t in pairwise(grid):
            (a, b, lam), (c, d, lam_t) = levels(sch, s), levels(sch, t)
            h, eps = lam_t - lam, (x - a * net(x, s)) / b
            x = c / a * x - 2 * d * np.expm1(h) * eps + d * np.sqrt(np.expm1(2 * h)) * xi(s, t)
        return x

    def seeds_2(grid: list[float], xi: Callable) -> np.ndarray:
        x = X
        for s, t in pairwise(grid):
            (a, b, lam), (c, d, lam_t) = levels(sch, s), levels(sch, t)
            h = lam_t - lam
            mid = float(sch.time(lam + h / 2))
            e, f, _ = levels(sch, mid)
            first, second = xi(s, mid), xi(mid, t)
            u = e / a * x - 2 * f * np.expm1(h / 2) * (x - a * net(x, s)) / b + f * np.sqrt(np.expm1(h)) * first
            eps = (u - e * net(u, mid)) / f
            noise = np.sqrt(np.exp(2 * h) - np.exp(h)) * first + np.sqrt(np.expm1(h)) * second
            x = c / a * x - 2 * d * np.expm1(h) * eps + d * noise
        return x

    check("seeds-1", sch, seeds_1)
    assert len(check("seeds-2", sch, seeds_2).noises) == 12


@by_schedule
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_sde_dpmpp_2m(eta: float, sch: logsnr.Schedule) -> None:
    """The second order update of the design: exact kernel (1 + eta^2) e^(-(1 + eta^2)(lam_t - lam)), linear x0."""
    rate = 1 + eta**2

    def loop(grid: list[float], xi: Callable) -> np.ndarray:
        x, old = X, None
        for n, (s, t) in enumerate(pairwise(grid)):
            (_, b, lam), (c, d, lam_t) = levels(sch, s), levels(sch, t)
            h, x0 = lam_t - lam, net(x, s)
            slope = 0.0 if old is None else (x0 - old) / (lam - levels(sch, grid[n - 1])[2])
            zeroth = quad(lambda u, h=h: rate * np.exp(-rate * (h - u)), 0, h, epsabs=1e-14)[0]
            first = quad(lambda u, h=h: rate * np.exp(-rate * (h - u)) * u, 0, h, epsabs=1e-14)[0]
            std = d * np.sqrt(1 - np.exp(-2 * eta**2 * h))
            x = d / b * np.exp(-(eta**2) * h) * x + c * (zeroth * x0 + first * slope) + std * xi(s, t)
            old = x0
        return x

    check(logsnr.solver("sde-dpmpp-2m", eta=eta), sch, loop, tol=1e-11)


@by_schedule
def test_er_sde(sch: logsnr.Schedule) -> None:
    """er-sde-1 and -2 are those of Cui et al. (2023) with phi(s) = s (e^(s^0.3) + 10), in x / alpha."""

    def phi(s: float) -> float:
        return s * (np.exp(s**0.3) + 10)

    def loop(grid: list[float], xi: Callable, order: int) -> np.ndarray:
        x, old = X, None
        for n, (s, t) in enumerate(pairwise(grid)):
            (a, b, _), (c, d, _) = levels(sch, s), levels(sch, t)
            here, there, x0 = b / a, d / c, net(x, s)
            r = phi(there) / phi(here)
            y = r * x / a + (1 - r) * x0 + np.sqrt(there**2 - here**2 * r**2) * xi(s, t)
            if order == 2 and old is not None:
                before = levels(sch, grid[n - 1])
                slope = (x0 - old) / (here - before[1] / before[0])
                y = y + (there - here + phi(there) * quad(lambda u: 1 / phi(u), there, here, epsabs=1e-14)[0]) * slope
            x, old = c * y, x0
        return x

    for order in (1, 2):
        check(f"er-sde-{order}", sch, lambda grid, xi, order=order: loop(grid, xi, order), tol=1e-11)
    assert logsnr.solver("er-sde-1", eta=er_sde).stochastic


@by_schedule
@pytest.mark.parametrize("tau", [0.0, 0.7])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_sa_is_a_predictor_corrector(order: int, tau: float, sch: logsnr.Schedule) -> None:
    """SA-Solver (Xue et al. 2023, Algorithm 1): predict with p values, evaluate once, correct with one value more and
    the same noise, with weights from adaptive quadrature; tau = 0 is the deterministic predictor-corrector."""
    rate = 1 + tau**2

    def step(x: np.ndarray, s: float, t: float, nodes: list[float], values: list, xi: np.ndarray) -> np.ndarray:
        (_, b, lam), (c, d, lam_t) = levels(sch, s), levels(sch, t)
        h = lam_t - lam
        x = d / b * np.exp(-(tau**2) * h) * x + d * np.sqrt(1 - np.exp(-2 * tau**2 * h)) * xi
        for j, value in enumerate(values):
            others = [m for i, m in enumerate(nodes) if i != j]

            def integrand(u: float, others: list = others, j: int = j) -> float:
                return rate * np.exp(-rate * (lam_t - u)) * np.prod([(u - m) / (nodes[j] - m) for m in others])

            x = x + c * quad(integrand, lam, lam_t, epsabs=1e-14, epsrel=1e-13)[0] * value
        return x

    def loop(grid: list[float], xi: Callable) -> np.ndarray:
        lam = [levels(sch, t)[2] for t in grid]
        nodes, values, x = [lam[0]], [net(X, grid[0])], X
        for n, (s, t) in enumerate(pairwise(grid)):
            noise = xi(s, t) if tau else 0.0
            predicted = step(x, s, t, nodes[:order], values[:order], noise)
            if n == len(grid) - 2:
                return predicted
            nodes, values = [lam[n + 1], *nodes], [net(predicted, t), *values]
            x = step(x, s, t, nodes[: order + 1], values[: order + 1], noise)
        raise AssertionError

    program = check(logsnr.solver(f"sa-{order}", tau=tau), sch, loop, tol=1e-11)
    assert len(program) == program.steps
    assert bool(program.noises) is (tau > 0)


@by_schedule
def test_euler_maruyama(sch: logsnr.Schedule) -> None:
    """dx = (f x - g^2 score) dt + g dw backwards in t by Euler, f and g^2 as the schedule has them (book 4.2.4)."""

    def loop(grid: list[float], xi: Callable) -> np.ndarray:
        x = X
        for s, t in pairwise(grid):
            a, b, _ = levels(sch, s)
            f, g2 = float(sch.drift(s)), float(sch.diffusion2(s))
            score = -(x - a * net(x, s)) / b**2
            x = x + (t - s) * (f * x - g2 * score) + np.sqrt(g2 * (s - t)) * xi(s, t)
        return x

    check("euler-maruyama", sch, loop, tol=1e-11)


@pytest.mark.parametrize("eta", [0.5, 1.0, 2.0])
def test_a_first_step_from_pure_noise_forgets_it(eta: float) -> None:
    """From alpha = 0 an exponential step of the SDE is alpha_t x0 + sigma_t xi, whatever the positive eta."""
    sch = logsnr.FlowMatching()
    program = logsnr.solver("sde-dpmpp-2m", eta=eta).program(sch, [1.0, 0.6, 0.3])
    np.testing.assert_array_equal(program.calls[0].matrix[0], [0.4, 0.0, 0.6])


def test_torch_reads_no_noise_it_does_not_need() -> None:
    """A stochastic program with no noise left, eta = 0, is run by `logsnr.sample` like any other."""
    den = Gaussian(0.3, 0.5).denoiser(logsnr.VPLinear())
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    mine, other = (logsnr.sample(den, x, solver=s, steps=4) for s in (logsnr.solver("sde-dpmpp-3m", eta=0), "dpmpp-3m"))
    torch.testing.assert_close(mine, other, rtol=0, atol=0)
