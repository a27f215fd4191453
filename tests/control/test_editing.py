"""SDEdit and inpainting: laws in closed form, known pixels exact in every executor, and what is refused."""

import numpy as np
import pytest
import torch

import logsnr
from logsnr import control

SCH = logsnr.VPLinear()
DATA = logsnr.analysis.Gaussian(torch.zeros(4), torch.tensor([[0.3]]) + 0.7 * torch.eye(4, dtype=torch.float64))
DEN = DATA.denoiser(SCH)
KNOWN = torch.tensor([[0.5, -1.0, torch.nan, torch.nan]]).repeat(3, 1) + torch.arange(3).reshape(3, 1)
MASK = torch.tensor([True, True, False, False])


def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Elementwise, but for a shift of the elements: no sum of it depends on the batch."""
    return 0.3 * torch.sin(x.roll(1, 1)) + 0.4 * x


PLAIN = logsnr.Denoiser(net, SCH, "eps")


def test_sdedit_has_the_law_of_a_gaussian() -> None:
    """For data N(m, c): mean and variance of what the PF-ODE makes of alpha x0 + sigma xi, from one x0."""
    data = logsnr.analysis.Gaussian(0.5, 0.25)
    x0 = torch.full((20_000, 1), 1.7, dtype=torch.float64)
    found = control.sdedit(data.denoiser(SCH), x0, t_start=0.4, seed=0, solver="dpmpp-2m", steps=60).x
    alpha, sigma = SCH.alpha(0.4), SCH.sigma(0.4)
    end = float(SCH.alpha(SCH.t_end) ** 2 * 0.25 + SCH.sigma(SCH.t_end) ** 2)
    gain = (end / (alpha**2 * 0.25 + sigma**2)) ** 0.5
    assert found.mean().item() == pytest.approx(0.5 + gain * alpha * 1.2, abs=0.01)
    assert found.std().item() == pytest.approx(gain * sigma, rel=0.02)


def test_strength_is_a_share_of_time_and_may_be_one_per_sample() -> None:
    x0 = logsnr.randn((3, 4), seed=1)
    steps = {"steps": 6, "seed": 2, "solver": "ddpm"}
    shares = torch.tensor([0.2, 0.9, 0.2], dtype=torch.float64)
    times = SCH.t_end + shares * (SCH.t_start - SCH.t_end)
    many = control.sdedit(PLAIN, x0, shares, **steps)
    for given in (times, times.numpy()):
        assert torch.equal(many.x, control.sdedit(PLAIN, x0, t_start=given, **steps).x)
    for b in range(3):
        one = control.sdedit(PLAIN, x0[b : b + 1], float(shares[b]), sample_ids=[b], **steps)
        assert torch.equal(one.x, many.x[b : b + 1])
        assert one.times[0] == many.times[0, b] == pytest.approx(float(times[b]))
    start = SCH.alpha(0.5) * x0 + SCH.sigma(0.5) * logsnr.randn((3, 4), seed=2)
    by_hand = logsnr.sample(PLAIN, start, t_start=0.5, **steps)
    torch.testing.assert_close(control.sdedit(PLAIN, x0, t_start=0.5, **steps).x, by_hand)
    assert control.sdedit(PLAIN, x0.half(), 1.0, **steps).x.dtype == torch.float16
    torch.manual_seed(0)
    free = control.sdedit(PLAIN, x0, 0.3, steps=3)
    torch.manual_seed(0)
    assert torch.equal(free.x, control.sdedit(PLAIN, x0, 0.3, steps=3).x)


RUNS = [
    {"solver": "ddim", "steps": 5},
    {"solver": "dpmpp-2m", "steps": 5},
    {"solver": "ddpm", "steps": 5},
    {"solver": "heun", "steps": 3},
    {"solver": "edm-churn", "steps": 18},
    {"solver": "sde-dpmpp-2m", "steps": 5, "parallel": logsnr.Picard()},
    {"solver": "dpm-23"},
    {"solver": "dopri5", "rtol": 1e-3, "atol": 1e-3},
    {"nfe": 6},
]


@pytest.mark.parametrize("options", RUNS, ids=lambda o: o.get("solver", "auto"))
def test_known_pixels_are_exact_with_every_solver_and_executor(options: dict) -> None:
    found = control.inpaint(PLAIN, KNOWN, MASK, seed=0, trajectory=True, **options)
    assert torch.equal(found.x[:, :2], KNOWN[:, :2])
    assert torch.equal(found.trajectory[-1], found.x)
    assert found.x.isfinite().all()
    assert found.x[:, 2:].std() > 0


@pytest.mark.parametrize("solver", ["ddpm", "sde-dpmpp-2m", "ddim"])
@pytest.mark.parametrize("sch", [SCH, logsnr.FlowMatching()], ids=["vp", "flow"])
def test_one_by_one_in_a_batch_and_in_parallel_the_same_bits(solver: str, sch: logsnr.Schedule) -> None:
    """Known data and masks of every sample follow their samples, to the windows of Picard's method too."""
    den = logsnr.Denoiser(net, sch, "velocity")
    mask = torch.stack([MASK, ~MASK, MASK.roll(1)])
    known = KNOWN.nan_to_num(2.0)
    whole = control.inpaint(den, known, mask, seed=0, solver=solver, steps=5).x
    again = control.inpaint(den, known, mask, seed=0, solver=solver, steps=5, parallel=logsnr.Picard(tol=0.0)).x
    torch.testing.assert_close(again, whole, rtol=0, atol=1e-6)
    for b in range(3):
        rows = slice(b, b + 1)
        alone = control.inpaint(den, known[rows], mask[rows], seed=0, sample_ids=[b], solver=solver, steps=5).x
        assert torch.equal(alone, whole[rows])


def test_starts_of_every_sample() -> None:
    x, known = logsnr.randn((3, 4), seed=3), KNOWN.nan_to_num(0.0)
    times = torch.tensor([0.4, 1.0, 0.7], dtype=torch.float64)
    found = control.inpaint(PLAIN, known, MASK, x=x, t_start=times, seed=0, solver="ddpm", steps=4)
    for b in range(3):
        rows = slice(b, b + 1)
        alone = control.inpaint(
            PLAIN, known[rows], MASK, x=x[rows], t_start=float(times[b]), seed=0, sample_ids=[b], solver="ddpm", steps=4
        )
        assert torch.equal(alone.x, found.x[rows])


@pytest.mark.parametrize("method", ["x0", "replace"])
def test_pieces_are_the_whole(method: str) -> None:
    """A run that ends before the clean end keeps its state; noise is addressed, so that another goes on."""
    known, options = KNOWN.nan_to_num(0.0), {"seed": 0, "solver": "ddpm", "method": method}
    grid = logsnr.grid(SCH, 6)
    whole = control.inpaint(PLAIN, known, MASK, grid=grid, **options).x
    first = control.inpaint(PLAIN, known, MASK, grid=grid[:4], **options).x
    assert not torch.equal(first[:, :2], known[:, :2])
    second = control.inpaint(PLAIN, known, MASK, x=first, grid=grid[3:], **options).x
    assert torch.equal(second, whole)


def test_the_known_part_obeys_the_equation() -> None:
    """With x0 mapped, the known part of the PF-ODE runs along alpha known + sigma xi with the xi of the start."""
    known, x = KNOWN.nan_to_num(0.0).double(), logsnr.randn((3, 4), seed=3, dtype=torch.float64)
    found = control.inpaint(PLAIN, known, MASK, x=x, solver="dpmpp-3m", steps=6, trajectory=True)
    xi = (x - SCH.alpha(1.0) * known) / SCH.sigma(1.0)
    for t, state in zip(found.times[:-1], found.trajectory[:-1], strict=True):
        path = SCH.alpha(float(t)) * known + SCH.sigma(float(t)) * xi
        torch.testing.assert_close(state[:, :2], path[:, :2], rtol=0, atol=1e-12)


def test_soft_masks_and_maps_before_it() -> None:
    """Numbers blend: 1 is known to the bit, 0 is free; a map of the user's comes first, and guidance is kept."""
    known, x = KNOWN.nan_to_num(0.0), logsnr.randn((3, 4), seed=3)
    options = {"x": x, "solver": "ddim", "steps": 4}
    hard = control.inpaint(PLAIN, known, MASK, **options).x
    torch.testing.assert_close(control.inpaint(PLAIN, known, MASK.double(), **options).x, hard)
    soft = control.inpaint(PLAIN, known, torch.tensor([1.0, 0.5, 0.5, 0.0]), **options).x
    assert torch.equal(soft[:, 0], known[:, 0])
    clipped = logsnr.Denoiser(net, SCH, "eps", map_x0=lambda x0, x, t: x0.clamp(-0.2, 0.2))
    found = control.inpaint(clipped, known, MASK, **options).x
    assert torch.equal(found[:, :2], known[:, :2])
    assert found[:, 2:].abs().max() < 0.25
    assert clipped.map_x0(torch.ones(1), None, None) == 0.2, "the denoiser itself is as it was"


def test_callbacks_are_called_after_the_state_is_replaced() -> None:
    seen = []

    def callback(node: int, t: float, state: torch.Tensor, x0: torch.Tensor) -> None:
        seen.append((node, x0.shape, state[:, :2].clone()))
        if node == 3:
            raise logsnr.StopSampling

    options = {"seed": 0, "solver": "ddim", "steps": 5, "method": "replace"}
    known = KNOWN.nan_to_num(0.0)
    stopped = control.inpaint(PLAIN, known, MASK, callback=callback, **options)
    whole = control.inpaint(PLAIN, known, MASK, trajectory=True, **options)
    assert stopped.stopped
    assert [node for node, *_ in seen] == [1, 2, 3]
    assert torch.equal(stopped.x, whole.trajectory[3])
    assert torch.equal(seen[1][2], whole.trajectory[2][:, :2])
    three = control.inpaint(PLAIN, known, MASK, callback=lambda node, t, state: state.clone(), **options)
    assert torch.equal(three.x, whole.x)


@pytest.mark.parametrize("method", ["x0", "replace"])
def test_a_run_that_is_stopped_at_its_end_has_come_there(method: str) -> None:
    def callback(node: int, t: float, state: torch.Tensor) -> None:
        if node == 5:
            raise logsnr.StopSampling

    options = {"seed": 0, "solver": "ddim", "steps": 5, "method": method}
    stopped = control.inpaint(PLAIN, KNOWN, MASK, callback=callback, **options)
    assert torch.equal(stopped.x, control.inpaint(PLAIN, KNOWN, MASK, **options).x)


def test_inpainting_fits_what_is_known() -> None:
    """Correlated Gaussian data: what is filled in has moved towards its conditional mean, 0.3 of the known one."""
    known = torch.full((4000, 4), 1.5, dtype=torch.float64)
    mask = torch.tensor([True, True, True, False])
    free = control.inpaint(DEN, known, torch.zeros(4, dtype=torch.bool), seed=0, solver="ddpm", steps=40).x
    assert free.mean().item() == pytest.approx(0.0, abs=0.03)
    for method in ("x0", "replace"):
        found = control.inpaint(DEN, known, mask, seed=0, solver="ddpm", steps=40, method=method).x[:, 3]
        assert 0.3 < found.mean() < 3 * 0.3 / (1 + 2 * 0.3) * 1.5 + 0.05


def test_bad_input() -> None:
    known, steps = KNOWN.nan_to_num(0.0), {"steps": 4}
    for mask, error, told in (
        (torch.ones(3, dtype=torch.bool), ValueError, r"mask of shape \(3,\) does not broadcast to that of known"),
        (torch.ones(2, 3, 4, dtype=torch.bool), ValueError, "does not broadcast"),
        (torch.ones(4, dtype=torch.int64), TypeError, "mask must be of booleans, or of floating numbers"),
        (2 * torch.ones(4), ValueError, "mask must be of numbers from 0 to 1"),
        (MASK.tolist(), TypeError, "mask must be a torch tensor"),
    ):
        with pytest.raises(error, match=told):
            control.inpaint(PLAIN, known, mask, **steps)
    with pytest.raises(ValueError, match="known holds infinities or NaNs where the mask says"):
        control.inpaint(PLAIN, KNOWN, ~MASK, **steps)
    with pytest.raises(ValueError, match=r"x must have the shape of known, \(3, 4\), not \(3, 5\)"):
        control.inpaint(PLAIN, known, MASK, x=torch.zeros(3, 5), **steps)
    with pytest.raises(ValueError, match="method must be 'x0' or 'replace'"):
        control.inpaint(PLAIN, known, MASK, method="repaint", **steps)
    with pytest.raises(ValueError, match="give x, as the start of this run is not told by t_start"):
        control.inpaint(PLAIN, KNOWN, MASK, t_start=torch.full((3,), 0.3), steps=2)
    with pytest.raises(ValueError, match=r"t_start = 0.3 is not pure noise: give x"):
        control.inpaint(PLAIN, known, MASK, t_start=0.3, **steps)
    for options in (
        {"steps": 4, "parallel": logsnr.Picard()},
        {"solver": "dpm-23"},
        {"solver": "dopri5", "rtol": 1e-3},
        {"steps": 4, "x": known, "t_start": torch.full((3,), 0.3)},
        {"steps": 4, "x": known, "t_start": np.full(3, 0.3)},
    ):
        with pytest.raises(ValueError, match="method = 'replace' changes the state, which does not go with"):
            control.inpaint(PLAIN, known, MASK, method="replace", **options)
    with pytest.raises(ValueError, match="edm-churn does not go on from the state of its nodes"):
        control.inpaint(PLAIN, known, MASK, method="replace", solver="edm-churn", steps=18)
    for strength in (0, 1.2, True, "a", torch.tensor([0.1, 0.2]), torch.tensor([0.1, 0.2, 0.0])):
        with pytest.raises(ValueError, match=r"strength must be a number in \(0, 1\], or a tensor \(3,\) of them"):
            control.sdedit(PLAIN, known, strength, **steps)
    with pytest.raises(ValueError, match="give either strength or t_start"):
        control.sdedit(PLAIN, known, **steps)
    with pytest.raises(ValueError, match=r"t_start must be a number or have shape \(3,\)"):
        control.sdedit(PLAIN, known, t_start=torch.tensor([0.5, 0.5]), **steps)
    with pytest.raises(ValueError, match="give one of seed and generator"):
        control.sdedit(PLAIN, known, 0.5, seed=0, generator=torch.Generator(), **steps)
    for call in (lambda: control.sdedit(net, known, 0.5), lambda: control.inpaint(net, known, MASK)):
        with pytest.raises(TypeError, match=r"den must be a logsnr\.Denoiser"):
            call()
