"""The reversible solver: its order in both directions, and its inverse."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import mpmath
import numpy as np
import pytest
import torch
from mutants import altered
from sampled import sampled

import logsnr
from logsnr.analysis.orders import convergence_order, two_gaussians, warped_grid
from logsnr.control import Reversible

SOLVER = logsnr.solver(Reversible())
SCHEDULES = [logsnr.VPLinear(), logsnr.FlowMatching(), logsnr.EDM()]
WEIGHTS = [(0.5, 0.25), (1.0, 0.0), (0.0, 1.0)]
measured = partial(convergence_order, max_nfe=150)


def backwards(sch: logsnr.Schedule, steps: int) -> np.ndarray:
    return warped_grid(sch, steps)[::-1]


@pytest.mark.parametrize(("sch", "weights"), sampled(SCHEDULES, WEIGHTS, every=3))
def test_second_order_both_ways(sch: logsnr.Schedule, weights: tuple[float, float]) -> None:
    solver = Reversible(*weights)
    assert solver.global_order == 2
    assert measured(solver, two_gaussians(), sch).order == pytest.approx(2, abs=0.1)
    found = measured(solver, two_gaussians(), sch, grids=partial(backwards, sch))
    assert found.order == pytest.approx(2, abs=0.1)


def test_mutants_fail() -> None:
    """One coefficient off by a thousandth; and half the weight of the state before, with steps still exact for constant
    x0 and eps: of first order, as BDIA is with any weight below 1."""

    def off(call: logsnr.Call) -> np.ndarray:
        matrix = call.matrix.copy()
        matrix[0, 0] *= 1.001
        return matrix

    assert measured(altered(SOLVER, off), two_gaussians(), SCHEDULES[0]).order != pytest.approx(2, abs=0.1)
    lighter = measured(Weighed(factor=0.5), two_gaussians(), SCHEDULES[0])
    assert lighter.slopes[-1] == pytest.approx(1, abs=0.1)


@dataclass(frozen=True)
class Weighed(Reversible):
    """With ``factor`` times every weight a in ``D(next) + a (x - D(before))``."""

    factor: float = 1.0

    def _steps(self, sch: logsnr.Schedule, grid: np.ndarray) -> Iterator[logsnr.Call]:
        for before, call in zip(grid, super()._steps(sch, grid), strict=False):
            matrix = call.matrix.copy()
            less = (1 - self.factor) * matrix[0, -1]
            matrix[0, :2] += less * np.array([sch.alpha(before), sch.sigma(before)])
            matrix[0, -1] -= less
            yield replace(call, matrix=matrix)


@pytest.mark.parametrize("sch", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("steps", [2, 3, 9])
def test_back_is_the_inverse(sch: logsnr.Schedule, steps: int) -> None:
    """On any model, at any number of steps, to rounding; ends at alpha = 0 and sigma = 0 included."""
    grid = logsnr.grid(sch, steps)[::-1].copy()
    there, back = Reversible().plan(sch, grid), Reversible().back(sch, grid)

    def model(x: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
        return np.tanh(2 * x + t), np.sin(x) * sch.sigma(t) / np.hypot(sch.alpha(t), sch.sigma(t))

    x, states = np.linspace(-1.5, 1.5, 7), []
    for n in range(1, steps + 1):
        states.append(there.interpret(x, model) if n == steps else cut(there, n).interpret(x, model))
    found = back.interpret(states[-2], model, {back.noises[0]: states[-1]})
    np.testing.assert_allclose(found, x, atol=1e-12)
    assert len(there) == steps
    assert len(back) == back.steps == steps - 1
    assert logsnr.Program.from_json(back.to_json()) == back


def cut(program: logsnr.Program, steps: int) -> logsnr.Program:
    return replace(program, grid=program.grid[: steps + 1], calls=program.calls[:steps])


def test_linear_data_are_exact_where_x0_and_eps_are_constant() -> None:
    """Of a point mass every step is exact, however long: the formula is exponential."""
    sch, grid = SCHEDULES[0], np.array([1.0, 0.3, 0.02])
    x = sch.alpha(1.0) * 0.7 + sch.sigma(1.0) * 1.3
    end = Reversible().plan(sch, grid).interpret(x, lambda x, t: (0.7, (x - sch.alpha(t) * 0.7) / sch.sigma(t)))
    assert end == pytest.approx(sch.alpha(0.02) * 0.7 + sch.sigma(0.02) * 1.3, abs=1e-13)


@pytest.mark.parametrize("h", [1e-8, 1e-3, 1.0, 20.0])
def test_coefficients_keep_their_digits(h: float) -> None:
    """Against the formula in 40 digits, from levels exact in float64: the weight of the state before is free but for
    what falls with h, and with the weight that the table has the others are right to a rounding of their terms."""
    sch = logsnr.EDM()
    sigma = np.exp(np.array([h, 0.0, -1.5 * h]))
    sigma = sigma * min(1.0, 70 / sigma.max()) if h < 5 else np.array([70.0, 1.0, 0.003])
    program = Reversible(0.5, 0.25).plan(sch, sigma)
    row = program.calls[1].matrix[0]
    c0, c1, a = row[0], row[1], row[-1]
    with mpmath.workdps(40):
        s = [mpmath.mpf(v) for v in sigma]
        r = [mpmath.sqrt(1 + v * v) for v in s]
        m = [R * mpmath.sqrt(v / R) * (1 / R) ** mpmath.mpf("0.25") for R, v in zip(r, s, strict=True)]
        exact = (mpmath.log(s[2] / s[1]) / mpmath.log(s[1] / s[0])) ** 2 * m[2] / m[0]
        assert float(abs(a / exact - 1)) < 1e-15 * (1 + 4 / h)
        assert float(abs(c0 - (1 - mpmath.mpf(a)))) < 1e-15 * (1 + a)
        assert float(abs(c1 - (s[2] - mpmath.mpf(a) * s[0]))) < 1e-15 * float(s[2] + a * s[0])


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="clean = 2 must be a number from 0 to 1"):
        Reversible(clean=2)
    with pytest.raises(ValueError, match="noisy = 'a' must be"):
        Reversible(noisy="a")
    with pytest.raises(ValueError, match="at least 2 steps"):
        Reversible().back(SCHEDULES[0], np.array([0.1, 1.0]))


def test_it_samples_like_any_solver() -> None:
    """From noise, sequentially and in parallel, also at a single step, which is DDIM's."""
    data, sch = logsnr.analysis.Gaussian(0.5, 0.25), SCHEDULES[0]
    den, x = data.denoiser(sch), logsnr.randn((8, 3), seed=0, dtype=torch.float64)
    end = logsnr.sample(den, x, solver=Reversible(), steps=40)
    torch.testing.assert_close(end, data.flow(x, sch, 1.0, sch.t_end), atol=2e-3, rtol=0)
    again = logsnr.sample(den, x, solver=Reversible(), steps=40, parallel=logsnr.Picard(tol=0.0))
    torch.testing.assert_close(again, end, atol=1e-12, rtol=0)
    one = logsnr.sample(den, x, solver=Reversible(), steps=1)
    torch.testing.assert_close(one, logsnr.sample(den, x, solver="ddim", steps=1))
