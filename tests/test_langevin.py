"""Langevin samplers against their published loops, with the same normals, and what they converge to."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from loops import X, by_schedule, check, levels, net

import logsnr


@by_schedule
def test_predictor_corrector(sch: logsnr.Schedule) -> None:
    """Ancestral predictor with the forward variance, then Langevin steps of 2 (snr sigma)^2 at the new level."""
    snr = 0.2

    def loop(grid: list[float], xi: Callable) -> np.ndarray:
        x = X
        for s, t in pairwise(grid):
            (a, b, _), (c, d, _) = levels(sch, s), levels(sch, t)
            share, forward = (a / c * d / b) ** 2, b**2 - (a / c * d) ** 2
            x = c * (1 - share) * net(x, s) + a / c * d**2 / b**2 * x + np.sqrt(forward) * xi(s, t)
            for m in (1, 2):
                score, step = -(x - c * net(x, t)) / d**2, 2 * snr**2 * d**2
                x = x + step * score + np.sqrt(2 * step) * xi(s, t, m)
        return x

    program = check(logsnr.solver("pc", snr=snr, corrections=2), sch, loop, tol=1e-11)
    assert len(program) == 3 * program.steps


@by_schedule
def test_annealed_langevin_reaches_the_last_level(sch: logsnr.Schedule) -> None:
    """Song and Ermon (2019), Algorithm 1, x / alpha carried from level to level, all of which have their steps."""

    def loop(grid: list[float], xi: Callable) -> np.ndarray:
        x, last = X, len(grid) - 1
        for n, t in enumerate(grid):
            a, b, _ = levels(sch, t)
            for m in (1, 2, 3):
                noise = xi(t, grid[n + 1], m) if n < last else xi(grid[n - 1], t, 3 + m)
                x = x - 0.2 * b**2 * (x - a * net(x, t)) / b**2 + np.sqrt(0.4) * b * noise
            x = x if n == last else x * sch.alpha(grid[n + 1]) / a
        return x

    program = check(logsnr.solver("ald", step=0.2, per_level=3), sch, loop, tol=1e-11)
    assert len(program) == 3 * (program.steps + 1)
    assert program.calls[-1].t == program.grid[-1]
