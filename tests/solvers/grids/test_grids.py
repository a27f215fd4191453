"""Grids: uniform in what they say, exact at the ends, finite where the log-SNR is not; bad grids are
refused."""

from typing import Any

import numpy as np
import pytest
import torch

import logsnr
from logsnr.solvers.grids.grids import GRIDS, WINDOW, check_grid

FINITE = [
    logsnr.VPLinear(),
    logsnr.SubVP(),
    logsnr.VE(),
    logsnr.EDM(),
    logsnr.Discrete(np.linspace(0.99, 0.01, 50)),
]
INFINITE = [
    logsnr.FlowMatching(),
    logsnr.Trigonometric(),
    logsnr.VPCosine(),
    logsnr.Discrete(np.linspace(0.99, 0.0, 50)),
]


@pytest.mark.parametrize("sch", FINITE, ids=str)
@pytest.mark.parametrize("span", [(None, None), (0.7, None), (None, 0.2), (0.6, 0.3), (0.3, 0.6)])
@pytest.mark.parametrize("steps", [1, 2, 17])
def test_uniform_in_what_they_say(sch: logsnr.Schedule, span: tuple[float, float], steps: int) -> None:
    """ "logsnr" is uniform in lam, "karras" in (sigma/alpha)^(1/7), "time" in t, between exactly the ends
    asked for, in either direction."""
    low, high = max(sch.domain[0], 0.0), sch.domain[1]
    start, end = (None if f is None else low + f * (high - low) for f in span)
    end = 0.0 if end is None and isinstance(sch, logsnr.Discrete) else end  # which ends at sigma = 0
    for kind, u in [
        ("logsnr", sch.half_logsnr),
        ("karras", lambda t: np.exp(-sch.half_logsnr(t) / 7)),
        ("time", lambda t: t),
    ]:
        t = logsnr.grid(sch, steps, kind, t_start=start, t_end=end)
        assert t.dtype == np.float64
        assert t.shape == (steps + 1,)
        assert t[0] == (sch.t_start if start is None else start)
        assert t[-1] == (sch.t_end if end is None else end)
        gaps = np.diff(u(t))
        np.testing.assert_allclose(gaps, gaps.mean(), rtol=1e-8)


TO_CLEAN = [(FINITE[-1], -1.0), (logsnr.VE(), -1.0), (logsnr.EDM(), 0.0), (logsnr.VPLinear(), 0.0)]


@pytest.mark.parametrize(("sch", "end"), TO_CLEAN, ids=str)
@pytest.mark.parametrize("kind", GRIDS)
def test_the_last_step_goes_on_to_sigma_0(kind: str, sch: logsnr.Schedule, end: float) -> None:
    """A grid to sigma = 0 is that of one step less to the last level at which the network is asked, and the end."""
    assert sch.sigma(end) == 0 < sch.sigma(sch.last_level)
    inner = logsnr.grid(sch, 6, kind, t_end=sch.last_level)
    np.testing.assert_array_equal(logsnr.grid(sch, 7, kind, t_end=end), [*inner, end])
    assert logsnr.grid(sch, 1, kind, t_end=end).tolist() == [sch.t_start, end]
    assert logsnr.grid(sch, 2, kind, t_end=end).tolist() == [sch.t_start, sch.last_level, end]


def test_karras_is_the_papers() -> None:
    """On EDM the karras grid is eq. 5 of Karras et al. 2022."""
    i, n = np.arange(18), 18
    sigma = (80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(logsnr.grid(logsnr.EDM(), 17, "karras"), sigma, rtol=1e-12)


@pytest.mark.parametrize("sch", INFINITE, ids=str)
@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 40])
def test_infinite_ends(sch: logsnr.Schedule, kind: str, steps: int) -> None:
    """Where the log-SNR is infinite at an end the nodes are finite, strictly monotone, and the end is a
    node."""
    for start, end in [(None, None), (sch.domain[1], sch.domain[0]), sch.domain]:
        t = logsnr.grid(sch, steps, kind, t_start=start, t_end=end)
        assert np.isfinite(t).all()
        assert (np.diff(t) * np.sign(t[-1] - t[0]) > 0).all()
        assert t[0] == (sch.t_start if start is None else start)
        assert t[-1] == (sch.t_end if end is None else end)
        inside = sch.half_logsnr(t[1:-1])
        assert np.isfinite(inside).all()
        if kind != "time":
            assert (np.abs(inside) <= WINDOW + 1e-9).all()


def test_spans_beyond_the_window() -> None:
    """A span that lies where the default layout ends still has room for its steps."""
    for ends in [(1.0, 0.9999), (1e-5, 0.0), (0.0, 1e-5), (0.9999, 1.0)]:
        t = logsnr.grid(logsnr.FlowMatching(), 5, t_start=ends[0], t_end=ends[1])
        assert (np.diff(t) * np.sign(t[-1] - t[0]) > 0).all()
    t = logsnr.grid(logsnr.EDM(), 5, t_start=1e-3, t_end=0.0)  # below sigma_min
    assert (np.diff(t) < 0).all()


@pytest.mark.parametrize(
    "times",
    [
        [1.0, 0.5, 0.25],
        (1.0, 0.5, 0.25),
        np.array([1.0, 0.5, 0.25], dtype=np.float32),
        torch.tensor([1.0, 0.5, 0.25]),
        torch.tensor([1.0, 0.5, 0.25], dtype=torch.float16, requires_grad=True),
        [torch.tensor(1.0), torch.tensor(0.5), torch.tensor(0.25)],
        [1, 0.5, 0.25],
    ],
)
def test_arrays_of_any_kind(times: object) -> None:
    """Lists, tuples, arrays and tensors of any float dtype are grids; the result is a float64 copy."""
    t = check_grid(logsnr.VPLinear(), times)
    assert t.dtype == np.float64
    assert t.tolist() == [1.0, 0.5, 0.25]
    assert not isinstance(times, np.ndarray) or not np.shares_memory(t, times)


def test_float32_ends_are_forgiven() -> None:
    """An end that a rounding to fp32 put just outside the schedule is moved to the end."""
    sch = logsnr.Trigonometric()
    times = torch.tensor([sch.t_start, 1.0, 0.1])
    assert float(times[0]) > sch.t_start
    assert check_grid(sch, times)[0] == sch.t_start


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([1.0, 0.5, 0.6, 0.1], r"grid\[1\] = 0.5, grid\[2\] = 0.6 is not monotone"),
        ([1.0, 0.5, 0.5], r"grid\[1\] = 0.5, grid\[2\] = 0.5 is a duplicate"),
        ([0.5, 0.5], "duplicate"),
        ([0.5, 0.7, 0.5], "strictly monotone"),
        ([1.5, 0.5], r"grid\[0\] = 1.5 is outside the times of VPLinear.* 0 to 1"),
        ([1.0, -0.1], r"grid\[1\] = -0.1 is outside"),
        ([1.0, float("nan"), 0.1], r"grid\[1\] is not finite"),
        ([float("inf"), 0.1], r"grid\[0\] is not finite"),
        ([1.0], "at least 2 times"),
        ([], "at least 2 times"),
        ([[1.0, 0.5]], r"shape \(1, 2\)"),
        (0.5, r"shape \(\)"),
        (["a", "b"], "times must be numbers"),
        ([1.0, None], r"times must be numbers|not finite"),
    ],
)
def test_bad_grids(times: object, message: str) -> None:
    """Grids that are not 1-D, finite, strictly monotone and in the schedule are refused, naming the node."""
    for use in (
        lambda: check_grid(logsnr.VPLinear(), times),
        lambda: logsnr.solver("ddim").program(logsnr.VPLinear(), times),
    ):
        with pytest.raises(ValueError, match=message):
            use()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0,), {}, "at least 1, not 0"),
        ((-3,), {}, "at least 1, not -3"),
        ((2.0,), {}, "integer of at least 1, not 2.0"),
        ((True,), {}, "not True"),
        (("5",), {}, "not '5'"),
        ((3, "karas"), {}, "'karas' is neither an array of times nor a known name; did you mean 'karras'"),
        ((3, "xyz"), {}, "choose from logsnr, karras, time, exponential"),
        ((3, ["time"]), {}, "'time'"),
        ((3,), {"t_start": 1.1}, r"1.1 is outside"),
        ((3,), {"t_end": float("nan")}, "not finite"),
        ((3,), {"t_start": 0.5, "t_end": 0.5}, "duplicate"),
    ],
)
def test_bad_requests(arguments: tuple, options: dict, message: str) -> None:
    """steps < 1, unknown names and ends outside the schedule are refused with what would be right."""
    with pytest.raises(ValueError, match=message):
        logsnr.grid(logsnr.VPLinear(), *arguments, **options)


def test_schedules_that_are_none() -> None:
    """A name or a class in place of a schedule is refused as such."""
    wrongs: list[tuple[Any, str]] = [
        ("vp", "be a logsnr schedule, not str"),
        (logsnr.VPLinear, "not the class VPLinear"),
    ]
    for wrong, message in wrongs:
        for use in (
            lambda wrong=wrong: logsnr.grid(wrong, 3),
            lambda wrong=wrong: logsnr.solver("ddim").program(wrong, [1.0, 0.5]),
            lambda wrong=wrong: logsnr.Denoiser(lambda x, t: x, wrong),
            lambda wrong=wrong: logsnr.start(wrong, (2, 3), seed=0),
        ):
            with pytest.raises(TypeError, match=f"schedule must .*{message}"):
                use()
