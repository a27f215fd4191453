"""The schedules with a formula, against the same formula in 50 digits."""

import math
from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import logsnr
from logsnr import EDM, VE, FlowMatching, Schedule, SubVP, Trigonometric, VPCosine, VPLinear

Exact = tuple[Callable[[mp.mpf], mp.mpf], Callable[[mp.mpf], mp.mpf]]


def exact(sch: Any) -> Exact:
    """alpha and sigma as functions of an mpf, straight from their definitions."""
    if isinstance(sch, VPLinear | SubVP):
        low, rise = mp.mpf(sch.beta_min), mp.mpf(sch.beta_max) - mp.mpf(sch.beta_min)

        def keep(t: mp.mpf) -> mp.mpf:
            return mp.exp(-low * t - rise * t * t / 2)

        vp = isinstance(sch, VPLinear)
        return (lambda t: mp.sqrt(keep(t))), (lambda t: mp.sqrt(1 - keep(t)) if vp else 1 - keep(t))
    if isinstance(sch, VPCosine):
        s = mp.mpf(sch.s)

        def alpha(t: mp.mpf) -> mp.mpf:
            return mp.cos((t + s) / (1 + s) * mp.pi / 2) / mp.cos(s / (1 + s) * mp.pi / 2)

        return alpha, lambda t: mp.sqrt(1 - alpha(t) ** 2)
    if isinstance(sch, VE):
        return (lambda t: mp.mpf(1)), (lambda t: sch.sigma_min * (mp.mpf(sch.sigma_max) / sch.sigma_min) ** t)
    if isinstance(sch, EDM):
        return (lambda t: mp.mpf(1)), (lambda t: t)
    if isinstance(sch, FlowMatching):
        return (lambda t: 1 - t), (lambda t: t)
    return (lambda t: mp.sin(mp.mpf(math.pi / 2) - t)), mp.sin  # the schedule's pi / 2 is a float64


SCHEDULES = [
    VPLinear(),
    VPLinear(1e-4, 40),
    SubVP(),
    VPCosine(),
    VPCosine(1e-8),
    VPCosine(3.0),
    VE(),
    EDM(),
    FlowMatching(),
    Trigonometric(),
]
KINDS: list[Callable[[float], Any]] = [float, lambda t: torch.tensor(t, dtype=torch.float64)]
everywhere = pytest.mark.parametrize("sch", SCHEDULES, ids=repr)


def times(sch: Schedule) -> list[float]:
    near_0 = [10.0**k for k in (-12, -9, -6, -4, -3, -2, -1)]
    return [sch.domain[1] * u for u in [*near_0, 0.2, 0.37, 0.5, 0.7, 0.9, 0.99, *(1 - u for u in near_0[:5])]]


def relative(got: Any, want: mp.mpf) -> float:
    return float(abs((mp.mpf(float(got)) - want) / want))


@everywhere
@pytest.mark.parametrize("kind", KINDS, ids=["numpy", "torch"])
def test_values_are_accurate_everywhere(sch: Schedule, kind: Callable[[float], Any]) -> None:
    """alpha, sigma and lam match 50 digits to 5e-15, from t = 1e-12 to 1e-12 before the noisy end."""
    alpha, sigma = exact(sch)
    for t in times(sch):
        at, lam = mp.mpf(t), mp.log(alpha(mp.mpf(t)) / sigma(mp.mpf(t)))
        assert relative(sch.alpha(kind(t)), alpha(at)) < 5e-15
        assert relative(sch.sigma(kind(t)), sigma(at)) < 5e-15
        assert abs(float(sch.half_logsnr(kind(t))) - lam) < 1e-15 * max(1, abs(lam))


@everywhere
@pytest.mark.parametrize("kind", KINDS, ids=["numpy", "torch"])
def test_derivatives_are_accurate_everywhere(sch: Schedule, kind: Callable[[float], Any]) -> None:
    """dalpha, dsigma, drift = alpha' / alpha and diffusion2 = -2 sigma^2 lam' match 50 digits to 1e-14."""
    alpha, sigma = exact(sch)
    for t in times(sch):
        at = mp.mpf(t)
        da, ds = (mp.diff(f, at, h=at * mp.mpf(10) ** -25) for f in (alpha, sigma))
        # math.pi / 2 is 6e-17 short of pi / 2, which shows where cos(t) is small.
        slack = 7e-17 if isinstance(sch, Trigonometric) else 0.0
        assert abs(float(sch.dalpha(kind(t))) - da) <= 1e-14 * abs(da) + slack
        assert abs(float(sch.dsigma(kind(t))) - ds) <= 1e-14 * abs(ds) + slack
        assert abs(float(sch.drift(kind(t))) - da / alpha(at)) <= (1e-14 * abs(da) + slack) / alpha(at)
        g2 = -2 * sigma(at) ** 2 * (da / alpha(at) - ds / sigma(at))
        assert relative(sch.diffusion2(kind(t)), g2) < 1e-14


@everywhere
@pytest.mark.parametrize("kind", KINDS, ids=["numpy", "torch"])
def test_time_inverts_half_logsnr(sch: Schedule, kind: Callable[[float], Any]) -> None:
    """time(lam) is the exact preimage of the float64 lam to 2e-15, relative except for VE (lam is linear)."""
    alpha, sigma = exact(sch)
    for t in times(sch):
        at = mp.mpf(t)
        lam = float(mp.log(alpha(at) / sigma(at)))
        slope = mp.diff(lambda u: mp.log(alpha(u) / sigma(u)), at, h=at * mp.mpf(10) ** -25)
        preimage = at + (lam - mp.log(alpha(at) / sigma(at))) / slope  # one Newton step from a rounding away
        got = float(sch.time(kind(lam)))
        assert abs(got - preimage) < (2e-15 if isinstance(sch, VE) else 2e-15 * preimage)


@everywhere
@pytest.mark.filterwarnings("error")
def test_ends_are_exact(sch: Schedule) -> None:
    """Ends without noise or without data give exact zeros and infinities, no warning, and invert exactly."""
    clean, noisy = sch.domain
    if not isinstance(sch, VE):
        assert sch.sigma(clean) == 0
        assert sch.alpha(clean) == 1
        assert sch.half_logsnr(clean) == math.inf
    if isinstance(sch, VPCosine | FlowMatching | Trigonometric):
        assert sch.alpha(noisy) == 0
        assert sch.half_logsnr(noisy) == -math.inf
        assert sch.drift(noisy) == -math.inf
        assert sch.diffusion2(noisy) == math.inf
    for t in sch.domain:
        assert sch.time(sch.half_logsnr(t)) == t
        assert sch.time(torch.tensor(sch.half_logsnr(t))).item() == pytest.approx(t, rel=1e-6, abs=1e-6)
    assert sch.diffusion2(clean) >= 0


def test_default_spans() -> None:
    """Solves start at the noisy end, and end where the design of each schedule says."""
    ends = {
        VPLinear(): (1, 1e-3),
        SubVP(): (1, 1e-3),
        VPCosine(): (1, 1e-3),
        VE(): (1, 0),
        FlowMatching(): (1, 0),
    }
    ends |= {EDM(0.01, 50): (50, 0.01), Trigonometric(): (math.pi / 2, 0)}
    for sch, span in ends.items():
        assert (sch.t_start, sch.t_end) == span


@everywhere
@settings(max_examples=30)
@given(u=st.floats(0, 1))
def test_half_logsnr_decreases_and_inverts(sch: Schedule, u: float) -> None:
    """For any t, time(lam(t)) is t to 1e-12 of the domain, and lam is larger at 0.999 t."""
    t = u * sch.domain[1]
    assert sch.time(sch.half_logsnr(t)) == pytest.approx(t, rel=1e-12, abs=1e-12 * sch.domain[1])
    assert u < 1e-9 or sch.half_logsnr(0.999 * t) > sch.half_logsnr(t)


METHODS = ["alpha", "sigma", "half_logsnr", "dalpha", "dsigma", "drift", "diffusion2"]


@everywhere
@pytest.mark.parametrize("method", [*METHODS, "time"])
def test_answers_in_kind(sch: Schedule, method: str) -> None:
    """Floats give floats, any numpy dtype float64 of its shape, tensors their dtype, computed in float64."""
    f, mid = getattr(sch, method), 0.4 * sch.domain[1]
    value = sch.half_logsnr(mid) if method == "time" else mid
    want = f(value)
    assert type(want) is float
    for array in (np.full((2, 3), value), np.array(value), np.float64(value)):
        assert np.asarray(f(array)).dtype == np.float64
        assert np.shape(f(array)) == array.shape
        np.testing.assert_array_equal(f(array), want)
    assert f(np.full(2, value, dtype=np.float32)).dtype == np.float64
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        t = torch.full((2, 3), value, dtype=dtype)
        assert f(t).dtype == dtype
        assert f(t).shape == t.shape
        torch.testing.assert_close(f(t), f(t.double()).to(dtype), rtol=0, atol=0)
    assert sch.alpha(torch.tensor([0])).dtype == torch.float64


def test_hash_and_equality_are_by_value() -> None:
    """Equal parameters make equal schedules with equal hashes, and other parameters or types do not."""
    assert VPLinear(0.1, 20) == VPLinear()
    assert hash(VPLinear(0.1, 20)) == hash(VPLinear())
    assert len({VPLinear(), VPLinear(0.1, 20.0), VPLinear(0.2), SubVP(), FlowMatching(), FlowMatching()}) == 4


@pytest.mark.parametrize("lam", [-5.1, math.nan, -math.inf, np.array([0.0, -7.0])])
def test_unreachable_half_logsnr_is_refused(lam: Any) -> None:
    """A float or array that the schedule never reaches raises, naming the value and what can be reached."""
    with pytest.raises(ValueError, match=r"half_logsnr = .* is never reached: .* in \[-5.02498, inf\]"):
        VPLinear().time(lam)


def test_unreachable_half_logsnr_is_clipped_for_tensors() -> None:
    """Tensors beyond the range, and floats beyond it by a rounding, give the end of the domain."""
    sch = VPLinear()
    assert torch.equal(sch.time(torch.tensor([-9.0, math.inf])), torch.tensor([1.0, 0.0]))
    assert sch.time(sch.half_logsnr(1.0) * (1 + 1e-7)) == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VPLinear(-0.1), "beta_min = -0.1"),
        (lambda: VPLinear(0.0), "0 < beta_min"),
        (lambda: SubVP(3.0, 2.0), "beta_min <= beta_max"),
        (lambda: VPLinear(0.1, math.nan), "beta_max = nan"),
        (lambda: VPLinear(0.1, 3000), "underflows"),
        (lambda: VPCosine(0), "s = 0"),
        (lambda: VPCosine(math.inf), "s = inf"),
        (lambda: VE(1.0, 0.5), "sigma_min = 1.0 and sigma_max = 0.5"),
        (lambda: EDM(0.0, 80.0), "0 < sigma_min"),
        (lambda: EDM(0.1, math.inf), "both finite"),
    ],
)
def test_bad_parameters_are_refused(make: Callable[[], Schedule], message: str) -> None:
    """A parameter that makes no schedule raises ValueError with its name and value."""
    with pytest.raises(ValueError, match=message):
        make()


def test_under_vmap_and_autograd() -> None:
    """Schedules work under torch.func.vmap, and autograd through alpha gives dalpha."""
    sch, t = logsnr.VPCosine(), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    assert torch.equal(torch.func.vmap(sch.half_logsnr)(t), sch.half_logsnr(t))
    slope = torch.func.vmap(torch.func.grad(sch.alpha))(t)
    torch.testing.assert_close(slope, sch.dalpha(t), rtol=1e-14, atol=0)


def test_equality_is_by_all_attributes() -> None:
    """A subclass that keeps numbers of its own, dataclass or not, is told apart by them."""

    class Power(FlowMatching):
        def __init__(self, k: int) -> None:
            object.__setattr__(self, "k", k)

        def _alpha(self, t: Any, xp: Any) -> Any:
            return (1 - t) ** self.k  # type: ignore[attr-defined]

        def _dalpha(self, t: Any, xp: Any) -> Any:
            return -self.k * (1 - t) ** (self.k - 1)  # type: ignore[attr-defined]

    assert Power(2) == Power(2)
    assert hash(Power(2)) == hash(Power(2))
    assert Power(1) != Power(2)
    assert Power(1) != FlowMatching()
    x, ends = torch.linspace(-1, 1, 4, dtype=torch.float64)[:, None], list[torch.Tensor]()
    for k in (1, 2):
        den = logsnr.Denoiser(lambda x, t: torch.tanh(x), Power(k), "x0")
        ends.append(logsnr.sample(den, x, solver="ddim", grid=[0.9, 0.5, 0.1]))
    assert not torch.equal(*ends)
