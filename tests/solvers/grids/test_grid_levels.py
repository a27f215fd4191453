"""sigmas=, lams=, shift= and grid_options= of `solve`: what they mean, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr.solvers.grids.levels import is_straight, level_times

BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
TABLE = logsnr.Discrete(np.cumprod(1 - BETAS))
FLOW, EDM, VP = logsnr.FlowMatching(), logsnr.EDM(), logsnr.VPLinear()


def denoiser(sch: logsnr.Schedule) -> logsnr.Denoiser:
    return logsnr.Denoiser(lambda x, t: 0.5 * x, sch, "x0")


def times(sch: logsnr.Schedule, **options: Any) -> list[float]:
    """The grid that a run takes."""
    found = logsnr.solve(denoiser(sch), torch.zeros(1, 2), solver="ddim", **options)
    assert found.program is not None
    return list(found.program.grid)


def test_sigmas_are_those_of_the_field() -> None:
    """sigma/alpha of tables and EDM, t of flow matching, also of one's own."""
    np.testing.assert_allclose(times(EDM, sigmas=[80, 3.0, 0.5, 0]), [80, 3.0, 0.5, 0], rtol=1e-15)
    np.testing.assert_allclose(times(FLOW, sigmas=[1.0, 0.6509, 0.4374, 0]), [1.0, 0.6509, 0.4374, 0], rtol=1e-14)
    t = np.array(times(TABLE, sigmas=[14.0, 2.0, 0.1, 0]))
    np.testing.assert_allclose((TABLE.sigma(t) / TABLE.alpha(t)), [14.0, 2.0, 0.1, 0], rtol=1e-10)
    own = logsnr.Custom(lambda t: 1 - t, lambda t: t)
    np.testing.assert_allclose(times(own, sigmas=[0.9, 0.2]), [0.9, 0.2], rtol=1e-9)
    assert all(map(is_straight, (own, FLOW)))
    assert not any(map(is_straight, (TABLE, EDM, VP, logsnr.Trigonometric())))


def test_lams_are_half_log_snrs() -> None:
    lams = [-4.0, 0.0, 2.0]
    np.testing.assert_allclose(VP.half_logsnr(np.array(times(VP, lams=lams))), lams, atol=1e-12)
    assert times(FLOW, lams=[-np.inf, 0.0, np.inf]) == [1, 0.5, 0]
    for kind in (tuple, np.array, torch.tensor):
        np.testing.assert_allclose(times(VP, lams=kind(lams)), times(VP, lams=lams), rtol=1e-6)
    assert times(VP, lams=lams[::-1]) == times(VP, lams=lams)[::-1]


def test_roundings_are_taken() -> None:
    """14.615 for 14.6146, as published lists have it; the node is the end itself."""
    assert times(TABLE, sigmas=[14.615, 1.0, 0])[::2] == [999, -1]
    assert times(EDM, sigmas=[80.01, 1.0])[0] == 80
    assert times(FLOW, sigmas=torch.tensor([1.0000001, 0.5]))[0] == 1


BAD: list[tuple[logsnr.Schedule, dict[str, Any], str]] = [
    (TABLE, {"sigmas": [15, 1]}, r"sigmas\[0\] = 15 is above the largest of Discrete.*, 14.6146, by 0.385"),
    (EDM, {"sigmas": [80, 100, 120]}, r"sigmas\[2\] = 120 is above the largest of EDM.*, 80, by 40"),
    (FLOW, {"sigmas": [14.6, 1]}, r"sigmas\[0\] = 14.6 is above the largest of FlowMatching.*, 1, by 13.6"),
    (VP, {"lams": [-8, 0]}, r"lams\[0\] = -8 is below the smallest of VPLinear.*, -5.02498, by 2.98"),
    (logsnr.Custom(lambda t: 1 - t / 2, lambda t: 0.1 + t), {"sigmas": [1, 0]}, "below the smallest"),
    (VP, {"sigmas": [1, 0.5, 0.5]}, r"sigmas\[1\] = 0.5, sigmas\[2\] = 0.5 is a duplicate"),
    (VP, {"sigmas": [1, 0.5, 0.7]}, "not monotone"),
    (VP, {"sigmas": [1]}, "1-D list of at least 2 levels"),
    (VP, {"sigmas": [[1, 2]]}, r"sigmas must be a 1-D list of numbers, not an array of shape \(1, 2\)"),
    (VP, {"sigmas": "abc"}, "sigmas must be a 1-D list of numbers"),
    (VP, {"sigmas": [1, -0.5]}, r"sigmas\[1\] = -0.5 is not a level"),
    (VP, {"sigmas": [1, float("nan")]}, r"sigmas\[1\] = nan"),
    (VP, {"lams": [float("nan"), 0]}, r"lams\[0\] = nan"),
    (VP, {"lams": [0, 1], "steps": 3}, "lams are the whole grid; leave out steps"),
    (VP, {"sigmas": [1, 0.5], "lams": [0, 1]}, "sigmas are the whole grid; leave out lams"),
    (VP, {"sigmas": [1, 0.5], "grid": "karras"}, "sigmas are the whole grid; leave out grid"),
    (VP, {"sigmas": [1, 0.5], "grid": [1.0, 0.5]}, "an array of times is the whole grid; leave out sigmas"),
    (FLOW, {"sigmas": [1, 0.5], "shift": 3}, "leave out shift"),
    (FLOW, {"grid": [1, 0.5], "shift": 3}, "leave out shift"),
    (FLOW, {"grid": [1, 0.5], "grid_options": {"rho": 3}}, "leave out grid_options"),
    (FLOW, {"steps": 3, "shift": 0}, "shift = 0 must be a positive number, 1 for none"),
    (FLOW, {"steps": 3, "shift": -1.0}, "shift = -1.0 must be"),
    (FLOW, {"steps": 3, "shift": float("inf")}, "shift = inf must be"),
    (FLOW, {"steps": 3, "shift": True}, "shift = True must be"),
    (FLOW, {"steps": 3, "shift": "auto"}, "shift = 'auto' must be"),
    (VP, {"steps": 3, "shift": 3.0}, "shift is for flow models, where alpha \\+ sigma = 1, not for VPLinear"),
    (FLOW, {"steps": 3, "grid": "oss-flux", "shift": 3.0}, "'oss-flux' has its shift already"),
    (FLOW, {"steps": 3, "grid_options": ["rho"]}, "grid_options must be a dictionary"),
    (FLOW, {"steps": 3, "grid": "karras", "grid_options": {"rho": [7]}}, "plain numbers for values"),
    (FLOW, {"steps": 3, "grid": "karras", "grid_options": {"a": 7}}, "no option 'a'"),
]


@pytest.mark.parametrize(("sch", "options", "message"), BAD)
def test_what_is_refused(sch: logsnr.Schedule, options: dict[str, Any], message: str) -> None:
    """Before the model is called."""

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    with pytest.raises(ValueError, match=message):
        logsnr.solve(logsnr.Denoiser(model, sch, "x0"), torch.zeros(1, 2), solver="ddim", **options)


@pytest.mark.parametrize("k", [0.5, 1.0, 3.0, 12.0])
def test_a_shift_is_applied_once(k: float) -> None:
    """t becomes k t / (1 + (k - 1) t): in lam, a translation by -log k; the ends stay."""
    t = np.linspace(1, 0, 9)
    moved = logsnr.grid(FLOW, 8, "time", shift=k)
    np.testing.assert_allclose(moved, k * t / (1 + (k - 1) * t), atol=1e-15, rtol=1e-13)
    np.testing.assert_allclose(FLOW.half_logsnr(moved[1:-1]), FLOW.half_logsnr(t[1:-1]) - np.log(k), atol=1e-12)
    np.testing.assert_allclose(times(FLOW, steps=8, grid="time", shift=k), moved, rtol=1e-15)


def test_a_shift_keeps_the_ends_of_a_part_of_a_run() -> None:
    """Image to image: the nodes are those that the whole shifted run would have if it were laid out there."""
    t = logsnr.grid(FLOW, 4, "time", shift=3.0, t_start=0.75, t_end=0.3)
    assert (t[0], t[-1]) == (0.75, 0.3)
    before = t / (3 - 2 * t)
    np.testing.assert_allclose(np.diff(before), np.diff(before).mean(), rtol=1e-12)


def test_dynamic_and_terminal_shifts() -> None:
    """e^mu, mu by the number of tokens, and the last sigma before 0: affine in 1 - t, as diffusers' stretch."""
    assert logsnr.Shift.dynamic(np.log(3.0)).factor == pytest.approx(3)
    for tokens, mu in ((256, 0.5), (4096, 1.15), (2176, 0.825)):
        assert logsnr.Shift.of_tokens(tokens).factor == pytest.approx(np.exp(mu))
    plain = logsnr.grid(FLOW, 10, "time", shift=2.0)
    t = logsnr.grid(FLOW, 10, "time", shift=logsnr.Shift(2.0, terminal=0.1))
    stretched = 1 - (1 - plain[:-1]) * 0.9 / (1 - plain[-2])
    np.testing.assert_allclose(t, [*stretched, 0], rtol=1e-12)
    assert t[-2] == pytest.approx(0.1, rel=1e-14)
    assert logsnr.grid(FLOW, 1, "time", shift=logsnr.Shift(2.0, terminal=0.1)).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: logsnr.Shift(0), "shift = 0"),
        (lambda: logsnr.Shift(1.0, terminal=0.0), "terminal = 0.0 must be"),
        (lambda: logsnr.Shift(1.0, terminal=2), "terminal = 2 must be"),
        (lambda: logsnr.Shift.dynamic("1"), "mu = '1' must be a number"),  # type: ignore[arg-type]
        (lambda: logsnr.Shift.dynamic(float("nan")), "mu = nan"),
        (lambda: logsnr.grid(FLOW, 4, shift=logsnr.Shift(2, 0.1), t_end=0.05), "the last sigma before 0"),
        (lambda: logsnr.grid(FLOW, 4, shift=logsnr.Shift(2, 0.9), t_start=0.5), "the last sigma before 0"),
    ],
)
def test_bad_shifts(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_options_reach_the_grid_and_the_cache() -> None:
    """The same options are one plan; others are another, and so is another function."""
    den, x = denoiser(VP), torch.zeros(1, 2)

    def plan(**options: Any) -> logsnr.Program | None:
        return logsnr.solve(den, x, solver="ddim", steps=5, **options).program

    beta = plan(grid="beta", grid_options={"a": 0.5, "b": 0.7})
    assert beta is plan(grid="beta", grid_options={"b": 0.7, "a": 0.5})
    assert beta is not plan(grid="beta", grid_options={"a": 0.6, "b": 0.7})
    assert beta is not None
    assert list(beta.grid) == logsnr.grid(VP, 5, "beta", a=0.5, b=0.7).tolist()
    square = plan(grid=np.square)
    assert square is plan(grid=np.square)
    assert logsnr.solve(den, x, nfe=7, grid="arctan", grid_options={"c": 0.3}).nfe == 7


def test_an_adaptive_run_stops_at_the_levels() -> None:
    """Levels are where it stops; a named grid says nothing that it could keep to."""
    den, x = logsnr.Denoiser(lambda x, t: 0.5 * x, VP, "eps"), torch.zeros(1, 2)
    found = logsnr.solve(den, x, solver="dopri5", rtol=1e-3, lams=[-4.0, 0.0, 2.0])
    np.testing.assert_allclose(found.times, level_times(VP, "lams", [-4.0, 0.0, 2.0]))
    with pytest.raises(ValueError, match="grid = 'beta' does not go with an adaptive run"):
        logsnr.solve(den, x, solver="dopri5", rtol=1e-3, grid="beta")
