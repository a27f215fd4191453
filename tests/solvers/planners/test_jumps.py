"""Churn and restarts against their published loops, with the same normals."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from loops import X, by_schedule, check, inside, levels, net, play
from sampled import sampled

import logsnr
from logsnr.solvers.catalogue import planning
from logsnr.solvers.catalogue.planning import largest_within, plan_program


def heun(sch: logsnr.Schedule, x: np.ndarray, s: float, t: float) -> np.ndarray:
    """On d(x / alpha) / d(sigma / alpha) = eps, as EDM does."""
    (a, b, _), (c, d, _) = levels(sch, s), levels(sch, t)
    here, there = b / a, d / c
    slope = (x / a - net(x, s)) / here
    end = x / a + (there - here) * slope
    slope = (slope + (end - net(c * end, t)) / there) / 2
    return c * (x / a + (there - here) * slope)


@by_schedule
def test_edm_churn(sch: logsnr.Schedule) -> None:
    """Karras et al. (2022), Algorithm 2, on x / alpha, without churn before the first step."""
    low, high, churn, scale = 0.3, 2.0, 1.5, 1.1

    def loop(grid: list[float], xi: Callable) -> np.ndarray:
        x = X
        for n, (s, t) in enumerate(pairwise(grid)):
            a, b, lam = levels(sch, s)
            if n and low <= b / a <= high:
                gamma = min(churn / (len(grid) - 1), np.sqrt(2) - 1)
                raised = float(sch.time(lam - np.log1p(gamma)))
                a_up = float(sch.alpha(raised))
                noise = np.sqrt((b / a * (1 + gamma)) ** 2 - (b / a) ** 2) * scale * xi(s, raised, n)
                x, s = a_up * (x / a + noise), raised
            x = heun(sch, x, s, t)
        return x

    solver = logsnr.solver("edm-churn", s_churn=churn, s_tmin=low, s_tmax=high, s_noise=scale)
    program = check(solver, sch, loop, tol=1e-11)
    assert len(program.noises) > 1
    assert len(program) == 2 * program.steps


def test_churn_of_nothing_is_heun() -> None:
    """With s_churn = 0 no noise is added and the sampler is Heun's; the first step and the last never have any."""
    sch = logsnr.EDM()
    grid = logsnr.grid(sch, 6, "karras")
    plain = logsnr.solver("edm-churn", s_churn=0).program(sch, grid)
    assert not plain.noises
    np.testing.assert_allclose(
        play(plain, sch, {}), play(logsnr.solver("heun").program(sch, grid), sch, {}), rtol=1e-11
    )
    widest = logsnr.solver("edm-churn", s_tmin=0, s_tmax=np.inf).program(sch, grid)
    assert len(widest.noises) == 5
    assert max(key.t for key in widest.noises) <= 80.0


@by_schedule
def test_restart(sch: logsnr.Schedule) -> None:
    """Restart sampling (Xu et al. 2023): at the node next to low, K times back to that next to high, and down again."""
    grid = inside(sch)
    rho = [b / a for a, b, _ in (levels(sch, t) for t in grid.tolist())]

    def loop(grid: list[float], xi: Callable) -> np.ndarray:
        x = X
        for s, t in pairwise(grid[:5]):
            x = heun(sch, x, s, t)
        for visit in range(2):
            (a, b, _), (c, d, _) = levels(sch, grid[4]), levels(sch, grid[1])
            x = c * (x / a + np.sqrt((d / c) ** 2 - (b / a) ** 2) * xi(grid[4], grid[1], 4 + 3 * visit))
            for s, t in pairwise(grid[1:5]):
                x = heun(sch, x, s, t)
        for s, t in pairwise(grid[4:]):
            x = heun(sch, x, s, t)
        return x

    solver = logsnr.solver("restart", intervals=[(2, 1.1 * rho[4], 0.9 * rho[1])])
    program = check(solver, sch, loop, tol=1e-11)
    assert len(program) == 2 * (program.steps + 2 * 3)
    assert [call.node for call in program if call.node is not None] == [1, 2, 3, 4, 5, 6]


def test_restarts_within_a_step_are_left_out() -> None:
    """On a grid too coarse for the interval there is no restart, and a note says so."""
    program = logsnr.solver("restart", intervals=[(1, 0.5, 0.50001)]).program(logsnr.EDM(), [80.0, 1.0, 0.01])
    assert not program.noises
    assert "no restart from 0.5 to 0.50001" in program.notes[0]


INTERVALS = [None, ((20, 0.1, 0.2),), ((1, 0.02, 10.0), (8, 0.3, 0.4))]


@pytest.mark.parametrize(("intervals", "sch"), sampled(INTERVALS, [logsnr.EDM(), logsnr.VPLinear()], every=2))
def test_budgets_of_restarts(
    sch: logsnr.Schedule, intervals: tuple[tuple[int, float, float], ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest program is found, though more steps can take fewer evaluations."""
    solver = logsnr.solver("restart", **({} if intervals is None else {"intervals": intervals}))
    on = cache(lambda steps: plan_program(solver, sch, steps=steps))
    lengths = [len(on(steps)) for steps in range(1, 41)]
    assert any(b < a for a, b in pairwise(lengths))
    most = {nfe: max(k for k, length in enumerate(lengths, 1) if length <= nfe) for nfe in range(lengths[0], 72)}
    assert {nfe: largest_within(on, nfe).steps for nfe in most} == most
    monkeypatch.setattr(planning, "FARTHER", 0)  # mutant
    assert {nfe: largest_within(on, nfe).steps for nfe in most} != most


def test_budgets_take_few_programs() -> None:
    """A stage at a node, off by a rounding, is no way back to more noise: no more numbers of steps are tried for it."""
    tried = []

    def on(steps: int) -> logsnr.Program:
        tried.append(steps)
        return plan_program("heun-rho", logsnr.VPLinear(), steps=steps)

    assert len(largest_within(on, 20)) == 20
    assert tried == [1, 10]
