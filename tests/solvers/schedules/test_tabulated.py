"""Schedules from a table and from functions."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.interpolate import BPoly, KroghInterpolator

import logsnr
from logsnr import Custom, Discrete, VPLinear

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
    assert (sch.t_start, sch.t_end) == sch.domain[::-1] == (len(table) - 1, 0)


def quintic(table: np.ndarray) -> BPoly:
    """scipy's pieces of degree 5 through alpha, with derivatives of the polynomial through the 7 nearest entries."""
    alpha, size = np.sqrt(table), min(7, len(table))
    known = []
    for n in range(len(table)):
        first = min(max(n - size // 2, 0), len(table) - size)
        near = KroghInterpolator(np.arange(first, first + size) - n, alpha[first : first + size])
        known.append(near.derivatives(0.0, 3).ravel())
    return BPoly.from_derivatives(np.arange(len(table)), known)


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
    assert [sch.time(lam[0]), sch.time(lam[-1])] == [0, len(table) - 1]


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
    assert len({*made, Discrete([0.9, 0.5, 0.2]), Discrete(torch.tensor(table, dtype=torch.bfloat16))}) == 3
    with pytest.raises(ValueError, match="read-only"):
        made[0].alphas_cumprod[0] = 1.0
    assert repr(made[0]) == "Discrete([0.9 ... 0.25], 3 entries)"


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
    ],
)
def test_discrete_refuses_what_is_no_table(table: object, message: str) -> None:
    """A table of the wrong shape, order or range raises, saying which entry and what was probably passed."""
    with pytest.raises(ValueError, match=message):
        Discrete(table)  # type: ignore[arg-type]


def integral(t: torch.Tensor) -> torch.Tensor:
    return t * (0.1 + 19.9 * t / 2)


def custom() -> Custom:
    return Custom(
        lambda t: torch.exp(-integral(t) / 2), lambda t: torch.sqrt(-torch.expm1(-integral(t))), domain=(0, 1)
    )


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_custom_equals_the_formula_it_spells(mode: Callable) -> None:
    """VPLinear given as two functions has VPLinear's values, derivatives and inverse in any grad mode."""
    sch, formula = custom(), VPLinear()
    t = np.concatenate([10.0 ** np.arange(-12, -1), np.linspace(0.1, 1, 20)])
    with mode():
        for method in ("alpha", "sigma", "half_logsnr", "drift", "diffusion2", "dalpha"):
            np.testing.assert_allclose(getattr(sch, method)(t), getattr(formula, method)(t), rtol=2e-15)
        # autograd forms e^{-B} / sigma, not -alpha alpha' / sigma: the rounding of expm1 enters
        np.testing.assert_allclose(sch.dsigma(t), formula.dsigma(t), rtol=2e-12)
        np.testing.assert_allclose(sch.time(formula.half_logsnr(t)), t, rtol=1e-13)
        tensor = torch.tensor(t, dtype=torch.float32)
        torch.testing.assert_close(sch.drift(tensor), formula.drift(tensor))
        assert sch.drift(0.5) == pytest.approx(formula.drift(0.5), rel=1e-15)
    assert (sch.time(math.inf), sch.half_logsnr(0.0)) == (0.0, math.inf)


def test_custom_time_against_mpmath() -> None:
    """The inverse of a lam with no closed form matches mpmath's root to 1e-14."""
    sch = Custom(lambda t: 1 / (1 + t**3), lambda t: t + 0.3 * torch.sin(t), t_start=2.0, t_end=0.0)
    for t in (1e-9, 1e-3, 0.5, 1.3, 1.99):
        lam = sch.half_logsnr(t)
        root = mp.findroot(lambda u, lam=lam: -mp.log(1 + u**3) - mp.log(u + 0.3 * mp.sin(u)) - lam, t)
        assert sch.time(lam) == pytest.approx(float(root), rel=1e-14)


def test_custom_spans_and_identity() -> None:
    """domain is (t_end, t_start) unless given; equality and hash follow the functions and the numbers."""

    def alpha(t: torch.Tensor) -> torch.Tensor:
        return 1 - t

    def sigma(t: torch.Tensor) -> torch.Tensor:
        return t

    sch = Custom(alpha, sigma, t_start=0.9, t_end=0.1)
    assert (sch.t_start, sch.t_end, sch.domain) == (0.9, 0.1, (0.1, 0.9))
    assert sch == Custom(alpha, sigma, t_start=0.9, t_end=0.1)
    assert hash(sch) == hash(Custom(alpha, sigma, t_start=0.9, t_end=0.1))
    assert sch != Custom(alpha, sigma, t_start=0.9, t_end=0.2)
    assert sch != Custom(alpha, lambda t: t, t_start=0.9, t_end=0.1)
    assert isinstance(sch, logsnr.Schedule)


@pytest.mark.parametrize(
    ("alpha", "sigma", "options", "message"),
    [
        (
            lambda t: 1.0,
            lambda t: t,
            {},
            r"alpha\(t\) must return a float64 tensor of t's shape \(257,\), not 1.0",
        ),
        (lambda t: 1 - t, lambda t: t.float(), {}, r"sigma\(t\) must return a float64 tensor"),
        (
            lambda t: 1 - t,
            lambda t: t - 0.5,
            {},
            "sigma must be finite and nonnegative, but not at t = 0.001",
        ),
        (lambda t: 1 / t, lambda t: t, {"domain": (0.0, 1.0)}, "alpha must be finite .* at t = 0.0"),
        (lambda t: 1 - t, lambda t: 1 - t, {}, "alpha and sigma must not both be 0, but not at t = 1.0"),
        (lambda t: t, lambda t: 1 - t, {}, "must decrease strictly"),
        (lambda t: 1 - t, lambda t: t, {"t_end": 1.0}, "t_end = 1.0, t_start = 1.0"),
        (lambda t: 1 - t, lambda t: t, {"domain": (0.5, 1.0)}, r"domain = \(0.5, 1.0\)"),
    ],
)
def test_custom_refuses_what_is_no_schedule(alpha: Callable, sigma: Callable, options: dict, message: str) -> None:
    """Functions that do not make a schedule raise at construction, naming the function and the time."""
    with pytest.raises(ValueError, match=message):
        Custom(alpha, sigma, **options)
    with pytest.raises(TypeError, match="sigma must be a callable sigma"):
        Custom(alpha, 3, **options)


def test_what_a_rounding_leaves_is_zero() -> None:
    """cos(pi / 2) is 6e-17 in floats: at an end of the domain that is alpha = 0 or sigma = 0, as of the formula, with
    the grids of the formula. Numbers that small which are no rounding stay."""
    quarter, formula = math.pi / 2, logsnr.Trigonometric()
    sch = Custom(lambda t: torch.cos(quarter * t), lambda t: torch.sin(quarter * t))
    assert (sch.alpha(1.0), sch.half_logsnr(1.0)) == (0, -math.inf)
    assert sch.alpha(torch.ones(2, dtype=torch.float64)).tolist() == [0, 0]
    for steps in (1, 10, 30):
        wanted = logsnr.grid(formula, steps, t_end=quarter * 1e-3) / quarter
        np.testing.assert_allclose(logsnr.grid(sch, steps), wanted, rtol=1e-12)
    mirrored = Custom(
        lambda t: torch.sin(quarter * (1 - t)), lambda t: torch.cos(quarter * (1 - t)), domain=(0, 1)
    )  # fmt: skip
    assert (mirrored.sigma(0.0), mirrored.half_logsnr(0.0)) == (0, math.inf)
    with pytest.raises(ValueError, match="does not determine x0 at t = 1, where alpha = 0"):
        logsnr.sample(logsnr.Denoiser(lambda x, t: x, sch, "eps"), torch.ones(2, 3), steps=5)
    small = Custom(lambda t: torch.exp(-20 * t * t), lambda t: torch.sqrt(-torch.expm1(-40 * t * t)), t_start=1.4)
    assert small.alpha(1.4) == math.exp(-20 * 1.4 * 1.4) < 1e-17
    table = Discrete(np.cos(np.arange(1, 1001) / 1000 * quarter) ** 2)
    assert (table.alpha(999.0), table.half_logsnr(999.0)) == (0, -math.inf)
    assert len(logsnr.grid(table, 50, "karras")) == 51


def test_functions_without_a_hash_are_refused() -> None:
    """Plans are kept by schedule, so a schedule must have a hash: that is said where it is made."""

    @dataclass
    class Line:
        slope: float

        def __call__(self, t: torch.Tensor) -> torch.Tensor:
            return self.slope * t

    with pytest.raises(TypeError, match=r"sigma must be a callable sigma\(t\) with a hash, not Line"):
        Custom(lambda t: 1 - t, Line(1.0))
