"""Reference solutions: their error, their estimate of it, and what they refuse."""

from collections.abc import Callable

import pytest
import torch
from sampled import sampled

import logsnr
from logsnr.analysis import reference
from logsnr.analysis.digits import load_digits
from logsnr.analysis.empirical import Empirical
from logsnr.analysis.gaussian import Gaussian
from logsnr.analysis.mixture import GaussianMixture
from logsnr.analysis.reference import reference_flow

F64 = torch.float64
GAUSSIAN = Gaussian([1.0, -2.0, 0.5], [0.04, 1.0, 3.0])
MIXTURE = GaussianMixture([-1.0, 0.5, 2.0], [0.04, 0.25, 0.01], [0.2, 0.5, 0.3])
SPANS = [
    (logsnr.VPLinear(), 1.0, 1e-3),
    (logsnr.VPLinear(), 0.0, 1.0),
    (logsnr.VPCosine(), 1.0, 0.0),
    (logsnr.FlowMatching(), 1.0, 0.0),
    (logsnr.Trigonometric(), 0.0, logsnr.Trigonometric().t_start),
    (logsnr.EDM(), 80.0, 0.0),
    (logsnr.VE(), 0.0, 1.0),
]


@pytest.mark.parametrize(("sch", "s", "t"), SPANS, ids=str)
@pytest.mark.parametrize("tol", [1e-6, 1e-10])
def test_error_is_within_tolerance_and_honest(sch: logsnr.Schedule, s: float, t: float, tol: float) -> None:
    """From end to end either way, the error is below tol at unit scale, and below the estimate of it."""
    x = sch.alpha(s) * GAUSSIAN.mean + torch.randn(5, 3, dtype=F64) * max(sch.sigma(s), 0.3)
    found = reference_flow(GAUSSIAN, x, sch, s, t, tol=tol)
    scale = max(sch.sigma(t), 1.0)
    actual = (found.x - GAUSSIAN.flow(x, sch, s, t)).abs().max().item()
    assert found.error < 2 * tol * scale
    assert actual < max(found.error, 2e-13 * scale)


def through_x0(sch: logsnr.Schedule) -> logsnr.Denoiser:
    return MIXTURE.denoiser(sch)


def through_velocity(sch: logsnr.Schedule) -> logsnr.Denoiser:
    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        x0, eps = MIXTURE.posterior(x, sch.alpha(t), sch.sigma(t))
        return sch.dalpha(t)[:, None] * x0 + sch.dsigma(t)[:, None] * eps

    return logsnr.Denoiser(model, sch, prediction="velocity", dtype=F64)


WRAPS: dict[str, Callable[[logsnr.Schedule], logsnr.Denoiser]] = {"x0": through_x0, "velocity": through_velocity}


@pytest.mark.parametrize(
    ("head", "sch"), sampled(list(WRAPS), [logsnr.VPLinear(), logsnr.FlowMatching(), logsnr.EDM()], every=2)
)
def test_denoisers_have_the_problem_s_flow(head: str, sch: logsnr.Schedule) -> None:
    """A denoiser with any head is integrated to the endpoint that its problem knows exactly."""
    wrap = WRAPS[head]
    s, t = 0.9 * sch.t_start, max(sch.t_end, 0.01)
    x = sch.alpha(s) * 0.3 + sch.sigma(s) * torch.linspace(-2, 2, 6, dtype=F64).reshape(3, 2)
    found = reference_flow(wrap(sch), x, sch, s, t, tol=1e-9)
    assert found.error < 1e-9
    torch.testing.assert_close(found.x, MIXTURE.reference(x, sch, s, t), rtol=0, atol=1e-9)


def test_an_empty_batch() -> None:
    """No states are carried over exactly."""
    found = reference_flow(MIXTURE, torch.empty(0, 2), logsnr.VPLinear(), 0.9, 0.1)
    assert found.x.shape == (0, 2)
    assert found.error == 0


def test_velocity_models_reach_both_infinite_ends() -> None:
    """A flow-matching model, whose velocity is finite at t = 1 and t = 0, is integrated all the way."""
    sch, x = logsnr.FlowMatching(), torch.linspace(-2, 2, 6, dtype=F64).reshape(3, 2)
    found = reference_flow(through_velocity(sch), x, sch, 1.0, 0.0, tol=1e-9)
    torch.testing.assert_close(found.x, MIXTURE.reference(x, sch, 1.0, 0.0), rtol=0, atol=1e-9)


def test_flow_of_real_images_is_invertible() -> None:
    """Digits encoded from clean to noise and decoded again come back to 1e-7."""
    p, sch = Empirical(load_digits()[0][:200], 0.05), logsnr.VPLinear()
    x = p.sample(3, generator=torch.Generator().manual_seed(0))
    noise = reference_flow(p, x, sch, 0.0, 1.0, tol=1e-8)
    back = reference_flow(p, noise.x, sch, 1.0, 0.0, tol=1e-8)
    assert noise.x.shape == (3, 1, 8, 8)
    torch.testing.assert_close(back.x, x, rtol=0, atol=1e-7)


def test_flow_does_not_depend_on_the_schedule() -> None:
    """States with the same x / rho at the same log-SNR end in the same x / rho under any schedule."""
    ends = []
    for sch in (logsnr.VPLinear(), logsnr.EDM(), logsnr.SubVP()):
        s, t = sch.time(-2.0), sch.time(3.0)
        rho_s, rho_t = ((sch.alpha(u) ** 2 + sch.sigma(u) ** 2) ** 0.5 for u in (s, t))
        x = rho_s * torch.tensor([[0.5, -1.0, 0.2]], dtype=F64)
        ends.append(reference_flow(GAUSSIAN, x, sch, s, t).x / rho_t)
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(ends[2], ends[0], rtol=0, atol=1e-10)


def test_groups_and_missing_batch_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples integrated in groups, or one without a batch dimension, agree within the tolerance."""
    sch, x = logsnr.VPLinear(), torch.randn(5, 3, dtype=F64)
    together = reference_flow(GAUSSIAN, x, sch, 1.0, 0.1).x
    monkeypatch.setattr(reference, "GROUP", 2)
    torch.testing.assert_close(reference_flow(GAUSSIAN, x, sch, 1.0, 0.1).x, together, rtol=0, atol=1e-10)
    torch.testing.assert_close(reference_flow(GAUSSIAN, x[4], sch, 1.0, 0.1).x, together[4], rtol=0, atol=1e-10)
    assert torch.equal(reference_flow(GAUSSIAN, x, sch, 0.3, 0.3).x, x)


@pytest.mark.parametrize(
    ("s", "t", "tol", "message"),
    [
        (1.0, 0.5, 0.0, "tol = 0.0; it must be positive"),
        (1.5, 0.5, 1e-10, "s = 1.5 is outside the domain"),
        (1.0, -0.1, 1e-10, "t = -0.1 is outside the domain"),
    ],
)
def test_bad_arguments_are_refused(s: float, t: float, tol: float, message: str) -> None:
    """Tolerances and times that make no sense raise ValueError before any work, with their value."""
    with pytest.raises(ValueError, match=message):
        reference_flow(GAUSSIAN, torch.zeros(1, 3), logsnr.VPLinear(), s, t, tol=tol)


def test_denoisers_are_refused_where_they_are_not_defined() -> None:
    """Another schedule than the denoiser's, and an x0 head asked for v at sigma = 0, raise ValueError."""
    sch, x = logsnr.FlowMatching(), torch.zeros(1, 3)
    den = GAUSSIAN.denoiser(sch)
    with pytest.raises(ValueError, match=r"sch = VPLinear.* but the denoiser was made for FlowMatching"):
        reference_flow(den, x, logsnr.VPLinear(), 1.0, 0.5)
    with pytest.raises(ValueError, match=r"not finite at psi = 1\.57"):
        reference_flow(den, x, sch, 0.0, 0.5)
