"""The named grids against the formulas and lists of those who published them, and their options."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import stats

import logsnr
from logsnr.analysis.moments import propagate
from logsnr.solvers.grids.grids import KINDS

EDM, FLOW, VP = logsnr.EDM(), logsnr.FlowMatching(), logsnr.VPLinear()
BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
TABLE = logsnr.Discrete(np.cumprod(1 - BETAS))  # Stable Diffusion's
SPACINGS = ("linspace", "leading", "trailing")
ANYWHERE = [name for name, shape in KINDS.items() if shape.of != "index" and shape.noisiest is None]


def uniform(values: np.ndarray) -> None:
    np.testing.assert_allclose(np.diff(values), np.diff(values).mean(), rtol=1e-9)


@pytest.mark.parametrize("sch", [EDM, FLOW, VP, TABLE, logsnr.VE(), logsnr.Trigonometric()], ids=str)
@pytest.mark.parametrize("name", ANYWHERE)
def test_every_name_has_exact_ends_and_all_its_steps(name: str, sch: logsnr.Schedule) -> None:
    """On every schedule, over the whole span, a part of it, down to sigma = 0, and back from data to noise."""
    low, high = sch.domain
    spans = [(None, None), (0.6 * high, 0.1 * high), (None, low), (low, sch.t_start), (0.1 * high, high)]
    for (start, end), steps in product(spans, [1, 2, 3, 4, 10, 41]):
        t = logsnr.grid(sch, steps, name, t_start=start, t_end=end)
        assert len(t) == steps + 1
        assert (t[0], t[-1]) == (sch.t_start if start is None else start, sch.t_end if end is None else end)
        assert (np.diff(t) * np.sign(t[-1] - t[0]) > 0).all()


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_karras_and_polyexponential_are_k_diffusions(rho: float) -> None:
    """Karras et al. 2022, eq. 5, and a power of the fraction that is left, in log sigma."""
    left = np.linspace(1, 0, 13)
    karras = (0.002 ** (1 / rho) + left * (80 ** (1 / rho) - 0.002 ** (1 / rho))) ** rho
    np.testing.assert_allclose(logsnr.grid(EDM, 12, "karras", rho=rho), karras, rtol=1e-11)
    poly = np.exp(left**rho * (np.log(80) - np.log(0.002)) + np.log(0.002))
    np.testing.assert_allclose(logsnr.grid(EDM, 12, "polyexponential", rho=rho), poly, rtol=1e-11)


def test_exponential_is_logsnr() -> None:
    np.testing.assert_array_equal(logsnr.grid(EDM, 9, "exponential"), logsnr.grid(EDM, 9))


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (0.5, 0.7), (2.0, 1.0)])
def test_beta_has_the_quantiles_of_scipy(a: float, b: float) -> None:
    left = stats.beta.ppf(1 - np.linspace(0, 1, 11), a, b)
    np.testing.assert_allclose(logsnr.grid(FLOW, 10, "beta", a=a, b=b), left, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(logsnr.grid(TABLE, 10, "beta", a=a, b=b, t_end=0), 999 * left, rtol=1e-10, atol=1e-9)


def test_laplace_and_logit_normal_have_equal_probabilities() -> None:
    """Of log sigma, or of logit t, between the ends: laws cut off there, so that no node is repeated."""
    for name, law in (
        ("laplace", stats.laplace(-0.3, 0.7)),
        ("logit-normal", stats.norm(-0.3, 0.7)),
    ):
        scale = {"laplace": "beta", "logit-normal": "std"}[name]
        t = logsnr.grid(EDM, 12, name, mu=-0.3, **{scale: 0.7})
        uniform(law.cdf(np.log(t)))
        t = logsnr.grid(FLOW, 12, name, mu=-0.3, **{scale: 0.7})
        np.testing.assert_allclose(law.cdf(np.log(t[1:-1] / (1 - t[1:-1]))), np.linspace(1, 0, 13)[1:-1], rtol=1e-12)


def test_tails_do_not_cancel() -> None:
    """Deep in either tail the nodes are those of the mirrored grid."""
    wide = logsnr.EDM(1e-6, 1e6)
    t = logsnr.grid(wide, 9, "logit-normal", t_start=1e6, t_end=1e4)
    back = logsnr.grid(wide, 9, "logit-normal", t_start=1e-4, t_end=1e-6)
    np.testing.assert_allclose(np.log(t), -np.log(back[::-1]), rtol=1e-12)


@pytest.mark.parametrize("c", [0.3, 1.0])
def test_arctan_is_uniform_in_the_angle(c: float) -> None:
    uniform(np.arctan(logsnr.grid(EDM, 12, "arctan", c=c) / c))
    t = logsnr.grid(FLOW, 12, "arctan", c=c)
    uniform(np.arctan2(t, c * (1 - t)))


def test_flow_is_uniform_in_the_time_of_flow_matching() -> None:
    """Under any schedule, to the last digit at both ends; and the logistic grid can be it."""
    t = logsnr.grid(EDM, 12, "flow")
    uniform(t / (1 + t))
    np.testing.assert_allclose(logsnr.grid(EDM, 12, "logistic", mu=0.0, scale=1.0), t, rtol=1e-5)
    np.testing.assert_allclose(logsnr.grid(FLOW, 12, "flow"), logsnr.grid(FLOW, 12, "time"), atol=1e-15)
    far = logsnr.grid(logsnr.EDM(1e-3, 1e9), 9, "flow", t_start=1e9, t_end=1e6)
    uniform(1 / (1 + far))


@pytest.mark.parametrize("c", [0.2, 1.0])
def test_arctan_has_the_least_kl_of_ddim_on_a_gaussian(c: float) -> None:
    """DDIM on N(0, c^2) generates too little variance; any other node makes KL from the exact marginal larger."""

    def kl(times: np.ndarray) -> float:
        program = logsnr.solver("ddim").program(EDM, times)
        got = propagate(program, EDM, np.array([c**2])).variance(np.array([c**2 + times[0] ** 2]))[0]
        ratio = got / (c**2 + times[-1] ** 2)
        return 0.5 * float(ratio - 1 - np.log(ratio))

    times = logsnr.grid(EDM, 6, "arctan", c=c)
    best = kl(times)
    for i in range(1, 6):
        for factor in (0.99, 1.01):
            moved = times.copy()
            moved[i] *= factor
            assert kl(moved) > best
    assert kl(logsnr.grid(EDM, 6, "arctan", c=1.1 * c)) > best


def test_linear_quadratic_is_mochis() -> None:
    """Straight to 0.025 in half the steps, then a parabola that ends at 1 with the same value and slope where it
    begins."""
    done = 1 - logsnr.grid(FLOW, 10, "linear-quadratic")
    np.testing.assert_allclose(done[:6], 0.005 * np.arange(6), atol=1e-15)
    coefficients = np.polyfit(np.arange(5, 11), done[5:], 2)
    np.testing.assert_allclose(np.polyval(coefficients, np.arange(5, 11)), done[5:], atol=1e-12)
    assert np.polyval(np.polyder(coefficients), 5) == pytest.approx(0.005)
    assert 1 - logsnr.grid(FLOW, 10, "linear-quadratic", threshold=0.2, linear_steps=4)[4] == pytest.approx(0.2)


def test_bong_tangent_is_res4lyfs() -> None:
    """Two arctangents that meet at half the span, steepest there; written out for 8 steps."""
    k, nodes = 0.2 * 40 / 10, np.arange(6)
    first = np.arctan(k * (6 - nodes))
    first = 0.5 + 0.5 * (first - first[-1]) / (first[0] - first[-1])
    last = np.arctan(-k * np.arange(4))
    last = 0.5 * (last - last[-1]) / (last[0] - last[-1])
    np.testing.assert_allclose(logsnr.grid(FLOW, 8, "bong-tangent"), [*first[:-1], *last], atol=1e-14)


def test_align_your_steps_lands_on_the_published_timesteps() -> None:
    """The list of sigma/alpha, on Stable Diffusion's table, against the list of its timesteps."""
    t = logsnr.grid(TABLE, 10, "ays-sd1")
    np.testing.assert_allclose(t, [999, 850, 736, 645, 545, 455, 343, 233, 124, 24, -1], atol=1e-4)
    t = logsnr.grid(TABLE, 10, "ays-sdxl")
    np.testing.assert_allclose(t, [999, 845, 730, 587, 443, 310, 193, 116, 53, 13, -1], atol=1e-4)


def test_lists_at_any_number_of_steps() -> None:
    """Log-linear between the entries; the ends are the schedule's; a part of a run has a part of the list."""
    svd = logsnr.EDM(0.002, 700.0)
    t = logsnr.grid(svd, 20, "ays-svd")
    np.testing.assert_allclose(t[::2], logsnr.grid(svd, 10, "ays-svd"), rtol=1e-12)
    np.testing.assert_allclose(t[1:-1:2] ** 2, t[:-2:2] * t[2::2], rtol=1e-12)
    flux = logsnr.grid(FLOW, 10, "oss-flux")
    np.testing.assert_allclose(flux[1:-1], [0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808])
    assert (flux[0], flux[-1]) == (1, 0)
    np.testing.assert_allclose(logsnr.grid(FLOW, 9, "oss-flux", t_start=0.9886), flux[1:], rtol=1e-12)


def test_spacings_of_tables_are_the_fields() -> None:
    """The indices of DDIM's scheduler, and of DPM-Solver's, which takes one more and leaves out the last."""
    for steps in (1, 4, 7, 50, 999):
        every = np.rint(np.linspace(0, 999, steps))[::-1]
        assert logsnr.grid(TABLE, steps, "linspace").tolist() == [*(every if steps > 1 else [999]), -1]
        every = np.arange(steps)[::-1] * (1000 // steps)
        assert logsnr.grid(TABLE, steps, "leading").tolist() == [*every + 1, -1]
        assert logsnr.grid(TABLE, steps, "leading", offset=0).tolist() == [*every, -1]
        every = np.round(np.arange(1000, 0, -1000 / steps))[:steps] - 1
        assert logsnr.grid(TABLE, steps, "trailing").tolist() == [*every, -1]
        more = np.linspace(0, 999, steps + 1).round()[::-1][:-1]
        assert logsnr.grid(TABLE, steps, "linspace", dpm=True).tolist() == [*more, -1]
    more = (np.arange(5) * (1000 // 5))[::-1][:-1]
    assert logsnr.grid(TABLE, 4, "leading", dpm=True).tolist() == [*more + 1, -1]


def test_functions_are_grids() -> None:
    """From the fraction of the run to that of the span in lam, or in time; called with floats."""
    t = logsnr.grid(VP, 8, lambda u: u**2)
    done = (VP.half_logsnr(t) - VP.half_logsnr(1.0)) / (VP.half_logsnr(1e-3) - VP.half_logsnr(1.0))
    np.testing.assert_allclose(done, np.linspace(0, 1, 9) ** 2, atol=1e-12)
    t = logsnr.grid(FLOW, 8, lambda u: u**2, of="time")
    np.testing.assert_allclose(t, 1 - np.linspace(0, 1, 9) ** 2, atol=1e-15)


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    ("karras", {"rho": 0}, "rho = 0 of the grid 'karras' must be a positive number"),
    ("karras", {"rho": float("inf")}, "positive number"),
    ("karras", {"rho": "7"}, "positive number"),
    ("karras", {"roh": 7}, "no option 'roh'; its options are rho"),
    ("time", {"rho": 7}, "no option 'rho'; it has none"),
    ("beta", {"a": -1}, "a = -1 .* positive number"),
    ("beta", {"alpha": 1}, "its options are a and b"),
    ("arctan", {"c": True}, "positive number"),
    ("laplace", {"mu": float("nan")}, "must be a number"),
    ("linear-quadratic", {"threshold": 1}, "between 0 and 1"),
    ("linear-quadratic", {"linear_steps": 2.5}, "a number of steps, or None"),
    ("bong-tangent", {"pivot": 0}, "between 0 and 1"),
    ("kl_optimal", {}, "that is 'arctan' here"),
    ("ays", {}, "that is 'ays-sd1' here"),
    ("bta", {}, "did you mean 'beta'"),
    ("trailing", {}, "is for tables, logsnr.Discrete, not for VPLinear"),
    ("ays-svd", {}, "begins at sigma / alpha = 700, which is above the largest of VPLinear.*152.167, by 548"),
    (lambda u: 1 - u, {}, r"grows from grid\(0\) = 0 to grid\(1\) = 1"),
    (lambda u: u / 2, {}, "grows from"),
    (lambda u: float(round(u)), {}, "grows from"),
    (lambda u: u, {"of": "sigma"}, "'lam' or 'time'"),
    (lambda u: u, {"by": 2}, "no option 'by'; its options are of"),
]


@pytest.mark.parametrize(("kind", "options", "message"), WRONG)
def test_bad_names_and_options(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        logsnr.grid(VP, 5, kind, **options)


def test_bad_spacings() -> None:
    with pytest.raises(ValueError, match="leave out t_start = 500"):
        logsnr.grid(TABLE, 5, "leading", t_start=500)
    with pytest.raises(ValueError, match="steps = 1000 is too many for a table of 1000"):
        logsnr.grid(TABLE, 1000, "trailing")
    with pytest.raises(ValueError, match=r"offset = 2 .* 0 or 1"):
        logsnr.grid(TABLE, 5, "leading", offset=2)


def test_names_are_told() -> None:
    assert set(logsnr.grid_names()) == set(KINDS)
    assert {*ANYWHERE, *SPACINGS} < set(KINDS)
