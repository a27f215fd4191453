"""The Principles of Diffusion Models, section 9.8: Picard iteration and Algorithm 8's sliding windows."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

import logsnr

STEPS = 24
SCH = logsnr.VPLinear()
TIMES = np.linspace(0.9, 0.1, STEPS + 1)
DT = TIMES[0] - TIMES[1]
START = 0.8


def drift(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """A nonlinear velocity field, the "network"."""
    return np.sin(2 * x) - 0.5 * x * t + np.cos(3 * t)


def library(solver: str, sch: logsnr.Schedule = SCH, times: np.ndarray = TIMES) -> np.ndarray:
    """The trajectory of a named solver, `drift` being the velocity."""
    den = logsnr.Denoiser(
        lambda x, t: torch.from_numpy(drift(x.numpy(), t.numpy())), sch, "velocity", dtype=torch.float64
    )
    x = torch.tensor([START], dtype=torch.float64)
    states = logsnr.solve(den, x, solver=solver, grid=times, trajectory=True).trajectory
    assert states is not None
    return states[:, 0].numpy()


class Windows(NamedTuple):
    """x: the trajectory. largest: the highest index that line 14 would have written. written: the nodes to
    which the last sweep gave a value."""

    x: np.ndarray
    sweeps: int
    largest: int
    written: range


def windows(p: int, tol: float) -> Windows:
    """Algorithm 8 with new nodes only up to M and older nodes carried over."""
    x = np.full(STEPS + 1, np.nan)
    x[: min(p, STEPS) + 1] = START
    left = sweeps = largest = 0
    written = range(0)
    while left < STEPS:
        size = min(p, STEPS - left)
        g = drift(x[left : left + size], TIMES[left : left + size])
        assert np.isfinite(g).all()  # every node of a window has a value
        new = x.copy()
        new[left + 1 : left + size + 1] = x[left] - DT * np.cumsum(g)
        error = (new[left + 1 : left + size] - x[left + 1 : left + size]) ** 2
        stride = min([j + 1 for j in range(size - 1) if error[j] > tol] + [size])
        largest = max(largest, left + size + stride)
        fresh = min(stride, STEPS - left - size)
        written = range(left + 1, left + size + fresh + 1)
        new[left + size + 1 : written.stop] = new[left + size]
        x, left, sweeps = new, left + stride, sweeps + 1
    return Windows(x, sweeps, largest, written)


@pytest.mark.parametrize("p", [1, 2, 5, 8, STEPS, 3 * STEPS])
def test_algorithm_8_at_tolerance_0_is_sequential_euler(p: int) -> None:
    """With r <= min(stride, M - l - J) Algorithm 8 fills every node and equals Euler, in at most M sweeps."""
    result = windows(p, 0.0)
    np.testing.assert_allclose(result.x, library("euler"), rtol=0, atol=1e-14)
    assert result.sweeps == STEPS if p == 1 else result.sweeps < STEPS


@pytest.mark.parametrize("p", [2, 5, 8])
def test_algorithm_8_writes_beyond_the_grid(p: int) -> None:
    """Line 14 of Algorithm 8, r = 1, ..., stride, writes nodes beyond M; the restriction loses no node."""
    result = windows(p, 1e-6)
    assert result.largest > STEPS
    assert np.isfinite(result.x).all()
    np.testing.assert_allclose(result.x, library("euler"), rtol=0, atol=1e-2)


@pytest.mark.parametrize("p", [2, 5, 8])
def test_algorithm_8_must_carry_older_nodes_over(p: int) -> None:
    """Lines 9 and 14 give iterate k + 1 no value at nodes j <= l, all of which line 17 returns."""
    written = windows(p, 1e-6).written
    assert written.start > 1
    assert written.stop == STEPS + 1


def sweep(x: np.ndarray) -> np.ndarray:
    """One discrete Picard update (9.8.3) of the whole trajectory."""
    return np.concatenate([[START], START - DT * np.cumsum(drift(x[:-1], TIMES[:-1]))])


def test_picard_prefix_9_8_2() -> None:
    """x^(k) is L applied k times, so x^(k+1) is L^(k+1) x^(0), not L^(k) x^(0): k sweeps make k nodes
    exact."""
    x, euler = np.full(STEPS + 1, START), library("euler")
    for k in range(1, 6):
        x = sweep(x)
        right = np.isclose(x, euler, rtol=0, atol=1e-14)
        assert right[: k + 1].all()
        assert not right[k + 1]


@pytest.mark.parametrize("sch", [logsnr.FlowMatching(), SCH], ids=lambda s: type(s).__name__)
def test_windows_of_length_1_are_euler_not_ddim(sch: logsnr.Schedule) -> None:
    """A window of length 1 is Euler on v, which is DDIM on an affine schedule only (9.8.3)."""
    x = windows(1, 0.0).x
    np.testing.assert_allclose(x, library("euler", sch), rtol=0, atol=1e-14)
    same = np.abs(x - library("ddim", sch)).max() < 1e-12
    assert same == isinstance(sch, logsnr.FlowMatching)


def test_trapezoid_variant_of_the_window_update() -> None:
    """The trapezoid for node j + 1 sums v_1 .. v_j and halves v_0 and v_(j+1): second order; the printed sum
    stops one interval short and is first order."""
    exact = library("rk4", times=np.linspace(0.9, 0.1, 401))[-1]
    right, printed = [], []
    for steps in (40, 80):
        t = np.linspace(0.9, 0.1, steps + 1)
        dt, x, y = t[0] - t[1], np.full(steps + 1, START), np.full(steps + 1, START)
        for _ in range(steps):
            v, w = drift(x, t), drift(y, t)
            below = np.cumsum(v)[1:] - v[0] / 2 - v[1:] / 2  # v_0/2 + v_1 + .. + v_j + v_(j+1)/2
            short = np.concatenate([[w[0]], np.cumsum(w)[1:-1] - w[0] / 2 - w[1:-1] / 2])  # printed, up to v_j/2
            x, y = np.append(START, START - dt * below), np.append(START, START - dt * short)
        right.append(abs(x[-1] - exact))
        printed.append(abs(y[-1] - exact))
    assert np.log2(right[0] / right[1]) == pytest.approx(2, abs=0.1)
    assert np.log2(printed[0] / printed[1]) == pytest.approx(1, abs=0.1)
