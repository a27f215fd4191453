"""Growth factors against hand-made characteristic polynomials and long runs of the executor."""

from pathlib import Path

import numpy as np
import pytest
import torch

import logsnr
from logsnr.analysis.stability import stability

FLOW = ["flow-2m", "flow-3m", "flow-4m"]  # whose steps depend on the level
FIXED = [n for n in logsnr.solver_names() if logsnr.solver(n).planner and not logsnr.solver(n).stochastic]
FIXED = [name for name in FIXED if name not in FLOW]
SWINGING = ["unipc-4", "ipndm-4", "pndm"]  # whose largest roots are slow pairs: eight states are not all of a period
STEPS = np.array([0.05, 0.5, 1.0, 2.0, 5.0, 12.0])
MODES = np.linspace(-3.0, 3.0, 7)
KAPPA = 1 / (1 + np.exp(-2 * MODES))


def largest_root(*coefficients: np.ndarray) -> np.ndarray:
    """The largest modulus of a root of the polynomial, highest power first, elementwise."""
    table = np.stack(np.broadcast_arrays(*coefficients), axis=-1)
    flat = [np.abs(np.roots(row)).max() for row in table.reshape(-1, table.shape[-1])]
    return np.array(flat).reshape(table.shape[:-1])


@pytest.mark.parametrize("name", ["ddim", "euler", "dpm-1", "deis-1"])
def test_ddim(name: str) -> None:
    """DDIM grows by kappa + (1 - kappa) e^{-h} per step, to 1e-13, and is stable for every step."""
    found = stability(name, steps=STEPS, modes=MODES)
    want = KAPPA + (1 - KAPPA) * np.exp(-STEPS[:, None])
    np.testing.assert_allclose(found.growth, want, rtol=1e-13)
    np.testing.assert_allclose(found.exact, np.exp(-(1 - KAPPA) * STEPS[:, None]), rtol=1e-13)
    assert found.limit == 12.0


def test_heun() -> None:
    """EDM's Heun step from sigma to q sigma grows by 1 - d (1 - z) with its slope averaged, z = e^{-h}."""
    z, rest = np.exp(-STEPS[:, None]), 1 - KAPPA
    predicted = 1 + rest * (z - 1)
    want = np.abs(1 + (z - 1) * (rest + rest / z * predicted) / 2)
    found = stability("heun", steps=STEPS, modes=MODES)
    np.testing.assert_allclose(found.growth, want, rtol=1e-11)
    assert found.limit == 2.0


def test_multistep_in_sigma() -> None:
    """DEIS-rho-2 has the roots of g^2 = g (1 - (1 - kappa) (1 - q) (1 + q/2)) + (1 - kappa) (1 - q) q^2 / 2."""
    q, rest = np.exp(-STEPS[:, None]), 1 - KAPPA
    want = largest_root(np.ones_like(q), -(1 - rest * (1 - q) * (1 + q / 2)), -rest * (1 - q) * q**2 / 2)
    np.testing.assert_allclose(stability("deis-rho-2", steps=STEPS, modes=MODES).growth, want, rtol=1e-11)


def test_multistep_in_lam() -> None:
    """DPM-Solver++(2M) has the roots of its two-step recursion with w1 = -(h - 1 + e^{-h}) / h, to 1e-11."""
    h = STEPS[:, None]
    older = -(h + np.expm1(-h)) / h
    newer = -np.expm1(-h) - older
    want = largest_root(np.ones_like(h), -(np.exp(-h) + newer * KAPPA), -older * KAPPA)
    np.testing.assert_allclose(stability("dpmpp-2m", steps=STEPS, modes=MODES).growth, want, rtol=1e-11)


@pytest.mark.parametrize("name", FIXED)
def test_long_runs_grow_like_that(name: str) -> None:
    """A run of 60 equal steps with the frozen denoiser grows at this rate per step, to 2 %; eight states together,
    without that growth, as a pair of complex roots lets it swing."""
    steps, kappa = 60, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    modes = (0.5 * torch.log(kappa / (1 - kappa))).numpy()
    for h in (0.3, 1.5):
        lam = h * (np.arange(steps + 1) - steps / 2)
        sch = logsnr.EDM(sigma_min=np.exp(-lam[-1]), sigma_max=np.exp(-lam[0]))
        den = logsnr.Denoiser(lambda x, t: kappa * x, sch, "x0")
        x = torch.ones(1, 3, dtype=torch.float64)
        states = logsnr.solve(den, x, solver=name, grid=np.exp(-lam), trajectory=True).trajectory
        assert states is not None
        growth = stability(name, steps=[h], modes=modes).growth[0]
        scaled = states[:, 0].numpy() / growth ** np.arange(steps + 1)[:, None]
        early, late = (np.linalg.norm(scaled[end - 8 : end], axis=0) for end in (steps // 2, steps))
        rate = (late / early) ** (2 / steps)
        np.testing.assert_allclose(rate, 1.0, rtol=0.07 if name in SWINGING else 0.02)


@pytest.mark.parametrize("name", FIXED)
def test_small_steps_follow_the_exact_growth(name: str) -> None:
    """Growth and exact growth agree up to the local error of the order, h^(p + 1), for every mode."""
    h = 0.05
    found = stability(name, steps=[h], modes=MODES)
    assert (np.abs(found.growth / found.exact - 1) < h ** (logsnr.solver(name).order + 1)).all()
    assert found.limit == h


def test_limits() -> None:
    """The limit is 0 without a stable step, and ends before the first unstable one even if later ones are stable."""
    assert stability("dpm-2", steps=[6.0, 7.0]).limit == 0.0
    found = stability("heun", steps=[1.0, 2.0, 4.0], modes=[0.0])
    assert found.limit == 2.0
    assert found.growth[2, 0] > 1


def test_plot_is_a_file(tmp_path: Path) -> None:
    """The map is drawn with and without a border of stability."""
    for name in ("heun", "ddim"):
        stability(name, steps=np.linspace(1, 4, 5)).plot(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_bad_arguments_are_refused() -> None:
    """Steps that are not positive, increasing and at most 20, and adaptive solvers, raise ValueError."""
    for steps in ([2.0, 1.0], [1.0, 30.0]):
        with pytest.raises(ValueError, match="steps must increase and not exceed 20"):
            stability("ddim", steps=steps)
    with pytest.raises(ValueError, match="steps must be a 1-D array of positive numbers"):
        stability("ddim", steps=[-1.0])
    with pytest.raises(ValueError, match="modes must be a 1-D array"):
        stability("ddim", modes=0.0)
    with pytest.raises(ValueError, match="chooses its own steps"):
        stability("bosh3")
    for name in FLOW:
        with pytest.raises(ValueError, match=f"the steps of {name} depend on the level of noise"):
            stability(name)
