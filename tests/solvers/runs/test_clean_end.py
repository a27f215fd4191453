"""The last step: sigma = 0 is a legal end, and methods on dx/dt keep their order to it."""

from functools import cache

import numpy as np
import pytest
import torch
from torchdiffeq import odeint

import logsnr

DATA = logsnr.analysis.two_gaussians()
FLOW = logsnr.FlowMatching()
BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
TABLE = logsnr.Discrete(np.cumprod(1 - BETAS))


X = DATA.sample_at(FLOW, 0.99, 32, generator=torch.Generator().manual_seed(0))


@cache
def exact() -> torch.Tensor:
    """Where the flow takes X, at sigma = 0."""
    return DATA.reference(X, FLOW, 0.99, 0.0)


def run(head: str, name: str, steps: int) -> torch.Tensor:
    """The end of a run from X on uniform times."""
    return logsnr.sample(DATA.denoiser(FLOW, head), X, solver=name, grid=np.linspace(0.99, 0.0, steps + 1))


@pytest.mark.parametrize("head", ["velocity", "v"])
@pytest.mark.parametrize(("name", "order"), [("heun", 2), ("rk4", 4)])
def test_orders_hold_to_sigma_0(head: str, name: str, order: int) -> None:
    """Halving the steps of a run to sigma = 0 shows the order of the method, not that of Euler's last step."""
    coarse, fine = (float((run(head, name, n) - exact()).abs().max()) for n in (80, 160))
    assert abs(np.log2(coarse / fine) - order) < 0.3


def test_rk4_is_torchdiffeqs_on_the_same_grid() -> None:
    """With a velocity network on the straight path a run to t = 0 is the classical method, step for step."""
    grid = torch.tensor(np.linspace(0.99, 0.0, 21))
    den = DATA.denoiser(FLOW, "velocity")
    butcher = odeint(lambda t, y: den.velocity(y, t), X, grid, method="rk4", options={"perturb": False})[-1]
    error = float((butcher - exact()).abs().max())
    assert float((run("velocity", "rk4", 20) - exact()).abs().max()) < 3 * error


def test_round_trips_are_symmetric() -> None:
    """From noise to sigma = 0 and back: both directions take full steps there."""
    grid = np.linspace(0.99, 0.0, 41)
    den, end = DATA.denoiser(FLOW, "velocity"), run("velocity", "rk4", 40)
    back = logsnr.sample(den, end, solver="rk4", grid=grid[::-1].copy())
    assert float((back - X).abs().max()) < 1e-5


def test_heads_that_say_nothing_at_sigma_0_are_not_asked_there() -> None:
    """The x0 head knows no eps at sigma = 0, so the last step is DDIM's, which a note says."""
    assert "DDIM" in logsnr.solver("rk4").program(FLOW, [0.5, 0.0]).notes[0]
    assert logsnr.solver("rk4").program(FLOW, [0.5, 0.0], prediction="v").notes == ()
    assert torch.isfinite(run("x0", "rk4", 10)).all()
    notes = logsnr.solver("rk4").program(logsnr.VPLinear(), [0.5, 0.0], prediction="v").notes
    assert "DDIM" in notes[0], "sigma grows there with infinite slope"


def test_tables_end_at_sigma_0() -> None:
    """The default of other libraries: the network is asked at the first entry last, and no noise is left."""
    assert TABLE.domain == (-1.0, 999.0)
    grid = logsnr.grid(TABLE, 5)
    assert grid[-2:].tolist() == [0.0, -1.0]
    assert TABLE.sigma(-1.0) == 0.0
    program = logsnr.solver("dpmpp-2m").program(TABLE, grid)
    assert program.calls[-1].t == 0.0
    assert program.calls[-1].matrix.tolist() == [[1.0, 0.0]], "x0 itself"
    asked: list[float] = []
    den = logsnr.Denoiser(lambda x, t: asked.append(float(t[0])) or x * 0.1, TABLE, "eps", time="index")
    logsnr.sample(den, torch.randn(2, 3), steps=5, solver="dpmpp-2m")
    assert min(asked) == 0


def test_what_noise_is_left_is_said() -> None:
    """A run that ends with noise has a note with its sigma; one to sigma = 0 has none."""
    for sch, t_end, sigma in ((TABLE, 0.0, "0.0292"), (logsnr.EDM(), None, "0.002"), (logsnr.VE(), None, "0.01")):
        notes = logsnr.solver("ddim").program(sch, logsnr.grid(sch, 3, t_end=t_end)).notes
        assert any(f"sigma = {sigma} is left" in note for note in notes)
    for sch, t_end in ((TABLE, None), (logsnr.EDM(), 0.0), (logsnr.VE(), -1.0), (FLOW, None)):
        notes = logsnr.solver("ddim").program(sch, logsnr.grid(sch, 3, t_end=t_end)).notes
        assert not any("is left" in note for note in notes)


def test_edms_grid_ends_in_0() -> None:
    """Karras et al. (2022), eq. 5: N levels from sigma_max to sigma_min, then 0."""
    grid = logsnr.grid(logsnr.EDM(), 18, "karras", t_end=0.0)
    i = np.arange(18)
    want = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(grid, [*want, 0.0], rtol=1e-12)


@pytest.mark.parametrize("sch", [TABLE, logsnr.VE()], ids=["table", "VE"])
def test_the_way_from_the_last_level_to_0_is_smooth_and_invertible(sch: logsnr.Schedule) -> None:
    """Below the last level: derivatives are those of differences, time inverts lam, tensors and arrays agree."""
    t, h = np.array([-0.9, -0.5, -0.01]), 1e-7
    for f, df in ((sch.alpha, sch.dalpha), (sch.sigma, sch.dsigma)):
        np.testing.assert_allclose(df(t), (f(t + h) - f(t - h)) / (2 * h), rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(f(torch.tensor(t)).numpy(), f(t), rtol=1e-14)
    np.testing.assert_allclose(sch.time(sch.half_logsnr(t)), t, atol=1e-12)
    assert sch.time(np.inf) == -1.0


def test_adaptive_runs_go_on_to_sigma_0() -> None:
    """Adaptive steps down to the last level, then one of DDIM: an evaluation more."""
    den = DATA.denoiser(TABLE, "eps")
    x = logsnr.start(TABLE, (16,), seed=0).double()
    whole = logsnr.solve(den, x, solver="dopri5")
    inner = logsnr.solve(den, x, solver="dopri5", t_end=0.0)
    assert whole.nfe == inner.nfe + 1
    torch.testing.assert_close(whole.x, den.x0(inner.x, 0.0))


@pytest.mark.parametrize("solver", ["dopri5", "dpm-23"])
def test_adaptive_runs_ask_nothing_below_the_last_level(solver: str) -> None:
    """To whatever end there, the run is one to the last level and a step of DDIM; a time at that level changes
    nothing, and a start below it is one like any other."""
    asked: list[float] = []
    exact = DATA.denoiser(TABLE, "eps")
    den = logsnr.Denoiser(lambda x, t: asked.append(float(t.min())) or exact.eps(x, t), TABLE, "eps")
    x = logsnr.start(TABLE, (16,), seed=0).double()
    inner = logsnr.solve(den, x, solver=solver, rtol=1e-2, atol=1e-2, t_end=0.0)
    for end in (-1.0, -0.5):
        found = logsnr.solve(den, x, solver=solver, rtol=1e-2, atol=1e-2, t_end=end)
        assert (found.nfe, found.times.tolist()) == (inner.nfe + 1, [999.0, end])
        step = logsnr.solver("ddim").program(TABLE, [0.0, end])
        torch.testing.assert_close(found.x, logsnr.sample(den, inner.x, solver=step))
    by_time = logsnr.solve(den, x, solver=solver, rtol=1e-2, atol=1e-2, grid=[999.0, 0.0, end], trajectory=True)
    assert by_time.trajectory is not None
    torch.testing.assert_close(by_time.trajectory[1:], torch.stack([inner.x, found.x]))
    assert min(asked) == 0
    assert logsnr.solve(den, inner.x, solver=solver, rtol=1e-2, atol=1e-2, t_start=-0.1, t_end=-0.5).nfe > 1
