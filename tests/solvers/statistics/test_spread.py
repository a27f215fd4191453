"""The gauges with a clock, for data of another spread: exact on its Gaussian, and of full order."""

import math

import pytest
import torch

import logsnr
from logsnr.solvers.planners.clocks import StraightGauge, VGauge
from logsnr.solvers.planners.multistep import Adams

SPREAD = 0.4
SCHEDULES = [logsnr.VPLinear(), logsnr.FlowMatching(), logsnr.EDM()]


def of_two(sch: logsnr.Schedule, spread: float) -> logsnr.Denoiser:
    """Of the points -1 and 1, each smoothed, times ``spread``: x (B, 1)."""

    def x0(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (f(t)[:, None] for f in (sch.alpha, sch.sigma))
        alpha = alpha * spread
        r2 = 0.09 * alpha**2 + sigma**2
        side = torch.tanh(alpha * x / r2)
        return spread * (side + 0.09 * alpha / r2 * (x - alpha * side))

    return logsnr.Denoiser(x0, sch, "x0")


def gaussian(sch: logsnr.Schedule, spread: float) -> logsnr.Denoiser:
    """Of N(0, spread^2)."""

    def x0(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (f(t)[:, None] for f in (sch.alpha, sch.sigma))
        return alpha * spread**2 / (alpha**2 * spread**2 + sigma**2) * x

    return logsnr.Denoiser(x0, sch, "x0")


@pytest.mark.parametrize("sch", SCHEDULES, ids=str)
def test_v_is_exact_on_the_gaussian_of_its_spread(sch: logsnr.Schedule) -> None:
    """In one step; with another spread it is not."""
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None] * sch.sigma(sch.t_start)
    scale = [math.hypot(SPREAD * float(sch.alpha(t)), float(sch.sigma(t))) for t in (sch.t_start, sch.t_end)]
    exact = x * scale[1] / scale[0]
    den = gaussian(sch, SPREAD)
    ends = [logsnr.sample(den, x, solver=Adams(VGauge(spread=c), 1, "clock"), steps=1) for c in (SPREAD, 1.0)]
    torch.testing.assert_close(ends[0], exact, rtol=1e-12, atol=1e-14)
    assert (ends[1] - exact).abs().max() > 1e-3


@pytest.mark.parametrize("corrector", [False, True])
@pytest.mark.parametrize("kind", [VGauge, StraightGauge])
def test_the_unit_of_the_data_is_the_spread(kind: type, corrector: bool) -> None:
    """Data c times as large, on levels c times as large, with spread c: the same run times c."""
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    ends = []
    for c in (1.0, SPREAD):
        sch = logsnr.EDM(sigma_min=0.02 * c, sigma_max=20 * c)
        method = Adams(kind(spread=c), 3, "clock", corrector=corrector)
        ends.append(logsnr.sample(of_two(sch, c), 20 * c * x, solver=method, steps=9, grid="logsnr") / c)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", [VGauge, StraightGauge])
def test_order(kind: type) -> None:
    """Third, towards what another method finds; a spread that only the columns of N know leaves none."""

    class Torn(kind):  # type: ignore[misc, valid-type]
        def columns(self, sch: logsnr.Schedule, t):  # type: ignore[no-untyped-def]
            return 1.001 * super().columns(sch, t)

    sch = logsnr.FlowMatching()
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    den, options = of_two(sch, 1.0), {"grid": "arctan", "startup": "single-step", "t_start": 0.98, "t_end": 0.02}
    fine = logsnr.sample(den, x, solver="dopri8", rtol=1e-12, atol=1e-12, t_start=0.98, t_end=0.02)

    def slope(gauge: VGauge) -> float:
        method = Adams(gauge, 3, "clock")
        errors = [float((logsnr.sample(den, x, solver=method, steps=n, **options) - fine).norm()) for n in (160, 640)]
        return math.log(errors[0] / errors[1], 4)

    assert slope(kind(spread=SPREAD)) == pytest.approx(3, abs=0.15)
    assert slope(Torn(spread=SPREAD)) < 1
