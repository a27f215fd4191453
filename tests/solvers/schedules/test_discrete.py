"""Schedules from a table of alpha^2."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy.interpolate import BPoly, KroghInterpolator

from logsnr import Discrete, VPLinear

STABLE_DIFFUSION = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def zero_terminal_snr(table: np.ndarray) -> np.ndarray:
    """Lin et al., arXiv:2305.08891, algorithm 1."""
    alpha = np.sqrt(table)
    rescaled = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    return rescaled**2


TABLES = [STABLE_DIFFUSION, zero_terminal_snr(STABLE_DIFFUSION), np.array([0.9, 0.1])]
tables = pytest.mark.parametrize("table", TABLES, ids=["sd", "zero-snr", "two"])


@tables
def test_discrete_reproduces_its_table(table: np.ndarray) -> None:
    """At the indices alpha^2 is the table and sigma^2 its complement, to rounding."""
    sch, n = Discrete(table), np.arange(len(table), dtype=float)
    np.testing.assert_allclose(sch.alpha(n), np.sqrt(table), rtol=3e-16)
    np.testing.assert_allclose(sch.sigma(n), np.sqrt(1 - table), rtol=3e-16)
    assert (sch.t_start, sch.t_end) == sch.domain[::-1] == (len(table) - 1, -1)
    assert sch.last_level == 0


def quintic(table: np.ndarray) -> BPoly:
    return _quintic(table.tobytes())


@cache
def _quintic(table: bytes) -> BPoly:
    """scipy's pieces of degree 5 through alpha, with derivatives of the polynomial through the 7 nearest entries."""
    alpha = np.sqrt(np.frombuffer(table))
    size, known = min(7, len(alpha)), []
    for n in range(len(alpha)):
        first = min(max(n - size // 2, 0), len(alpha) - size)
        near = KroghInterpolator(np.arange(first, first + size) - n, alpha[first : first + size])
        known.append(near.derivatives(0.0, 3).ravel())
    return BPoly.from_derivatives(np.arange(len(alpha)), known)


@tables
def test_discrete_between_the_entries_is_a_quintic(table: np.ndarray) -> None:
    """Between the indices of a smooth table alpha is scipy's quintic, and numpy and torch agree to rounding."""
    sch, t = Discrete(table), np.linspace(0, len(table) - 1, 3001)
    np.testing.assert_allclose(sch.alpha(t), quintic(table)(t), rtol=0, atol=1e-15)
    np.testing.assert_allclose(sch.sigma(t) ** 2, 1 - sch.alpha(t) ** 2, rtol=0, atol=2e-15)
    for method in ("alpha", "sigma", "half_logsnr", "drift", "diffusion2", "dalpha", "dsigma"):
        by_numpy, by_torch = getattr(sch, method)(t), getattr(sch, method)(torch.tensor(t)).numpy()
        np.testing.assert_allclose(by_torch, by_numpy, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("name", "error"), [("alpha", 1e-14), ("sigma", 1e-11), ("dsigma", 1e-10)])
def test_discrete_continues_a_smooth_formula(name: str, error: float) -> None:
    """The table of 1000 values of VPLinear has VPLinear's functions between the entries, to rounding but for the first
    few intervals, where sigma grows like a root."""
    formula, t = VPLinear(), np.linspace(0, 999, 7771)
    sch = Discrete(formula.alpha(np.arange(1, 1001) / 1000) ** 2)
    found = getattr(sch, name)(t) * (1000 if name == "dsigma" else 1)
    off = abs(found / getattr(formula, name)((t + 1) / 1000) - 1)
    assert off.max() < error
    assert off[t > 30].max() < 1e-12


@tables
def test_discrete_derivatives(table: np.ndarray) -> None:
    """dalpha and dsigma are those of the interpolant, drift their quotient, and g^2 = -2 sigma^2 lam'."""
    sch, t = Discrete(table), np.linspace(0, len(table) - 1, 3002)[1:-1]
    alpha, rate = quintic(table)(t), quintic(table).derivative()(t)
    np.testing.assert_allclose(sch.dalpha(t), rate, rtol=1e-11)
    np.testing.assert_allclose(sch.dsigma(t), -alpha * rate / np.sqrt(1 - alpha**2), rtol=1e-10)
    np.testing.assert_allclose(sch.drift(t), sch.dalpha(t) / sch.alpha(t), rtol=1e-15)
    lam_slope = sch.dalpha(t) / sch.alpha(t) - sch.dsigma(t) / sch.sigma(t)
    np.testing.assert_allclose(sch.diffusion2(t), -2 * sch.sigma(t) ** 2 * lam_slope, rtol=1e-13)


@tables
def test_discrete_time_inverts_half_logsnr(table: np.ndarray) -> None:
    """lam decreases strictly, and time(lam(t)) = t to 2e-12 index steps, entries and ends included."""
    sch = Discrete(table)
    t = np.unique(np.concatenate([np.linspace(0, len(table) - 1, 1777), np.arange(len(table))]))
    lam = sch.half_logsnr(t)
    assert (np.diff(lam) < 0).all()
    np.testing.assert_allclose(sch.time(lam), t, rtol=0, atol=2e-12)
    np.testing.assert_allclose(sch.time(torch.tensor(lam)).numpy(), t, rtol=0, atol=2e-12)
    np.testing.assert_allclose([sch.time(lam[0]), sch.time(lam[-1])], [0, len(table) - 1], rtol=0, atol=1e-15)


@pytest.mark.filterwarnings("error")
def test_zero_terminal_snr_is_exact() -> None:
    """A table that ends in 0 has alpha = 0, lam = -inf and a finite alpha' at its end, without a warning."""
    sch = Discrete(TABLES[1])
    last = sch.t_start
    assert (sch.alpha(last), sch.sigma(last), sch.half_logsnr(last)) == (0, 1, -math.inf)
    assert (sch.drift(last), sch.diffusion2(last)) == (-math.inf, math.inf)
    assert sch.time(-math.inf) == last
    assert -1e-2 < sch.dalpha(last) < 0


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.filterwarnings("error")
def test_any_legal_table_decreases_strictly(seed: int) -> None:
    """Irregular tables, from 2 entries over 100 orders of magnitude, with or without a 0 at the end: lam decreases
    strictly, alpha' is negative and finite everywhere, and time inverts lam."""
    rng = np.random.default_rng(seed)
    count, power = int(rng.integers(2, 40)), [0.1, 1, 8, 60][seed % 4]
    sch = Discrete(np.append(np.sort(rng.uniform(0, 1, count) ** power)[::-1], [0.0] * (seed % 3 == 0)))
    t = np.linspace(*sch.domain, 64 * count + 1)
    lam = sch.half_logsnr(t)
    assert (np.diff(lam) < 0).all()
    assert (sch.dalpha(t) < 0).all()
    assert np.isfinite(sch.dalpha(t)).all()
    np.testing.assert_allclose(sch.half_logsnr(sch.time(lam)), lam, rtol=1e-9, atol=1e-9)


def test_discrete_takes_lists_arrays_and_tensors() -> None:
    """The same table in any container makes equal schedules with equal hashes; another makes another."""
    table = [0.9, 0.5, 0.25]
    made = [Discrete(table), Discrete(np.array(table)), Discrete(torch.tensor(table, dtype=torch.float64))]
    assert made[0] == made[1] == made[2]
    assert len({*made, Discrete([0.9, 0.5, 0.2]), Discrete(torch.tensor(table, dtype=torch.float32))}) == 3
    with pytest.raises(ValueError, match="read-only"):
        made[0].alphas_cumprod[0] = 1.0
    assert repr(made[0]) == "Discrete([0.9 ... 0.25], 3 entries)"


def test_float32_tables_of_the_usual_betas_are_made_again() -> None:
    """Linear betas, and those linear in their roots, as float32 products round them; not other tables."""
    linear = np.linspace(1e-4, 0.02, 1000)
    rounded = np.cumprod(1 - linear.astype(np.float32), dtype=np.float32)
    for given, exact in ((rounded, np.cumprod(1 - linear)), (STABLE_DIFFUSION.astype(np.float32), STABLE_DIFFUSION)):
        assert Discrete(given) == Discrete(torch.from_numpy(given)) == Discrete(exact)
    bent = (STABLE_DIFFUSION**1.1).astype(np.float32)
    np.testing.assert_array_equal(Discrete(bent).alphas_cumprod, bent)


@tables
def test_discrete_goes_on_to_sigma_0(table: np.ndarray) -> None:
    """From the first entry to t = -1 (sigma / alpha)^2 falls in a line to 0; time inverts lam there, and derivatives
    are those of differences."""
    sch, t = Discrete(table), np.linspace(-1.0, -1e-3, 101)
    rho2 = (sch.sigma(t) / sch.alpha(t)) ** 2
    np.testing.assert_allclose(rho2, (1 - table[0]) / table[0] * (1 + t), rtol=1e-13)
    np.testing.assert_allclose(sch.alpha(t) ** 2 + sch.sigma(t) ** 2, 1.0, rtol=1e-15)
    assert (sch.sigma(-1.0), sch.alpha(-1.0), sch.half_logsnr(-1.0)) == (0, 1, math.inf)
    np.testing.assert_allclose(sch.time(sch.half_logsnr(t)), t, rtol=0, atol=1e-12)
    for f, slope in ((sch.alpha, sch.dalpha), (sch.sigma, sch.dsigma)):
        inner = t[50:-1]
        np.testing.assert_allclose(slope(inner), (f(inner + 1e-3) - f(inner - 1e-3)) / 2e-3, rtol=1e-5)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[0.9, 0.1]], r"shape \(1, 2\)"),
        ([0.9], "at least 2 entries"),
        (np.linspace(1e-4, 0.02, 10), "entries 0 and 1 are 0.0001 and .* from betas it is numpy.cumprod"),
        ([14.6, 3.0, 0.03], r"alphas_cumprod\[0\] = 14.6 is not in \[0, 1\)"),
        ([0.9, math.nan], r"alphas_cumprod\[1\] = nan"),
        ([1.0, 0.5], r"\[0, 1\)"),
        ([0.9, 0.5, 0.5], "entries 1 and 2"),
        (np.array([0.9, 0.5 + 0.1j]), "must be real numbers, not complex128"),
        (torch.tensor([0.9, 0.5], dtype=torch.bfloat16), "has half precision, torch.bfloat16"),
        (np.array([0.9, 0.5], dtype=np.float16), "has half precision, float16"),
    ],
)
def test_discrete_refuses_what_is_no_table(table: object, message: str) -> None:
    """A table of the wrong shape, order or range raises, saying which entry and what was probably passed."""
    with pytest.raises(ValueError, match=message):
        Discrete(table)  # type: ignore[arg-type]
