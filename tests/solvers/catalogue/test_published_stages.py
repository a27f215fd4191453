"""Solvers of several stages against their papers, written out here by hand; see also test_catalogue.py."""

from itertools import pairwise

import numpy as np
import pytest
from loops import X, by_schedule, eps_of, levels, net, same

import logsnr


@by_schedule
def test_heun_rho(sch: logsnr.Schedule) -> None:
    """heun-rho is Heun's method for d(x/alpha)/d(sigma/alpha) = eps on every schedule: k-diffusion's sample_heun."""

    def loop(grid: list[float]) -> np.ndarray:
        x = X
        for s, t in pairwise(grid):
            (a, b, _), (c, d, _) = levels(sch, s), levels(sch, t)
            z, step, slope = x / a, d / c - b / a, eps_of(x, s, sch)
            x = c * (z + step * (slope + eps_of(c * (z + step * slope), t, sch)) / 2)
        return x

    same("heun-rho", sch, loop)


def phi(k: int, z: float) -> float:
    """phi_k by its recursion, which is good enough for steps that are not short."""
    value = np.exp(z)
    for j in range(k):
        value = (value - 1 / np.prod(np.arange(1.0, j + 1))) / z
    return float(value)


def stages_of(name: str, z: float) -> tuple[list[float], list[list[float]], list[float]]:
    """Nodes, a_ij and b_j at z, in the phi functions of the papers."""
    half, p = [phi(k, z / 2) for k in range(4)], [phi(k, z) for k in range(4)]
    krogstad = [p[1] - 3 * p[2] + 4 * p[3], *[2 * p[2] - 4 * p[3]] * 2, 4 * p[3] - p[2]]
    if name == "exp-heun":
        return [1], [[p[1]]], [p[1] - p[2], p[2]]
    if name == "res-2s":
        return [0.5], [[half[1] / 2]], [p[1] - 2 * p[2], 2 * p[2]]
    if name == "res-3s":  # c = (1/2, 1), gamma = 4: a_32 = gamma c_2 phi_22 + c_3^2 / c_2 phi_23
        a32 = 2 * half[2] + 2 * p[2]
        return [0.5, 1], [[half[1] / 2], [p[1] - a32, a32]], [p[1] - 5 / 3 * p[2], 4 / 3 * p[2], p[2] / 3]
    if name == "etdrk4":
        a = [[half[1] / 2], [0, half[1] / 2], [half[1] * (half[0] - 1) / 2, 0, half[1]]]
        return [0.5, 0.5, 1], a, krogstad
    if name == "krogstad":
        a = [[half[1] / 2], [half[1] / 2 - half[2], half[2]], [p[1] - 2 * p[2], 0, 2 * p[2]]]
        return [0.5, 0.5, 1], a, krogstad
    a52 = half[2] / 2 - p[3] + p[2] / 4 - half[3] / 2
    a54 = half[2] / 4 - a52
    a = [[half[1] / 2], [half[1] / 2 - half[2], half[2]], [p[1] - 2 * p[2], p[2], p[2]]]
    a.append([half[1] / 2 - 2 * a52 - a54, a52, a52, a54])
    return [0.5, 0.5, 1, 0.5], a, [p[1] - 3 * p[2] + 4 * p[3], 0, 0, 4 * p[3] - p[2], 4 * p[2] - 8 * p[3]]


@by_schedule
@pytest.mark.parametrize("gauge", ["x0", "eps"])
@pytest.mark.parametrize("name", ["exp-heun", "res-2s", "res-3s", "etdrk4", "krogstad", "ho4"])
def test_exponential_runge_kutta(sch: logsnr.Schedule, name: str, gauge: str) -> None:
    """With y = x/sigma and N = x0 e^lam, or x/alpha and -eps e^-lam, y' = N in lam: the textbook's U_i and u_(n+1) in
    the variables e^-lam y, where the linear part is -1 or 1 (Hochbruck and Ostermann 2010, 2.3)."""
    sign = -1.0 if gauge == "x0" else 1.0

    def loop(grid: list[float]) -> np.ndarray:
        x = X
        for s, t in pairwise(grid):
            lam_s, lam_t = levels(sch, s)[2], levels(sch, t)[2]
            h = lam_t - lam_s
            nodes, a, b = stages_of(name, sign * h)
            times = [s, *(float(sch.time(lam_s + c * h)) for c in nodes)]
            times = [t if c == 1 else time for c, time in zip([0, *nodes], times, strict=True)]

            def unit(at: float) -> float:  # x / unit = u, for which du/dlam = -u + x0 or u - eps
                return levels(sch, at)[0 if gauge == "x0" else 1]

            u, answers = x / unit(s), []
            for c, row, at in zip([0, *nodes], [[], *a], times, strict=True):
                stage = np.exp(sign * c * h) * u - sign * h * sum(w * n for w, n in zip(row, answers, strict=True))
                seen = stage * unit(at)
                answers.append(net(seen, at) if gauge == "x0" else eps_of(seen, at, sch))
            u = np.exp(sign * h) * u - sign * h * sum(w * n for w, n in zip(b, answers, strict=True))
            x = u * unit(t)
        return x

    same(logsnr.solver(name, gauge=gauge), sch, loop, 1e-10)


@pytest.mark.parametrize(
    ("nfe", "orders"), [(1, [1]), (2, [2]), (3, [2, 1]), (6, [3, 2, 1]), (7, [3, 3, 1]), (8, [3, 3, 2])]
)
def test_dpm_fast_fills_a_budget(nfe: int, orders: list[int]) -> None:
    """Steps of order 3, and 2 or 1 at the end, add up to exactly nfe evaluations (Lu et al. 2022a, 3.4), and each is
    DPM-Solver's of that order."""
    sch = logsnr.VPLinear()
    den = logsnr.Denoiser(lambda x, t: 0 * x, sch, "eps")
    program = logsnr.solve(den, logsnr.start(sch, (1, 1), seed=0), solver="dpm-fast", nfe=nfe).program
    ends = [-1, *(n for n, call in enumerate(program) if call.node is not None)]
    assert np.diff(ends).tolist() == orders
    assert len(program) == nfe
    at = 0
    for n, order in enumerate(orders):
        alone = logsnr.solver(f"dpm-{order}").program(sch, np.array(program.grid[n : n + 2]))
        for mine, theirs in zip(program.calls[at : at + order], alone, strict=True):
            np.testing.assert_array_equal(mine.matrix, theirs.matrix)
        at += order
