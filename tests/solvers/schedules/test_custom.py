"""Schedules from functions of the user's."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import mpmath as mp
import numpy as np
import pytest
import torch

import logsnr
from logsnr import Custom, Discrete, VPLinear


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
        (math.cos, math.sin, {}, "must take a tensor of times .*: write them with torch operations on t"),
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
