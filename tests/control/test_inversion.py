"""Inversion and translation: round trips, closed forms between Gaussians, and what is refused."""

import pytest
import torch

import logsnr
from logsnr import control
from logsnr.bench.digits_net import load_digits_net

SCH = logsnr.VPLinear()
DIGITS = logsnr.Denoiser(load_digits_net(), SCH, "v")


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return logsnr.sample(DIGITS, logsnr.start(SCH, (4, 1, 8, 8), seed=0), solver="dpmpp-2m", steps=20)


def gaussians() -> tuple[logsnr.analysis.Gaussian, logsnr.analysis.Gaussian]:
    one = logsnr.analysis.Gaussian(torch.tensor([0.5, -1.0, 0.0]), torch.tensor([0.2, 1.5, 0.6]))
    return one, logsnr.analysis.Gaussian(torch.tensor([-0.3, 0.4, 2.0]), torch.tensor([1.0, 0.1, 0.6]))


def test_the_round_trip_of_a_network_is_exact_but_for_rounding(digits: torch.Tensor) -> None:
    """In fp32, at 20 steps; that of other solvers is another discretisation. The latent is as good as theirs."""
    exact = control.invert(DIGITS, digits, steps=20, round_trip=True)
    assert exact.error.shape == (4,)
    assert exact.error.max() < 1e-6
    assert (exact.decode().x - digits).abs().max() < 1e-5
    assert (exact.nfe, exact.rounds) == (20, 20)
    plain = control.invert(DIGITS, digits, solver="dpmpp-2m", steps=20, round_trip=True)
    assert 3e-3 < plain.error.max() < 0.1
    assert plain.partner is None
    apart = [logsnr.sample(DIGITS, i.latent, solver="dpmpp-3m", steps=40) - digits for i in (exact, plain)]
    assert apart[0].square().mean().sqrt() < 0.03
    assert apart[1].square().mean().sqrt() < 0.03


def test_few_steps_and_untrained_pixels(digits: torch.Tensor) -> None:
    """Exactness needs no accuracy: two steps, and data that are no digits."""
    noise = logsnr.randn(digits.shape, seed=5).clamp(-1, 1)
    for steps in (2, 5):
        assert control.invert(DIGITS, noise, steps=steps, round_trip=True).error.max() < 1e-5


def test_auto_is_the_reversible_solver(digits: torch.Tensor) -> None:
    """Its tables are fitted to the way from noise to data. At 8 steps the latent is the best of a few, too."""
    fine = control.invert(DIGITS, digits, solver="dpmpp-3m", steps=60).latent
    made = control.invert(DIGITS, digits, solver="auto", nfe=8, round_trip=True)
    assert isinstance(made.solver.planner, control.Reversible)
    assert made.error.max() < 1e-5
    apart = (made.latent - fine).square().mean()
    for solver in ("ddim", "dpmpp-2m", "heun"):
        assert apart < (control.invert(DIGITS, digits, solver=solver, nfe=8).latent - fine).square().mean()
    assert torch.equal(control.translate(DIGITS, DIGITS, digits, solver="auto", steps=8).x, made.decode().x)


def test_parallel_half_double_and_strided(digits: torch.Tensor) -> None:
    steps = {"steps": 8, "round_trip": True}
    assert control.invert(DIGITS, digits, parallel=logsnr.Picard(tol=0.0), **steps).error.max() < 1e-5
    half = control.invert(DIGITS, digits.half(), **steps)
    assert half.latent.dtype == torch.float32, "a rounded latent would not lead back"
    assert half.decode().x.dtype == torch.float16
    assert half.error.max() < 1e-3
    strided = digits.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(control.invert(DIGITS, strided, steps=8).latent, control.invert(DIGITS, digits, steps=8).latent)
    alone = control.invert(DIGITS, digits[3:4], **steps)
    assert alone.error.shape == (1,)
    assert control.invert(DIGITS, digits[:0], **steps).error.shape == (0,)
    data = gaussians()[0]
    x = data.sample(5, generator=torch.Generator().manual_seed(0))
    assert control.invert(data.denoiser(SCH), x, **steps).error.max() < 1e-13


@pytest.mark.parametrize(
    "sch",
    [logsnr.FlowMatching(), logsnr.EDM(), logsnr.VPCosine(), logsnr.Trigonometric()],
    ids=lambda s: type(s).__name__,
)
def test_every_schedule(sch: logsnr.Schedule) -> None:
    """With ends at sigma = 0 and at alpha = 0, where v and velocity say both x0 and eps."""
    data = gaussians()[0]
    x = data.sample(5, generator=torch.Generator().manual_seed(0))
    for steps in (2, 30):
        made = control.invert(data.denoiser(sch, "v"), x, steps=steps, round_trip=True)
        assert made.error.max() < 1e-11
    wanted = data.flow(x, sch, float(made.times[0]), float(made.times[-1]))
    scale = sch.sigma(float(made.times[-1]))
    torch.testing.assert_close(made.latent / scale, wanted / scale, atol=0.05, rtol=0)


def test_samples_of_one_number() -> None:
    den = logsnr.analysis.Gaussian(0.5, 0.25).denoiser(SCH)
    x0 = torch.tensor([0.1, 0.7, 1.2], dtype=torch.float64)
    found = control.invert(den, x0, steps=8, round_trip=True)
    assert found.error.shape == (3,)
    assert found.error.max() < 1e-12


def test_every_solver_without_noise_inverts() -> None:
    data = gaussians()[0]
    x = data.sample(5, generator=torch.Generator().manual_seed(0))
    wanted = data.flow(x, SCH, SCH.t_end, 1.0)
    for solver, options in (("heun", {}), ("adams", {"order": 3}), ("deis-3", {"startup": "single-step"})):
        made = control.invert(data.denoiser(SCH), x, solver=solver, steps=60, round_trip=True, **options)
        assert 1e-9 < made.error.max() < 0.02
        torch.testing.assert_close(made.latent, wanted, atol=0.03, rtol=0)
    again = control.invert(data.denoiser(SCH), x, grid=[0.9, 0.4, 0.1, 0.02])
    assert again.times.tolist() == [0.02, 0.1, 0.4, 0.9]


def test_another_condition_edits(digits: torch.Tensor) -> None:
    """A denoiser of another condition decodes the same latent: with its own condition the data come back."""

    def net(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return DIGITS.v(x, t) + y

    def conditioned(y: float) -> logsnr.Denoiser:
        return logsnr.Denoiser(net, SCH, "v", conditions={"y": torch.full((4, 1, 1, 1), y)})

    made = control.invert(conditioned(0.02), digits, steps=12)
    assert (made.decode().x - digits).abs().max() < 1e-5
    changed = made.decode(conditioned(-0.02)).x - digits
    assert 0.01 < changed.abs().mean() < 0.3


def test_translation_between_gaussians_is_the_composed_flow() -> None:
    """Of the two PF-ODEs; for pure noise that is m2 + sqrt(c2 / c1) (x - m1), the optimal transport map."""
    one, other = gaussians()
    x = one.sample(200, generator=torch.Generator().manual_seed(0))
    found = control.translate(one.denoiser(SCH), other.denoiser(SCH), x, steps=200)
    noise = one.flow(x, SCH, SCH.t_end, 1.0)
    torch.testing.assert_close(found.x, other.flow(noise, SCH, 1.0, SCH.t_end), atol=5e-3, rtol=0)
    map_ = other.mean + (other.variances / one.variances).sqrt() * (x - one.mean)
    torch.testing.assert_close(found.x, map_, atol=0.03, rtol=0)
    assert found.nfe == 200 + 199
    plain = control.translate(one.denoiser(SCH), other.denoiser(SCH), x, solver="dpmpp-2m", steps=100)
    torch.testing.assert_close(plain.x, found.x, atol=0.02, rtol=0)
    assert plain.nfe == plain.rounds == 200


def test_translation_between_schedules() -> None:
    """The same levels, each on its own path; back again it is the identity up to the solver's error."""
    one, other = gaussians()
    flow, span = logsnr.FlowMatching(), {"t_start": 0.99, "t_end": 0.01}
    x = one.sample(50, generator=torch.Generator().manual_seed(0))
    found = control.translate(one.denoiser(flow), other.denoiser(SCH), x, steps=100, **span)
    s, t = (float(SCH.time(flow.half_logsnr(u))) for u in (0.01, 0.99))
    ratio = SCH.sigma(t) / flow.sigma(0.99)
    wanted = other.flow(ratio * one.flow(x, flow, 0.01, 0.99), SCH, t, s)
    torch.testing.assert_close(found.x, wanted, atol=5e-3, rtol=0)
    with pytest.raises(ValueError, match="-inf is never reached"):
        control.translate(one.denoiser(flow, "v"), other.denoiser(SCH), x, steps=5)


def test_bad_input() -> None:
    data = gaussians()[0]
    den, x = data.denoiser(SCH), torch.zeros(2, 3)
    for solver, told in (
        ("ddpm", "adds noise, and cannot be inverted"),
        ("dopri8", "dopri8: an inversion takes fixed steps, .*control.encode and decode"),
        (logsnr.solver("ddim").program(SCH, [1.0, 0.5]), "a program runs one way only"),
    ):
        with pytest.raises(ValueError, match=told):
            control.invert(den, x, solver=solver, steps=4)
    with pytest.raises(ValueError, match="rtol and atol: an inversion takes fixed steps"):
        control.invert(den, x, solver="dpm-23", rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="at least 2 steps"):
        control.invert(den, x, steps=1)
    with pytest.raises(ValueError, match="round_trip = 1 must be True or False"):
        control.invert(den, x, steps=4, round_trip=1)
    with pytest.raises(ValueError, match="give either steps or nfe"):
        control.invert(den, x)
    with pytest.raises(ValueError, match="seed"):
        control.invert(den, x, steps=4, seed=0)
    with pytest.raises(TypeError, match=r"den must be a logsnr\.Denoiser"):
        control.invert(lambda x, t: x, x, steps=4)
    with pytest.raises(TypeError, match="x0 must be a torch tensor"):
        control.invert(den, [0.0], steps=4)
    with pytest.raises(TypeError, match=r"target must be a logsnr\.Denoiser"):
        control.translate(den, None, x, steps=4)
    with pytest.raises(TypeError, match=r"den must be a logsnr\.Denoiser"):
        control.invert(den, x, steps=4).decode(SCH)
